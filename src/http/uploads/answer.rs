//! What the answers of all dialects share: which dialect a request speaks, CORS, headers, and the engine's refusals as
//! problems.

use super::ASSET_HEADER;
use crate::http::problem::{Kind, Problem};
use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use reelyard_model::AssetId;
use reelyard_storage::{ReceiveError, StoreError};
use reelyard_upload::{
    Refusal,
    fields::{Field, Fields},
    ietf,
    tus::{self, TusError},
};

/// What a page of another origin may send. Browsers ask before every request that is not plain.
const ALLOWED_HEADERS: &str = "authorization, content-type, tus-resumable, upload-offset, upload-length, \
     upload-metadata, upload-checksum, upload-concat, upload-defer-length, x-http-method-override, x-requested-with, \
     x-request-id, traceparent, upload-complete, upload-incomplete, upload-draft-interop-version, content-digest, \
     repr-digest, want-repr-digest, want-content-digest, content-md5, x-upload-id, x-part-number, x-content-range";
const ALLOWED_METHODS: &str = "OPTIONS, POST, HEAD, GET, PATCH, PUT, DELETE";
/// What a page of another origin may read of the answers.
const EXPOSED_HEADERS: &str = "location, tus-resumable, tus-version, tus-extension, tus-max-size, \
     tus-checksum-algorithm, upload-offset, upload-length, upload-metadata, reelyard-asset, repr-digest, traceparent, x-request-id, \
     retry-after, upload-expires, upload-concat, upload-defer-length, upload-complete, upload-incomplete, \
     upload-draft-interop-version, upload-limit, etag, x-upload-id, x-part-size, x-part-min-size, x-part-max-size, \
     x-parts-max";
/// How long browsers remember a preflight: a day, the most that any of them keeps.
const PREFLIGHT_SECONDS: &str = "86400";

/// A request's headers as the dialect wants to see them.
pub(super) struct HeaderFields<'a>(pub(super) &'a HeaderMap);

impl Fields for HeaderFields<'_> {
    fn field(&self, name: &str) -> Field<'_> {
        let mut values = self.0.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Field::Absent,
            (Some(_), Some(_)) => Field::Repeated,
            (Some(value), None) => value.to_str().map_or(Field::NotText, Field::Text),
        }
    }
}

/// Which protocol a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Tus,
    Ietf(ietf::Dialect),
}

impl Dialect {
    /// tus unless it is plainly the other: whoever speaks neither is told of tus.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        ietf::Dialect::detect(&HeaderFields(headers)).map_or(Self::Tus, Self::Ietf)
    }
}

/// The layer around all upload routes: protocol version and CORS on every answer, errors among them. Keys travel in
/// `Authorization`, which browsers never add on their own, so any origin may ask.
pub(super) async fn label(request: Request, next: Next) -> Response {
    let from_page = request.headers().contains_key(header::ORIGIN);
    let dialect = Dialect::of(request.headers());
    let sends_bytes = matches!(*request.method(), Method::POST | Method::PATCH);
    let path = request.uri().path();
    let of_no_dialect = super::parts::is_path(path) || super::possession::is_path(path);
    let speaks_tus = dialect == Dialect::Tus && !of_no_dialect;
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if speaks_tus {
        put(headers, tus::header::RESUMABLE, tus::VERSION);
    }
    // Sections 4.2.2 and 4.4.2 of the draft want it in every answer, those of other layers among them.
    if let Dialect::Ietf(dialect) = dialect
        && sends_bytes
    {
        let (name, open) = dialect.completeness(false);
        if !headers.contains_key(name) {
            put_text(headers, name, &open);
        }
    }
    if from_page {
        put(headers, "access-control-allow-origin", "*");
        put(headers, "access-control-expose-headers", EXPOSED_HEADERS);
    }
    if from_page && preflight {
        put(headers, "access-control-allow-methods", ALLOWED_METHODS);
        put(headers, "access-control-allow-headers", ALLOWED_HEADERS);
        put(headers, "access-control-max-age", PREFLIGHT_SECONDS);
    }
    response
}

/// What this server can do.
pub(super) fn options(max_upload_bytes: u64) -> Response {
    let mut headers = HeaderMap::new();
    put(&mut headers, tus::header::VERSION, tus::VERSION);
    put(&mut headers, tus::header::EXTENSION, tus::EXTENSIONS);
    put(&mut headers, tus::header::CHECKSUM_ALGORITHM, tus::CHECKSUM_ALGORITHMS);
    put_number(&mut headers, tus::header::MAX_SIZE, max_upload_bytes);
    for (name, value) in super::ietf::discovered(max_upload_bytes) {
        put_text(&mut headers, name, &value);
    }
    (StatusCode::NO_CONTENT, headers).into_response()
}

