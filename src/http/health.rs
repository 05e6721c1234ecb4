//! Is it alive, is it ready, and how much of what: `/livez`, `/readyz`, `/metrics`.
//!
//! `/livez` answers as long as the process can answer at all. `/readyz` asks the parts that a request needs and
//! names the one that is missing. `/metrics` is Prometheus text; names are `reelyard_{what}_{unit}`.

use super::{auth::Caller, problem::Problem};
use crate::app::App;
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use reelyard_catalog::{Counts, EventKind, EventRow, ReadyQueue, Scope};
use reelyard_model::{AssetState, TaskState, Tier, UploadState, work::TaskKind};
use serde_json::json;
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::broadcast::error::RecvError;

/// Seconds: from a cached playlist to an upload of a minute.
const REQUEST_SECONDS: [f64; 10] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0];

/// Seconds: from a short clip to a film of two hours on a slow machine.
const TIME_TO_READY_SECONDS: [f64; 9] = [5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 10_800.0, 36_000.0];

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder of this process, once. `None` when something else installed one before: then `/metrics`
/// says so instead of showing half of the truth.
fn recorder() -> Option<&'static PrometheusHandle> {
    RECORDER
        .get_or_init(|| {
            let handle = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &REQUEST_SECONDS)
                .ok()?
                .set_buckets_for_metric(
                    Matcher::Full("reelyard_asset_time_to_ready_seconds".into()),
                    &TIME_TO_READY_SECONDS,
                )
                .ok()?
                .install_recorder()
                .inspect_err(|error| tracing::warn!(%error, "metrics are not recorded"))
                .ok()?;
            metrics::describe_counter!("reelyard_http_requests_total", "Answered HTTP requests.");
            metrics::describe_histogram!(
                "reelyard_http_request_duration_seconds",
                metrics::Unit::Seconds,
                "From the first header to the start of the answer."
            );
            describe_the_rest();
            Some(handle)
        })
        .as_ref()
}

fn describe_the_rest() {
    metrics::describe_counter!("reelyard_events_total", "Stored events, by kind.");
    metrics::describe_counter!(
        "reelyard_events_uncounted_total",
        "Events that the other counters missed because they came too fast."
    );
    metrics::describe_counter!("reelyard_job_moves_total", "Jobs that came into a state, by kind and state.");
    metrics::describe_counter!("reelyard_job_failures_total", "Attempts that failed, by kind and code.");
    metrics::describe_histogram!(
        "reelyard_asset_time_to_ready_seconds",
        metrics::Unit::Seconds,
        "From the last byte of an upload to the first moment it plays."
    );
    metrics::describe_gauge!("reelyard_http_connections", "Open connections.");
    metrics::describe_counter!(
        "reelyard_worker_streams_opened_total",
        "Streams of orders that workers opened; each keeps one open for about an hour."
    );
    metrics::describe_gauge!("reelyard_uploads", "Uploads by state.");
    metrics::describe_gauge!("reelyard_assets", "Assets by state.");
    metrics::describe_gauge!("reelyard_jobs", "Jobs by kind and state; `dead` ones were given up.");
    metrics::describe_gauge!(
        "reelyard_oldest_ready_job_age_seconds",
        metrics::Unit::Seconds,
        "How long the job that has waited longest for a worker has waited; 0 when none waits."
    );
    metrics::describe_gauge!(
        "reelyard_oldest_ready_task_seconds",
        metrics::Unit::Seconds,
        "How long the job of a kind that has waited longest for a worker has waited; 0 when none waits. To scale by."
    );
    metrics::describe_gauge!("reelyard_ready_tasks", "Jobs that could start now, by kind and tier.");
    metrics::describe_gauge!(
        "reelyard_outbox_tickets",
        "Wake-ups that the broker has not confirmed; a number that grows says that it is away."
    );
    metrics::describe_gauge!("reelyard_last_event_number", "Number of the newest stored event.");
    metrics::describe_counter!(
        "reelyard_playback_requested_bytes_total",
        metrics::Unit::Bytes,
        "Bytes of the answers begun by the playback origin."
    );
}

/// Called when the router is built, so that nothing is counted before there is somewhere to count it.
pub(super) fn install_recorder() {
    recorder();
}

