//! POST: a new upload, perhaps with its first bytes (creation, creation-with-upload).

use super::{
    Asked,
    answer::{self, HeaderFields},
    body, empty,
    holders::Holders,
    receive::{self, Progress},
};
use crate::{
    app::App,
    flow::{self, FlowError, receive::Announcement},
    http::{
        problem::{Kind, Problem},
        trace,
    },
};
use axum::{body::Body, response::Response};
use http::{HeaderMap, StatusCode};
use reelyard_catalog::CatalogError;
use reelyard_model::UploadId;
use reelyard_upload::{ChunkRequest, Transfer, tus};
use std::sync::Arc;
use tracing::Instrument as _;

pub(super) async fn create(asked: Asked) -> Result<Response, Problem> {
    let Asked { app, caller, holders, headers, body } = asked;
    let creation = match tus::Creation::read(&HeaderFields(&headers), app.max_upload_bytes) {
        Ok(creation) => creation,
        Err(error) => return Err(body::refuse(body, answer::refusal(error)).await),
    };
    if let Err(problem) = check_room(&app, creation.length).await {
        return Err(body::refuse(body, problem).await);
    }
    let announcement = Announcement {
        tenant: caller.tenant,
        byte_len: creation.length,
        // `name` is what Uppy sends beside `filename`.
        file_name: creation.metadata.text("filename").or(creation.metadata.text("name")).map(str::to_owned),
        metadata: creation.metadata.header().to_owned(),
        preset: creation.metadata.text("preset").map(str::to_owned),
        traceparent: Some(trace::current_traceparent()),
    };
    // In a task of its own: when the client goes away this handler is dropped, and nobody would tidy up.
    let making = make(app, holders, announcement, creation.first_chunk, body).in_current_span();
    let (id, progress) = tokio::spawn(making).await.map_err(Problem::internal)??;
    let mut answer_headers = HeaderMap::new();
    answer::put_text(&mut answer_headers, "location", &format!("/uploads/{id}"));
    progress.put(&mut answer_headers);
    Ok(empty(StatusCode::CREATED, answer_headers))
}

/// Better told now than after hours of sending. It is no promise: others send too, and the work on it needs room.
async fn check_room(app: &App, length: u64) -> Result<(), Problem> {
    let free = app.store.free_bytes().await.map_err(answer::store_problem)?;
    if length <= free {
        return Ok(());
    }
    let detail =
        format!("The server has room for {free} bytes, and this upload has {length}; try again later.");
    Err(Problem::new(Kind::StorageFull, detail).with("free_bytes", free))
}

async fn make(
    app: Arc<App>,
    holders: Holders,
    announcement: Announcement,
    first_chunk: Option<ChunkRequest>,
    body: Body,
) -> Result<(UploadId, Progress), Problem> {
    let is_empty = announcement.byte_len == 0;
    let id = match flow::receive::create(&app, announcement).await {
        Ok(row) => row.id,
        Err(error) => return Err(body::refuse(body, receive::flow_problem(error)).await),
    };
    let progress = match first_chunk {
        Some(chunk) => begin_with(app, holders, id, chunk, body).await?,
        None if is_empty => {
            Progress { offset: 0, asset: Some(receive::finish(&app, id, &Transfer::new(0)).await?) }
        }
        None => Progress { offset: 0, asset: None },
    };
    Ok((id, progress))
}

/// The first chunk of an upload whose address its sender does not know yet. Without a good answer the sender will never
/// learn it and makes another upload, so what came is removed, unless it is the whole and becomes an asset later.
async fn begin_with(
    app: Arc<App>,
    holders: Holders,
    id: UploadId,
    chunk: ChunkRequest,
    body: Body,
) -> Result<Progress, Problem> {
    let received = receive::receive(app.clone(), holders, id, chunk, body).await;
    if received.is_err() {
        match flow::receive::terminate(&app, id).await {
            Ok(()) | Err(FlowError::Catalog(CatalogError::Refused(_))) => {}
            Err(error) => {
                tracing::warn!(upload = %id, %error, "receive: a beginning that nobody knows of was not removed; it will expire");
            }
        }
    }
    received
}
