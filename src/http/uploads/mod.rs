//! Uploads over HTTP: the tus 1.0.0 dialect at `/uploads` and `/uploads/{id}`, with and without a trailing slash.
//!
//! The shell around `reelyard-upload` (which decides), `reelyard-storage` (which keeps) and `flow::receive` (which
//! makes an asset of a whole upload). Its promises: an acknowledged byte is on disk; HEAD shows the full offset only
//! after the asset exists; a new request for an upload stops the one that is sending and goes on at the exact
//! durable offset; a lost answer can be asked again. A client that goes away is no error.

mod answer;
mod body;
mod create;
mod download;
mod holders;
mod receive;
mod resource;

use self::{answer::HeaderFields, holders::Holders};
use super::{auth::Caller, problem::Problem};
use crate::app::App;
use axum::{
    Extension, Router,
    extract::{Path, Request, State},
    middleware,
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderMap, Method, StatusCode};
use reelyard_model::UploadId;
use reelyard_upload::tus;
use std::sync::Arc;

/// Name of the header that carries the asset of a finished upload.
pub(crate) const ASSET_HEADER: &str = "reelyard-asset";

pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/uploads", any(collection))
        .route("/uploads/", any(collection))
        .route("/uploads/{id}", any(single))
        .route("/uploads/{id}/", any(single))
        .layer(Extension(Holders::default()))
        .layer(middleware::from_fn(answer::label))
}

/// What the handlers of one request share.
struct Asked {
    app: Arc<App>,
    caller: Caller,
    holders: Holders,
    headers: HeaderMap,
    body: axum::body::Body,
}

async fn collection(
    State(app): State<Arc<App>>,
    Extension(holders): Extension<Holders>,
    request: Request,
) -> Result<Response, Problem> {
    let method = effective_method(&request)?;
    match method.as_str() {
        "OPTIONS" => Ok(answer::options(app.max_upload_bytes)),
        "POST" => create::create(asked(app, holders, request).await?).await,
        _ => Err(answer::method_not_allowed("OPTIONS, POST")),
    }
}

async fn single(
    State(app): State<Arc<App>>,
    Extension(holders): Extension<Holders>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let method = effective_method(&request)?;
    if method == Method::OPTIONS {
        return Ok(answer::options(app.max_upload_bytes));
    }
    if !["HEAD", "GET", "PATCH", "DELETE"].contains(&method.as_str()) {
        return Err(answer::method_not_allowed("OPTIONS, HEAD, GET, PATCH, DELETE"));
    }
    if method == Method::GET {
        // Not of the protocol, so without its version.
        let caller = Caller::of_headers(&app, request.headers()).await?;
        return download::download(&app, caller, upload_id(&id)?, request.headers()).await;
    }
    let asked = asked(app, holders, request).await?;
    let id = upload_id(&id)?;
    match method.as_str() {
        "PATCH" => receive::append(asked, id).await,
        "DELETE" => resource::terminate(asked, id).await,
        _ => resource::head(asked, id).await,
    }
}

/// The method, or the one that a client that can only POST means (tus: `X-HTTP-Method-Override`).
fn effective_method(request: &Request) -> Result<Method, Problem> {
    let named = tus::method_override(&HeaderFields(request.headers())).map_err(answer::refusal)?;
    let Some(named) = named else { return Ok(request.method().clone()) };
    Method::from_bytes(named.as_bytes()).map_err(Problem::internal)
}

/// Version first, as the protocol wants it, then who asks.
async fn asked(app: Arc<App>, holders: Holders, request: Request) -> Result<Asked, Problem> {
    let (parts, body) = request.into_parts();
    let checked = async {
        tus::check_version(&HeaderFields(&parts.headers)).map_err(answer::refusal)?;
        Caller::of_headers(&app, &parts.headers).await
    };
    match checked.await {
        Ok(caller) => Ok(Asked { app, caller, holders, headers: parts.headers, body }),
        Err(problem) => Err(body::refuse(body, problem).await),
    }
}

fn upload_id(text: &str) -> Result<UploadId, Problem> {
    text.parse().map_err(|_| Problem::not_found("upload"))
}

/// An answer without a body.
fn empty(status: StatusCode, headers: HeaderMap) -> Response {
    (status, headers).into_response()
}
