//! What `GET /uploads/parts` answers: the parts that are durable, and what is missing.

use super::{DurablePart, PartSet};
use serde::Serialize;
use std::ops::Range;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// Of the whole, in bytes.
    pub length: u64,
    pub durable_bytes: u64,
    /// By number. The list can be sent to `complete` as it is.
    pub parts: Vec<StoredPart>,
    /// In order: what is left to send, in parts of any size that is allowed.
    pub missing: Vec<ByteRange>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredPart {
    pub part_number: u32,
    #[serde(flatten)]
    pub range: ByteRange,
    pub etag: String,
}

/// Both ends belong to it, as in `X-Content-Range`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ByteRange {
    pub first_byte: u64,
    pub last_byte: u64,
}

impl Listing {
    /// Of an upload that is complete, and whose parts are not kept apart any more.
    pub fn complete(length: u64) -> Self {
        Self { length, durable_bytes: length, parts: Vec::new(), missing: Vec::new() }
    }
}

impl From<&Range<u64>> for ByteRange {
    fn from(range: &Range<u64>) -> Self {
        Self { first_byte: range.start, last_byte: range.end.saturating_sub(1) }
    }
}

impl From<&DurablePart> for StoredPart {
    fn from(part: &DurablePart) -> Self {
        Self { part_number: part.number, range: (&part.range).into(), etag: part.etag() }
    }
}

impl From<&PartSet> for Listing {
    fn from(set: &PartSet) -> Self {
        Self {
            length: set.length(),
            durable_bytes: set.durable_bytes(),
            parts: set.parts().map(StoredPart::from).collect(),
            missing: set.missing().iter().map(ByteRange::from).collect(),
        }
    }
}
