//! GET of a finished upload, for its owner: the bytes as they were sent, whole or in ranges.
//!
//! What strangers uploaded is never shown as a page of this server: it comes as an attachment of no particular type.

use super::{answer, resource};
use crate::{
    app::App,
    http::{
        auth::Uploader,
        file::{self, FileFacts},
        problem::{Kind, Problem},
    },
};
use axum::{body::Body, response::Response};
use http::{HeaderMap, Method};
use reelyard_model::{AssetState, UploadId};

pub(super) async fn download(
    app: &App,
    by: &Uploader,
    id: UploadId,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let row = resource::readable(app, by, id).await?;
    let Some(asset) = row.asset else {
        return Err(Problem::new(
            Kind::StateConflict,
            "This upload is not complete yet; only complete ones can be read.",
        ));
    };
    let gone = || Problem::new(Kind::Gone, "The original file is not kept any more.");
    // Not always its own: the same bytes are kept once.
    let asset = app.catalog.asset(asset).await?.filter(|asset| asset.state != AssetState::Deleted);
    let key = asset.ok_or_else(gone)?.source_key;
    let byte_len = app.uploads.source_len(&key).await.map_err(answer::store_problem)?.ok_or_else(gone)?;
    // The tag is the digest of the bytes, so the time has nothing to add.
    let etag = row.sha256.as_ref().map(|sha256| format!("\"{sha256}\""));
    let facts = FileFacts { byte_len, etag, modified_seconds: None };
    let selection = file::select(&Method::GET, headers, &facts);
    let mut response = file::head(byte_len, selection)?;
    if let Some(range) = selection.range(byte_len) {
        let bytes = app.uploads.read_source(&key, range).await.map_err(answer::store_problem)?;
        *response.body_mut() = Body::from_stream(bytes);
    }
    let answer_headers = response.headers_mut();
    answer::put(answer_headers, "cache-control", "private, no-cache");
    answer::put(answer_headers, "content-type", "application/octet-stream");
    answer::put(answer_headers, "content-disposition", "attachment");
    answer::put(answer_headers, "x-content-type-options", "nosniff");
    if let Some(etag) = &facts.etag {
        answer::put_text(answer_headers, "etag", etag);
    }
    if let Some(sha256) = &row.sha256 {
        answer::put_digest(answer_headers, sha256);
    }
    Ok(response)
}
