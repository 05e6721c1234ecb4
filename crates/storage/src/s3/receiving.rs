//! Bytes on their way into an upload in S3.
//!
//! A batch is hashed on a blocking thread while the caller gathers the next one; then its pieces wait, as they came,
//! until a part is full, a checkpoint is due or memory is short. The part is stored and committed in the background
//! ([`super::storing`]) while the next is gathered, so two parts of one upload are in memory at most. Bytes that may
//! not count yet (their checksum is still to come) are stored all the same, without a checkpoint: memory can always be
//! emptied.

use super::{
    Shared,
    memory::Held,
    pieces::{Pieces, Sendable},
    sizes::{part_bytes, taken_up},
    storing::{Job, Objects, Stored},
    upload::S3Upload,
};
use crate::{Receive, ReceiveError, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use reelyard_model::UploadId;
use reelyard_upload::{BodyEnd, Checkpoint, Chunk, ChunkRequest, Refusal, Settled, Transfer};
use std::{
    io, mem,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::OwnedMutexGuard,
    task::{JoinError, JoinHandle, spawn_blocking},
};

/// Bytes of a slow sender are stored after so long though they make no full part: what a kill can cost beside a part.
/// Shorter would be more requests to S3, which are paid one by one.
pub(super) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// A chunk that is being received.
pub(crate) struct S3Receive {
    shared: Arc<Shared>,
    upload: UploadId,
    fence: u64,
    transfer: Transfer,
    hashing: Hashing,
    /// Memory of the bytes that are gathered, those that are being hashed included.
    held: Held,
    /// Since when the oldest gathered byte waits.
    gathered_at: Instant,
    /// Where the gathered bytes begin.
    start: u64,
    /// Where the next byte belongs.
    position: u64,
    storing: Storing,
}

struct Gathered {
    chunk: Chunk,
    pieces: Pieces,
}

type Hashed = (Gathered, Result<(), Refusal>);

enum Hashing {
    Idle(Box<Gathered>),
    Running(JoinHandle<Hashed>),
    /// The chunk was refused, or a thread was lost.
    Over,
}

enum Storing {
    Idle(Objects),
    Running(JoinHandle<Stored>),
    /// Storing failed: nothing more is stored.
    Over,
}

impl S3Receive {
    /// Begins a chunk, or says why not; the upload is as it was then.
    pub(super) fn begin(open: S3Upload, request: &ChunkRequest) -> Result<Self, ReceiveError> {
        let S3Upload { shared, upload, fence, transfer, extents } = open;
        let chunk = transfer.begin_chunk(request)?;
        let start = transfer.offset();
        Ok(Self {
            shared,
            upload,
            fence,
            transfer,
            hashing: Hashing::Idle(Box::new(Gathered { chunk, pieces: Pieces::default() })),
            held: Held::default(),
            gathered_at: Instant::now(),
            start,
            position: start,
            storing: Storing::Idle(Objects::new(extents)),
        })
    }

    /// Waits for the batch that is being hashed. May be dropped while it waits.
    async fn hashed(&mut self) -> Result<&mut Gathered, ReceiveError> {
        if let Hashing::Running(thread) = &mut self.hashing {
            let outcome = thread.await;
            self.hashing = Hashing::Over;
            let (gathered, outcome) = outcome.map_err(lost)?;
            outcome?;
            self.hashing = Hashing::Idle(Box::new(gathered));
        }
        match &mut self.hashing {
            Hashing::Idle(gathered) => Ok(gathered),
            Hashing::Running(_) | Hashing::Over => Err(over().into()),
        }
    }

    /// Waits for the part that is being stored, and counts it. May be dropped while it waits.
    async fn stored(&mut self) -> Result<&mut Objects, StoreError> {
        if let Storing::Running(task) = &mut self.storing {
            let outcome = task.await;
            self.storing = Storing::Over;
            let Stored { objects, outcome } = outcome.map_err(lost)?;
            match outcome {
                Ok(Some(checkpoint)) => self.transfer.advance(checkpoint),
                Ok(None) => {}
                Err(error) => {
                    objects.give_up_after(&self.shared, &error);
                    return Err(error);
                }
            }
            self.storing = Storing::Idle(objects);
        }
        match &mut self.storing {
            Storing::Idle(objects) => Ok(objects),
            Storing::Running(_) | Storing::Over => Err(over()),
        }
    }

    /// Counts what has been stored meanwhile, without waiting.
    async fn notice_stored(&mut self) -> Result<(), StoreError> {
        if matches!(&self.storing, Storing::Running(task) if task.is_finished()) {
            self.stored().await?;
        }
        Ok(())
    }

    /// Whether what is gathered should be stored now.
    fn is_due(&self, gathered: u64) -> bool {
        if gathered == 0 {
            return false;
        }
        let part = part_bytes(self.start, self.shared.memory_bytes);
        match &self.storing {
            Storing::Running(_) => gathered >= part,
            Storing::Idle(objects) => {
                let (_, taken_up) = taken_up(objects.short_lengths(), gathered, part);
                gathered + taken_up >= part || self.gathered_at.elapsed() >= CHECKPOINT_INTERVAL
            }
            Storing::Over => false,
        }
    }

    /// Sends what is gathered on its way; waits for what was sent before.
    async fn store_gathered(&mut self) -> Result<(), ReceiveError> {
        self.hashed().await?;
        self.stored().await?;
        let turn = self.shared.turns.take(self.upload).await;
        // From here on nothing waits: whoever drops this while it waits has lost no byte.
        let Hashing::Idle(gathered) = &mut self.hashing else { return Err(over().into()) };
        let checkpoint = gathered.chunk.checkpoint();
        let bytes = mem::take(&mut gathered.pieces).finish();
        Ok(self.begin_storing(turn, bytes, checkpoint)?)
    }

    fn begin_storing(
        &mut self,
        turn: OwnedMutexGuard<()>,
        bytes: Sendable,
        checkpoint: Option<Checkpoint>,
    ) -> Result<(), StoreError> {
        let start = self.start;
        self.start += bytes.byte_len;
        let Storing::Idle(objects) = mem::replace(&mut self.storing, Storing::Over) else {
            return Err(over());
        };
        let job = Job {
            shared: self.shared.clone(),
            upload: self.upload,
            fence: self.fence,
            part: part_bytes(start, self.shared.memory_bytes),
            start,
            bytes,
            held: mem::take(&mut self.held),
            objects,
            checkpoint,
            _turn: turn,
        };
        self.storing = Storing::Running(tokio::spawn(job.run()));
        Ok(())
    }

    async fn finish(&mut self, end: BodyEnd) -> Result<(), ReceiveError> {
        let hashed = self.hashed().await.map(|_| ());
        // What is on its way still counts when the rest is refused.
        let stored = self.stored().await.map(|_| ());
        hashed?;
        stored?;
        let Hashing::Idle(gathered) = mem::replace(&mut self.hashing, Hashing::Over) else {
            return Err(over().into());
        };
        let Gathered { chunk, pieces } = *gathered;
        let Settled::Advance(checkpoint) = chunk.settle(end)? else { return Ok(()) };
        if checkpoint.offset > self.transfer.offset() {
            let turn = self.shared.turns.take(self.upload).await;
            self.begin_storing(turn, pieces.finish(), Some(checkpoint))?;
            self.stored().await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Receive for S3Receive {
    /// May be dropped while it waits; the batch is not taken then.
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<(), ReceiveError> {
        let gathered = self.hashed().await?.pieces.byte_len();
        self.notice_stored().await?;
        if self.is_due(gathered) {
            self.store_gathered().await?;
        }
        let byte_len: u64 = batch.iter().map(|piece| piece.len() as u64).sum();
        if byte_len == 0 {
            return Ok(());
        }
        let held = match self.shared.memory.try_hold(byte_len) {
            Some(held) => held,
            None => {
                // Whoever waits holds nothing that is not on its way, or all could wait for all.
                if self.hashed().await?.pieces.byte_len() > 0 {
                    self.store_gathered().await?;
                }
                self.shared.memory.hold(byte_len).await
            }
        };
        let Hashing::Idle(mut gathered) = mem::replace(&mut self.hashing, Hashing::Over) else {
            return Err(over().into());
        };
        if gathered.pieces.byte_len() == 0 {
            self.gathered_at = Instant::now();
        }
        self.held.join(held);
        self.position += byte_len;
        self.hashing = Hashing::Running(spawn_blocking(move || {
            let outcome = batch.into_iter().try_for_each(|piece| {
                gathered.chunk.take(&piece)?;
                gathered.pieces.push(piece);
                Ok(())
            });
            (*gathered, outcome)
        }));
        Ok(())
    }

    /// Also while bytes are held that cannot count yet: they are to be stored, not kept in memory.
    fn wants_checkpoint(&self) -> bool {
        matches!(self.storing, Storing::Running(_)) || self.start < self.position
    }

    fn durable_offset(&self) -> u64 {
        self.transfer.offset()
    }

    async fn end(mut self: Box<Self>, end: BodyEnd) -> (u64, Result<Transfer, ReceiveError>) {
        let outcome = self.finish(end).await;
        if let Storing::Idle(objects) = mem::replace(&mut self.storing, Storing::Over) {
            objects.give_up(&self.shared);
        }
        (self.transfer.offset(), outcome.map(|()| self.transfer))
    }
}

fn over() -> StoreError {
    StoreError::Io {
        doing: "receiving an upload after it failed".to_owned(),
        source: io::Error::from(io::ErrorKind::BrokenPipe),
    }
}

/// A task panicked or the runtime is going down.
pub(super) fn lost(error: JoinError) -> StoreError {
    StoreError::Io { doing: "waiting for work on an upload".to_owned(), source: io::Error::other(error) }
}
