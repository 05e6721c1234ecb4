//! THE STORY: one file per transition of the flow, in the order in which an upload meets them.
//!
//! Called by the HTTP shells, by the workers (through `dispatch`) and by the loops that `cmd/serve` starts. Every step
//! is safe to run twice: it first looks at what is there, or its write is conditional. A step that fails leaves the
//! world as it was or in a state that `receive::recover` and `sweep` know.

pub(crate) mod assemble;
pub(crate) mod collect;
pub(crate) mod concatenate;
pub(crate) mod desk;
pub(crate) mod dispatch;
pub(crate) mod plan;
pub(crate) mod publish;
pub(crate) mod receive;
pub(crate) mod relay;
pub(crate) mod same_content;
pub(crate) mod sweep;

#[cfg(test)]
pub(crate) mod tests;

use reelyard_catalog::CatalogError;
use reelyard_model::{AssetId, UploadId};
use reelyard_storage::StoreError;
use reelyard_upload::tus::TusError;

/// What a step of the flow answers when it did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlowError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Answer 400 or 422 with the sentence.
    #[error("there is no preset {name:?}; there are: {known}")]
    UnknownPreset { name: String, known: String },
    #[error("the upload is not whole yet: {offset} bytes of {byte_len:?}")]
    NotWhole { offset: u64, byte_len: Option<u64> },
    /// Answer 422: the client sent other bytes than it had announced. The upload has ended.
    #[error("the bytes hash to {found}, and {expected} was announced")]
    OtherBytes { expected: String, found: String },
    /// Answer 410: a final upload cannot be made any more.
    #[error(
        "the partial upload {partial} was given up or has expired, so this final upload can never be made; send its bytes as a new partial upload and create the final one anew"
    )]
    PartialGone { partial: UploadId },
    /// Answer 413: the partials told their lengths, and together they are too long.
    #[error(transparent)]
    FinalTooLong(TusError),
    /// The operating system gives no random bytes.
    #[error("no random bytes: {reason}")]
    NoRandomness { reason: String },
    /// A row that other rows promise is not there: a bug or a damaged file.
    #[error("asset {asset}: {what}")]
    Inconsistent { asset: AssetId, what: String },
}
