//! Where a child's source comes from: a file that it inherits, or ranges of bytes that are fetched for it.
//!
//! A [`Depot`](crate::control::Depot) that lies on the same disk hands out the file, and the child reads it without
//! anybody's help. One that is far away hands out a [`RangeReader`]; then the child asks over a socket
//! (`reelyard_sandbox::source`), [`Serving`] answers, and only what was asked for, and a little more, is fetched. What
//! one child has fetched the next one of this worker finds in the [`SourceCache`].

mod blocks;
mod cache;
mod fetch;
mod read_ahead;
mod serve;
#[cfg(test)]
mod tests;

pub(crate) use cache::DISK_BYTES;
pub use cache::{SourceCache, Traffic};
pub use fetch::Patience;
pub use read_ahead::Habit;
pub use serve::{Served, Serving};

use bytes::Bytes;
use futures::stream::BoxStream;
use reelyard_model::{Failure, FailureCode};
use std::{fs::File, io, ops::Range, sync::Arc};

/// The bytes of a source, as a depot gives them.
pub enum SourceBytes {
    /// Opened read-only and seekable: becomes the child's descriptor itself.
    File(File),
    /// Fetched piece by piece, just what the child reads.
    Ranges(Arc<dyn RangeReader>),
}

/// A source that is far away. Its bytes never change as long as its key is the same.
pub trait RangeReader: Send + Sync + 'static {
    fn byte_len(&self) -> u64;

    /// The bytes of `range`, in order; it lies within `0 .. byte_len()`. Nothing is fetched before the stream is
    /// polled, and nothing more once it is dropped: it is dropped early when the child jumps elsewhere.
    ///
    /// `NotFound` means that the source is gone for good. Every other error, and a stream that ends early, is tried
    /// again by the caller, so the reader itself need not try twice.
    fn read(&self, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>>;
}

/// Why a source could not be read to where the child wanted to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceFailure {
    #[error("the source is gone, or shorter than it was: {0}")]
    Gone(String),
    #[error("the source cannot be read now: {0}")]
    Unavailable(String),
    /// The child, not the source, is to blame.
    #[error("the child broke the protocol of its source: {0}")]
    Protocol(String),
}

impl SourceFailure {
    /// As the end of an attempt.
    pub fn into_failure(self, key: &str) -> Failure {
        let code = match self {
            Self::Gone(_) => FailureCode::SourceMissing,
            Self::Unavailable(_) => FailureCode::StorageFailed,
            Self::Protocol(_) => FailureCode::Internal,
        };
        Failure::new(code, format!("{key}: {self}"))
    }
}
