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
    flow::{self, FlowError, receive::UPLOAD_EXPIRES_AFTER_MS},
    http::problem::{Kind, Problem},
};
use axum::{body::Body, response::Response};
use http::{HeaderMap, StatusCode};
use reelyard_catalog::{CatalogError, UploadRow};
use reelyard_model::{AssetId, UploadId, UploadState};
use reelyard_storage::Receiving;
use reelyard_upload::{
    BodyEnd, ChunkRequest, Refusal, Transfer,
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
        Err(error) => return Err(body::refuse(body, answer::refusal(error)).await),
    };
    if let Err(problem) = resource::owned(&app, caller, id).await {
        return Err(body::refuse(body, problem).await);
    }
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
        match begin(&app, id, &chunk).await {
            Ok(Begun::Repeat(progress)) => Ok(progress),
            Ok(Begun::Receiving { row, receiving }) => fill(&app, &hold, &row, receiving, &chunk, body).await,
            Err(problem) => Err(body::refuse(body, problem).await),
        }
    };
    tokio::spawn(task.in_current_span()).await.map_err(Problem::internal)?
}

enum Begun {
    /// There is nothing left to receive.
    Repeat(Progress),
    Receiving {
        row: Box<UploadRow>,
        receiving: Box<Receiving>,
    },
}

async fn begin(app: &App, id: UploadId, chunk: &ChunkRequest) -> Result<Begun, Problem> {
    // Again, because the holder before us may have finished or ended it.
    let row = resource::live(app, id).await?;
    if let Some(asset) = row.asset {
        return repeat_of_last(&row, asset, chunk).map(Begun::Repeat);
    }
    // The row is told of the bytes when they have come; until then the upload must not expire under them.
    if row.expires_ms - app.now_ms() < UPLOAD_EXPIRES_AFTER_MS / 2 {
        flow::receive::received(app, id, row.byte_offset).await.map_err(flow_problem)?;
    }
    let file = resource::open(app, &row).await?;
    if file.transfer().is_whole() {
        let transfer = file.transfer().clone();
        transfer.begin_chunk(chunk).map_err(|refused| answer::refusal(refused.into()))?;
        let asset = finish(app, id, &transfer).await?;
        return Ok(Begun::Repeat(Progress { offset: transfer.offset(), asset: Some(asset) }));
    }
    let receiving = Receiving::begin(file, chunk).map_err(answer::receive_problem)?;
    Ok(Begun::Receiving { row: Box::new(row), receiving: Box::new(receiving) })
}

/// Feeds the body in, makes it durable, and makes the asset when that was the last of it.
async fn fill(
    app: &App,
    hold: &Hold,
    row: &UploadRow,
    mut receiving: Box<Receiving>,
    chunk: &ChunkRequest,
    body: Body,
) -> Result<Progress, Problem> {
    let stop = Stop { taken_over: hold.stop(), shutdown: &app.shutdown };
    let ended = body::receive(body, chunk.body_len, &mut receiving, stop).await;
    let end = ended.as_ref().map_or(BodyEnd::Cut, |ended| ended.as_body_end());
    let (offset, settled) = receiving.end(end).await;
    metrics::counter!("reelyard_upload_stored_bytes_total").increment(offset.saturating_sub(chunk.offset));
    let ended = ended.map_err(answer::receive_problem)?;
    let transfer = settled.map_err(answer::receive_problem)?;
    note_progress(app, row, offset).await;
    // What was cut short is counted all the same; whether it is the whole is settled by the request that asks next.
    let short = match ended {
        Ended::Complete => {
            let asset = if transfer.is_whole() { Some(finish(app, row.id, &transfer).await?) } else { None };
            return Ok(Progress { offset, asset });
        }
        Ended::TakenOver => {
            metrics::counter!("reelyard_upload_hand_overs_total").increment(1);
            Problem::new(Kind::Locked, "Another request has taken this upload over; ask it for the offset.")
        }
        Ended::Shutdown => {
            Problem::unavailable("The server is stopping. What arrived is kept; go on in a moment.", 2)
        }
        Ended::Disconnected | Ended::Idle => {
            tracing::debug!(upload = %row.id, offset, ?ended, "receive: the client went away");
            Problem::new(
                Kind::BadRequest,
                "The body ended early. What arrived is kept; go on from the offset.",
            )
        }
    };
    Err(answer::with_offset(short, offset))
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
