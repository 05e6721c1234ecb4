//! `/v1/jobs`: the single pieces of work, for operators: what runs, what waits and for what, what was given up and why.
//!
//! A job is the catalogue's task under the name that people use.

use super::{
    asset_view::{self, FailureView},
    auth::Caller,
    extract::{Json as JsonBody, Path, Query, cursor, id, names, page_rows},
    links,
    openapi::ProblemBody,
    problem::{Kind, Problem},
    reason::{self, Reason, ReasonBody},
};
use crate::app::App;
use axum::{Json, extract::State};
use reelyard_catalog::{MAX_REPLAYED, ReplayFilter, Scope, TaskFailure, TaskFilter, TaskRow};
use reelyard_model::{AssetId, FailureCode, TaskId, TaskState, state::UnknownName, work::TaskKind};
use reelyard_schedule::{Facts, why_waiting};
use serde::{Deserialize, Serialize};
use std::{str::FromStr, sync::Arc};
use utoipa::{IntoParams, ToSchema};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only these states, separated by commas: `blocked`, `ready`, `leased`, `retry_wait`, `done`, `dead`, `cancelled`.
    #[param(example = "dead")]
    state: Option<String>,
    /// Only these kinds, separated by commas: `probe`, `encode`, `audio`, `stills`, `publish`.
    kind: Option<String>,
    /// Only jobs of this asset.
    asset: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Rows on the page: 50 unless asked otherwise, 200 at most.
    limit: Option<u32>,
}

/// A page of jobs, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct JobPage {
    items: Vec<Job>,
    /// Give it as `cursor` to get the next page; null on the last.
    next_cursor: Option<String>,
}

/// A piece of work on an asset.
#[derive(Serialize, ToSchema)]
pub(super) struct Job {
    id: String,
    asset: String,
    /// `probe`, `encode`, `audio`, `stills` or `publish`.
    #[schema(example = "encode")]
    kind: &'static str,
    /// The chunk of an encode job, else 0.
    ordinal: u32,
    /// Without it the asset does not play.
    required: bool,
    /// `blocked`, `ready`, `leased`, `retry_wait`, `done`, `dead` or `cancelled`.
    #[schema(example = "leased")]
    state: &'static str,
    /// `urgent`, `normal` or `bulk`: whose turn it is comes from this first.
    #[schema(example = "normal")]
    tier: &'static str,
    /// From 0 to 1, of this attempt.
    progress: f64,
    /// Rises with every start; 0 before the first.
    attempt: u32,
    /// Attempts that ended with a failure, and attempts whose worker went silent.
    failed_count: u32,
    lost_count: u32,
    /// Ends of the server's process while it was at work; from the sixth on each is counted as lost too.
    restart_count: u32,
    worker: Option<String>,
    /// Of the last attempt that failed.
    failure: Option<FailureView>,
    /// The first thing that has to change before it can start, as a sentence; null when it does not wait.
    #[schema(example = "Waits for a free worker: it is the next of the normal encode tasks")]
    waiting_for: Option<String>,
    /// The attempts that did not work out, the last first; only when one job is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<Attempt>>,
    created_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    /// When the next try may begin; null unless it waits for one.
    not_before: Option<String>,
    trace_id: String,
}

/// An attempt that did not work out.
#[derive(Serialize, ToSchema)]
struct Attempt {
    attempt: u32,
    /// `failed`: its worker told why; `lost`: its worker fell silent.
    #[schema(example = "failed")]
    outcome: &'static str,
    worker: Option<String>,
    started_at: Option<String>,
    ended_at: String,
    /// With the last lines of the media program, where it ran.
    failure: FailureView,
}

impl From<TaskFailure> for Attempt {
    fn from(told: TaskFailure) -> Self {
        Self {
            attempt: told.attempt,
            outcome: if told.lost { "lost" } else { "failed" },
            worker: told.worker.map(|worker| worker.to_string()),
            started_at: told.started_ms.map(links::rfc3339),
            ended_at: links::rfc3339(told.ended_ms),
            failure: asset_view::failure(&told.failure),
        }
    }
}

