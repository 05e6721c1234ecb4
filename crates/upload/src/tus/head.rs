//! What an answer says about an upload: the headers of HEAD, and the date of its expiry.
//!
//! The caller gathers what it knows; which headers that makes is decided here, because the text binds them to one
//! another (a length or its deferral, no offset of a final upload that is not joined yet).

use super::{Concat, format_concat, header};
use std::time::{Duration, SystemTime};

/// The last second that IMF-fixdate can name: 31 December 9999, 23:59:59.
const LAST_UNIX_SECOND: u64 = 253_402_300_799;

/// What HEAD tells about one upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadAnswer<'a> {
    /// `None` for a final upload whose partial uploads are not joined yet, and for that only.
    pub offset: Option<u64>,
    pub length: Option<u64>,
    /// `Upload-Metadata` as it came, empty when there was none.
    pub metadata: &'a str,
    pub concat: &'a Concat,
    /// Unix time in milliseconds; `None` for an upload that does not expire.
    pub expires_ms: Option<i64>,
}

impl HeadAnswer<'_> {
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let length = match self.length {
            Some(length) => (header::LENGTH, length.to_string()),
            None => (header::DEFER_LENGTH, "1".to_owned()),
        };
        let mut headers = vec![("cache-control", "no-store".to_owned()), length];
        headers.extend(self.offset.map(|offset| (header::OFFSET, offset.to_string())));
        headers.extend((!self.metadata.is_empty()).then(|| (header::METADATA, self.metadata.to_owned())));
        headers.extend(format_concat(self.concat).map(|concat| (header::CONCAT, concat)));
        headers.extend(self.expires_ms.map(|expires_ms| (header::EXPIRES, format_expires(expires_ms))));
        headers
    }
}

/// `Upload-Expires`: RFC 9110 section 5.6.7 (IMF-fixdate) of a Unix time in milliseconds. Rounded down to the second,
/// so that nobody comes too late who believes it.
pub fn format_expires(unix_ms: i64) -> String {
    let unix_seconds = u64::try_from(unix_ms / 1000).unwrap_or_default().min(LAST_UNIX_SECOND);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(unix_seconds))
}
