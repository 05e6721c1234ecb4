//! Uploads without a body: `/uploads/possession`, a thin shell over `flow::same_content`.
//!
//! A client that knows the digest of its file asks first. If its tenant has these bytes, it is asked for ranges of them
//! at random places, and a right answer makes an upload that is finished already, with its asset; else it is told to
//! send the bytes. What other tenants have is never looked at. Asking is cheap for a client: one request, and it knows.

use super::{
    answer::{self, HeaderFields},
    body, parts, receive,
};
use crate::{
    app::App,
    flow::same_content::{self, Claim, Verdict},
    http::{
        auth::Uploader,
        links,
        problem::{Kind, Problem},
    },
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderMap, Method, StatusCode, request::Parts};
use reelyard_model::UploadId;
use reelyard_sign::upload_token::{Use, Wish};
use reelyard_upload::{
    parts::{MAX_OPENING_BYTES, Opening},
    tus::Metadata,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tracing::Instrument as _;

/// 64 hexadecimal digits and what JSON puts around them, with room to spare.
const MAX_ANSWER_BYTES: usize = 1 << 10;

/// Of no dialect that has a name for itself in the headers.
pub(super) fn is_path(path: &str) -> bool {
    path.strip_prefix("/uploads/possession").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/uploads/possession", any(question))
        .route("/uploads/possession/{id}", any(answer_to))
}

/// What to read, and until when to tell it.
#[derive(Serialize)]
struct Asked {
    challenge: String,
    /// Lower-case hexadecimal.
    nonce: String,
    ranges: Vec<Piece>,
    expires_at: String,
}

#[derive(Serialize)]
struct Piece {
    offset: u64,
    length: u64,
}

#[derive(Deserialize)]
struct Answer {
    /// SHA-256 over the nonce's 32 bytes and the bytes of the ranges in their order, in hexadecimal.
    proof: String,
}

#[derive(Serialize)]
struct Made {
    upload_id: String,
    asset: String,
    length: u64,
    sha256: String,
}

/// A key that may begin uploads, and the body. An upload token is in the hands of a browser's user, who must not learn
/// what else its tenant has.
async fn allowed(app: &App, request: &Parts, body: Body) -> Result<(Uploader, Body), Problem> {
    let checked = async {
        let by = Uploader::of_request(app, &request.headers, &request.extensions).await?;
        by.require_key(
            "An upload token cannot ask whether the server has a file; send the bytes to `/uploads`.",
        )?;
        by.may_create()?;
        Ok(by)
    };
    match checked.await {
        Ok(by) => Ok((by, body)),
        Err(problem) => Err(body::refuse(body, problem).await),
    }
}

/// POST, with what `POST /uploads/parts` takes; the digest is needed here.
async fn question(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    if *request.method() == Method::OPTIONS {
        return Ok(answer::options(app.max_upload_bytes));
    }
    if *request.method() != Method::POST {
        return Err(answer::method_not_allowed("OPTIONS, POST"));
    }
    let (request, body) = request.into_parts();
    let (by, body) = allowed(&app, &request, body).await?;
    let body = parts::json_body(body, MAX_OPENING_BYTES).await?;
    let opening = Opening::read(&HeaderFields(&request.headers), &body, app.max_upload_bytes)
        .map_err(parts::refusal)?;
    drop(body);
    let Some(sha256) = opening.expected else {
        let detail =
            "Tell the SHA-256 of the whole: `sha256` in the JSON body (hexadecimal), or `Repr-Digest`.";
        return Err(Problem::new(Kind::BadRequest, detail));
    };
    let metadata = &opening.metadata;
    let permit = by.may_begin(&app, wish(opening.length, metadata))?;
    let permit = by.within_tier(permit, metadata.text("tier"))?;
    let claim = Claim {
        tenant: by.tenant,
        byte_len: opening.length,
        sha256,
        file_name: metadata.text("filename").or(metadata.text("name")).map(str::to_owned),
        metadata: metadata.header().to_owned(),
        preset: permit.preset.or(metadata.text("preset").map(str::to_owned)),
    };
    let question =
        same_content::ask(&app, claim, by.key()).await.map_err(receive::flow_problem)?.ok_or_else(send_it)?;
    let ranges = question.ranges.iter();
    let asked = Asked {
        challenge: question.id.to_string(),
        nonce: hex::encode(question.nonce),
        ranges: ranges.map(|range| Piece { offset: range.start, length: range.end - range.start }).collect(),
        expires_at: links::rfc3339(question.expires_ms),
    };
    Ok(Json(asked).into_response())
}

/// POST: the answer.
async fn answer_to(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    if *request.method() == Method::OPTIONS {
        return Ok(answer::options(app.max_upload_bytes));
    }
    if *request.method() != Method::POST {
        return Err(answer::method_not_allowed("OPTIONS, POST"));
    }
    let (request, body) = request.into_parts();
    let (by, body) = allowed(&app, &request, body).await?;
    let proof = proof(&parts::json_body(body, MAX_ANSWER_BYTES).await?)?;
    let id: UploadId = id.parse().map_err(|_| no_question())?;
    let row = app.catalog.possession(id, by.tenant, by.key()).await?.ok_or_else(no_question)?;
    if row.proof.is_some()
        && let Some(made) = app.catalog.upload(id).await?
    {
        by.may_use(&made, Use::Continue)?;
    }
    let metadata = Metadata::parse(&row.metadata).unwrap_or_default();
    let grant = by.may_begin(&app, wish(row.byte_len, &metadata))?.grant;
    // In a task of its own: the question is burnt, so what follows from the answer should follow.
    let question = row.clone();
    let answering = async move { same_content::answer(&app, question, grant, proof).await };
    let verdict = tokio::spawn(answering.in_current_span()).await.map_err(Problem::internal)?;
    let asset = match verdict.map_err(receive::flow_problem)? {
        Verdict::Proven { asset } => asset,
        Verdict::Unknown => return Err(no_question()),
        Verdict::NotHere => return Err(send_it()),
        Verdict::Wrong => {
            let detail =
                "This is not what the ranges hash to. The question is used up; send the bytes, or ask anew.";
            return Err(Problem::new(Kind::PossessionNotShown, detail));
        }
    };
    let mut headers = HeaderMap::new();
    answer::put_text(&mut headers, "location", &format!("/uploads/{id}"));
    answer::put_asset(&mut headers, Some(asset));
    answer::put_digest(&mut headers, &row.sha256);
    let made = Made {
        upload_id: id.to_string(),
        asset: asset.to_string(),
        length: row.byte_len,
        sha256: row.sha256,
    };
    Ok((StatusCode::CREATED, headers, Json(made)).into_response())
}

fn wish(length: u64, metadata: &Metadata) -> Wish<'_> {
    Wish {
        length: Some(length),
        media_type: metadata.text("filetype").or(metadata.text("type")),
        preset: metadata.text("preset"),
        is_piece: false,
    }
}

fn proof(body: &[u8]) -> Result<[u8; 32], Problem> {
    let bad = || {
        let detail = "The body is JSON with the one member `proof`: a SHA-256 as 64 hexadecimal digits.";
        Problem::new(Kind::BadRequest, detail)
    };
    let answer: Answer = serde_json::from_slice(body).map_err(|_| bad())?;
    let mut proof = [0; 32];
    hex::decode_to_slice(&answer.proof, &mut proof).map_err(|_| bad())?;
    Ok(proof)
}

fn send_it() -> Problem {
    Problem::new(Kind::ContentNotHere, "Send the bytes: they cannot be taken over from an earlier upload.")
}

/// The same words for all reasons: whose question it is and what became of it is nobody else's matter.
fn no_question() -> Problem {
    Problem::new(
        Kind::NotFound,
        "There is no open question with this id: it was answered, its time is over, or it never was. Ask anew.",
    )
}
