//! Every error answer of the server, as RFC 9457 problem details: the only file that knows HTTP status codes of errors.
//!
//! Handlers return `Result<_, Problem>`. A problem has a kind (stable `type` URI, status, title), a `detail` that
//! the caller may read, and a log text that only operators see. `type` is relative, `/problems/{slug}`, and the
//! server explains each one at that address. Anything unexpected becomes [`Kind::Internal`], whose public text says
//! nothing about paths, SQL or libraries; the trace id in the answer leads to the log line.

use axum::{
    Json,
    body::Body,
    extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection},
    response::{Html, IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use reelyard_catalog::{CatalogError, OverQuota};
use reelyard_storage::StoreError;
use serde_json::{Map, Value, json};
use std::{any::Any, fmt};

/// RFC 9457 section 3.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

macro_rules! kinds {
    ($($variant:ident, $status:literal, $slug:literal, $title:literal, $explanation:literal;)*) => {
        /// What went wrong, by what the caller can do about it. Slugs are public and never change meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Kind { $(#[doc = $explanation] $variant,)* }

        impl Kind {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub(crate) const fn status_code(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }
            pub(crate) const fn slug(self) -> &'static str {
                match self { $(Self::$variant => $slug,)* }
            }
            /// Short, the same for every occurrence.
            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
            /// What it means and what to do: the text at `/problems/{slug}`.
            pub(crate) const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $explanation,)* }
            }
        }
    };
}

