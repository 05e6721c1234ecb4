//! Uploads in parts on disk: one file, into which every part is written at its own place, and a journal.
//!
//! There is no second copy of anything, and nothing is moved at the end: what completes the upload is a rename. The
//! requests of one upload share a [`Session`]; a part's bytes are hashed and written on blocking threads while the caller
//! gathers the next ones.

use super::{
    directory::{blocking, lost_thread},
    parts_journal::PartsJournal,
    parts_session::{Claim, Sessions},
    piece::write_all_at,
};
use crate::{
    LocalStore, MAX_BATCH_PIECES, PartError, Parts, ReceivePart, StoreError, Terms, parts::ComparePart,
};
use async_trait::async_trait;
use bytes::Bytes;
use reelyard_model::UploadId;
use reelyard_upload::{
    BodyEnd, Transfer,
    parts::{PartChunk, PartRequest, PartSet, PartSettled},
};
use std::{io, io::IoSlice, mem, ops::Range, sync::Arc};
use tokio::task::{JoinHandle, spawn_blocking};

/// So much of a part is sent to the disk while more of it arrives, so that little is left to sync when it ends.
const SYNC_BYTES: u64 = 32 << 20;

#[async_trait]
impl Parts for LocalStore {
    async fn create_parts(&self, upload: UploadId, length: u64) -> Result<(), StoreError> {
        self.make_upload(upload, move |journal| PartsJournal::create(journal, upload, length)).await
    }

    async fn part_set(&self, upload: UploadId, terms: Terms) -> Result<PartSet, StoreError> {
        let set = self.sessions.open(self, upload).await?.part_set();
        check_length(upload, set.length(), terms)?;
        Ok(set)
    }

    async fn begin_part(
        &self,
        upload: UploadId,
        terms: Terms,
        request: &PartRequest,
    ) -> Result<Box<dyn ReceivePart>, PartError> {
        let session = self.sessions.open(self, upload).await?;
        let (chunk, claim) = session.begin(request)?;
        check_length(upload, session.length(), terms)?;
        let Some(claim) = claim else { return Ok(Box::new(ComparePart::new(chunk))) };
        let byte_len = request.range.end - request.range.start;
        blocking(move || session.check_room(byte_len)).await?;
        Ok(Box::new(LocalPart {
            claim: Arc::new(claim),
            range: request.range.clone(),
            sessions: self.sessions.clone(),
            writing: Writing::Idle(Box::new(chunk)),
            syncing: None,
            unsynced_bytes: 0,
        }))
    }

    async fn hash_parts(&self, upload: UploadId, terms: Terms) -> Result<Transfer, StoreError> {
        let session = self.sessions.open(self, upload).await?;
        check_length(upload, session.length(), terms)?;
        session.hash(&self.sessions, terms.limit).await
    }
}

fn check_length(upload: UploadId, announced: u64, terms: Terms) -> Result<(), StoreError> {
    match terms.length {
        Some(length) if length != announced => Err(StoreError::Damaged {
            what: format!("the upload {upload}"),
            problem: format!("it was announced with {announced} bytes and is said to have {length}"),
        }),
        _ => Ok(()),
    }
}

/// A new part that is being received.
struct LocalPart {
    /// Every thread that writes holds it, too: nobody else may have the part's place before the last one has ended.
    claim: Arc<Claim>,
    range: Range<u64>,
    sessions: Arc<Sessions>,
    writing: Writing,
    syncing: Option<JoinHandle<Result<(), StoreError>>>,
    unsynced_bytes: u64,
}

type Written = (PartChunk, Result<(), PartError>);

enum Writing {
    Idle(Box<PartChunk>),
    Running(JoinHandle<Written>),
    /// A thread was lost, a write failed, or the part was refused: nothing more is written.
    Broken,
}

impl LocalPart {
    /// Waits for the batch that is being written.
    async fn written(&mut self) -> Result<PartChunk, PartError> {
        match mem::replace(&mut self.writing, Writing::Broken) {
            Writing::Idle(chunk) => Ok(*chunk),
            Writing::Running(thread) => {
                let (chunk, outcome) = thread.await.map_err(lost_thread)?;
                outcome.map(|()| chunk)
            }
            Writing::Broken => Err(StoreError::Io {
                doing: "writing a part after a failed write".to_owned(),
                source: io::ErrorKind::BrokenPipe.into(),
            }
            .into()),
        }
    }

    /// Sends what is written to the disk when it is much, and waits only for the time before.
    async fn sync_some(&mut self) -> Result<(), StoreError> {
        if self.unsynced_bytes < SYNC_BYTES {
            return Ok(());
        }
        self.unsynced_bytes = 0;
        self.synced().await?;
        let claim = self.claim.clone();
        self.syncing = Some(spawn_blocking(move || claim.session.sync_data()));
        Ok(())
    }

    async fn settled(&mut self, end: &BodyEnd) -> Result<PartSettled, PartError> {
        let written = self.written().await;
        self.synced().await?;
        Ok(written?.settle(end)?)
    }

    async fn synced(&mut self) -> Result<(), StoreError> {
        match self.syncing.take() {
            Some(thread) => thread.await.map_err(lost_thread)?,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl ReceivePart for LocalPart {
    /// Returns when the batch before this one is written: so two batches at most are in memory.
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<(), PartError> {
        let mut chunk = self.written().await?;
        self.sync_some().await?;
        self.unsynced_bytes += batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let claim = self.claim.clone();
        self.writing = Writing::Running(spawn_blocking(move || {
            let outcome = write_batch(&mut chunk, &claim, &batch);
            (chunk, outcome)
        }));
        Ok(())
    }

    async fn end(mut self: Box<Self>, end: BodyEnd) -> Result<PartSettled, PartError> {
        let settled = self.settled(&end).await;
        let Ok(PartSettled::Store(part)) = settled else {
            let (claim, range) = (self.claim.clone(), self.range.clone());
            let _ = spawn_blocking(move || claim.session.give_back_room(&range)).await;
            return settled;
        };
        let claim = self.claim.clone();
        claim.session.part_arrived(&part.range, &self.sessions);
        let durable = part.clone();
        blocking(move || claim.session.commit(durable)).await?;
        Ok(PartSettled::Store(part))
    }
}

fn write_batch(chunk: &mut PartChunk, claim: &Claim, batch: &[Bytes]) -> Result<(), PartError> {
    let data = claim.session.data()?;
    for pieces in batch.chunks(MAX_BATCH_PIECES) {
        let position = chunk.position();
        for piece in pieces {
            chunk.take(piece)?;
        }
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        write_all_at(data, &mut slices, position)
            .map_err(|e| StoreError::io("writing", &claim.session.data_path, e))?;
    }
    Ok(())
}
