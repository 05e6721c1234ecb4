//! A file as an answer: conditions and ranges of RFC 9110, and the bytes that they select.
//!
//! Called by `playback` and by the download of uploads. Ranges that are not understood are ignored, as the RFC allows;
//! several ranges at once are answered with the whole file. What is decided does not touch the file.

use super::problem::{Kind, Problem};
use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822};
use std::ops::Range;

/// Facts about the file that is there.
#[derive(Clone, Debug)]
pub(super) struct FileFacts {
    pub(super) byte_len: u64,
    /// Strong, with its quotes; `None` where nothing tells two versions apart.
    pub(super) etag: Option<String>,
    /// Seconds since 1970; `None` where the time says nothing.
    pub(super) modified_seconds: Option<i64>,
}

impl FileFacts {
    /// RFC 9110 section 5.6.7; whole seconds.
    pub(super) fn last_modified(&self) -> Option<String> {
        let modified = Timestamp::from_second(self.modified_seconds?).ok()?;
        rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&modified).ok()
    }
}

/// What to answer with. `end` is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// 200
    Whole,
    /// 206
    Part { start: u64, end: u64 },
    /// 304
    NotModified,
    /// 416
    Unsatisfiable,
}

impl Selection {
    /// Bytes that the answer is going to carry.
    pub(super) fn byte_len(self, file_byte_len: u64) -> u64 {
        match self {
            Self::Whole => file_byte_len,
            Self::Part { start, end } => end - start,
            Self::NotModified | Self::Unsatisfiable => 0,
        }
    }

    /// The bytes themselves; `None` when there is no body.
    pub(super) fn range(self, file_byte_len: u64) -> Option<Range<u64>> {
        match self {
            Self::Whole => Some(0..file_byte_len),
            Self::Part { start, end } => Some(start..end),
            Self::NotModified | Self::Unsatisfiable => None,
        }
    }
}

/// RFC 9110 section 13.2.2, for files that are only ever read.
pub(super) fn select(method: &Method, headers: &HeaderMap, facts: &FileFacts) -> Selection {
    if headers.contains_key(header::IF_NONE_MATCH) {
        if lists_etag(headers, &header::IF_NONE_MATCH, facts.etag.as_deref()) {
            return Selection::NotModified;
        }
    } else if let Some(since) = date_of(headers, &header::IF_MODIFIED_SINCE)
        && facts.modified_seconds.is_some_and(|modified| modified <= since)
    {
        return Selection::NotModified;
    }
    // Section 14.2: ranges are defined for GET alone.
    if method != Method::GET {
        return Selection::Whole;
    }
    let Some(range) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return Selection::Whole;
    };
    if headers.contains_key(header::IF_RANGE) && !if_range_holds(headers, facts) {
        return Selection::Whole;
    }
    parse_range(range, facts.byte_len)
}

/// Status and the headers that follow from the selection, without a body yet; the caller adds what the file is. HEAD
/// gets the same and no body.
pub(super) fn head(byte_len: u64, selection: Selection) -> Result<Response, Problem> {
    let status = match selection {
        Selection::Whole => StatusCode::OK,
        Selection::Part { .. } => StatusCode::PARTIAL_CONTENT,
        Selection::NotModified => StatusCode::NOT_MODIFIED,
        Selection::Unsatisfiable => {
            let detail = format!("The file has {byte_len} bytes; the range begins past its end.");
            return Err(Problem::new(Kind::RangeNotSatisfiable, detail)
                .with_header(header::CONTENT_RANGE, text_value(format!("bytes */{byte_len}"))?));
        }
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if selection == Selection::NotModified {
        return Ok(response);
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(selection.byte_len(byte_len)));
    if let Selection::Part { start, end } = selection {
        let range = format!("bytes {start}-{}/{byte_len}", end - 1);
        headers.insert(header::CONTENT_RANGE, text_value(range)?);
    }
    Ok(response)
}

pub(super) fn text_value(text: String) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(text).map_err(Problem::internal)
}

/// Weak comparison (section 8.8.3.2): `W/` does not matter.
fn lists_etag(headers: &HeaderMap, name: &HeaderName, etag: Option<&str>) -> bool {
    let names_it = |one: &str| one == "*" || Some(one.strip_prefix("W/").unwrap_or(one)) == etag;
    let mut lists = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lists.any(|list| list.split(',').map(str::trim).any(names_it))
}