/// Counts what happens, from the catalogue's own events, until the server stops. Nothing in the flow has to remember
/// to count.
pub(super) fn count_events(app: Arc<App>) {
    let mut events = app.catalog.subscribe();
    tokio::spawn(async move {
        loop {
            let received = tokio::select! {
                received = events.recv() => received,
                () = app.shutdown.cancelled() => return,
            };
            match received {
                Ok(row) if row.seq > 0 => count_event(&app, &row).await,
                // Passing events, such as progress, are no news.
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    metrics::counter!("reelyard_events_uncounted_total").increment(missed);
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
}

async fn count_event(app: &App, row: &EventRow) {
    metrics::counter!("reelyard_events_total", "kind" => row.kind.clone()).increment(1);
    let text = |name: &str| row.data.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    if row.kind == EventKind::TASK_CHANGED.0
        && let (Some(kind), Some(state)) = (text("kind"), text("state"))
    {
        metrics::counter!("reelyard_job_moves_total", "kind" => kind.clone(), "state" => state).increment(1);
        if let Some(code) = text("failure") {
            metrics::counter!("reelyard_job_failures_total", "kind" => kind, "code" => code).increment(1);
        }
    }
    if row.kind == EventKind::ASSET_READY.0
        && let Some(id) = row.asset
        && let Ok(Some(asset)) = app.catalog.asset(id).await
    {
        let seconds = (row.at_ms - asset.created_ms).max(0) as f64 / 1000.0;
        metrics::histogram!("reelyard_asset_time_to_ready_seconds").record(seconds);
    }
}

pub(super) fn count_request(method: &str, route: &str, status: u16, elapsed: Duration) {
    // Clients make up methods; a label must not grow with them.
    let method = match method {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => method.to_owned(),
        _ => "other".to_owned(),
    };
    let labels = [("method", method), ("route", route.to_owned()), ("status", status.to_string())];
    metrics::counter!("reelyard_http_requests_total", &labels).increment(1);
    metrics::histogram!("reelyard_http_request_duration_seconds", &labels[..2]).record(elapsed.as_secs_f64());
}

/// The process answers.
#[utoipa::path(get, path = "/livez", tag = "health", security(()),
    responses((status = 200, description = "The process answers.", body = String, content_type = "text/plain", example = "ok\n")))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Longest that one part may take to answer before it counts as missing.
const READY_PATIENCE: Duration = Duration::from_secs(2);

/// A job that waits this long while no job is at work means that no worker asks for any.
const WORKER_SILENCE_MS: i64 = 60_000;

/// `ok`, or `silent`: a job has been waiting for long and nobody does anything.
fn worker_word(counts: &Counts, now_ms: i64) -> &'static str {
    let at_work = counts.tasks.iter().any(|count| count.state == TaskState::Leased && count.count > 0);
    let waits_long = counts.oldest_ready_ms.is_some_and(|since| now_ms - since > WORKER_SILENCE_MS);
    if waits_long && !at_work { "silent" } else { "ok" }
}

/// Every part that a request needs answers: the database, and a data directory that can be written.
///
/// `worker` is `silent` when jobs wait and nobody takes them; that alone does not make the server unready, because
/// uploads and playback go on.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, description = "Ready for requests.", body = serde_json::Value, example = json!({"ready": true, "checks": {"database": "ok", "data_directory": "ok", "worker": "ok", "stopping": "no"}})),
              (status = 503, description = "The part that is missing is named.", body = super::openapi::ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<Json<serde_json::Value>, Problem> {
    let database = match tokio::time::timeout(READY_PATIENCE, app.catalog.ping()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", READY_PATIENCE.as_secs())),
    };
    let data_directory = match tokio::time::timeout(READY_PATIENCE, write_probe(&app.data_dir)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", READY_PATIENCE.as_secs())),
    };
    let worker = match tokio::time::timeout(READY_PATIENCE, app.catalog.counts()).await {
        Ok(Ok(counts)) => worker_word(&counts, super::links::now_ms()),
        _ => "unknown",
    };
    let stopping = app.shutdown.is_cancelled();
    let say = |result: &Result<(), String>| if result.is_ok() { "ok" } else { "failed" };
    let checks = json!({
        "database": say(&database),
        "data_directory": say(&data_directory),
        "worker": worker,
        "stopping": if stopping { "yes" } else { "no" },
    });
    if database.is_ok() && data_directory.is_ok() && !stopping {
        return Ok(Json(json!({ "ready": true, "checks": checks })));
    }
    let causes: Vec<String> = [database.err(), data_directory.err()].into_iter().flatten().collect();
    Err(Problem::unavailable("The server is not ready: see `checks`.", 2)
        .with("checks", checks)
        .with_log(causes.join("; ")))
}

/// Can a file be made where the data lies? A full or read-only disk must show before an upload does.
async fn write_probe(data_dir: &std::path::Path) -> std::io::Result<()> {
    // A name of its own: two who ask at once must not remove each other's file.
    let path = data_dir.join("scratch").join(format!(".ready-{}", uuid::Uuid::now_v7()));
    tokio::fs::write(&path, b"ok").await?;
    match tokio::fs::remove_file(&path).await {
        // Two probes at a time: the other one was faster.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Prometheus text. Needs a key like the rest of the API.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "Prometheus text, version 0.0.4.", body = String, content_type = "text/plain; version=0.0.4")))]
pub(super) async fn metrics_text(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    caller.require(Scope::MetricsRead)?;
    let handle = recorder()
        .ok_or_else(|| Problem::internal("another metrics recorder was installed before this server's"))?;
    let counts = app.catalog.counts().await?;
    set_state_gauges(&counts);
    let oldest_seconds =
        counts.oldest_ready_ms.map_or(0.0, |since| (super::links::now_ms() - since).max(0) as f64 / 1000.0);
    metrics::gauge!("reelyard_oldest_ready_job_age_seconds").set(oldest_seconds);
    set_queue_gauges(&app.catalog.ready_queues().await?, super::links::now_ms());
    metrics::gauge!("reelyard_outbox_tickets").set(app.catalog.outbox_len().await? as f64);
    metrics::gauge!("reelyard_last_event_number").set(counts.last_event as f64);
    handle.run_upkeep();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render())
        .into_response())
}

/// Every state has its gauge: one that nothing is in any more must fall to 0, not keep its last number.
fn set_state_gauges(counts: &Counts) {
    for state in UploadState::ALL {
        let count = counts.uploads.iter().find(|count| count.state == *state).map_or(0, |count| count.count);
        metrics::gauge!("reelyard_uploads", "state" => state.as_str()).set(count as f64);
    }
    for state in AssetState::ALL {
        let count = counts.assets.iter().find(|count| count.state == *state).map_or(0, |count| count.count);
        metrics::gauge!("reelyard_assets", "state" => state.as_str()).set(count as f64);
    }
    for kind in TaskKind::ALL {
        for state in TaskState::ALL {
            let found = counts.tasks.iter().find(|count| count.kind == kind && count.state == *state);
            metrics::gauge!("reelyard_jobs", "kind" => kind.as_str(), "state" => state.as_str())
                .set(found.map_or(0, |count| count.count) as f64);
        }
    }
}

/// What waits for workers, for whoever starts and stops them. Paused kinds too: they wait all the same.
fn set_queue_gauges(queues: &[ReadyQueue], now_ms: i64) {
    for kind in TaskKind::ALL {
        let of_kind = || queues.iter().filter(move |queue| queue.kind == kind);
        let oldest_ms = of_kind().map(|queue| queue.oldest_ready_ms).min();
        let waited_seconds = oldest_ms.map_or(0.0, |since_ms| (now_ms - since_ms).max(0) as f64 / 1000.0);
        metrics::gauge!("reelyard_oldest_ready_task_seconds", "kind" => kind.as_str()).set(waited_seconds);
        for tier in Tier::ALL {
            let waiting: u64 = of_kind().filter(|queue| queue.tier == *tier).map(|queue| queue.waiting).sum();
            metrics::gauge!("reelyard_ready_tasks", "kind" => kind.as_str(), "tier" => tier.as_str())
                .set(waiting as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{WORKER_SILENCE_MS, worker_word};
    use reelyard_catalog::{Counts, TaskCount};
    use reelyard_model::{TaskState, work::TaskKind};

    #[test]
    fn a_worker_is_silent_when_jobs_wait_and_nobody_works() {
        let now_ms = 10_000_000;
        let long_ago = Some(now_ms - WORKER_SILENCE_MS - 1);
        let leased = TaskCount { kind: TaskKind::Encode, state: TaskState::Leased, count: 1 };
        assert_eq!(worker_word(&Counts::default(), now_ms), "ok");
        assert_eq!(
            worker_word(&Counts { oldest_ready_ms: Some(now_ms - 5), ..Counts::default() }, now_ms),
            "ok"
        );
        let busy = Counts { oldest_ready_ms: long_ago, tasks: vec![leased], ..Counts::default() };
        assert_eq!(worker_word(&busy, now_ms), "ok");
        assert_eq!(worker_word(&Counts { oldest_ready_ms: long_ago, ..Counts::default() }, now_ms), "silent");
    }
}
