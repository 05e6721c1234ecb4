//! `POST /v1/upload-tokens`: a token for a browser, so that it can upload without an API key.
//!
//! For whoever has a server of his own but no wish to sign JWTs there. The token is for the caller's tenant and for
//! nothing that the caller could not do himself; making one stores nothing.

use super::{
    auth::Caller,
    extract::Json,
    links,
    openapi::ProblemBody,
    problem::{Kind, Problem},
    uploads::sentence,
};
use crate::app::App;
use axum::{Json as JsonBody, extract::State};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reelyard_catalog::Scope;
use reelyard_model::UploadId;
use reelyard_sign::upload_token::{DEFAULT_MAX_UPLOADS, UploadToken, UploadTokenError, Use, Uses};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Long enough for somebody to choose a file and send it over a bad network.
const DEFAULT_TTL_SECONDS: u64 = 3600;
/// An upload that nobody continued for so long has expired as well.
const MAX_TTL_SECONDS: u64 = 7 * 24 * 3600;
/// Below a minute a clock that is off decides.
const MIN_TTL_SECONDS: u64 = 60;

/// What the token is to allow. Everything is optional.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRequest {
    /// How long it works: a minute to a week.
    #[serde(default = "default_ttl_seconds")]
    #[schema(example = 3600, minimum = 60, maximum = 604_800)]
    ttl_seconds: u64,
    /// Only this upload, which exists already.
    #[schema(value_type = Option<String>)]
    upload: Option<UploadId>,
    /// Longest upload, in bytes.
    #[schema(example = 5_000_000_000_u64)]
    max_length: Option<u64>,
    /// Content types that may be uploaded. The client has to tell its file's type then.
    #[schema(example = json!(["video/*"]), min_items = 1)]
    types: Option<Vec<String>>,
    /// The preset of what is uploaded.
    #[schema(example = "web-h264")]
    preset: Option<String>,
    /// What it may do, all of it unless said: `create`, `continue`, `terminate`.
    scope: Option<Vec<UseName>>,
    /// How many uploads it may begin.
    #[serde(default = "default_max_uploads")]
    #[schema(example = 32)]
    max_uploads: u32,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum UseName {
    Create,
    Continue,
    Terminate,
}

fn default_ttl_seconds() -> u64 {
    DEFAULT_TTL_SECONDS
}

fn default_max_uploads() -> u32 {
    DEFAULT_MAX_UPLOADS
}

#[derive(Serialize, ToSchema)]
pub(super) struct TokenAnswer {
    /// Give it to the browser, which sends it as `Authorization: Bearer TOKEN` on every request to `/uploads`.
    token: String,
    /// The token's name: uploads that it begins belong to it.
    jti: String,
    /// RFC 3339.
    #[schema(example = "2026-11-21T06:00:00Z")]
    expires_at: String,
}

/// Make an upload token for a browser.
///
/// A JWT signed with HS256. Who holds a key of `upload-keys.json` can make the same with any JWT library.
#[utoipa::path(post, path = "/v1/upload-tokens", tag = "uploads", request_body = TokenRequest,
    responses((status = 201, description = "The token, shown this once.", body = TokenAnswer),
              (status = 400, description = "A restriction does not have the form it needs, or there is no such preset.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 404, description = "There is no such upload, or it is not yours.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn make_upload_token(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(request): Json<TokenRequest>,
) -> Result<(StatusCode, HeaderMap, JsonBody<TokenAnswer>), Problem> {
    caller.require(Scope::UploadsSign)?;
    if !(MIN_TTL_SECONDS..=MAX_TTL_SECONDS).contains(&request.ttl_seconds) {
        let detail = format!("`ttl_seconds` is from {MIN_TTL_SECONDS} to {MAX_TTL_SECONDS}.");
        return Err(Problem::new(Kind::BadRequest, detail).with("parameter", "ttl_seconds"));
    }
    if request.types.as_ref().is_some_and(Vec::is_empty) {
        // It would allow nothing, and in a token it would mean everything.
        let detail = "`types` names no type; leave it out to allow all of them.";
        return Err(Problem::new(Kind::BadRequest, detail).with("parameter", "types"));
    }
    if let Some(preset) = &request.preset {
        app.preset_name(Some(preset)).map_err(|error| {
            Problem::new(Kind::BadRequest, sentence(&error.to_string())).with("parameter", "preset")
        })?;
    }
    if let Some(id) = request.upload {
        let row = app.catalog.upload(id).await?.filter(|row| row.tenant == caller.tenant);
        row.ok_or_else(|| Problem::not_found("upload"))?;
    }
    let uses = request.scope.map_or(Uses::ALL, |names| {
        Uses::of(names.into_iter().map(|name| match name {
            UseName::Create => Use::Create,
            UseName::Continue => Use::Continue,
            UseName::Terminate => Use::Terminate,
        }))
    });
    let expires_at_unix_seconds = links::now_unix_seconds() + request.ttl_seconds;
    let token = UploadToken {
        jti: Uuid::now_v7().to_string(),
        tenant: caller.tenant,
        upload: request.upload,
        max_length: request.max_length,
        types: request.types.unwrap_or_default(),
        preset: request.preset,
        uses,
        max_uploads: request.max_uploads,
        not_before_unix_seconds: None,
        expires_at_unix_seconds,
    };
    let text = app.upload_keys.sign(&token).map_err(refused)?;
    let expires_ms = i64::try_from(expires_at_unix_seconds).unwrap_or(i64::MAX).saturating_mul(1000);
    // It opens something: no cache on the way may keep it.
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let answer = TokenAnswer { token: text, jti: token.jti, expires_at: links::rfc3339(expires_ms) };
    Ok((StatusCode::CREATED, headers, JsonBody(answer)))
}

fn refused(error: UploadTokenError) -> Problem {
    match &error {
        UploadTokenError::BadClaim { claim, needs } => {
            Problem::new(Kind::BadRequest, format!("`{claim}` {needs}.")).with("parameter", claim.as_str())
        }
        UploadTokenError::TooLong => {
            Problem::new(Kind::BadRequest, "The list of types makes the token too long; name fewer.")
        }
        _ => Problem::internal(error),
    }
}
