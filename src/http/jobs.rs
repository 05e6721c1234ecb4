//! `/v1/jobs`: the single pieces of work, for operators: what runs, what waits and for what, what was given up and why.
//!
//! A job is the catalogue's task under the name that people use.

use super::{
    asset_view::{self, FailureView},
    auth::Caller,
    extract::{Path, Query, cursor, id, names, page_rows},
    links,
    openapi::ProblemBody,
    problem::Problem,
};
use crate::app::App;
use axum::{Json, extract::State};
use reelyard_catalog::{Scope, TaskFilter, TaskRow, Waiting};
use reelyard_model::{AssetId, TaskId, TaskState, state::UnknownName, work::TaskKind};
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
    /// Why it is not at work, as a sentence; only when one job is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<String>,
    created_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    /// When the next try may begin; null unless it waits for one.
    not_before: Option<String>,
    trace_id: String,
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
    Ok(Json(JobPage {
        items: page.rows.into_iter().map(Job::from).collect(),
        next_cursor: page.next.map(|next| next.to_string()),
    }))
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
    let waiting_for = match app.catalog.why_waiting(&row).await? {
        Waiting::NotWaiting => None,
        Waiting::ForTasks(tasks) => {
            let mut kinds: Vec<&str> = tasks.iter().map(|(_, kind, _)| kind.as_str()).collect();
            kinds.dedup();
            Some(format!("for {} other job(s) of this asset: {}", tasks.len(), kinds.join(", ")))
        }
        Waiting::ForBackOff { until_ms } => Some(format!("for its next try at {}", links::rfc3339(until_ms))),
        Waiting::ForWorker { ahead: 0 } => Some("for a free worker; it is the next".to_owned()),
        Waiting::ForWorker { ahead } => Some(format!("for a free worker; {ahead} job(s) come before it")),
    };
    Ok(Json(Job { waiting_for, ..Job::from(row) }))
}

/// Stop a job. When the asset cannot do without it, the whole asset is cancelled.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = String, Path, description = "The job's id.")),
    responses((status = 200, description = "The job, cancelled. Cancelling it again gives the same answer.", body = Job),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 409, description = "It has ended already.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn cancel_job(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(job): Path<String>,
) -> Result<Json<Job>, Problem> {
    caller.require(Scope::AssetsWrite)?;
    let row = owned(&app, caller, &job).await?;
    let row = app.catalog.cancel_task(row.id, links::now_ms()).await?;
    // An asset that goes on without this job may have others that waited for it; a cancelled one has files to sweep.
    app.ring();
    app.swept_ticket.notify_one();
    Ok(Json(Job::from(row)))
}

/// Try a job again that was given up, was cancelled or waits for its next try. Its counters start anew.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", tag = "jobs", params(("id" = String, Path, description = "The job's id.")),
    responses((status = 200, description = "The job, back in line.", body = Job),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 409, description = "Its state does not allow it.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn retry_job(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(job): Path<String>,
) -> Result<Json<Job>, Problem> {
    caller.require(Scope::AssetsWrite)?;
    let row = owned(&app, caller, &job).await?;
    let row = app.catalog.retry_task(row.id, links::now_ms()).await?;
    app.ring();
    Ok(Json(Job::from(row)))
}

async fn owned(app: &App, caller: Caller, text: &str) -> Result<TaskRow, Problem> {
    let task: TaskId = id(text, "job")?;
    app.catalog
        .task(task)
        .await?
        .filter(|row| row.tenant == caller.tenant)
        .ok_or_else(|| Problem::not_found("job"))
}
