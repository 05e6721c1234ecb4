//! What can be wrong with a request of the dialect, with its status (RFC 9110 section 15).

use super::{MAX_PART_BYTES, MIN_PART_BYTES, PartRefusal};
use crate::{digest_fields::DigestError, fields::FieldError, tus::TusError};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Digest(#[from] DigestError),
    #[error(transparent)]
    Metadata(#[from] TusError),
    #[error(transparent)]
    Refused(#[from] PartRefusal),
    #[error("the body cannot be read as JSON ({problem}); send {expected}")]
    BadBody { problem: String, expected: &'static str },
    #[error(
        "the size of the upload is not told; send the header Upload-Length with the whole size in bytes, or a JSON body with \"length\""
    )]
    LengthMissing,
    #[error(
        "Upload-Length says {header} bytes and the body says {body}; send one of them, or the same in both"
    )]
    LengthTwice { header: u64, body: u64 },
    #[error("the upload would be {length} bytes long; this server takes at most {max} bytes")]
    TooLarge { length: u64, max: u64 },
    #[error(
        "X-Content-Range says that the whole has {claimed} bytes, but the upload was begun with {length}; send bytes a-b/{length}, or begin a new upload if the file has changed"
    )]
    TotalDiffers { claimed: u64, length: u64 },
    #[error(
        "part {number} has {byte_len} bytes; only the part that ends the upload may have less than {MIN_PART_BYTES}, send larger parts"
    )]
    PartTooSmall { number: u32, byte_len: u64 },
    #[error("part {number} has {byte_len} bytes; send parts of at most {MAX_PART_BYTES} bytes")]
    PartTooLarge { number: u32, byte_len: u64 },
    #[error(
        "Content-Length says {body_len} bytes and X-Content-Range {range_len}; send exactly the bytes of the range"
    )]
    BodyDiffers { body_len: u64, range_len: u64 },
    #[error(
        "the digest of the whole is told twice, and differently; send Repr-Digest or \"sha256\", not both"
    )]
    WholeDigestTwice,
}

impl PartsError {
    /// 409 where the request contradicts what is stored, 416 for bytes that the upload does not have, 413 for too many,
    /// else 400.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } | Self::PartTooLarge { .. } => 413,
            Self::TotalDiffers { .. } => 409,
            Self::Metadata(error) => error.status(),
            Self::Refused(refusal) => refusal.status(),
            Self::Field(_)
            | Self::Digest(_)
            | Self::BadBody { .. }
            | Self::LengthMissing
            | Self::LengthTwice { .. }
            | Self::PartTooSmall { .. }
            | Self::BodyDiffers { .. }
            | Self::WholeDigestTwice => 400,
        }
    }
}

impl PartRefusal {
    pub fn status(&self) -> u16 {
        match self {
            Self::OutsideLength { .. } => 416,
            Self::OtherRange { .. }
            | Self::OtherBytes { .. }
            | Self::Overlaps { .. }
            | Self::OverlapsUnderWay { .. }
            | Self::UnderWay { .. }
            | Self::NotWhole { .. }
            | Self::ListedNotStored { .. }
            | Self::ListedOtherBytes { .. }
            | Self::StoredNotListed { .. } => 409,
            Self::BodyTooLong { .. }
            | Self::BodyTooShort { .. }
            | Self::ChecksumMismatch { .. }
            | Self::ListedTwice { .. } => 400,
        }
    }
}
