//! What every keeper of uploads can do, whether the bytes lie on a disk or in S3.
//!
//! `src/flow` and the upload routes see nothing but these traits; [`crate::LocalStore`] and `s3::S3Store` keep them, and
//! one suite (`tests/conformance`) shows that both do. The promise of all of it: what a call reports as done is
//! durable, and each call is safe to run twice. Nothing here decides about uploads: `reelyard_upload` has decided.

use crate::{Parts, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use reelyard_model::{UploadId, work::SourceLayout};
use reelyard_upload::{BodyEnd, ChunkRequest, Refusal, Transfer};
use std::{fmt, fs::File, ops::Range, sync::Arc};

/// What the catalogue knows about an upload and its keeper has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// In bytes; `None` while its sender does not know it.
    pub length: Option<u64>,
    /// The most bytes it may have.
    pub limit: u64,
    /// The fencing token of whoever works on it: rises with every change of hands between nodes. A write under an
    /// older one is refused with [`StoreError::Fenced`]. One process alone keeps order by itself, and this stays 0.
    pub fence: u64,
}

/// Bytes of an object, in order, as they are read.
pub type ByteStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// Uploads that grow from the front to the back.
#[async_trait]
pub trait Uploads: fmt::Debug + Send + Sync + 'static {
    /// A new, empty upload. Fails when the id is taken.
    async fn create_upload(&self, upload: UploadId, length: Option<u64>) -> Result<(), StoreError>;

    /// What is durable of it. Whatever else is there does not count and may be removed, so nobody else may be writing
    /// to it: one request at a time has an upload open.
    async fn open_upload(&self, upload: UploadId, terms: Terms) -> Result<Box<dyn OpenUpload>, StoreError>;

    /// `into` becomes the bytes of all `partials` (which are whole, with their lengths), in order. An interrupted
    /// concatenation goes on where it was. The partials stay until they are forgotten.
    async fn concatenate(
        &self,
        into: UploadId,
        terms: Terms,
        partials: &[(UploadId, u64)],
    ) -> Result<Transfer, StoreError> {
        crate::concatenate::concatenate(self, into, terms, partials).await
    }

    /// A range of the bytes that are durable.
    async fn read_upload(&self, upload: UploadId, range: Range<u64>) -> Result<ByteStream, StoreError>;

    /// A whole upload becomes a source, without a copy; what else is kept of it stays until [`Self::forget_upload`].
    async fn finish_upload(&self, upload: UploadId, byte_len: u64) -> Result<(), StoreError>;

    /// Removes what is left of an upload: all of one that was given up, what is not part of the source of a finished
    /// one.
    async fn forget_upload(&self, upload: UploadId) -> Result<(), StoreError>;

    /// All uploads of which something is kept, for sweeping.
    async fn list_uploads(&self) -> Result<Vec<UploadId>, StoreError>;

    /// Room that is left; `None` where nobody knows.
    async fn free_bytes(&self) -> Result<Option<u64>, StoreError>;
}

/// An upload whose durable state was read.
pub trait OpenUpload: fmt::Debug + Send {
    fn transfer(&self) -> &Transfer;

    /// Begins a chunk, or says why not; the upload is as it was then.
    fn begin(self: Box<Self>, request: &ChunkRequest) -> Result<Box<dyn Receive>, ReceiveError>;
}

/// A chunk that is being received.
#[async_trait]
pub trait Receive: Send {
    /// Takes the next bytes; none is a good moment for a checkpoint. Returns when there is room for more: at most two
    /// batches of one upload are in memory beside what the keeper's own budget allows. After an error the chunk is
    /// over; what was made durable before still counts.
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<(), ReceiveError>;

    /// Bytes were taken that no checkpoint counts yet and that one could count: call [`Self::write`] again soon, with
    /// or without more bytes.
    fn wants_checkpoint(&self) -> bool;

    /// What is known to be durable so far.
    fn durable_offset(&self) -> u64;

    /// Where the bytes can go straight from their sender to their place: how. A keeper that sends them on over a network
    /// takes batches only.
    fn as_pull(&mut self) -> Option<&mut dyn Pull> {
        None
    }

    /// The body ended: the checkpoint that results is durable on return. On a refusal nothing since the last
    /// checkpoint counts. The offset that is durable now comes back either way.
    async fn end(self: Box<Self>, end: BodyEnd) -> (u64, Result<Transfer, ReceiveError>);
}

/// A keeper that fetches bytes itself, on one thread from their sender to their place: while they are in the processor's
/// cache they are hashed and written, and nothing is handed from task to task.
#[async_trait]
pub trait Pull: Receive {
    /// Takes what `inflow` gives until it gives nothing. Errors as of [`Receive::write`].
    async fn pull(&mut self, inflow: Arc<dyn Inflow>) -> Result<(), ReceiveError>;
}

/// Where the bytes of a body are fetched from.
pub trait Inflow: Send + Sync {
    /// The next bytes, into the front of `buffer`, and how many; may wait for them a little. None: for now there are no
    /// more, or never again; whoever made it knows why.
    fn fetch(&self, buffer: &mut [u8]) -> usize;

    /// More than this it will not give now.
    fn most(&self) -> u64;
}

/// Finished uploads, by key (`sources/{asset}`).
#[async_trait]
pub trait Sources: fmt::Debug + Send + Sync + 'static {
    /// The whole as a file of this machine, for a child that reads a descriptor.
    async fn open_source(&self, key: &str) -> Result<File, StoreError>;

    /// In bytes; `None` when there is no such source.
    async fn source_len(&self, key: &str) -> Result<Option<u64>, StoreError>;

    /// A range that lies inside the source.
    async fn read_source(&self, key: &str, range: Range<u64>) -> Result<ByteStream, StoreError>;

    /// The objects that hold a source right now, for whoever reads them by key elsewhere.
    async fn layout(&self, key: &str) -> Result<SourceLayout, StoreError>;

    /// Makes one object of what an upload left in pieces; readers notice nothing. True: there was something to do.
    async fn assemble_source(&self, key: &str) -> Result<bool, StoreError>;

    /// That there is none is fine.
    async fn delete_source(&self, key: &str) -> Result<(), StoreError>;
}

/// Everything that the platform asks of the place where uploads lie.
pub trait UploadStore: Uploads + Parts + Sources {}

impl<Store: Uploads + Parts + Sources> UploadStore for Store {}

/// The key of the source that an upload becomes. An asset has the id of its upload.
pub fn source_key(upload: UploadId) -> String {
    format!("sources/{upload}")
}

/// Why receiving stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}
