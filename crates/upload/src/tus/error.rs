//! What can be wrong with a tus request, with the status the protocol gives it.

use super::{BODY_TYPE, CHECKSUM_ALGORITHMS, MAX_PARTIALS, VERSION};
use crate::{engine::Refusal, fields::FieldError};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TusError {
    #[error(
        "this server speaks tus {VERSION}; send the header Tus-Resumable: {VERSION} (received: {received})"
    )]
    UnsupportedVersion { received: String },
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the body type is {received}; send the bytes with Content-Type: {BODY_TYPE}")]
    WrongBodyType { received: String },
    #[error(
        "the size of the upload is not told; send Upload-Length with the whole size in bytes, or Upload-Defer-Length: 1 when it is not known yet"
    )]
    LengthMissing,
    #[error(
        "the request has both Upload-Length and Upload-Defer-Length; send only Upload-Length when the size is known, else only Upload-Defer-Length: 1"
    )]
    LengthBothKnownAndDeferred,
    #[error("the upload would be {length} bytes long; this server takes at most {max} bytes")]
    TooLarge { length: u64, max: u64 },
    #[error("the checksum algorithm {received} is not offered; use one of {CHECKSUM_ALGORITHMS}")]
    UnsupportedChecksum { received: String },
    #[error(
        "the checksum is announced both before and behind the body; send Upload-Checksum as a header or as a trailer, not as both"
    )]
    ChecksumTwice,
    #[error(
        "a checksum came behind the body that the header had not announced, so it could not be compared; ask with HEAD what is stored, and send the next chunk with the header Trailer: Upload-Checksum"
    )]
    ChecksumUnannounced,
    #[error(
        "a final upload is as long as its partial uploads together; send it without Upload-Length and Upload-Defer-Length"
    )]
    FinalWithLength,
    #[error(
        "a final upload gets its bytes from its partial uploads and takes none itself; send them to a partial upload, or create an upload without Upload-Concat"
    )]
    FinalTakesNoBytes,
    #[error(
        "the final upload names {count} partial uploads; name at most {MAX_PARTIALS}, of more bytes each"
    )]
    TooManyPartials { count: usize },
    #[error(
        "{url} is not the address of an upload that can be joined; name addresses that creations with Upload-Concat: partial were answered with as Location, and create what has expired anew"
    )]
    UnknownPartial { url: String },
    #[error(
        "{url} was not created as a partial upload; create what is to be joined with Upload-Concat: partial"
    )]
    NotPartial { url: String },
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl TusError {
    /// The status of the protocol text: 412 version, 415 type, 413 size, 409 offset, 460 checksum, 403 for bytes to a
    /// final upload, else 400.
    pub fn status(&self) -> u16 {
        match self {
            Self::UnsupportedVersion { .. } => 412,
            Self::WrongBodyType { .. } => 415,
            Self::TooLarge { .. }
            | Self::Refused(Refusal::BeyondLength { .. } | Refusal::BeyondLimit { .. }) => 413,
            Self::Refused(Refusal::OffsetMismatch { .. }) => 409,
            Self::Refused(Refusal::ChecksumMismatch { .. }) => 460,
            Self::FinalTakesNoBytes => 403,
            Self::Refused(
                Refusal::LengthChanged { .. }
                | Refusal::LengthBelowOffset { .. }
                | Refusal::ChecksumMissing { .. },
            ) => 400,
            Self::Field(_)
            | Self::LengthMissing
            | Self::LengthBothKnownAndDeferred
            | Self::UnsupportedChecksum { .. }
            | Self::ChecksumTwice
            | Self::ChecksumUnannounced
            | Self::FinalWithLength
            | Self::TooManyPartials { .. }
            | Self::UnknownPartial { .. }
            | Self::NotPartial { .. } => 400,
        }
    }
}
