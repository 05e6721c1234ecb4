//! `/v1/queues`: one for each kind of work, over all tenants: what waits, what runs, who takes it; and the brake.

use super::{
    auth::Caller,
    extract::Path,
    links,
    openapi::ProblemBody,
    problem::{Kind, Problem},
    reason::{Reason, ReasonBody},
};
use crate::app::App;
use axum::{Json, extract::State};
use reelyard_catalog::QueueView;
use reelyard_model::{Tier, work::TaskKind};
use reelyard_tickets::Depth;
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use utoipa::ToSchema;

/// A broker that does not answer by then is shown as away: whoever looks at this page at night wants it now.
const BROKER_PATIENCE: Duration = Duration::from_secs(2);

/// The queues, in the order of the story.
#[derive(Serialize, ToSchema)]
pub(super) struct QueueList {
    items: Vec<Queue>,
    /// `none`: this server has no broker, workers ask it; `ok`; or why the broker does not answer. Work goes on without.
    #[schema(example = "ok")]
    broker: String,
}

/// One kind of work.
#[derive(Serialize, ToSchema)]
pub(super) struct Queue {
    /// `probe`, `encode`, `audio`, `stills` or `publish`.
    #[schema(example = "encode")]
    kind: &'static str,
    waiting: ByTier,
    /// Seconds that the one that waits longest has waited; null when none waits.
    oldest_wait_seconds: Option<f64>,
    running: u64,
    /// Between a failure and the next try.
    backing_off: u64,
    /// Given up; `GET /v1/jobs?state=dead` lists yours.
    dead: u64,
    /// Workers that are alive and take this kind, and how many of them take nothing new.
    workers: u32,
    workers_draining: u32,
    /// Null: it is not paused.
    paused: Option<Paused>,
    /// Wake-ups that wait in the broker; null without a broker, or when it does not answer.
    tickets: Option<u64>,
}

/// Jobs that could start now, by how urgent they are.
#[derive(Serialize, ToSchema)]
struct ByTier {
    urgent: u64,
    normal: u64,
    bulk: u64,
}

#[derive(Serialize, ToSchema)]
struct Paused {
    /// As the audit log names them.
    by: String,
    reason: Option<String>,
    at: String,
}

impl Queue {
    fn of(view: &QueueView, depths: Option<&[Depth]>, now_ms: i64) -> Self {
        let waiting = |tier: Tier| {
            view.ready.iter().filter(|ready| ready.tier == tier).map(|ready| ready.waiting).sum()
        };
        let tickets = |depths: &[Depth]| {
            depths.iter().filter(|depth| depth.class == view.kind).map(|depth| depth.waiting).sum()
        };
        Self {
            kind: view.kind.as_str(),
            waiting: ByTier {
                urgent: waiting(Tier::Urgent),
                normal: waiting(Tier::Normal),
                bulk: waiting(Tier::Bulk),
            },
            oldest_wait_seconds: view
                .oldest_ready_ms()
                .map(|since_ms| (now_ms - since_ms).max(0) as f64 / 1000.0),
            running: view.running,
            backing_off: view.backing_off,
            dead: view.dead,
            workers: view.takers.workers,
            workers_draining: view.takers.draining,
            paused: view.pause.as_ref().map(|pause| Paused {
                by: pause.paused_by.clone(),
                reason: Some(pause.reason.clone()).filter(|reason| !reason.is_empty()),
                at: links::rfc3339(pause.paused_ms),
            }),
            tickets: depths.map(tickets),
        }
    }
}

/// List the queues of the whole fleet: what waits, what runs, who takes it, and what is paused.
#[utoipa::path(get, path = "/v1/queues", tag = "operations",
    responses((status = 200, description = "A queue for each kind of work.", body = QueueList)))]
pub(super) async fn list_queues(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<QueueList>, Problem> {
    caller.require_operator()?;
    Ok(Json(look(&app).await?))
}

/// Let no worker take up this kind of work any more. What runs goes on; what waits keeps its place. Pausing it again
/// changes nothing: the first pause, its author and its reason stay.
#[utoipa::path(post, path = "/v1/queues/{kind}/pause", tag = "operations",
    params(("kind" = String, Path, description = "`probe`, `encode`, `audio`, `stills` or `publish`.")),
    request_body = Option<ReasonBody>,
    responses((status = 200, description = "The queue.", body = Queue),
              (status = 404, description = "There is no such queue.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn pause_queue(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(kind): Path<String>,
    Reason(reason): Reason,
) -> Result<Json<Queue>, Problem> {
    set_paused(&app, caller, &kind, reason, true).await
}

/// Let workers take up this kind of work again. Resuming what is not paused changes nothing.
#[utoipa::path(post, path = "/v1/queues/{kind}/resume", tag = "operations",
    params(("kind" = String, Path, description = "`probe`, `encode`, `audio`, `stills` or `publish`.")),
    request_body = Option<ReasonBody>,
    responses((status = 200, description = "The queue.", body = Queue),
              (status = 404, description = "There is no such queue.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn resume_queue(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(kind): Path<String>,
    Reason(reason): Reason,
) -> Result<Json<Queue>, Problem> {
    set_paused(&app, caller, &kind, reason, false).await
}

async fn set_paused(
    app: &App,
    caller: Caller,
    name: &str,
    reason: Option<String>,
    paused: bool,
) -> Result<Json<Queue>, Problem> {
    caller.require_operator()?;
    let kind = named(name)?;
    let actor = caller.actor(app, reason).await?;
    if paused {
        app.catalog.pause_queue(kind, &actor, links::now_ms()).await?;
    } else {
        app.catalog.resume_queue(kind, &actor, links::now_ms()).await?;
        app.ring();
    }
    one(app, kind).await
}

fn named(name: &str) -> Result<TaskKind, Problem> {
    TaskKind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
        let known = TaskKind::ALL.map(TaskKind::as_str).join(", ");
        Problem::new(Kind::NotFound, format!("There is no queue {name:?}; there are {known}."))
    })
}

async fn one(app: &App, kind: TaskKind) -> Result<Json<Queue>, Problem> {
    let found = look(app).await?.items.into_iter().find(|queue| queue.kind == kind.as_str());
    found.map(Json).ok_or_else(|| Problem::internal("a queue that is not in the list"))
}

async fn look(app: &App) -> Result<QueueList, Problem> {
    let now_ms = links::now_ms();
    let views = app.catalog.queues(now_ms).await?;
    let (broker, depths) = match &app.tickets {
        None => ("none".to_owned(), None),
        Some(tickets) => match tokio::time::timeout(BROKER_PATIENCE, tickets.depth()).await {
            Ok(Ok(depths)) => ("ok".to_owned(), Some(depths)),
            Ok(Err(error)) => (error.to_string(), None),
            Err(_) => (format!("no answer within {} s", BROKER_PATIENCE.as_secs()), None),
        },
    };
    let items = views.iter().map(|view| Queue::of(view, depths.as_deref(), now_ms)).collect();
    Ok(QueueList { items, broker })
}
