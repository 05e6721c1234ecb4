//! HTTP: thin shells over the flow, one file per resource.
//!
//! `serve` calls [`router`] and hands the result to axum. A handler reads the request, calls one method of the
//! catalogue, the storage or the flow, and writes the answer; it decides nothing that would have to hold without HTTP
//! too. Whatever fails becomes a [`problem::Problem`]: unknown addresses, unknown methods, bodies too large and
//! panics as well.

pub(crate) mod auth;
pub(crate) mod health;
pub(crate) mod problem;
pub(crate) mod trace;
mod uploads;

use crate::app::App;
use axum::{Router, middleware, routing::get};
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;

/// Everything the server answers.
pub(crate) fn router(app: Arc<App>) -> Router {
    health::install_recorder();
    Router::new()
        .route("/livez", get(health::livez))
        .route("/problems/{slug}", get(problem::explain))
        .merge(uploads::router())
        .fallback(problem::unknown_address)
        .method_not_allowed_fallback(problem::unknown_method)
        .layer(middleware::from_fn_with_state(app.clone(), auth::loopback_guard))
        .layer(CatchPanicLayer::custom(problem::from_panic))
        .layer(middleware::from_fn(trace::layer))
        .with_state(app)
}