kinds! {
    BadRequest, 400, "bad-request", "The request is not well-formed",
        "The server could not read the request: a header, the query or the body does not have the form it needs. The detail names the part. Correct it and send the request again.";
    BadCursor, 400, "bad-cursor", "The cursor is not one of ours",
        "Cursors come from the `next_cursor` of a list and are opaque. Start the list again without a cursor.";
    PathRefused, 400, "path-refused", "The path is not allowed",
        "The path holds something that no published file has in its name: dot segments, empty parts, a backslash, control characters or doubly encoded text. Use the addresses from the playlist as they are.";
    MissingKey, 401, "missing-key", "An API key is needed",
        "Send `Authorization: Bearer KEY`. On a new server the admin key is in the file `admin.key` of the data directory.";
    UnknownKey, 401, "unknown-key", "The API key is not known",
        "The key was revoked or never existed on this server. Check that it was copied whole and that it belongs to this server.";
    UploadTokenNotValid, 401, "upload-token-not-valid", "The upload token is not valid",
        "The token was not signed by this server or with one of its keys, or it does not say what it has to say. The detail names what is wrong. Get a new token from whoever gave you this one.";
    UploadTokenExpired, 401, "upload-token-expired", "The upload token has expired",
        "Get a new token for the same upload and go on where it stands: nothing that was acknowledged is lost.";
    MissingScope, 403, "missing-scope", "The API key may not do this",
        "The member `scope` names what the key would have to have. Use another key, or have an operator make one: `reelyard keys add --scopes ...`.";
    OutsideUploadToken, 403, "outside-upload-token", "The upload token does not allow this",
        "The token is good, but for something else: another upload, another length or type, or another kind of request. The detail gives its terms.";
    WrongHost, 403, "wrong-host", "The request was not addressed to this machine",
        "The server runs without keys (`--insecure-open`), so it answers only requests whose Host is a loopback name such as localhost or 127.0.0.1. This keeps web sites from reaching it through DNS rebinding. Use a loopback address, or run the server with keys.";
    CrossSite, 403, "cross-site", "Another site sent this request",
        "The server runs without keys (`--insecure-open`), so it refuses requests from pages that were not loaded from a loopback name. Use its own pages, or run the server with keys.";
    LinkNotValid, 403, "link-not-valid", "The playback link is not valid",
        "The signature does not fit this address: the link was cut or changed, is for another video, or was signed with a key that this server no longer uses. Ask for a new link.";
    FinalUpload, 403, "final-upload", "A final upload takes no bytes",
        "It is made of partial uploads (`Upload-Concat: final;...`). Send the bytes to those.";
    PossessionNotShown, 403, "possession-not-shown", "The answer does not show that you have the bytes",
        "The proof is the SHA-256 over the nonce's 32 bytes and the bytes of the ranges, in their order. One answer is taken. Read the ranges of the same file and ask anew, or send the bytes.";
    NotFound, 404, "not-found", "There is nothing here",
        "Nothing has this address or id, or it is not yours. Check the id; it may have been deleted.";
    ContentNotHere, 404, "content-not-here", "The bytes have to be sent",
        "Your tenant has no video with these bytes from which a new one can be made, or it was asked for too often without the right answer. Begin an upload as usual.";
    NotPublished, 404, "not-published", "The video is not published",
        "The video exists but cannot be played: it is still being processed, its processing failed, or it was withdrawn. Its watch page and `/v1/assets/{id}` say which.";
    MethodNotAllowed, 405, "method-not-allowed", "The address does not know this method",
        "The header `Allow` lists the methods that this address answers.";
    SenderTooSlow, 408, "sender-too-slow", "The body came too slowly",
        "The sender was silent for too long, slower than the least speed, or longer at it than one request may be. What arrived is kept: ask for the offset and go on in a new request.";
    StateConflict, 409, "state-conflict", "The state does not allow this",
        "What was asked cannot be done in the present state, for example cancelling a job that has ended. The detail says which state it is. Look at it again before you decide.";
    WorkerUnknown, 409, "worker-unknown", "The server does not know this worker",
        "A server that started anew, or another one behind the same address, has not met the worker yet. Send `POST /v1/worker/hello`, then the call again.";
    AttemptOver, 409, "attempt-over", "This attempt is over",
        "The lease ran out, the task was cancelled or given back, or another attempt has begun. Stop the work; what it made counts for nothing and is removed.";
    PartConflict, 409, "part-conflict", "The part or the list contradicts what is stored",
        "A part that is stored keeps its number, its range and its bytes, and no two parts share a byte. The detail names what is there; `GET /uploads/parts` lists all of it. Nothing of this request was stored.";
    PartsMissing, 409, "parts-missing", "Parts of the upload are missing",
        "The member `missing` lists the ranges that are not stored. Send them, then complete the upload again. What is stored stays.";
    UploadOffsetConflict, 409, "upload-offset-conflict", "The offset is not where the upload stands",
        "Ask for the offset with HEAD and go on from there. Nothing of this request was stored.";
    LinkExpired, 410, "link-expired", "The playback link has expired",
        "Links work for a limited time. Ask for a new one.";
    Gone, 410, "gone", "It was here and is gone",
        "It was deleted or ended. It will not come back under this address.";
    TusVersion, 412, "tus-version", "The tus version is not spoken here",
        "Send `Tus-Resumable: 1.0.0`. The header `Tus-Version` lists what the server speaks.";
    TooLarge, 413, "too-large", "The request is larger than allowed",
        "The body, or the upload that was announced, is above a limit of this server. The detail gives the limit.";
    QuotaExceeded, 413, "quota-exceeded", "The tenant has no room left",
        "What is stored and what open uploads will bring reach the tenant's limit; the members give the figures. Delete videos, give up uploads that nobody continues, or have an operator raise the limit.";
    WrongMediaType, 415, "wrong-media-type", "The content type is not the one needed",
        "The detail names the `Content-Type` that this address takes.";
    RangeNotSatisfiable, 416, "range-not-satisfiable", "The range lies outside the file",
        "The header `Content-Range` gives the length of the file.";
    ContentMismatch, 422, "content-mismatch", "The bytes are not the ones that were announced",
        "The whole was announced with a digest, and what arrived has another one. Nothing was made of it. Compute the digest again and send the file as a new upload.";
    Locked, 423, "locked", "Another request is writing to it",
        "Another connection is sending to the same upload. Wait for it to end, ask for the offset with HEAD, and go on.";
    ChecksumMismatch, 460, "checksum-mismatch", "The bytes do not have the checksum they came with",
        "The bytes changed on the way. Nothing of this request was stored: send it again.";
    TooManyOpenUploads, 429, "too-many-open-uploads", "The tenant has too many uploads open",
        "Finish some, or give up those that nobody continues; those also expire by themselves. The members give the figures.";
    TooManyRequests, 429, "too-many-requests", "Too many requests",
        "Wait as long as `Retry-After` says, then go on more slowly. `RateLimit-Policy` tells how many are allowed in which time.";
    Internal, 500, "internal", "Something went wrong on our side",
        "The fault is the server's. It is in its log under the `trace_id` of this answer. Trying again may help.";
    Unavailable, 503, "unavailable", "Not possible right now",
        "The server is too busy, is starting or stopping, or cannot reach its database. Wait a little (the header `Retry-After` says how long, when it is there) and try again.";
    StorageFull, 507, "storage-full", "The server has no room left",
        "The disk of the server is full or nearly so. What was acknowledged is safe. An operator has to make room.";
}

