//! What every keeper of uploads in parts can do: parts of one upload that come at the same time and in any order.
//!
//! The parts routes see nothing but these traits; [`crate::LocalStore`] and `s3::S3Store` keep them, and the suite in
//! `tests/conformance` shows that both do. The promise is that of [`crate::Uploads`]: what a call reports as done is
//! durable, and each call is safe to run twice. `reelyard_upload::parts` has decided what may be received;
//! [`crate::Uploads::finish_upload`] and [`crate::Uploads::forget_upload`] end these uploads, too.

use crate::{StoreError, Terms};
use async_trait::async_trait;
use bytes::Bytes;
use reelyard_model::UploadId;
use reelyard_upload::{
    BodyEnd, Transfer,
    parts::{PartChunk, PartRefusal, PartRequest, PartSet, PartSettled},
};
use std::fmt;
use tokio::task::{JoinHandle, spawn_blocking};

/// Uploads whose parts come in any order. Several parts of one upload are received at the same time, each by a request
/// of its own; of one part there is one request at a time, which the caller sees to.
#[async_trait]
pub trait Parts: fmt::Debug + Send + Sync + 'static {
    /// A new upload without a part. Fails when the id is taken.
    async fn create_parts(&self, upload: UploadId, length: u64) -> Result<(), StoreError>;

    /// What is durable of it, now. Touches nothing.
    async fn part_set(&self, upload: UploadId, terms: Terms) -> Result<PartSet, StoreError>;

    /// Begins a part, or says why not. One that is stored already comes back as a receiver, too: it compares.
    async fn begin_part(
        &self,
        upload: UploadId,
        terms: Terms,
        request: &PartRequest,
    ) -> Result<Box<dyn ReceivePart>, PartError>;

    /// Brings the SHA-256 of the whole forward over the parts that are durable from the front without a gap, and says
    /// how far it is: [`Transfer::sha256`] is the whole's once all parts are there. To be called in the background after
    /// parts have landed, so that little is left when the upload is completed; at most one call at a time does the work
    /// of one upload, others wait for it. How far it came survives a restart, roughly. Still answers after
    /// [`crate::Uploads::finish_upload`].
    async fn hash_parts(&self, upload: UploadId, terms: Terms) -> Result<Transfer, StoreError>;
}

/// A part that is being received. Dropped before its end, it leaves nothing that counts.
#[async_trait]
pub trait ReceivePart: Send {
    /// Takes the next bytes. Returns when there is room for more: at most two batches of one part are in memory beside
    /// what the keeper's own budget allows. After an error the part is over.
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<(), PartError>;

    /// The body ended. A part that is to be stored is durable on return, and counts in [`Parts::part_set`].
    async fn end(self: Box<Self>, end: BodyEnd) -> Result<PartSettled, PartError>;
}

/// Why a part was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    #[error(transparent)]
    Refused(#[from] PartRefusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The receiver of a part that is stored already: hashes what comes and compares, for every store the same.
pub(crate) struct ComparePart {
    hashing: Hashing,
}

type Hashed = (PartChunk, Result<(), PartRefusal>);

enum Hashing {
    Idle(Box<PartChunk>),
    Running(JoinHandle<Hashed>),
    /// A thread was lost, or the part was refused.
    Over,
}

impl ComparePart {
    pub(crate) fn new(chunk: PartChunk) -> Self {
        Self { hashing: Hashing::Idle(Box::new(chunk)) }
    }

    async fn hashed(&mut self) -> Result<PartChunk, PartError> {
        let gone = || StoreError::Io {
            doing: "comparing a part that was refused".to_owned(),
            source: std::io::ErrorKind::BrokenPipe.into(),
        };
        match std::mem::replace(&mut self.hashing, Hashing::Over) {
            Hashing::Idle(chunk) => Ok(*chunk),
            Hashing::Running(thread) => {
                let (chunk, outcome) = thread.await.map_err(|error| StoreError::Io {
                    doing: "waiting for a comparison".to_owned(),
                    source: std::io::Error::other(error),
                })?;
                outcome?;
                Ok(chunk)
            }
            Hashing::Over => Err(gone().into()),
        }
    }
}

#[async_trait]
impl ReceivePart for ComparePart {
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<(), PartError> {
        let mut chunk = self.hashed().await?;
        self.hashing = Hashing::Running(spawn_blocking(move || {
            let outcome = batch.iter().try_for_each(|piece| chunk.take(piece));
            (chunk, outcome)
        }));
        Ok(())
    }

    async fn end(mut self: Box<Self>, end: BodyEnd) -> Result<PartSettled, PartError> {
        Ok(self.hashed().await?.settle(&end)?)
    }
}
