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
    extract::{Path, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
pub(super) use lookup::Publications;
use reelyard_model::PlaybackId;
use reelyard_sign::{TokenError, VerifiedToken, safe_relative_path};
use reelyard_storage::{OpenObject, StoreError};
use std::{sync::Arc, time::UNIX_EPOCH};

/// One read and one write to the socket; a viewer holds two of these in memory at most.
const STREAM_BUFFER_BYTES: usize = 64 << 10;
/// Segments, pictures and initialization segments never change under their address.
const MAX_AGE_SEGMENT_SECONDS: u64 = 365 * 24 * 3600;
/// Playlists are rewritten when a video is published anew, which is rare.
const MAX_AGE_PLAYLIST_SECONDS: u64 = 60;
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
              (status = 416, description = "The range lies outside the file.", body = ProblemBody, content_type = "application/problem+json")))]
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
    let kind = FileKind::of(file).ok_or_else(no_such_file)?;
    let live = origin.publications.live(&origin.app.catalog, playback_id).await?;
    let opened =
        origin.app.store.open_object(&format!("{}/{file}", live.prefix)).await.map_err(
            |error| match error {
                StoreError::NotFound { .. } => no_such_file(),
                other => Problem::internal(format!("a published file cannot be opened: {other}")),
            },
        )?;
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

/// What a file is by its name; names that publish never makes have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileKind {
    media_type: &'static str,
    max_age_seconds: u64,
    immutable: bool,
}

impl FileKind {
    fn of(file: &str) -> Option<Self> {
        let (media_type, immutable) = match file.rsplit_once('.')?.1 {
            "m3u8" => ("application/vnd.apple.mpegurl", false),
            "mpd" => ("application/dash+xml", false),
            "mp4" => ("video/mp4", true),
            "m4s" => ("video/iso.segment", true),
            "vtt" => ("text/vtt; charset=utf-8", true),
            "jpg" => ("image/jpeg", true),
            _ => return None,
        };
        let max_age_seconds = if immutable { MAX_AGE_SEGMENT_SECONDS } else { MAX_AGE_PLAYLIST_SECONDS };
        Some(Self { media_type, max_age_seconds, immutable })
    }

    fn cache_control(self, token_seconds_left: u64) -> String {
        let max_age = self.max_age_seconds.min(token_seconds_left);
        // `immutable` only stops revalidation on reload; max-age still ends it with the token.
        let immutable = if self.immutable { ", immutable" } else { "" };
        format!("public, max-age={max_age}{immutable}")
    }
}

async fn answer(
    opened: OpenObject,
    kind: FileKind,
    verified: &VerifiedToken,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let facts = facts(&opened);
    let selection = file::select(method, headers, &facts);
    metrics::counter!("reelyard_playback_requested_bytes_total")
        .increment(selection.byte_len(facts.byte_len));
    let mut response = file::answer(opened, selection, STREAM_BUFFER_BYTES).await?;
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

/// The tag is strong: files of a publication are written once and never changed; a hard link keeps length and time.
fn facts(opened: &OpenObject) -> FileFacts {
    let modified = opened.modified.and_then(|modified| modified.duration_since(UNIX_EPOCH).ok());
    let modified = modified.unwrap_or_default();
    FileFacts {
        byte_len: opened.byte_len,
        etag: Some(format!("\"{:x}-{:x}\"", opened.byte_len, modified.as_nanos())),
        modified_seconds: i64::try_from(modified.as_secs()).ok(),
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
    use super::{FileKind, parse_playback_id};

    #[test]
    fn types_by_name_and_no_answer_outlives_its_token() {
        assert_eq!(FileKind::of("master.m3u8").unwrap().media_type, "application/vnd.apple.mpegurl");
        assert_eq!(FileKind::of("manifest.mpd").unwrap().media_type, "application/dash+xml");
        assert_eq!(FileKind::of("1080p/00001.m4s").unwrap().media_type, "video/iso.segment");
        assert_eq!(FileKind::of("notes.json"), None);
        assert_eq!(FileKind::of("1080p/init"), None);
        let segment = FileKind::of("1080p/00001.m4s").unwrap();
        assert_eq!(segment.cache_control(7), "public, max-age=7, immutable");
        let playlist = FileKind::of("master.m3u8").unwrap();
        assert_eq!(playlist.cache_control(3600), "public, max-age=60");
        assert_eq!(playlist.cache_control(7), "public, max-age=7");
    }

    #[test]
    fn a_playback_id_has_one_spelling() {
        let good = "019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01";
        assert!(parse_playback_id(good).is_ok());
        for other in ["", "x", &good.replace('-', ""), &good.to_uppercase(), &format!("{{{good}}}")] {
            assert!(parse_playback_id(other).is_err(), "{other}");
        }
    }
}
