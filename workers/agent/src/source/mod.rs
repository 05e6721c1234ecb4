//! Where a child's source comes from: a file that it inherits, or ranges of bytes that are fetched for it.
//!
//! A [`Depot`](crate::control::Depot) that lies on the same disk hands out the file, and the child reads it without
//! anybody's help. One that is far away hands out a [`RangeReader`].

use bytes::Bytes;
use futures::stream::BoxStream;
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