impl Kind {
    pub(crate) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.status_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
    pub(crate) fn type_uri(self) -> String {
        format!("/problems/{}", self.slug())
    }
}

/// One error answer. Boxed inside: it travels in every `Result` of a handler, and most of them are good.
pub(crate) struct Problem(Box<Parts>);

struct Parts {
    kind: Kind,
    /// Public.
    detail: String,
    /// For the log only.
    log: Option<String>,
    extensions: Map<String, Value>,
    headers: HeaderMap,
    /// A type and a title of somebody else's registry, instead of the kind's.
    registered: Option<(&'static str, &'static str)>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            detail: detail.into(),
            log: None,
            extensions: Map::new(),
            headers: HeaderMap::new(),
            registered: None,
        }))
    }
    /// The public text.
    pub(crate) fn detail(&self) -> &str {
        &self.0.detail
    }
    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }
    /// Nothing has this id: the public text names the noun and nothing else.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(Kind::NotFound, format!("There is no {what} with this id."))
    }
    /// Our own fault. `log` is for operators only.
    pub(crate) fn internal(log: impl fmt::Display) -> Self {
        Self::new(
            Kind::Internal,
            "The server could not do this. The operators can find out why by the trace id.",
        )
        .with_log(log)
    }
    pub(crate) fn unavailable(detail: impl Into<String>, retry_after_seconds: u64) -> Self {
        Self::new(Kind::Unavailable, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds))
    }
    pub(crate) fn with_log(mut self, log: impl fmt::Display) -> Self {
        self.0.log = Some(log.to_string());
        self
    }
    /// A further public member of the problem object (RFC 9457 section 3.2).
    pub(crate) fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.0.extensions.insert(member.to_owned(), value.into());
        self
    }
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }
    /// A problem type that a specification has registered.
    pub(crate) fn with_type(mut self, type_uri: &'static str, title: &'static str) -> Self {
        self.0.registered = Some((type_uri, title));
        self
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} ({:?})", self.0.kind, self.0.detail, self.0.log)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Parts { kind, detail, log, extensions, headers: more_headers, registered } = *self.0;
        let status = kind.status();
        let log = log.as_deref().unwrap_or("");
        if status.is_server_error() {
            tracing::error!(problem = kind.slug(), detail = %detail, cause = log, "request failed");
        } else {
            tracing::debug!(problem = kind.slug(), detail = %detail, cause = log, "request refused");
        }
        let mut object = extensions;
        let (type_uri, title) = match registered {
            Some((type_uri, title)) => (type_uri.to_owned(), title),
            None => (kind.type_uri(), kind.title()),
        };
        object.insert("type".into(), json!(type_uri));
        object.insert("title".into(), json!(title));
        object.insert("status".into(), json!(kind.status_code()));
        object.insert("detail".into(), json!(detail));
        if let Some(trace_id) = super::trace::current_trace_id() {
            object.insert("trace_id".into(), json!(trace_id));
        }
        let mut response = Response::new(Body::from(Value::Object(object).to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if kind.status_code() == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"reelyard\""));
        }
        headers.extend(more_headers);
        response
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::NotFound { what, .. } => Self::not_found(what),
            CatalogError::Refused(refused) => Self::new(
                Kind::StateConflict,
                format!("It is {}, and that does not allow it.", refused.state.replace('_', " ")),
            )
            .with("state", refused.state)
            .with_log(refused),
            CatalogError::OverQuota(over) => over_quota(over),
            // SQLite answers "busy" or "full" while other programs hold the file or the disk has no room.
            CatalogError::Database(cause) => {
                Self::unavailable("The database does not answer at the moment.", 2).with_log(cause)
            }
            CatalogError::Unavailable { reason } => {
                Self::unavailable("The database does not answer at the moment.", 2).with_log(reason)
            }
            other => Self::internal(other),
        }
    }
}

