//! What can be wrong with a tus request, with the status the protocol gives it.

use super::{BODY_TYPE, CHECKSUM_ALGORITHMS, VERSION};
use crate::engine::Refusal;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TusError {
    #[error(
        "this server speaks tus {VERSION}; send the header Tus-Resumable: {VERSION} (received: {received})"
    )]
    UnsupportedVersion { received: String },
    #[error("the header {name} is missing; send {expected}")]
    MissingHeader { name: &'static str, expected: &'static str },
    #[error("the header {name} cannot be read ({problem}); send {expected}")]
    BadHeader { name: &'static str, problem: String, expected: &'static str },
    #[error("the protocol extension {extension} is not offered here; {instead}")]
    UnsupportedExtension { extension: &'static str, instead: &'static str },
    #[error("the body type is {received}; send the bytes with Content-Type: {BODY_TYPE}")]
    WrongBodyType { received: String },
    #[error("the upload would be {length} bytes long; this server takes at most {max} bytes")]
    TooLarge { length: u64, max: u64 },
    #[error("the checksum algorithm {received} is not offered; use one of {CHECKSUM_ALGORITHMS}")]
    UnsupportedChecksum { received: String },
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl TusError {
    /// The status of the protocol text: 412 version, 415 type, 413 size, 409 offset, 460 checksum, else 400.
    pub fn status(&self) -> u16 {
        match self {
            Self::UnsupportedVersion { .. } => 412,
            Self::WrongBodyType { .. } => 415,
            Self::TooLarge { .. } | Self::Refused(Refusal::BeyondLength { .. }) => 413,
            Self::Refused(Refusal::OffsetMismatch { .. }) => 409,
            Self::Refused(Refusal::ChecksumMismatch { .. }) => 460,
            Self::MissingHeader { .. }
            | Self::BadHeader { .. }
            | Self::UnsupportedExtension { .. }
            | Self::UnsupportedChecksum { .. } => 400,
        }
    }
}