impl From<TaskRow> for Job {
    fn from(row: TaskRow) -> Self {
        Self {
            id: row.id.to_string(),
            asset: row.asset.to_string(),
            kind: row.kind.as_str(),
            ordinal: row.ordinal,
            required: row.required,
            state: row.state.as_str(),
            tier: row.tier.as_str(),
            progress: asset_view::task_fraction(&row),
            attempt: row.attempt,
            failed_count: row.failed_count,
            lost_count: row.lost_count,
            restart_count: row.restart_count,
            worker: row.worker.map(|worker| worker.to_string()),
            failure: row.failure.as_ref().map(match row.state {
                TaskState::Dead => asset_view::final_failure,
                _ => asset_view::failure,
            }),
            waiting_for: None,
            attempts: None,
            created_at: links::rfc3339(row.created_ms),
            started_at: row.started_ms.map(links::rfc3339),
            finished_at: row.finished_ms.map(links::rfc3339),
            not_before: (row.state == TaskState::RetryWait).then(|| links::rfc3339(row.not_before_ms)),
            trace_id: asset_view::trace_id(&row.traceparent),
        }
    }
}

/// A kind by its stored name.
struct KindName(TaskKind);

impl FromStr for KindName {
    type Err = UnknownName;
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        TaskKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .map(Self)
            .ok_or_else(|| UnknownName::new("job kind", text))
    }
}

