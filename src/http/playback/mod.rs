//! The playback origin: `GET /p/{token}/{playback_id}/{file}`.
//!
//! The token stands in the path, so that every relative address of a playlist is covered by it. In this order: the
//! token must open the playback id (`reelyard-sign`, constant time), the path must pass the allow-list, the
//! publication must be live, the file must be there. Only then is a file opened, below the publication's prefix.
//! Answers carry CORS for everybody: the link itself is the right to read. Nothing is cached beyond its expiry.

mod lookup;

use super::{
    file::{self, FileFacts, text_value},
    links,
    openapi::ProblemBody,
    problem::{Kind, Problem},
};
use crate::app::App;
use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
pub(super) use lookup::Publications;
use reelyard_model::PlaybackId;
use reelyard_sign::{TokenError, VerifiedToken, safe_relative_path};
use reelyard_storage::{ContentKind, Intent, OpenObject, StoreError};
use std::{sync::Arc, time::UNIX_EPOCH};

/// For players when the store is away: the length of a segment is about as long as they can wait.
const RETRY_AFTER_SECONDS: u64 = 2;
/// How long browsers may remember the answer to a preflight; they cap it themselves (Chromium at 2 h).
const PREFLIGHT_MAX_AGE_SECONDS: &str = "86400";

pub(super) fn router(app: Arc<App>) -> Router<Arc<App>> {
    let origin = Arc::new(Origin { app, publications: Publications::default() });
    Router::new()
        .route("/p/{token}/{playback_id}/{*file}", get(serve).options(preflight))
        .with_state(origin)
        .layer(middleware::from_fn(open_to_all_origins))
}

pub(super) struct Origin {
    app: Arc<App>,
    publications: Publications,
}

/// Play: a playlist, a manifest, a segment or a picture of a published video.
///
/// The addresses come from `/v1/assets/{id}` and from the playlists. HEAD, one byte range, `If-Range`, `If-None-Match`
/// and `If-Modified-Since` are understood; every origin may read.
#[utoipa::path(get, path = "/p/{token}/{playback_id}/{file}", tag = "playback", security(()),
    params(("token" = String, Path, description = "The signed right to watch this video until a time."),
           ("playback_id" = String, Path, description = "The video."),
           ("file" = String, Path, description = "`master.m3u8`, `manifest.mpd`, or what these name.", example = "master.m3u8"),
           ("Range" = Option<String>, Header, description = "One range of bytes.", example = "bytes=0-1023")),
    responses((status = 200, description = "The file.", body = Vec<u8>, content_type = "application/octet-stream"),
              (status = 206, description = "The part of the file that was asked for.", body = Vec<u8>, content_type = "application/octet-stream"),
              (status = 304, description = "It has not changed."),
              (status = 400, description = "No file has such a path.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 403, description = "The token is not valid for this video.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 404, description = "There is no such file, or the video is not published.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 410, description = "The token has expired, or the video was withdrawn.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 416, description = "The range lies outside the file.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 503, description = "The place where the video is kept does not answer; `Retry-After` tells when to try again.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn serve(
    State(origin): State<Arc<Origin>>,
    method: Method,
    path: Result<Path<(String, String, String)>, axum::extract::rejection::PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((token, playback_id, file)) = path.map_err(|_| {
        Problem::new(
            Kind::PathRefused,
            "The path is not text once it is decoded. Use the playlist's addresses.",
        )
    })?;
    let playback_id = parse_playback_id(&playback_id)?;
    let verified = verify(&origin.app, &token, playback_id)?;
    let file = safe_relative_path(&file).map_err(|error| {
        Problem::new(Kind::PathRefused, "No published file has such a path. Use the playlist's addresses.")
            .with_log(error)
    })?;
    let kind = ContentKind::of(file).ok_or_else(no_such_file)?;
    let live = origin.publications.live(&origin.app.catalog, playback_id).await?;
    let key = format!("{}/{file}", live.prefix);
    let opened = origin.app.store.open(&key, intent(&method, &headers)).await.map_err(store_problem)?;
    answer(opened, kind, &verified, &method, &headers).await
}

fn no_such_file() -> Problem {
    Problem::new(Kind::NotFound, "This video has no such file. Use the playlist's addresses.")
}

/// One spelling only, so that no cache sees two names for one file.
pub(super) fn parse_playback_id(text: &str) -> Result<PlaybackId, Problem> {
    text.parse::<PlaybackId>()
        .ok()
        .filter(|id| id.to_string() == text)
        .ok_or_else(|| Problem::not_found("video"))
}

/// The token must open this playback id now. Another video's token cannot be told from a forged one: both are 403.
pub(super) fn verify(app: &App, token: &str, playback_id: PlaybackId) -> Result<VerifiedToken, Problem> {
    app.keyring.verify(token, playback_id, links::now_unix_seconds()).map_err(|error| match error {
        TokenError::Expired { expired_for_seconds } => Problem::new(
            Kind::LinkExpired,
            format!(
                "This playback link expired {} ago. Ask for a new one.",
                links::roughly(expired_for_seconds)
            ),
        )
        .with("expired_for_seconds", expired_for_seconds),
        TokenError::Forged | TokenError::UnknownKey | TokenError::Malformed => Problem::new(
            Kind::LinkNotValid,
            "This playback link does not give access to this video. Ask for a new one.",
        )
        .with_log(error),
    })
}

/// A player asks for whole files; whoever has conditions or wants a part gets the facts looked at first.
fn intent(method: &Method, headers: &HeaderMap) -> Intent {
    let selects = [header::RANGE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];
    if method == Method::GET && !selects.iter().any(|name| headers.contains_key(name)) {
        Intent::ReadAll
    } else {
        Intent::Look
    }
}

async fn answer(
    opened: OpenObject,
    kind: ContentKind,
    verified: &VerifiedToken,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let facts = facts(&opened);
    let selection = file::select(method, headers, &facts);
    metrics::counter!("reelyard_playback_requested_bytes_total")
        .increment(selection.byte_len(facts.byte_len));
    let mut response = file::head(facts.byte_len, selection)?;
    if let Some(range) = selection.range(facts.byte_len).filter(|_| method != Method::HEAD) {
        *response.body_mut() = Body::from_stream(opened.read(range).await.map_err(store_problem)?);
    }
    let answer_headers = response.headers_mut();
    answer_headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.media_type));
    answer_headers.insert(header::CACHE_CONTROL, text_value(kind.cache_control(verified.seconds_left))?);
    if let Some(modified) = facts.last_modified() {
        answer_headers.insert(header::LAST_MODIFIED, text_value(modified)?);
    }
    if let Some(etag) = facts.etag {
        answer_headers.insert(header::ETAG, text_value(etag)?);
    }
    Ok(response)
}

