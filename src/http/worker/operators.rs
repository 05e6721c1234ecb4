//! `/v1/workers`: the workers as operators see them, and whether they take new work.

use super::ProblemBody;
use crate::{
    app::App,
    flow::dispatch::fleet,
    http::{
        auth::Caller,
        extract::{Path, id},
        links,
        problem::Problem,
        reason::{Reason, ReasonBody},
    },
};
use axum::{Json, extract::State};
use reelyard_catalog::{WORKER_SILENT_AFTER_MS, WorkerRow};
use reelyard_model::{WorkerId, worker_protocol::MachineFacts};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Ended workers are shown for so long.
const SHOWN_MS: i64 = 24 * 3600 * 1000;

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
    /// Tasks that it has now.
    running: u64,
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
    fn of(row: WorkerRow, now_ms: i64) -> Self {
        let state = match &row {
            WorkerRow { ended_ms: Some(_), .. } => "ended",
            row if now_ms - row.last_seen_ms > WORKER_SILENT_AFTER_MS => "silent",
            WorkerRow { drain: true, .. } => "draining",
            _ => "working",
        };
        // Whatever else it told is for a newer server.
        let machine: MachineFacts = serde_json::from_value(row.machine).unwrap_or_default();
        Self {
            id: row.id.to_string(),
            name: row.name,
            state,
            version: row.version,
            running: row.running,
            cores: machine.cores,
            memory_bytes: machine.memory_bytes,
            gpus: machine.gpus.into_iter().map(|gpu| gpu.name).collect(),
            heavy_slots: machine.heavy_slots,
            light_slots: machine.light_slots,
            since: links::rfc3339(row.started_ms),
            last_seen: links::rfc3339(row.last_seen_ms),
        }
    }
}

/// List the workers of the fleet.
#[utoipa::path(get, path = "/v1/workers", tag = "worker",
    responses((status = 200, description = "Those that have not ended, and those heard of in the last day.", body = WorkerList)))]
async fn list_workers(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<WorkerList>, Problem> {
    caller.require_operator()?;
    let now_ms = app.now_ms();
    let rows = app.catalog.workers(now_ms - SHOWN_MS).await?;
    // The control plane's own row, which only publishes, is no machine.
    let machines = rows.into_iter().filter(|row| !row.in_process || row.machine.get("cores").is_some());
    let items = machines.map(|row| WorkerView::of(row, now_ms)).collect();
    Ok(Json(WorkerList { items }))
}

/// Let a worker finish what it has and take nothing new.
#[utoipa::path(post, path = "/v1/workers/{id}/drain", tag = "worker", params(("id" = String, Path, description = "The worker's id.")),
    request_body = Option<ReasonBody>,
    responses((status = 200, description = "The worker.", body = WorkerView),
              (status = 404, description = "There is none.", body = ProblemBody, content_type = "application/problem+json")))]
async fn drain_worker(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(worker): Path<String>,
    Reason(reason): Reason,
) -> Result<Json<WorkerView>, Problem> {
    set_drain(&app, caller, &worker, reason, true).await
}

/// Let a drained worker take work again.
#[utoipa::path(post, path = "/v1/workers/{id}/resume", tag = "worker", params(("id" = String, Path, description = "The worker's id.")),
    request_body = Option<ReasonBody>,
    responses((status = 200, description = "The worker.", body = WorkerView),
              (status = 404, description = "There is none.", body = ProblemBody, content_type = "application/problem+json")))]
async fn resume_worker(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(worker): Path<String>,
    Reason(reason): Reason,
) -> Result<Json<WorkerView>, Problem> {
    set_drain(&app, caller, &worker, reason, false).await
}

async fn set_drain(
    app: &App,
    caller: Caller,
    worker: &str,
    reason: Option<String>,
    drain: bool,
) -> Result<Json<WorkerView>, Problem> {
    caller.require_operator()?;
    let worker: WorkerId = id(worker, "worker")?;
    let actor = caller.actor(app, reason).await?;
    let none = || Problem::not_found("worker");
    if !fleet::set_drain(app, worker, drain, &actor).await? {
        return Err(none());
    }
    tracing::info!(%worker, drain, "dispatch: an operator told a worker whether to take work");
    let row = app.catalog.worker(worker).await?.ok_or_else(none)?;
    Ok(Json(WorkerView::of(row, app.now_ms())))
}