/// List the jobs, newest first.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(ListQuery),
    responses((status = 200, description = "A page of jobs.", body = JobPage),
              (status = 400, description = "A filter or the cursor is not known.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list_jobs(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<JobPage>, Problem> {
    caller.require(Scope::AssetsRead)?;
    let filter = TaskFilter {
        tenant: caller.tenant,
        asset: query.asset.map(|asset| id::<AssetId>(&asset, "asset")).transpose()?,
        states: names::<TaskState>(query.state.as_deref(), "state")?,
        kinds: names::<KindName>(query.kind.as_deref(), "kind")?.into_iter().map(|name| name.0).collect(),
        after: cursor(query.cursor.as_deref())?,
        limit: page_rows(query.limit),
    };
    let page = app.catalog.list_tasks(&filter).await?;
    let items = shown(&app, page.rows).await?;
    Ok(Json(JobPage { items, next_cursor: page.next.map(|next| next.to_string()) }))
}

/// Show one job, and why it is not at work when it is not.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "The job's id.")),
    responses((status = 200, description = "The job.", body = Job),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn show_job(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(job): Path<String>,
) -> Result<Json<Job>, Problem> {
    caller.require(Scope::AssetsRead)?;
    let row = owned(&app, caller, &job).await?;
    let attempts = app.catalog.task_failures(row.id).await?.into_iter().map(Attempt::from).collect();
    let mut job = shown(&app, vec![row]).await?.pop().ok_or_else(|| Problem::not_found("job"))?;
    job.attempts = Some(attempts);
    Ok(Json(job))
}

/// With what each waits for.
async fn shown(app: &App, rows: Vec<TaskRow>) -> Result<Vec<Job>, Problem> {
    let now_ms = links::now_ms();
    let facts = app.catalog.waiting_facts(&rows, now_ms).await?;
    let jobs = rows.into_iter().zip(&facts);
    Ok(jobs.map(|(row, facts)| Job { waiting_for: sentence(facts, now_ms), ..Job::from(row) }).collect())
}

fn sentence(facts: &Facts, now_ms: i64) -> Option<String> {
    let waits = matches!(facts.state, TaskState::Blocked | TaskState::Ready | TaskState::RetryWait);
    waits.then(|| why_waiting(facts).sentence(now_ms))
}

/// Stop a job. When the asset cannot do without it, the whole asset is cancelled.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = String, Path, description = "The job's id.")),
    request_body = Option<ReasonBody>,
    responses((status = 200, description = "The job, cancelled. Cancelling it again gives the same answer.", body = Job),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 409, description = "It has ended already.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn cancel_job(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(job): Path<String>,
    Reason(reason): Reason,
) -> Result<Json<Job>, Problem> {
    caller.require(Scope::AssetsWrite)?;
    let row = owned(&app, caller, &job).await?;
    let actor = caller.actor(&app, reason).await?;
    let row = app.catalog.cancel_task(row.id, &actor, links::now_ms()).await?;
    // An asset that goes on without this job may have others that waited for it; a cancelled one has files to sweep.
    app.ring();
    app.swept_ticket.notify_one();
    Ok(Json(Job::from(row)))
}

/// Try a job again that was given up, was cancelled or waits for its next try. Its counters start anew.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", tag = "jobs", params(("id" = String, Path, description = "The job's id.")),
    request_body = Option<ReasonBody>,
    responses((status = 200, description = "The job, back in line.", body = Job),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 409, description = "Its state does not allow it.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn retry_job(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(job): Path<String>,
    Reason(reason): Reason,
) -> Result<Json<Job>, Problem> {
    caller.require(Scope::AssetsWrite)?;
    let row = owned(&app, caller, &job).await?;
    let actor = caller.actor(&app, reason).await?;
    let row = app.catalog.retry_task(row.id, &actor, links::now_ms()).await?;
    app.ring();
    Ok(Json(Job::from(row)))
}

/// Which of your jobs that were given up. What is left out does not narrow it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayRequest {
    /// Only these kinds.
    #[serde(default)]
    #[schema(example = json!(["encode"]))]
    kinds: Vec<String>,
    /// Only those given up for one of these codes, as `failure.code` names them.
    #[serde(default)]
    #[schema(example = json!(["storage_failed"]))]
    codes: Vec<String>,
    /// Only those given up at this time or later: RFC 3339.
    #[schema(example = "2026-11-20T03:00:00Z")]
    since: Option<String>,
    /// Only those of this asset.
    asset: Option<String>,
    /// At most so many, and 500 at most; the rest by the same call again.
    limit: Option<u32>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// In your words; kept in the audit log.
    reason: Option<String>,
}

/// What was, or would be, brought back.
#[derive(Serialize, ToSchema)]
pub(super) struct Replay {
    dry_run: bool,
    /// How many, and which, oldest first.
    count: usize,
    jobs: Vec<String>,
    /// That came back together with another one of these, because their whole asset is tried again; or that somebody
    /// else was quicker with.
    back_already: u32,
    /// There are more: repeat the call.
    more: bool,
}

/// Try many jobs again that were given up. Each comes back as by its own retry, oldest first; where an asset was given up,
/// all of it that is not done is tried again. Safe to repeat: what came back is not among them any more. Jobs without
/// which an asset was published, and those of deleted assets, are left alone.
#[utoipa::path(post, path = "/v1/jobs/replay", tag = "jobs", request_body = ReplayRequest,
    responses((status = 200, description = "What came back, or with `dry_run` would.", body = Replay),
              (status = 400, description = "A filter is not known.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn replay_jobs(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(request): JsonBody<ReplayRequest>,
) -> Result<Json<Replay>, Problem> {
    caller.require(Scope::AssetsWrite)?;
    let (dry_run, told) = (request.dry_run, reason::checked(request.reason.clone())?);
    let filter = replay_filter(caller, request)?;
    if dry_run {
        let (found, more) = app.catalog.to_replay(&filter).await?;
        let jobs: Vec<String> = found.iter().map(|row| row.id.to_string()).collect();
        return Ok(Json(Replay { dry_run, count: jobs.len(), jobs, back_already: 0, more }));
    }
    let actor = caller.actor(&app, told).await?;
    let done = app.catalog.replay(&filter, &actor, links::now_ms()).await?;
    app.ring();
    let jobs: Vec<String> = done.jobs.iter().map(ToString::to_string).collect();
    Ok(Json(Replay { dry_run, count: jobs.len(), jobs, back_already: done.back_already, more: done.more }))
}

fn replay_filter(caller: Caller, request: ReplayRequest) -> Result<ReplayFilter, Problem> {
    let bad = |parameter: &'static str, detail: String| {
        Problem::new(Kind::BadRequest, detail).with("parameter", parameter)
    };
    let since_ms = request.since.map(|since| {
        since.parse().map(jiff::Timestamp::as_millisecond).map_err(|_| {
            bad("since", format!("`since` is a time such as 2026-11-20T03:00:00Z, and {since:?} is none."))
        })
    });
    let code = |name: &String| {
        serde_json::from_value::<FailureCode>(name.as_str().into())
            .map_err(|_| bad("codes", format!("There is no failure code {name:?}.")))
    };
    Ok(ReplayFilter {
        tenant: caller.tenant,
        kinds: names::<KindName>(Some(&request.kinds.join(",")), "kinds")?
            .into_iter()
            .map(|name| name.0)
            .collect(),
        codes: request.codes.iter().map(code).collect::<Result<_, _>>()?,
        since_ms: since_ms.transpose()?,
        asset: request.asset.map(|asset| id::<AssetId>(&asset, "asset")).transpose()?,
        limit: request.limit.unwrap_or(MAX_REPLAYED),
    })
}

async fn owned(app: &App, caller: Caller, text: &str) -> Result<TaskRow, Problem> {
    let task: TaskId = id(text, "job")?;
    app.catalog
        .task(task)
        .await?
        .filter(|row| row.tenant == caller.tenant)
        .ok_or_else(|| Problem::not_found("job"))
}
