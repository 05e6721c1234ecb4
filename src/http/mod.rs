//! HTTP: thin shells over the flow, one file per resource.
//!
//! `serve` calls [`router`] and hands the result to axum. A handler reads the request, calls one method of the
//! catalogue, the storage or the flow, and writes the answer; it decides nothing that would have to hold without HTTP
//! too. Whatever fails becomes a [`problem::Problem`]: unknown addresses, unknown methods, bodies too large and
//! panics as well.

mod asset_view;
mod assets;
mod audit;
pub(crate) mod auth;
pub(crate) mod connections;
mod console;
mod events;
mod extract;
mod file;
pub(crate) mod health;
mod interim;
mod jobs;
pub(crate) mod limits;
mod links;
mod openapi;
mod playback;
mod presets;
pub(crate) mod problem;
mod queues;
mod reason;
mod tap;
#[cfg(test)]
mod tests;
pub(crate) mod trace;
mod upload_tokens;
mod uploads;
mod watch;
mod worker;

use crate::app::App;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use openapi::Api;
use problem::Problem;
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

/// JSON bodies are a few numbers; uploads have their own limit.
const MAX_JSON_BODY_BYTES: usize = 64 << 10;

/// Everything the server answers. Called inside a tokio runtime: what happens is counted beside it.
pub(crate) fn router(app: Arc<App>) -> Router {
    health::install_recorder();
    health::count_events(app.clone());
    let (described, api) = described_routes();
    let document = openapi::document(api).map_err(|error| error.to_string());
    let open_api = move || async move {
        document.map_or_else(|error| Problem::internal(error).into_response(), openapi::answer)
    };
    Router::new()
        .merge(described)
        .layer(DefaultBodyLimit::max(MAX_JSON_BODY_BYTES))
        .route("/openapi.json", get(open_api))
        .route("/problems/{slug}", get(problem::explain))
        .route("/watch/{playback_id}", get(watch::page))
        .route("/", get(console::operator_page))
        .route("/docs", get(console::docs_page))
        .route("/favicon.ico", get(favicon))
        .route("/console/{file}", get(console::file))
        .merge(playback::router(app.clone()))
        .merge(uploads::router())
        .fallback(problem::unknown_address)
        .method_not_allowed_fallback(problem::unknown_method)
        .layer(middleware::from_fn_with_state(app.clone(), auth::loopback_guard))
        .layer(CatchPanicLayer::custom(problem::from_panic))
        .layer(middleware::from_fn(trace::layer))
        .with_state(app)
}

/// The routes that describe themselves, and their description.
fn described_routes() -> (Router<Arc<App>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(assets::list_assets))
        .routes(routes!(assets::show_asset, assets::delete_asset))
        .routes(routes!(assets::cancel_asset))
        .routes(routes!(assets::retry_asset))
        .routes(routes!(assets::retry_rendition))
        .routes(routes!(assets::show_plan))
        .routes(routes!(assets::make_links))
        .routes(routes!(jobs::list_jobs))
        .routes(routes!(jobs::show_job))
        .routes(routes!(jobs::cancel_job))
        .routes(routes!(jobs::retry_job))
        .routes(routes!(jobs::replay_jobs))
        .routes(routes!(queues::list_queues))
        .routes(routes!(queues::pause_queue))
        .routes(routes!(queues::resume_queue))
        .routes(routes!(audit::list_audit))
        .routes(routes!(upload_tokens::make_upload_token))
        .routes(routes!(presets::list_presets))
        .routes(routes!(presets::show_preset))
        .routes(routes!(events::follow_events))
        .routes(routes!(watch::status))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics_text))
        .merge(worker::routes())
        .split_for_parts()
}

async fn favicon() -> Response {
    Redirect::permanent("/console/icon.svg").into_response()
}