/// The tag is strong: files of a publication are written once and never changed.
fn facts(opened: &OpenObject) -> FileFacts {
    let modified = opened.modified.and_then(|modified| modified.duration_since(UNIX_EPOCH).ok());
    FileFacts {
        byte_len: opened.byte_len,
        etag: Some(opened.etag.clone()),
        modified_seconds: modified.and_then(|modified| i64::try_from(modified.as_secs()).ok()),
    }
}

fn store_problem(error: StoreError) -> Problem {
    match error {
        StoreError::NotFound { .. } => no_such_file(),
        // The second one: it was put anew between our look and our reading.
        StoreError::Unavailable { .. } | StoreError::Conflict { .. } => Problem::unavailable(
            "The place where this video is kept does not answer. Try again in a moment.",
            RETRY_AFTER_SECONDS,
        )
        .with_log(error),
        other => Problem::internal(format!("a published file cannot be read: {other}")),
    }
}

/// For the preflight that browsers send before a range request from another origin.
async fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Range, If-Range, If-None-Match, If-Modified-Since"),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE_SECONDS),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Refusals too: a player that cannot read the status code cannot say that the link has expired.
async fn open_to_all_origins(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Content-Length, Content-Range, Accept-Ranges, ETag, Date"),
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
        (HeaderName::from_static("timing-allow-origin"), "*"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The address of an embedded segment holds the token: it must not travel on as a referrer.
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::parse_playback_id;

    #[test]
    fn a_playback_id_has_one_spelling() {
        let good = "019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01";
        assert!(parse_playback_id(good).is_ok());
        for other in ["", "x", &good.replace('-', ""), &good.to_uppercase(), &format!("{{{good}}}")] {
            assert!(parse_playback_id(other).is_err(), "{other}");
        }
    }
}
