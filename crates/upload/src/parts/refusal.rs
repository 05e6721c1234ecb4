//! Why the engine does not take a part, or a list of parts, with what to send instead.

use std::{fmt, ops::Range};

/// Gaps named in one sentence; `GET /uploads/parts` lists all of them.
const NAMED_GAPS: usize = 3;

/// Nothing that was durable before is touched by a refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartRefusal {
    #[error(
        "part {number} would be {}, but the upload has {length} bytes; send a range that ends at byte {} at most",
        Bytes(range), length.saturating_sub(1)
    )]
    OutsideLength { number: u32, range: Range<u64>, length: u64 },
    #[error(
        "part {number} is stored already as {}; send it again with this range, or other bytes under another number",
        Bytes(stored)
    )]
    OtherRange { number: u32, stored: Range<u64> },
    #[error(
        "part {number} is stored already with other bytes; what is stored stays. Begin a new upload if the file has changed"
    )]
    OtherBytes { number: u32 },
    #[error(
        "part {number} has bytes in common with part {other}, which is stored as {}; send ranges that GET lists as missing",
        Bytes(taken)
    )]
    Overlaps { number: u32, other: u32, taken: Range<u64> },
    #[error(
        "part {number} has bytes in common with part {other}, which is being received as {}; send other bytes, or try again when that part is done",
        Bytes(taken)
    )]
    OverlapsUnderWay { number: u32, other: u32, taken: Range<u64> },
    #[error("part {number} is being received by another request; try again when it is done")]
    UnderWay { number: u32 },
    #[error(
        "the body of part {number} is longer than its range, {} bytes; none of it was kept, send exactly {}",
        range.end - range.start, Bytes(range)
    )]
    BodyTooLong { number: u32, range: Range<u64> },
    #[error(
        "the body of part {number} has {received} bytes, its range has {}; none of it was kept, send exactly {}",
        range.end - range.start, Bytes(range)
    )]
    BodyTooShort { number: u32, range: Range<u64>, received: u64 },
    #[error(
        "the {algorithm} checksum of part {number} does not fit its bytes; none of them was kept, send the part again"
    )]
    ChecksumMismatch { number: u32, algorithm: &'static str },
    #[error("the upload is not whole: {} are missing; send them, then complete again", Gaps(missing))]
    NotWhole { missing: Vec<Range<u64>> },
    #[error("the list names part {number}, which is not stored; name the parts that GET lists")]
    ListedNotStored { number: u32 },
    #[error("the list names part {number} with another ETag; the part that is stored has {etag}")]
    ListedOtherBytes { number: u32, etag: String },
    #[error("the list names part {number} twice; name each part once")]
    ListedTwice { number: u32 },
    #[error("part {number} is stored, but the list does not name it; name every part that GET lists")]
    StoredNotListed { number: u32 },
}

/// "bytes 0-99", as `Content-Range` counts: the last one is named.
struct Bytes<'a>(&'a Range<u64>);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}-{}", self.0.start, self.0.end.saturating_sub(1))
    }
}

struct Gaps<'a>(&'a [Range<u64>]);

impl fmt::Display for Gaps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, gap) in self.0.iter().take(NAMED_GAPS).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", Bytes(gap))?;
        }
        match self.0.len().saturating_sub(NAMED_GAPS) {
            0 => Ok(()),
            more => write!(f, " and {more} more ranges"),
        }
    }
}