/// With the figures as members.
fn over_quota(over: OverQuota) -> Problem {
    let detail = super::uploads::sentence(&over.to_string());
    match over {
        OverQuota::Storage { allowed, used, wanted } => Problem::new(Kind::QuotaExceeded, detail)
            .with("allowed_bytes", allowed)
            .with("used_bytes", used)
            .with("wanted_bytes", wanted),
        OverQuota::UploadLength { allowed, wanted } => {
            Problem::new(Kind::TooLarge, detail).with("max_bytes", allowed).with("wanted_bytes", wanted)
        }
        OverQuota::OpenUploads { allowed, open } => {
            Problem::new(Kind::TooManyOpenUploads, detail).with("allowed", allowed).with("open", open)
        }
        OverQuota::TokenUploads { allowed } => {
            Problem::new(Kind::OutsideUploadToken, detail).with("allowed", allowed)
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. } => {
                Self::new(Kind::StorageFull, "The server's disk is full. What was acknowledged is safe.")
                    .with_log(error)
            }
            other => Self::internal(other),
        }
    }
}

/// axum's own refusals, in our form. Their texts name the field and hold nothing private.
macro_rules! from_rejection {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for Problem {
            fn from(rejection: $rejection) -> Self {
                let kind = match rejection.status().as_u16() {
                    413 => Kind::TooLarge,
                    415 => Kind::WrongMediaType,
                    404 => Kind::NotFound,
                    500.. => Kind::Internal,
                    _ => Kind::BadRequest,
                };
                Self::new(kind, rejection.body_text())
            }
        }
    )*};
}
from_rejection!(JsonRejection, PathRejection, QueryRejection, BytesRejection);

/// For addresses that no route has.
pub(super) async fn unknown_address() -> Problem {
    Problem::new(Kind::NotFound, "No resource has this address. `/openapi.json` lists what there is.")
}

/// For known addresses and a method they do not answer; axum adds `Allow`.
pub(super) async fn unknown_method() -> Problem {
    Problem::new(Kind::MethodNotAllowed, "This address does not answer this method.")
}

/// For a handler that panicked: the connection survives, the caller gets a problem, the log gets the text.
pub(super) fn from_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    Problem::internal(format!("a handler panicked: {}", crate::app::panic_text(&*panic))).into_response()
}

/// `GET /problems/{slug}`: what a `type` means, for people (HTML) and for programs (`Accept: application/json`).
pub(super) async fn explain(
    axum::extract::Path(slug): axum::extract::Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let kind = Kind::ALL
        .iter()
        .find(|kind| kind.slug() == slug)
        .ok_or_else(|| Problem::new(Kind::NotFound, "No problem type has this name."))?;
    let wants_json = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("json"));
    if wants_json {
        return Ok(Json(json!({
            "type": kind.type_uri(), "status": kind.status_code(), "title": kind.title(),
            "explanation": kind.explanation(),
        }))
        .into_response());
    }
    Ok(Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><h1>{title}</h1><p>{explanation}</p><p>Status code {status}, type <code>{uri}</code>.</p>",
        title = kind.title(),
        explanation = kind.explanation(),
        status = kind.status_code(),
        uri = kind.type_uri(),
    ))
    .into_response())
}

#[cfg(test)]
mod tests {
    use super::{Kind, MEDIA_TYPE, Problem};
    use axum::response::IntoResponse;
    use std::collections::HashSet;

    #[test]
    fn slugs_are_unique_and_every_explanation_is_a_sentence() {
        let slugs: HashSet<_> = Kind::ALL.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(kind.explanation().ends_with('.'), "{kind:?}");
            assert!(kind.slug().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{kind:?}");
            assert!((400..600).contains(&kind.status_code()), "{kind:?}");
        }
    }

    #[tokio::test]
    async fn the_log_text_stays_out_of_the_answer() {
        let response = Problem::internal("SELECT failed in /srv/secret").into_response();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["content-type"], MEDIA_TYPE);
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("\"type\":\"/problems/internal\""), "{text}");
    }
}