/// Strong comparison, or the exact date (section 13.1.5).
fn if_range_holds(headers: &HeaderMap, facts: &FileFacts) -> bool {
    let Some(value) = headers.get(header::IF_RANGE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    if facts.etag.as_deref() == Some(value.trim()) {
        return true;
    }
    let date = date_of(headers, &header::IF_RANGE);
    date.is_some() && date == facts.modified_seconds
}

fn date_of(headers: &HeaderMap, name: &HeaderName) -> Option<i64> {
    let text = headers.get(name)?.to_str().ok()?;
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(Timestamp::as_second)
}

/// One range of section 14.1.2: `bytes=0-99`, `bytes=100-`, `bytes=-100`.
fn parse_range(text: &str, byte_len: u64) -> Selection {
    let Some((unit, ranges)) = text.split_once('=') else { return Selection::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || ranges.contains(',') {
        return Selection::Whole;
    }
    let Some((first, last)) = ranges.trim().split_once('-') else { return Selection::Whole };
    match (position(first), position(last)) {
        (Some(Position::Absent), Some(Position::At(suffix))) => {
            if suffix == 0 || byte_len == 0 {
                return Selection::Unsatisfiable;
            }
            Selection::Part { start: byte_len.saturating_sub(suffix), end: byte_len }
        }
        (Some(Position::At(start)), Some(Position::Absent)) if start < byte_len => {
            Selection::Part { start, end: byte_len }
        }
        (Some(Position::At(start)), Some(Position::At(last))) if start > last => Selection::Whole,
        (Some(Position::At(start)), Some(Position::At(last))) if start < byte_len => {
            Selection::Part { start, end: last.saturating_add(1).min(byte_len) }
        }
        (Some(Position::At(_)), Some(_)) => Selection::Unsatisfiable,
        _ => Selection::Whole,
    }
}

enum Position {
    Absent,
    /// Numbers beyond 64 bits count as the largest.
    At(u64),
}

fn position(text: &str) -> Option<Position> {
    if text.is_empty() {
        return Some(Position::Absent);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| Position::At(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::{FileFacts, Selection, parse_range, select};
    use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
    use proptest::prelude::{any, prop_assert, proptest};

    proptest! {
        #[test]
        fn whatever_is_asked_for_lies_inside_the_file(
            wild in any::<String>(),
            likely in "bytes ?= ?[0-9]{0,21}-[0-9]{0,21}",
            byte_len: u64,
            small in 0_u64..100,
        ) {
            for text in [&wild, &likely] {
                for length in [byte_len, small] {
                    if let Selection::Part { start, end } = parse_range(text, length) {
                        prop_assert!(start < end && end <= length, "{text:?} of {length}: {start}..{end}");
                    }
                }
            }
        }
    }

    const ETAG: &str = "\"3e8-17e1\"";

    fn facts() -> FileFacts {
        FileFacts { byte_len: 1000, etag: Some(ETAG.to_owned()), modified_seconds: Some(1_720_878_599) }
    }

    fn selected(pairs: &[(HeaderName, &str)]) -> Selection {
        selected_by(&Method::GET, &facts(), pairs)
    }

    fn selected_by(method: &Method, facts: &FileFacts, pairs: &[(HeaderName, &str)]) -> Selection {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        select(method, &headers, facts)
    }

    #[test]
    fn ranges_as_in_the_rfc() {
        let table = [
            ("bytes=0-99", Selection::Part { start: 0, end: 100 }),
            ("bytes=0-0", Selection::Part { start: 0, end: 1 }),
            ("bytes=900-", Selection::Part { start: 900, end: 1000 }),
            ("bytes=900-5000", Selection::Part { start: 900, end: 1000 }),
            ("bytes=-100", Selection::Part { start: 900, end: 1000 }),
            ("bytes=-5000", Selection::Part { start: 0, end: 1000 }),
            ("Bytes = 1-2", Selection::Part { start: 1, end: 3 }),
            ("bytes=0-99999999999999999999999", Selection::Part { start: 0, end: 1000 }),
            ("bytes=1000-", Selection::Unsatisfiable),
            ("bytes=1000-1001", Selection::Unsatisfiable),
            ("bytes=99999999999999999999999-", Selection::Unsatisfiable),
            ("bytes=-0", Selection::Unsatisfiable),
            ("bytes=5-2", Selection::Whole),
            ("bytes=-", Selection::Whole),
            ("bytes=a-b", Selection::Whole),
            ("bytes=+1-2", Selection::Whole),
            ("bytes=0-1,5-6", Selection::Whole),
            ("chunks=0-1", Selection::Whole),
            ("", Selection::Whole),
        ];
        for (text, expected) in table {
            assert_eq!(parse_range(text, 1000), expected, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Selection::Unsatisfiable);
        assert_eq!(parse_range("bytes=-1", 0), Selection::Unsatisfiable);
    }

    #[test]
    fn conditions_as_in_the_rfc() {
        let etag = ETAG;
        let weak = format!("\"other\", W/{etag}");
        let modified = facts().last_modified().unwrap();
        assert_eq!(modified, "Sat, 13 Jul 2024 13:49:59 GMT");
        assert_eq!(selected(&[(header::IF_NONE_MATCH, etag)]), Selection::NotModified);
        assert_eq!(selected(&[(header::IF_NONE_MATCH, &weak)]), Selection::NotModified);
        assert_eq!(selected(&[(header::IF_NONE_MATCH, "*")]), Selection::NotModified);
        assert_eq!(selected(&[(header::IF_NONE_MATCH, "\"other\"")]), Selection::Whole);
        assert_eq!(selected(&[(header::IF_MODIFIED_SINCE, &modified)]), Selection::NotModified);
        // If-None-Match decides alone when both are there.
        let both = [(header::IF_NONE_MATCH, "\"other\""), (header::IF_MODIFIED_SINCE, modified.as_str())];
        assert_eq!(selected(&both), Selection::Whole);
        let old = "Fri, 12 Jul 2024 00:00:00 GMT";
        assert_eq!(selected(&[(header::IF_MODIFIED_SINCE, old)]), Selection::Whole);

        let range = (header::RANGE, "bytes=0-9");
        let part = Selection::Part { start: 0, end: 10 };
        assert_eq!(selected(&[range.clone(), (header::IF_RANGE, etag)]), part);
        assert_eq!(selected(&[range.clone(), (header::IF_RANGE, &modified)]), part);
        assert_eq!(selected(&[range.clone(), (header::IF_RANGE, &format!("W/{etag}"))]), Selection::Whole);
        assert_eq!(selected(&[range.clone(), (header::IF_RANGE, "\"other\"")]), Selection::Whole);
        assert_eq!(selected(&[range, (header::IF_RANGE, old)]), Selection::Whole);
    }
    #[test]
    fn head_has_no_ranges_but_conditions() {
        let head = |pairs: &[(HeaderName, &str)]| selected_by(&Method::HEAD, &facts(), pairs);
        assert_eq!(head(&[(header::RANGE, "bytes=0-9")]), Selection::Whole);
        assert_eq!(head(&[(header::RANGE, "bytes=5000-")]), Selection::Whole);
        assert_eq!(head(&[(header::IF_NONE_MATCH, ETAG)]), Selection::NotModified);
    }

    #[test]
    fn what_is_not_known_of_a_file_holds_for_nobody() {
        let bare = FileFacts { byte_len: 1000, etag: None, modified_seconds: None };
        let range = (header::RANGE, "bytes=0-9");
        for (condition, expected) in [
            ((header::IF_NONE_MATCH, ETAG), Selection::Part { start: 0, end: 10 }),
            (
                (header::IF_MODIFIED_SINCE, "Fri, 12 Jul 2024 00:00:00 GMT"),
                Selection::Part { start: 0, end: 10 },
            ),
            ((header::IF_RANGE, ETAG), Selection::Whole),
            ((header::IF_RANGE, "Fri, 12 Jul 2024 00:00:00 GMT"), Selection::Whole),
            ((header::IF_RANGE, "none"), Selection::Whole),
        ] {
            assert_eq!(selected_by(&Method::GET, &bare, &[range.clone(), condition]), expected);
        }
    }
}
