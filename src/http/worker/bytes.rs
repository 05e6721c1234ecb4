//! The bytes for workers that reach no store of their own: a source by ranges, outputs one by one, and where a source
//! lies for those that do.
//!
//! Every call names an attempt and is refused when that is not at work. The source is the one of the attempt's asset,
//! whatever the worker says; an output goes below the attempt's own prefix, and its name is checked. It is written
//! whole or not at all, under a name that no other attempt has, so one that comes too late harms nothing.

use super::{ProblemBody, WorkerCaller};
use crate::{
    app::App,
    flow::dispatch,
    http::{
        extract::{Path, Query, id},
        file::{self, FileFacts},
        problem::{Kind, Problem},
    },
};
use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reelyard_catalog::TaskRow;
use reelyard_model::{child::Limits, work::SourceLayout, worker_protocol::Held};
use reelyard_storage::StoreError;
use serde::Deserialize;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt as _, time::timeout};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// A worker that sends nothing for so long is gone; it begins the file again.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(source)).routes(routes!(layout)).routes(routes!(output))
}

/// The source of an attempt, whole or by one range.
#[utoipa::path(get, path = "/v1/worker/attempts/{task}/{attempt}/source", tag = "worker",
    params(("task" = String, Path, description = "The task's id."), ("attempt" = u32, Path, description = "The attempt's number."),
           ("Range" = Option<String>, Header, description = "`bytes=a-b`.")),
    responses((status = 200, description = "All of it.", content_type = "application/octet-stream"),
              (status = 206, description = "The range.", content_type = "application/octet-stream"),
              (status = 404, description = "The source is gone.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 409, description = "`attempt-over`.", body = ProblemBody, content_type = "application/problem+json")))]
async fn source(
    State(app): State<Arc<App>>,
    _: WorkerCaller,
    Path((task, attempt)): Path<(String, u32)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = source_key(&app, &at_work(&app, held(&task, attempt)?).await?).await?;
    let byte_len = app.uploads.source_len(&key).await.map_err(store_problem)?.ok_or_else(gone)?;
    let facts = FileFacts { byte_len, etag: None, modified_seconds: None };
    let selection = file::select(&Method::GET, &headers, &facts);
    let mut response = file::head(byte_len, selection)?;
    if let Some(range) = selection.range(byte_len) {
        let bytes = app.uploads.read_source(&key, range).await.map_err(store_problem)?;
        *response.body_mut() = Body::from_stream(bytes);
    }
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Which objects of the store hold the source of an attempt now: for a worker that met one that is gone.
#[utoipa::path(get, path = "/v1/worker/attempts/{task}/{attempt}/layout", tag = "worker",
    params(("task" = String, Path, description = "The task's id."), ("attempt" = u32, Path, description = "The attempt's number.")),
    responses((status = 200, description = "`byte_len`, `pieces`: each `start`, `end`, `key`.", body = Value),
              (status = 404, description = "The source is gone.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 409, description = "`attempt-over`.", body = ProblemBody, content_type = "application/problem+json")))]
async fn layout(
    State(app): State<Arc<App>>,
    _: WorkerCaller,
    Path((task, attempt)): Path<(String, u32)>,
) -> Result<axum::Json<SourceLayout>, Problem> {
    let key = source_key(&app, &at_work(&app, held(&task, attempt)?).await?).await?;
    Ok(axum::Json(app.uploads.layout(&key).await.map_err(store_problem)?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct OutputQuery {
    /// Its name below the attempt's prefix.
    #[param(example = "1080p/00001.m4s")]
    file: String,
}

/// An output of an attempt. Durable when it is answered; safe to repeat.
#[utoipa::path(put, path = "/v1/worker/attempts/{task}/{attempt}/output", tag = "worker",
    params(("task" = String, Path, description = "The task's id."), ("attempt" = u32, Path, description = "The attempt's number."), OutputQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The file, with its `Content-Length`."),
    responses((status = 204, description = "It is stored."),
              (status = 400, description = "The name is none that a child may make, or the body ended early.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 409, description = "`attempt-over`.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 413, description = "The file is longer than any output.", body = ProblemBody, content_type = "application/problem+json")))]
async fn output(
    State(app): State<Arc<App>>,
    _: WorkerCaller,
    Path((task, attempt)): Path<(String, u32)>,
    Query(query): Query<OutputQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let held = held(&task, attempt)?;
    let row = at_work(&app, held).await?;
    if !dispatch::is_output_name(&query.file) {
        return Err(Problem::new(Kind::PathRefused, "`file` is not a name that an output may have."));
    }
    let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let Some(byte_len) = told else {
        return Err(Problem::new(Kind::BadRequest, "An output comes with its `Content-Length`."));
    };
    let most = Limits::default().file_bytes;
    if byte_len > most {
        return Err(Problem::new(Kind::TooLarge, format!("An output has at most {most} bytes.")));
    }
    let spare = Spare(app.scratch_file(Uuid::now_v7()));
    receive(body, byte_len, &spare).await?;
    // It may have taken long: what nobody wants any more is not kept.
    at_work(&app, held).await?;
    let prefix = dispatch::output_prefix(row.asset, row.id, attempt);
    app.store.put_file(&spare.0, &format!("{prefix}/{}", query.file)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A file in the making; removed when it did not become one.
struct Spare(PathBuf);

impl Drop for Spare {
    fn drop(&mut self) {
        // It was moved, or was never made, or the next start empties the folder.
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn receive(body: Body, byte_len: u64, spare: &Spare) -> Result<(), Problem> {
    let mut file = tokio::fs::File::create_new(&spare.0).await.map_err(Problem::internal)?;
    let mut bytes = body.into_data_stream();
    let mut received = 0_u64;
    let cut = |why: &str| Problem::new(Kind::BadRequest, format!("The body ended early: {why}."));
    loop {
        let next = timeout(SILENCE_LIMIT, bytes.next()).await.map_err(|_| {
            Problem::new(Kind::SenderTooSlow, "Nothing came for too long; send the file again.")
        })?;
        let Some(piece) = next else { break };
        let piece = piece.map_err(|error| cut("the connection was cut").with_log(error))?;
        received += piece.len() as u64;
        file.write_all(&piece).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull => {
                Problem::new(Kind::StorageFull, "The server's disk is full.").with_log(error)
            }
            _ => Problem::internal(error),
        })?;
    }
    if received != byte_len {
        return Err(cut(&format!("{received} of {byte_len} bytes came")));
    }
    file.flush().await.map_err(Problem::internal)
}

fn held(task: &str, attempt: u32) -> Result<Held, Problem> {
    Ok(Held { task: id(task, "task")?, attempt })
}

async fn at_work(app: &App, held: Held) -> Result<TaskRow, Problem> {
    dispatch::attempt_is_at_work(app, held).await?.ok_or_else(|| {
        Problem::new(Kind::AttemptOver, "This attempt is not at work: it was lost, cancelled or has ended.")
    })
}

async fn source_key(app: &App, row: &TaskRow) -> Result<String, Problem> {
    Ok(app.catalog.asset(row.asset).await?.ok_or_else(gone)?.source_key)
}

fn gone() -> Problem {
    Problem::new(Kind::NotFound, "The source is gone.")
}

fn store_problem(error: StoreError) -> Problem {
    match error {
        StoreError::NotFound { .. } => gone().with_log(error),
        other => Problem::unavailable("The store does not answer at the moment.", 2).with_log(other),
    }
}