pub(super) fn put(headers: &mut HeaderMap, name: &'static str, value: &'static str) {
    headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
}

pub(super) fn put_number(headers: &mut HeaderMap, name: &'static str, value: u64) {
    headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
}

/// Text of ours or of a client's that went through a header once; left out if it cannot go through one again.
pub(super) fn put_text(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// `Repr-Digest` of the whole (RFC 9530), from lower-case hexadecimal.
pub(super) fn put_digest(headers: &mut HeaderMap, sha256: &str) {
    if let Ok(digest) = hex::decode(sha256) {
        put_text(headers, "repr-digest", &format!("sha-256=:{}:", STANDARD.encode(digest)));
    }
}

pub(super) fn put_asset(headers: &mut HeaderMap, asset: Option<AssetId>) {
    if let Some(asset) = asset {
        put_text(headers, ASSET_HEADER, &asset.to_string());
    }
}

pub(super) fn method_not_allowed(allow: &'static str) -> Problem {
    Problem::new(Kind::MethodNotAllowed, format!("This address answers {allow}."))
        .with_header(header::ALLOW, HeaderValue::from_static(allow))
}

/// The errors of tus, with the offset to go on from where there is one.
pub(super) fn refusal(error: TusError) -> Problem {
    let text = sentence(&error.to_string());
    let kind = match error {
        TusError::Refused(refusal) => return refused(Dialect::Tus, refusal),
        TusError::UnsupportedVersion { .. } => {
            return Problem::new(Kind::TusVersion, text).with_header(
                HeaderName::from_static(tus::header::VERSION),
                HeaderValue::from_static(tus::VERSION),
            );
        }
        TusError::TooLarge { max, .. } => return Problem::new(Kind::TooLarge, text).with("max_bytes", max),
        TusError::WrongBodyType { .. } => Kind::WrongMediaType,
        TusError::FinalTakesNoBytes => Kind::FinalUpload,
        _ => Kind::BadRequest,
    };
    debug_assert_eq!(kind.status_code(), error.status());
    Problem::new(kind, text)
}

/// What the engine refused before it took a byte, as each dialect says it.
pub(super) fn refused(dialect: Dialect, refusal: Refusal) -> Problem {
    if let Dialect::Ietf(dialect) = dialect {
        return super::ietf::refused(dialect, refusal);
    }
    let text = sentence(&refusal.to_string());
    let kind = match &refusal {
        Refusal::OffsetMismatch { .. } => Kind::UploadOffsetConflict,
        Refusal::BeyondLength { .. } | Refusal::BeyondLimit { .. } => Kind::TooLarge,
        Refusal::ChecksumMismatch { .. } => Kind::ChecksumMismatch,
        Refusal::LengthChanged { .. }
        | Refusal::LengthBelowOffset { .. }
        | Refusal::ChecksumMissing { .. } => Kind::BadRequest,
    };
    let problem = Problem::new(kind, text);
    match refusal {
        Refusal::OffsetMismatch { durable, .. }
        | Refusal::ChecksumMismatch { durable, .. }
        | Refusal::ChecksumMissing { durable } => with_offset(problem, durable),
        Refusal::BeyondLimit { limit, .. } => problem.with("max_bytes", limit),
        _ => problem,
    }
}

/// Tells the durable offset in a member and in the protocol's header.
pub(super) fn with_offset(problem: Problem, offset: u64) -> Problem {
    problem
        .with("offset", offset)
        .with_header(HeaderName::from_static(tus::header::OFFSET), HeaderValue::from(offset))
}

pub(super) fn receive_problem(dialect: Dialect, error: ReceiveError) -> Problem {
    match error {
        ReceiveError::Refused(refusal) => refused(dialect, refusal),
        ReceiveError::Store(error) => store_problem(error),
    }
}

pub(super) fn store_problem(error: StoreError) -> Problem {
    match &error {
        StoreError::Full { .. } => Problem::new(
            Kind::StorageFull,
            "The server has no room for these bytes now. What was acknowledged is safe; go on later.",
        )
        .with_log(error),
        StoreError::Fenced { .. } => {
            Problem::new(Kind::Locked, "Another request has taken this upload over; ask it for the offset.")
                .with_log(error)
        }
        StoreError::Unavailable { .. } => Problem::unavailable(
            "The place where uploads are kept does not answer. What was acknowledged is safe; go on in a moment.",
            2,
        )
        .with_log(error),
        _ => Problem::internal(error),
    }
}

pub(in crate::http) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
