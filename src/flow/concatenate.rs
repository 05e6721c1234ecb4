//! **concatenate**: a final upload becomes the bytes of its partials, and then an asset (tus concatenation).
//!
//! Called when a final upload is announced or asked for, and by a loop of its own that a partial rings when it becomes
//! whole. As long as a partial is not whole, no byte moves. An interrupted concatenation goes on at its durable offset. The partials go
//! when the asset is there and no other final upload waits for them. A final upload that has lost a partial, or has
//! grown too long, can never be made: whoever asks is told so, and it expires.

use super::{FlowError, receive};
use crate::{app::App, holders::HoldError};
use reelyard_catalog::UploadRow;
use reelyard_model::{AssetId, Completion, UploadId, UploadKind, UploadState};
use reelyard_upload::tus::final_length;
use std::{sync::Arc, time::Duration};

/// For what failed, and for pieces of which nobody rang.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// The partials, in order.
async fn partials_of(app: &App, row: &UploadRow) -> Result<Vec<UploadRow>, FlowError> {
    let mut partials = Vec::with_capacity(row.partials.len());
    for &id in &row.partials {
        let partial = app.catalog.upload(id).await?;
        let lives =
            |partial: &UploadRow| matches!(partial.state, UploadState::Created | UploadState::Receiving);
        partials.push(partial.filter(lives).ok_or(FlowError::PartialGone { partial: id })?);
    }
    Ok(partials)
}

/// All bytes of it are there. Its row is told of the last one before its sender is; the store is not asked, because
/// somebody may be sending to it. One that is withheld waits for somebody who may finish it.
fn is_whole(partial: &UploadRow) -> bool {
    partial.byte_len == Some(partial.byte_offset) && partial.completion == Completion::Length
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
    let partials = partials_of(app, &row).await?;
    let lengths = partials.iter().map(|partial| partial.byte_len);
    let Some(length) = final_length(lengths, app.max_upload_bytes).map_err(FlowError::FinalTooLong)? else {
        return Ok(None);
    };
    if row.byte_len.is_none() {
        app.catalog.set_upload_length(id, length, app.now_ms()).await?;
    }
    if !partials.iter().all(is_whole) {
        return Ok(None);
    }
    let row = UploadRow { byte_len: Some(length), ..row };
    let pieces: Vec<_> = partials.iter().map(|partial| (partial.id, partial.byte_offset)).collect();
    let transfer = tokio::select! {
        biased;
        // It may take minutes; the next start goes on with it.
        () = app.shutdown.cancelled() => return Ok(None),
        joined = app.uploads.concatenate(id, receive::terms(app, &row, hold.fence), &pieces) => joined?,
    };
    let asset = receive::finish(app, id, &receive::Whole::of(&transfer)?).await?;
    release_partials(app, &row).await?;
    Ok(Some(asset))
}

/// The final upload is an asset: its partials go, but for those that another one waits for.
pub(crate) async fn release_partials(app: &App, finished: &UploadRow) -> Result<(), FlowError> {
    for &partial in &finished.partials {
        if app.catalog.unfinished_finals(Some(partial)).await?.is_empty() {
            receive::terminate(app, partial).await?;
        }
    }
    Ok(())
}

/// Joins what waits for it, beside the server: after a piece became whole, and from time to time.
pub(crate) async fn run(app: Arc<App>) {
    while !app.shutdown.is_cancelled() {
        if let Err(error) = concatenate_waiting(&app).await {
            tracing::error!(%error, "concatenate: trying again later");
        }
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = app.concatenate_ticket.notified() => {}
            () = tokio::time::sleep(AGAIN_AFTER) => {}
        }
    }
}

/// Tries all final uploads that are not finished and that nobody is at. Failures are told and tried again later.
pub(crate) async fn concatenate_waiting(app: &App) -> Result<(), FlowError> {
    for waiting in app.catalog.unfinished_finals(None).await? {
        if app.holders.is_busy(waiting.id) {
            continue;
        }
        match concatenate(app, waiting.id).await {
            Ok(_) => {}
            Err(error @ (FlowError::PartialGone { .. } | FlowError::FinalTooLong(_))) => {
                tracing::debug!(upload = %waiting.id, %error, "concatenate: never; it will expire");
            }
            Err(error) => {
                tracing::error!(upload = %waiting.id, %error, "concatenate: trying again later");
            }
        }
    }
    Ok(())
}
