//! GET of a finished upload, for its owner: the bytes as they were sent, whole or in ranges.
//!
//! What strangers uploaded is never shown as a page of this server: it comes as an attachment of no particular type.

use super::{answer, resource};
use crate::{
    app::App,
    http::{
        auth::Caller,
        problem::{Kind, Problem},
    },
};
use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reelyard_model::UploadId;
use reelyard_storage::LocalStore;
use std::io::SeekFrom;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

/// One read from the disk; a reader has two of these in memory at most.
const STREAM_BUFFER_BYTES: usize = 256 << 10;

pub(super) async fn download(
    app: &App,
    caller: Caller,
    id: UploadId,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let row = resource::owned(app, caller, id).await?;
    let Some(asset) = row.asset else {
        return Err(Problem::new(
            Kind::StateConflict,
            "This upload is not complete yet; only complete ones can be read.",
        ));
    };
    let object = app.store.open_object(&LocalStore::source_key(asset)).await.map_err(|error| {
        if error.is_not_found() {
            Problem::new(Kind::Gone, "The original file is not kept any more.")
        } else {
            answer::store_problem(error)
        }
    })?;
    let etag = row.sha256.as_ref().map(|sha256| format!("\"{sha256}\""));
    let selection = select(headers, object.byte_len, etag.as_deref());
    let mut response = Response::new(Body::empty());
    let answer_headers = response.headers_mut();
    answer::put(answer_headers, "accept-ranges", "bytes");
    answer::put(answer_headers, "cache-control", "private, no-cache");
    answer::put(answer_headers, "content-type", "application/octet-stream");
    answer::put(answer_headers, "content-disposition", "attachment");
    answer::put(answer_headers, "x-content-type-options", "nosniff");
    if let Some(etag) = &etag {
        answer::put_text(answer_headers, "etag", etag);
    }
    if let Some(sha256) = &row.sha256 {
        answer::put_digest(answer_headers, sha256);
    }
    let (start, end) = match selection {
        Selection::Whole => (0, object.byte_len),
        Selection::Part { start, end } => {
            let range = format!("bytes {start}-{}/{}", end - 1, object.byte_len);
            answer::put_text(answer_headers, "content-range", &range);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            (start, end)
        }
        Selection::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        Selection::Unsatisfiable => {
            let range =
                HeaderValue::try_from(format!("bytes */{}", object.byte_len)).map_err(Problem::internal)?;
            let detail = format!("The file has {} bytes; the range begins past its end.", object.byte_len);
            return Err(
                Problem::new(Kind::RangeNotSatisfiable, detail).with_header(header::CONTENT_RANGE, range)
            );
        }
    };
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
    let mut file = tokio::fs::File::from_std(object.file);
    file.seek(SeekFrom::Start(start)).await.map_err(Problem::internal)?;
    *response.body_mut() =
        Body::from_stream(ReaderStream::with_capacity(file.take(end - start), STREAM_BUFFER_BYTES));
    Ok(response)
}

/// `end` is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selection {
    Whole,
    Part { start: u64, end: u64 },
    NotModified,
    Unsatisfiable,
}

/// RFC 9110 sections 13 and 14, for a file that never changes: its tag is the digest of its bytes. What is not
/// understood, and several ranges at once, are answered with the whole.
fn select(headers: &HeaderMap, byte_len: u64, etag: Option<&str>) -> Selection {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let (Some(known), Some(etag)) = (text(header::IF_NONE_MATCH), etag)
        && known.split(',').any(|one| one.trim() == "*" || one.trim().trim_start_matches("W/") == etag)
    {
        return Selection::NotModified;
    }
    if text(header::IF_RANGE).is_some_and(|tag| Some(tag.trim()) != etag) {
        return Selection::Whole;
    }
    let range = text(header::RANGE).and_then(|range| range.trim().strip_prefix("bytes=")?.split_once('-'));
    match range.map(|(first, last)| (first.trim(), last.trim())) {
        None => Selection::Whole,
        Some(("", suffix)) => match suffix.parse::<u64>() {
            Ok(suffix) if suffix > 0 && byte_len > 0 => {
                Selection::Part { start: byte_len.saturating_sub(suffix), end: byte_len }
            }
            Ok(_) => Selection::Unsatisfiable,
            Err(_) => Selection::Whole,
        },
        Some((first, last)) => {
            match (first.parse::<u64>(), if last.is_empty() { Ok(u64::MAX) } else { last.parse() }) {
                (Ok(first), Ok(last)) if first > last => Selection::Whole,
                (Ok(first), Ok(_)) if first >= byte_len => Selection::Unsatisfiable,
                (Ok(first), Ok(last)) => {
                    Selection::Part { start: first, end: last.saturating_add(1).min(byte_len) }
                }
                _ => Selection::Whole,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Selection, select};
    use http::{HeaderMap, HeaderValue, header};

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        for (range, expected) in [
            ("bytes=0-0", Selection::Part { start: 0, end: 1 }),
            ("bytes=5-", Selection::Part { start: 5, end: 10 }),
            ("bytes=-3", Selection::Part { start: 7, end: 10 }),
            ("bytes=-30", Selection::Part { start: 0, end: 10 }),
            ("bytes=0-99999999999999999999", Selection::Whole),
            ("bytes=8-20", Selection::Part { start: 8, end: 10 }),
            ("bytes=10-", Selection::Unsatisfiable),
            ("bytes=-0", Selection::Unsatisfiable),
            ("bytes=3-1", Selection::Whole),
            ("bytes=0-1,3-4", Selection::Whole),
            ("pages=1-2", Selection::Whole),
        ] {
            let headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(range))]);
            assert_eq!(select(&headers, 10, Some("\"x\"")), expected, "{range}");
        }
    }

    #[test]
    fn the_digest_is_the_tag() {
        let mut headers =
            HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static("W/\"x\""))]);
        assert_eq!(select(&headers, 10, Some("\"x\"")), Selection::NotModified);
        headers.clear();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"y\""));
        assert_eq!(select(&headers, 10, Some("\"x\"")), Selection::Whole);
    }
}
