//! HEAD and DELETE of one upload, and finding it for its owner.

use super::{
    Asked, answer, empty,
    receive::{self, Progress},
};
use crate::{
    app::App,
    flow,
    http::{
        auth::Caller,
        problem::{Kind, Problem},
    },
};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use reelyard_catalog::UploadRow;
use reelyard_model::{UploadId, UploadState};
use reelyard_storage::UploadFile;
use reelyard_upload::tus;

/// The upload, if the caller owns it: another tenant's is as unknown as one that never was.
pub(super) async fn owned(app: &App, caller: Caller, id: UploadId) -> Result<UploadRow, Problem> {
    let row = app.catalog.upload(id).await.map_err(Problem::internal)?;
    let row = row.filter(|row| row.tenant == caller.tenant).ok_or_else(|| Problem::not_found("upload"))?;
    still_there(row)
}

/// The upload, for a request that has shown its right to it already.
pub(super) async fn live(app: &App, id: UploadId) -> Result<UploadRow, Problem> {
    let row = app.catalog.upload(id).await.map_err(Problem::internal)?;
    still_there(row.ok_or_else(|| Problem::not_found("upload"))?)
}

fn still_there(row: UploadRow) -> Result<UploadRow, Problem> {
    match row.state {
        UploadState::Terminated => Err(Problem::new(Kind::Gone, "This upload was given up.")),
        UploadState::Expired => {
            Err(Problem::new(Kind::Gone, "This upload was not continued in time and has expired."))
        }
        _ => Ok(row),
    }
}

/// What is durable of it. A row without a file is what a crash in the middle of a creation leaves: nobody was told of
/// that upload, so it is as good as gone.
pub(super) async fn open(app: &App, row: &UploadRow) -> Result<UploadFile, Problem> {
    app.store.open_upload(row.id).await.map_err(|error| {
        if error.is_not_found() && row.state == UploadState::Created {
            Problem::new(Kind::Gone, "This upload was never begun; make a new one.")
        } else {
            answer::store_problem(error)
        }
    })
}

/// Where the upload stands. Whoever asks wants to go on, so a request that is still sending is stopped first: then
/// the offset is exact. An upload that is whole but not yet an asset is finished first.
pub(super) async fn head(asked: Asked, id: UploadId) -> Result<Response, Problem> {
    let Asked { app, caller, holders, .. } = asked;
    let row = owned(&app, caller, id).await?;
    let (row, offset) = if row.asset.is_some() {
        let length = row.byte_len.unwrap_or(row.byte_offset);
        (row, length)
    } else {
        let _hold = holders.take_over(id).await?;
        // Again, because the holder before us may have finished or ended it.
        let row = live(&app, id).await?;
        if row.asset.is_some() {
            return Ok(standing(&row, row.byte_len.unwrap_or(row.byte_offset)));
        }
        let transfer = open(&app, &row).await?.transfer().clone();
        if transfer.is_whole() {
            receive::finish(&app, id, &transfer).await?;
        }
        (live(&app, id).await?, transfer.offset())
    };
    Ok(standing(&row, offset))
}

fn standing(row: &UploadRow, offset: u64) -> Response {
    let mut headers = HeaderMap::new();
    Progress { offset, asset: row.asset }.put(&mut headers);
    if let Some(length) = row.byte_len {
        answer::put_number(&mut headers, tus::header::LENGTH, length);
    }
    if !row.metadata.is_empty() {
        answer::put_text(&mut headers, tus::header::METADATA, &row.metadata);
    }
    if let Some(sha256) = &row.sha256 {
        answer::put_digest(&mut headers, sha256);
    }
    answer::put(&mut headers, "cache-control", "no-store");
    empty(StatusCode::OK, headers)
}

/// The owner gives it up (termination). The asset of a finished upload stays.
pub(super) async fn terminate(asked: Asked, id: UploadId) -> Result<Response, Problem> {
    let Asked { app, caller, holders, .. } = asked;
    owned(&app, caller, id).await?;
    let _hold = holders.take_over(id).await?;
    flow::receive::terminate(&app, id).await.map_err(receive::flow_problem)?;
    Ok(empty(StatusCode::NO_CONTENT, HeaderMap::new()))
}
