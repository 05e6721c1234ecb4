//! Which bytes of a file to answer with: conditions and ranges of RFC 9110, decided without touching the file.
//!
//! Called by `playback` with the request's headers and the facts of an open file. Ranges that are not understood are
//! ignored, as the RFC allows; several ranges at once are answered with the whole file.

use http::{HeaderMap, HeaderName, header};
use jiff::{Timestamp, fmt::rfc2822};

/// Facts about the file that is there.
#[derive(Clone, Debug)]
pub(super) struct FileFacts {
    pub(super) byte_len: u64,
    /// Nanoseconds since 1970, as the file system keeps it.
    pub(super) modified_ns: u128,
}

impl FileFacts {
    /// Strong: files of a publication are written once and never changed; a hard link keeps length and time.
    pub(super) fn etag(&self) -> String {
        format!("\"{:x}-{:x}\"", self.byte_len, self.modified_ns)
    }
    /// RFC 9110 section 5.6.7; whole seconds.
    pub(super) fn last_modified(&self) -> Option<String> {
        let seconds = i64::try_from(self.modified_ns / 1_000_000_000).ok()?;
        rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&Timestamp::from_second(seconds).ok()?)
            .ok()
    }
    fn modified_seconds(&self) -> i64 {
        i64::try_from(self.modified_ns / 1_000_000_000).unwrap_or(i64::MAX)
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

/// RFC 9110 section 13.2.2, for GET and HEAD of files that are only ever read.
pub(super) fn select(headers: &HeaderMap, facts: &FileFacts) -> Selection {
    let etag = facts.etag();
    if headers.contains_key(header::IF_NONE_MATCH) {
        if lists_etag(headers, &header::IF_NONE_MATCH, &etag) {
            return Selection::NotModified;
        }
    } else if let Some(since) = date_of(headers, &header::IF_MODIFIED_SINCE)
        && facts.modified_seconds() <= since
    {
        return Selection::NotModified;
    }
    let Some(range) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return Selection::Whole;
    };
    if headers.contains_key(header::IF_RANGE) && !if_range_holds(headers, facts, &etag) {
        return Selection::Whole;
    }
    parse_range(range, facts.byte_len)
}

/// Weak comparison (section 8.8.3.2): `W/` does not matter.
fn lists_etag(headers: &HeaderMap, name: &HeaderName, etag: &str) -> bool {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|list| {
        list.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
    })
}

/// Strong comparison, or the exact date (section 13.1.5).
fn if_range_holds(headers: &HeaderMap, facts: &FileFacts, etag: &str) -> bool {
    let Some(value) = headers.get(header::IF_RANGE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    value.trim() == etag || date_of(headers, &header::IF_RANGE) == Some(facts.modified_seconds())
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
    use http::{HeaderMap, HeaderName, HeaderValue, header};
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

    const FACTS: FileFacts = FileFacts { byte_len: 1000, modified_ns: 1_720_878_599_500_000_000 };

    fn selected(pairs: &[(HeaderName, &str)]) -> Selection {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        select(&headers, &FACTS)
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
        let etag = FACTS.etag();
        let weak = format!("\"other\", W/{etag}");
        let modified = FACTS.last_modified().unwrap();
        assert_eq!(modified, "Sat, 13 Jul 2024 13:49:59 GMT");
        assert_eq!(selected(&[(header::IF_NONE_MATCH, &etag)]), Selection::NotModified);
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
        assert_eq!(selected(&[range.clone(), (header::IF_RANGE, &etag)]), part);
        assert_eq!(selected(&[range.clone(), (header::IF_RANGE, &modified)]), part);
        assert_eq!(selected(&[range.clone(), (header::IF_RANGE, &format!("W/{etag}"))]), Selection::Whole);
        assert_eq!(selected(&[range.clone(), (header::IF_RANGE, "\"other\"")]), Selection::Whole);
        assert_eq!(selected(&[range, (header::IF_RANGE, old)]), Selection::Whole);
    }
}
