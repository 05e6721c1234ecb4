//! Is it alive, is it ready, and how much of what: `/livez`, `/readyz`, `/metrics`.
//!
//! `/livez` answers as long as the process can answer at all. `/readyz` asks the parts that a request needs and
//! names the one that is missing. `/metrics` is Prometheus text; names are `reelyard_{what}_{unit}`.

use super::{auth::Caller, problem::Problem};
use crate::app::App;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Seconds: from a cached playlist to an upload of a minute.
const REQUEST_SECONDS: [f64; 10] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0];

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder of this process, once. `None` when something else installed one before: then `/metrics`
/// says so instead of showing half of the truth.
fn recorder() -> Option<&'static PrometheusHandle> {
    RECORDER
        .get_or_init(|| {
            let handle = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &REQUEST_SECONDS)
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
            Some(handle)
        })
        .as_ref()
}

/// Called when the router is built, so that nothing is counted before there is somewhere to count it.
pub(super) fn install_recorder() {
    recorder();
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
