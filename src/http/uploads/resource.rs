//! One upload as a resource, whatever the dialect: finding it for its owner, looking at it, giving it up.

use super::{answer, receive};
use crate::{
    app::App,
    flow,
    http::{
        auth::Uploader,
        problem::{Kind, Problem},
    },
};
use reelyard_catalog::UploadRow;
use reelyard_model::{UploadId, UploadState};
use reelyard_sign::upload_token::Use;
use reelyard_storage::{OpenUpload, StoreError};
use reelyard_upload::Transfer;

/// The upload, if its tenant sent the request, and the key or token may do this with it: another tenant's is as unknown
/// as one that never was.
pub(super) async fn owned(app: &App, by: &Uploader, id: UploadId, wanted: Use) -> Result<UploadRow, Problem> {
    let row = of_tenant(app, by, id).await?;
    by.may_use(&row, wanted)?;
    still_there(row)
}

/// For somebody who only wants to read what was sent.
pub(super) async fn readable(app: &App, by: &Uploader, id: UploadId) -> Result<UploadRow, Problem> {
    by.may_read_source()?;
    still_there(of_tenant(app, by, id).await?)
}

async fn of_tenant(app: &App, by: &Uploader, id: UploadId) -> Result<UploadRow, Problem> {
    let row = app.catalog.upload(id).await.map_err(Problem::internal)?;
    row.filter(|row| row.tenant == by.tenant).ok_or_else(|| Problem::not_found("upload"))
}

/// The upload, for a request that has shown its right to it already.
pub(super) async fn live(app: &App, id: UploadId) -> Result<UploadRow, Problem> {
    let row = app.catalog.upload(id).await.map_err(Problem::internal)?;
    still_there(row.ok_or_else(|| Problem::not_found("upload"))?)
}

fn still_there(row: UploadRow) -> Result<UploadRow, Problem> {
    let why = match row.state {
        UploadState::Terminated => "This upload was given up.",
        UploadState::Expired => "This upload was not continued in time and has expired.",
        UploadState::Rejected => {
            "The bytes of this upload were not the ones that were announced; send the file again as a new upload."
        }
        _ => return Ok(row),
    };
    Err(Problem::new(Kind::Gone, why))
}

/// What is durable of it. A row without bytes is what a crash in the middle of a creation leaves: nobody was told of
/// that upload, so it is as good as gone.
pub(super) async fn open(app: &App, row: &UploadRow, fence: u64) -> Result<Box<dyn OpenUpload>, Problem> {
    receive::check_not_in_parts(row)?;
    let terms = flow::receive::terms(app, row, fence);
    app.uploads.open_upload(row.id, terms).await.map_err(|error| {
        if error.is_not_found() && row.state == UploadState::Created {
            Problem::new(Kind::Gone, "This upload was never begun; make a new one.")
        } else if matches!(error, StoreError::Damaged { .. }) {
            tracing::error!(upload = %row.id, %error, "receive: acknowledged bytes are not there; the upload is refused until they are");
            let detail = "Bytes of this upload were lost on the server, so it cannot go on; send the file again as a new upload.";
            Problem::new(Kind::Gone, detail)
        } else {
            answer::store_problem(error)
        }
    })
}

/// Stops whoever is sending and tells what is durable then; no transfer: it is finished.
pub(super) async fn stop_and_look(app: &App, id: UploadId) -> Result<(UploadRow, Option<Transfer>), Problem> {
    let hold = app.holders.take_over(id).await.map_err(receive::hold_problem)?;
    // Again, because the holder before us may have finished or ended it.
    let row = live(app, id).await?;
    if row.asset.is_some() {
        return Ok((row, None));
    }
    let transfer = open(app, &row, hold.fence).await?.transfer().clone();
    Ok((row, Some(transfer)))
}

/// The owner gives it up. The asset of a finished upload stays.
pub(super) async fn terminate(app: &App, by: &Uploader, id: UploadId) -> Result<(), Problem> {
    owned(app, by, id, Use::Terminate).await?;
    let _hold = app.holders.take_over(id).await.map_err(receive::hold_problem)?;
    app.holders.stop_parts(id);
    flow::receive::terminate(app, id).await.map_err(receive::flow_problem)
}

/// Better told now than after hours of sending. It is no promise: others send too, and the work on it needs room.
pub(super) async fn check_room(app: &App, length: u64) -> Result<(), Problem> {
    let free = app.uploads.free_bytes().await.map_err(answer::store_problem)?;
    let Some(free) = free.filter(|free| *free < length) else { return Ok(()) };
    let detail =
        format!("The server has room for {free} bytes, and this upload has {length}; try again later.");
    Err(Problem::new(Kind::StorageFull, detail).with("free_bytes", free))
}
