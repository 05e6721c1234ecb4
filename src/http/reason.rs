//! Why somebody does it: the optional JSON body of requests that an operator sends, kept in the audit log.

use super::problem::{Kind, Problem};
use crate::app::App;
use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A sentence or two; a page of text belongs elsewhere.
const MAX_REASON_CHARS: usize = 500;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReasonBody {
    /// In your words, up to 500 characters; kept in the audit log.
    #[schema(example = "the disk of node 3 was full")]
    reason: Option<String>,
}

/// `None`: no body, or one without a reason.
pub(super) struct Reason(pub(super) Option<String>);

impl FromRequest<Arc<App>> for Reason {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, app).await?;
        if body.trim_ascii().is_empty() {
            return Ok(Self(None));
        }
        let told: ReasonBody = serde_json::from_slice(&body).map_err(|error| {
            let detail =
                format!("The body is empty, or JSON such as {{\"reason\": \"the disk was full\"}}: {error}.");
            Problem::new(Kind::BadRequest, detail)
        })?;
        Ok(Self(checked(told.reason)?))
    }
}

/// On one line, and not too long. An empty one is none.
pub(super) fn checked(reason: Option<String>) -> Result<Option<String>, Problem> {
    let Some(reason) = reason else { return Ok(None) };
    let one_line: String =
        reason.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if one_line.chars().count() > MAX_REASON_CHARS {
        let detail = format!("`reason` may have {MAX_REASON_CHARS} characters.");
        return Err(Problem::new(Kind::BadRequest, detail).with("parameter", "reason"));
    }
    Ok((!one_line.is_empty()).then_some(one_line))
}
