//! **concatenate**: a final upload becomes the bytes of its partials, and then an asset (tus concatenation).
//!
//! Called when a final upload is announced, when a partial of one becomes whole, and by the sweep. As long as a partial
//! is not whole, nothing happens. An interrupted concatenation goes on at its durable offset. The partials go when the
//! asset is there.

use super::{FlowError, receive};
use crate::{app::App, holders::HoldError};
use reelyard_catalog::UploadRow;
use reelyard_model::{AssetId, UploadId, UploadKind, UploadState};

/// The partials, in order, with their lengths; `None` while one of them is not whole.
async fn whole_partials(app: &App, row: &UploadRow) -> Result<Option<Vec<(UploadId, u64)>>, FlowError> {
    let mut partials = Vec::with_capacity(row.partials.len());
    for id in &row.partials {
        let Some(partial) = app.catalog.upload(*id).await? else { return Ok(None) };
        let lives = matches!(partial.state, UploadState::Created | UploadState::Receiving);
        // The row of a partial is told of its last byte before its sender is; the store is not asked, because somebody
        // may be sending to it.
        if !lives || partial.byte_len != Some(partial.byte_offset) {
            return Ok(None);
        }
        partials.push((*id, partial.byte_offset));
    }
    Ok(Some(partials))
}

/// `None`: a partial is missing yet. Safe to repeat.
pub(crate) async fn concatenate(app: &App, id: UploadId) -> Result<Option<AssetId>, FlowError> {
    let hold = match app.holders.take_over(id).await {
        Ok(hold) => hold,
        // Whoever has it is doing the same.
        Err(HoldError::Busy) => return Ok(None),
        Err(HoldError::Catalog(error)) => return Err(error.into()),
    };
    let row = app.catalog.upload(id).await?;
    let Some(row) = row.filter(|row| row.kind == UploadKind::Final) else { return Ok(None) };
    if row.asset.is_some() {
        return Ok(row.asset);
    }
    let Some(partials) = whole_partials(app, &row).await? else { return Ok(None) };
    let length = partials.iter().map(|(_, byte_len)| byte_len).sum();
    app.catalog.set_upload_length(id, length, app.now_ms()).await?;
    let row = UploadRow { byte_len: Some(length), ..row };
    let transfer = app.uploads.concatenate(id, receive::terms(app, &row, hold.fence), &partials).await?;
    let asset = receive::finish(app, id, &receive::Whole::of(&transfer)?).await?;
    for (partial, _) in partials {
        receive::terminate(app, partial).await?;
    }
    Ok(Some(asset))
}

/// Tries all final uploads that are not finished, or those that wait for this partial. Failures are told and tried
/// again by the next sweep.
pub(crate) async fn concatenate_waiting(app: &App, partial: Option<UploadId>) -> Result<(), FlowError> {
    for waiting in app.catalog.unfinished_finals(partial).await? {
        if let Err(error) = concatenate(app, waiting.id).await {
            tracing::error!(upload = %waiting.id, %error, "concatenate: trying again later");
        }
    }
    Ok(())
}
