//! Headers of every tus answer, and the protocol's errors as problems.

use crate::http::problem::{Kind, Problem};
use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use reelyard_storage::{ReceiveError, StoreError};
use reelyard_upload::{
    Refusal,
    tus::{self, Field, Fields, TusError},
};

/// What a page of another origin may send. Browsers ask before every request that is not plain.
const ALLOWED_HEADERS: &str = "authorization, content-type, tus-resumable, upload-offset, upload-length, \
     upload-metadata, upload-checksum, upload-concat, upload-defer-length, x-http-method-override, x-requested-with, \
     x-request-id, traceparent";
const ALLOWED_METHODS: &str = "OPTIONS, POST, HEAD, GET, PATCH, DELETE";
/// What a page of another origin may read of the answers.
const EXPOSED_HEADERS: &str = "location, tus-resumable, tus-version, tus-extension, tus-max-size, \
     tus-checksum-algorithm, upload-offset, upload-length, upload-metadata, reelyard-asset, repr-digest, traceparent, x-request-id, \
     retry-after";
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

/// The layer around all upload routes: protocol version and CORS on every answer, errors among them. Keys travel in
/// `Authorization`, which browsers never add on their own, so any origin may ask.
pub(super) async fn label(request: Request, next: Next) -> Response {
    let from_page = request.headers().contains_key(header::ORIGIN);
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    put(headers, tus::header::RESUMABLE, tus::VERSION);
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

pub(super) fn method_not_allowed(allow: &'static str) -> Problem {
    Problem::new(Kind::MethodNotAllowed, format!("This address answers {allow}."))
        .with_header(header::ALLOW, HeaderValue::from_static(allow))
}

/// The protocol's errors, with the offset to go on from where there is one.
pub(super) fn refusal(error: TusError) -> Problem {
    let kind = match &error {
        TusError::UnsupportedVersion { .. } => Kind::TusVersion,
        TusError::WrongBodyType { .. } => Kind::WrongMediaType,
        TusError::TooLarge { .. } | TusError::Refused(Refusal::BeyondLength { .. }) => Kind::TooLarge,
        TusError::Refused(Refusal::OffsetMismatch { .. }) => Kind::UploadOffsetConflict,
        TusError::Refused(Refusal::ChecksumMismatch { .. }) => Kind::ChecksumMismatch,
        TusError::MissingHeader { .. }
        | TusError::BadHeader { .. }
        | TusError::UnsupportedExtension { .. }
        | TusError::UnsupportedChecksum { .. } => Kind::BadRequest,
    };
    debug_assert_eq!(kind.status_code(), error.status());
    let problem = Problem::new(kind, sentence(&error.to_string()));
    match error {
        TusError::UnsupportedVersion { .. } => problem.with_header(
            HeaderName::from_static(tus::header::VERSION),
            HeaderValue::from_static(tus::VERSION),
        ),
        TusError::TooLarge { max, .. } => problem.with("max_bytes", max),
        TusError::Refused(
            Refusal::OffsetMismatch { durable, .. } | Refusal::ChecksumMismatch { durable, .. },
        ) => with_offset(problem, durable),
        _ => problem,
    }
}

/// Tells the durable offset in a member and in the protocol's header.
pub(super) fn with_offset(problem: Problem, offset: u64) -> Problem {
    problem
        .with("offset", offset)
        .with_header(HeaderName::from_static(tus::header::OFFSET), HeaderValue::from(offset))
}

pub(super) fn receive_problem(error: ReceiveError) -> Problem {
    match error {
        ReceiveError::Refused(refused) => refusal(refused.into()),
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
        _ => Problem::internal(error),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
