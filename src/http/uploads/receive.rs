//! PATCH, and what POST and PATCH share: bytes into an upload, and the asset when it is whole.

use super::{
    ASSET_HEADER, Asked,
    answer::{self, HeaderFields},
    body::{self, Ended, Stop},
    empty,
    holders::{Hold, Holders},
    resource,
};
use crate::{
    app::App,
    flow::{self, FlowError},
    http::problem::{Kind, Problem},
};
use axum::{body::Body, response::Response};
use http::{HeaderMap, StatusCode};
use reelyard_catalog::{CatalogError, UploadRow};
use reelyard_model::{AssetId, UploadId, UploadState};
use reelyard_storage::Receiving;
use reelyard_upload::{
    ChunkRequest, Refusal, Transfer,
    tus::{self, TusError},
};
use std::sync::Arc;
use tracing::Instrument as _;

/// The row is told the offset (for display and expiry) at most so often; the journal always knows it.
const ROW_UPDATE_INTERVAL_MS: i64 = 30_000;

/// Where an upload stands after a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) offset: u64,
    /// Once it is whole and finished.
    pub(super) asset: Option<AssetId>,
}

impl Progress {
    pub(super) fn put(self, headers: &mut HeaderMap) {
        answer::put_number(headers, tus::header::OFFSET, self.offset);
        if let Some(asset) = self.asset {
            answer::put_text(headers, ASSET_HEADER, &asset.to_string());
        }
    }
}

pub(super) async fn append(asked: Asked, id: UploadId) -> Result<Response, Problem> {
    let Asked { app, caller, holders, headers, body } = asked;
    let append = match tus::Append::read(&HeaderFields(&headers)) {
        Ok(append) => append,
        Err(error) => {
            body::discard(body).await;
            return Err(answer::refusal(error));
        }
    };
    resource::owned(&app, caller, id).await?;
    let progress = receive(app, holders, id, append.chunk, body).await?;
    let mut answer_headers = HeaderMap::new();
    progress.put(&mut answer_headers);
    Ok(empty(StatusCode::NO_CONTENT, answer_headers))
}

/// Receives a chunk in a task of its own: when the client goes away, the handler is dropped, but what has arrived is
/// still made durable and the upload let go in order.
pub(super) async fn receive(
    app: Arc<App>,
    holders: Holders,
    id: UploadId,
    chunk: ChunkRequest,
    body: Body,
) -> Result<Progress, Problem> {
    let task = async move {
        let hold = holders.take_over(id).await?;
        receive_held(&app, &hold, id, &chunk, body).await
    };
    tokio::spawn(task.in_current_span()).await.map_err(Problem::internal)?
}

async fn receive_held(
    app: &App,
    hold: &Hold,
    id: UploadId,
    chunk: &ChunkRequest,
    body: Body,
) -> Result<Progress, Problem> {
    // Again, because the holder before us may have finished or ended it.
    let row = resource::live(app, id).await?;
    if let Some(asset) = row.asset {
        return repeat_of_last(&row, asset, chunk);
    }
    let file = app.store.open_upload(id).await.map_err(answer::store_problem)?;
    if file.transfer().is_whole() {
        let transfer = file.transfer().clone();
        transfer.begin_chunk(chunk).map_err(|refused| answer::refusal(refused.into()))?;
        let asset = finish(app, id, &transfer).await?;
        return Ok(Progress { offset: transfer.offset(), asset: Some(asset) });
    }
    let mut receiving = match Receiving::begin(file, chunk) {
        Ok(receiving) => receiving,
        Err(error) => {
            body::discard(body).await;
            return Err(answer::receive_problem(error));
        }
    };
    let stop = Stop { taken_over: hold.stop(), shutdown: &app.shutdown };
    let ended = body::receive(body, chunk.body_len, &mut receiving, stop).await;
    let end = ended.as_ref().map_or(reelyard_upload::BodyEnd::Cut, |ended| ended.as_body_end());
    let (offset, settled) = receiving.end(end).await;
    let ended = ended.map_err(answer::receive_problem)?;
    let transfer = settled.map_err(answer::receive_problem)?;
    note_progress(app, &row, offset).await;
    // What was cut short is counted all the same; whether it is the whole is settled by the request that asks next.
    match ended {
        Ended::Complete => {}
        Ended::TakenOver => {
            return Err(answer::with_offset(
                Problem::new(
                    Kind::Locked,
                    "Another request has taken this upload over; ask it for the offset.",
                ),
                offset,
            ));
        }
        Ended::Shutdown => {
            let stopping =
                Problem::unavailable("The server is stopping. What arrived is kept; go on in a moment.", 2);
            return Err(answer::with_offset(stopping, offset));
        }
        Ended::Disconnected | Ended::Idle => {
            tracing::debug!(upload = %id, offset, ?ended, "receive: the client went away");
            return Err(answer::with_offset(
                Problem::new(
                    Kind::BadRequest,
                    "The body ended early. What arrived is kept; go on from the offset.",
                ),
                offset,
            ));
        }
    }
    let asset = if transfer.is_whole() { Some(finish(app, id, &transfer).await?) } else { None };
    Ok(Progress { offset, asset })
}

/// The upload is finished; its last answer may have been lost.
fn repeat_of_last(row: &UploadRow, asset: AssetId, chunk: &ChunkRequest) -> Result<Progress, Problem> {
    let length = row.byte_len.unwrap_or(row.byte_offset);
    if chunk.offset != length {
        let refused = Refusal::OffsetMismatch { claimed: chunk.offset, durable: length };
        return Err(answer::refusal(TusError::Refused(refused)));
    }
    if chunk.body_len.is_some_and(|body_len| body_len > 0) {
        let refused = Refusal::BeyondLength { offset: length, room: 0, length };
        return Err(answer::refusal(TusError::Refused(refused)));
    }
    Ok(Progress { offset: length, asset: Some(asset) })
}

/// Makes the asset. When this fails, the bytes are safe and any later request for the upload tries again.
pub(super) async fn finish(app: &App, id: UploadId, transfer: &Transfer) -> Result<AssetId, Problem> {
    flow::receive::finish(app, id, transfer).await.map_err(|error| {
        Problem::unavailable(
            "All bytes are stored, but the video could not be made yet. Ask for the offset again in a moment.",
            2,
        )
        .with_log(error)
    })
}

async fn note_progress(app: &App, row: &UploadRow, offset: u64) {
    let due = row.state == UploadState::Created || app.now_ms() - row.updated_ms >= ROW_UPDATE_INTERVAL_MS;
    if !due || offset == 0 {
        return;
    }
    if let Err(error) = flow::receive::received(app, row.id, offset).await {
        tracing::warn!(upload = %row.id, %error, "receive: the row was not told of the offset; the bytes are safe");
    }
}

/// Errors of the flow that are the caller's to mend, and the others.
pub(super) fn flow_problem(error: FlowError) -> Problem {
    match error {
        FlowError::UnknownPreset { .. } => Problem::new(Kind::BadRequest, format!("{error}.")),
        FlowError::Catalog(CatalogError::Refused(refused)) => {
            Problem::new(Kind::StateConflict, format!("{refused}."))
        }
        FlowError::Store(error) => answer::store_problem(error),
        other => Problem::internal(other),
    }
}
