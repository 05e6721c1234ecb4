//! Uploads over HTTP: three dialects at `/uploads` and `/uploads/{id}`, with and without a trailing slash.
//!
//! The shell around `reelyard-upload` (which decides), `reelyard-storage` (which keeps) and `flow::receive` (which
//! makes an asset of a whole upload). Each dialect is one file; what they share lies beside them. Their promises: an
//! acknowledged byte is durable; HEAD shows an upload as done only after the asset exists; a new request for an upload
//! stops the one that is sending and goes on at the exact durable offset; a lost answer can be asked again. A client
//! that goes away is no error.

mod answer;
mod body;
mod download;
mod ietf;
mod meter;
mod off_socket;
mod parts;
mod possession;
mod receive;
mod resource;
mod tus;

pub(super) use self::answer::sentence;
use self::{answer::Dialect, body::Sent};
use super::{auth::Uploader, problem::Problem};
use crate::app::App;
use axum::{
    Router,
    extract::{Path, Request, State},
    middleware,
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderMap, Method, StatusCode, request::Parts};
use reelyard_model::{Completion, UploadId};
use std::sync::Arc;

/// Name of the header that carries the asset of a finished upload.
pub(crate) const ASSET_HEADER: &str = "reelyard-asset";

pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/uploads", any(collection))
        .route("/uploads/", any(collection))
        .merge(parts::router())
        .merge(possession::router())
        .route("/uploads/{id}", any(single))
        .route("/uploads/{id}/", any(single))
        .layer(middleware::from_fn(answer::label))
}

async fn collection(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let method = tus::effective_method(request.headers(), request.method())?;
    if method == Method::OPTIONS {
        return Ok(answer::options(app.max_upload_bytes));
    }
    if method != Method::POST {
        return Err(answer::method_not_allowed("OPTIONS, POST"));
    }
    let (parts, body) = request.into_parts();
    let sent = Sent::of(&parts, body);
    match Dialect::of(&parts.headers) {
        Dialect::Ietf(dialect) => ietf::create(ietf::asked(app, dialect, None, parts, sent).await?).await,
        Dialect::Tus => tus::create(tus::asked(app, None, parts, sent).await?).await,
    }
}

async fn single(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let method = tus::effective_method(request.headers(), request.method())?;
    if method == Method::OPTIONS {
        return Ok(answer::options(app.max_upload_bytes));
    }
    if !["HEAD", "GET", "PATCH", "DELETE"].contains(&method.as_str()) {
        return Err(answer::method_not_allowed("OPTIONS, HEAD, GET, PATCH, DELETE"));
    }
    let (parts, body) = request.into_parts();
    let sent = Sent::of(&parts, body);
    let (dialect, by) = match spoken(&app, &parts, &method, &id).await {
        Ok(spoken) => spoken,
        Err(problem) => return Err(body::refuse(sent.body, problem).await),
    };
    if method == Method::GET && dialect == Dialect::Tus {
        // tus knows no GET: whoever may read the upload gets its bytes.
        let by = match by {
            Some(by) => by,
            None => Uploader::of_request(&app, &parts.headers, &parts.extensions).await?,
        };
        return download::download(&app, &by, upload_id(&id)?, &parts.headers).await;
    }
    // Each in a box of its own: a PATCH that stalls is not to be as large as the largest of them.
    match dialect {
        Dialect::Ietf(dialect) => {
            let asked = ietf::asked(app, dialect, by, parts, sent).await?;
            let id = upload_id(&id)?;
            match method.as_str() {
                "PATCH" => Box::pin(ietf::append(asked, id)).await,
                "DELETE" => Box::pin(ietf::cancel(asked, id)).await,
                "GET" => Box::pin(ietf::get(asked, id)).await,
                _ => Box::pin(ietf::head(asked, id)).await,
            }
        }
        Dialect::Tus => {
            let asked = tus::asked(app, by, parts, sent).await?;
            let id = upload_id(&id)?;
            match method.as_str() {
                "PATCH" => Box::pin(tus::append(asked, id)).await,
                "DELETE" => Box::pin(tus::terminate(asked, id)).await,
                _ => Box::pin(tus::head(asked, id)).await,
            }
        }
    }
}

/// The dialect of the request, and who asks where that had to be known for it. The IETF draft asks for no header of its
/// own in HEAD, GET and DELETE: there the upload tells in which dialect it was made, to its tenant alone.
async fn spoken(
    app: &App,
    request: &Parts,
    method: &Method,
    id: &str,
) -> Result<(Dialect, Option<Uploader>), Problem> {
    let dialect = Dialect::of(&request.headers);
    let names_tus = request.headers.contains_key(reelyard_upload::tus::header::RESUMABLE);
    if dialect != Dialect::Tus || names_tus || method == Method::PATCH {
        return Ok((dialect, None));
    }
    let by = Uploader::of_request(app, &request.headers, &request.extensions).await?;
    let row = match id.parse() {
        Ok(id) => app.catalog.upload(id).await?.filter(|row| row.tenant == by.tenant),
        Err(_) => None,
    };
    let declares = row.is_some_and(|row| row.completion == Completion::Declared);
    let dialect = if declares { Dialect::Ietf(reelyard_upload::ietf::Dialect::unnamed()) } else { dialect };
    Ok((dialect, Some(by)))
}

fn upload_id(text: &str) -> Result<UploadId, Problem> {
    text.parse().map_err(|_| Problem::not_found("upload"))
}

/// An answer without a body.
fn empty(status: StatusCode, headers: HeaderMap) -> Response {
    (status, headers).into_response()
}
