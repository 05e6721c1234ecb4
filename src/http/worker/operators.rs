//! `/v1/workers`: the workers as operators see them, and whether they take new work.

use super::ProblemBody;
use crate::{
    app::App,
    flow::dispatch::fleet::{KnownWorker, SILENT_AFTER_MS},
    http::{
        auth::Caller,
        extract::{Path, id},
        links,
        problem::Problem,
    },
};
use axum::{Json, extract::State};
use reelyard_catalog::Scope;
use reelyard_model::WorkerId;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list_workers))
        .routes(routes!(drain_worker))
        .routes(routes!(resume_worker))
}

/// The workers, newest first.
#[derive(Serialize, ToSchema)]
struct WorkerList {
    items: Vec<WorkerView>,
}

#[derive(Serialize, ToSchema)]
struct WorkerView {
    id: String,
    name: String,
    /// `working`, `draining` (takes nothing new), `silent` (not heard of for a minute) or `ended`.
    #[schema(example = "working")]
    state: &'static str,
    version: String,
    cores: u32,
    memory_bytes: u64,
    gpus: Vec<String>,
    /// Encodes at a time, and small tasks beside them.
    heavy_slots: u32,
    light_slots: u32,
    since: String,
    last_seen: String,
}

impl WorkerView {
    fn of(known: KnownWorker, now_ms: i64) -> Self {
        let state = match &known {
            KnownWorker { ended_ms: Some(_), .. } => "ended",
            known if now_ms - known.last_seen_ms > SILENT_AFTER_MS => "silent",
            KnownWorker { drain: true, .. } => "draining",
            _ => "working",
        };
        let KnownWorker { hello, since_ms, last_seen_ms, .. } = known;
        Self {
            id: hello.worker.to_string(),
            name: hello.name,
            state,
            version: hello.version,
            cores: hello.machine.cores,
            memory_bytes: hello.machine.memory_bytes,
            gpus: hello.machine.gpus.into_iter().map(|gpu| gpu.name).collect(),
            heavy_slots: hello.machine.heavy_slots,
            light_slots: hello.machine.light_slots,
            since: links::rfc3339(since_ms),
            last_seen: links::rfc3339(last_seen_ms),
        }
    }
}

/// List the workers of the fleet.
#[utoipa::path(get, path = "/v1/workers", tag = "worker",
    responses((status = 200, description = "The workers that this server has met.", body = WorkerList)))]
async fn list_workers(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<WorkerList>, Problem> {
    caller.require(Scope::Admin)?;
    let now_ms = app.now_ms();
    let items = app.fleet.list().into_iter().map(|known| WorkerView::of(known, now_ms)).collect();
    Ok(Json(WorkerList { items }))
}

/// Let a worker finish what it has and take nothing new.
#[utoipa::path(post, path = "/v1/workers/{id}/drain", tag = "worker", params(("id" = String, Path, description = "The worker's id.")),
    responses((status = 200, description = "The worker.", body = WorkerView),
              (status = 404, description = "There is none.", body = ProblemBody, content_type = "application/problem+json")))]
async fn drain_worker(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(worker): Path<String>,
) -> Result<Json<WorkerView>, Problem> {
    set_drain(&app, caller, &worker, true)
}

/// Let a drained worker take work again.
#[utoipa::path(post, path = "/v1/workers/{id}/resume", tag = "worker", params(("id" = String, Path, description = "The worker's id.")),
    responses((status = 200, description = "The worker.", body = WorkerView),
              (status = 404, description = "There is none.", body = ProblemBody, content_type = "application/problem+json")))]
async fn resume_worker(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(worker): Path<String>,
) -> Result<Json<WorkerView>, Problem> {
    set_drain(&app, caller, &worker, false)
}

fn set_drain(app: &App, caller: Caller, worker: &str, drain: bool) -> Result<Json<WorkerView>, Problem> {
    caller.require(Scope::Admin)?;
    let worker: WorkerId = id(worker, "worker")?;
    let known = app.fleet.set_drain(worker, drain).ok_or_else(|| Problem::not_found("worker"))?;
    tracing::info!(%worker, drain, "dispatch: an operator told a worker whether to take work");
    Ok(Json(WorkerView::of(known, app.now_ms())))
}
