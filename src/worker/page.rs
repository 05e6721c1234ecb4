//! `/livez`, `/readyz` and `/metrics` of a worker, on an address of their own. Without keys: put it where only your
//! monitoring reaches it.

use super::link::Link;
use anyhow::Context as _;
use axum::{Router, http::StatusCode, routing::get};
use metrics_exporter_prometheus::PrometheusBuilder;
use std::{net::SocketAddr, sync::Arc};

pub(crate) async fn serve(address: SocketAddr, link: Arc<Link>) -> anyhow::Result<()> {
    let recorder = PrometheusBuilder::new().install_recorder().context("metrics cannot be recorded")?;
    metrics::describe_counter!("reelyard_worker_granted_total", "Tasks that were granted.");
    metrics::describe_counter!("reelyard_worker_reports_total", "Reports that were answered, by outcome.");
    metrics::describe_counter!("reelyard_worker_failed_calls_total", "Calls that no server answered well.");
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on --metrics-listen {address}"))?;
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/metrics", get(move || async move { recorder.render() }))
        .route(
            "/readyz",
            get(move || async move {
                match link.has_answered() {
                    true => (StatusCode::OK, "ready\n"),
                    false => (StatusCode::SERVICE_UNAVAILABLE, "no server answers\n"),
                }
            }),
        );
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the page for metrics ended");
        }
    });
    Ok(())
}
