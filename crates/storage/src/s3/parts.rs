//! Uploads in parts in S3: each part becomes objects of its own, and counts with one entry of the ledger.
//!
//! A part is received by a task of its own, which sends its bytes away while more arrive and also when none do: a
//! sender that stalls holds no memory for longer than [`CHECKPOINT_INTERVAL`]. Two nodes may receive the same part; the
//! ledger takes the first, and the other compares and removes its own.

use super::{
    S3Store, Shared,
    memory::Held,
    pieces::Pieces,
    receiving::{CHECKPOINT_INTERVAL, lost},
    sizes::part_bytes,
    upload::{restored, saved},
};
use crate::{
    PartError, Parts, ReceivePart, StoreError, Terms,
    ledger::{Extent, LedgerChange, LedgerPart, LedgerState},
    parts::ComparePart,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use reelyard_model::UploadId;
use reelyard_upload::{
    BodyEnd, Checkpoint, Transfer, WholeHash,
    parts::{DurablePart, PartChunk, PartRequest, PartSet, PartSettled},
};
use std::{mem, sync::Arc};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout_at},
};

/// The hash of the whole is noted after so many bytes: what a crash can cost of it.
const HASH_NOTED_EVERY_BYTES: u64 = 256 << 20;
/// Handed to the hashing thread at once, in pieces as they come from S3.
const HASH_BATCH_PIECES: usize = 64;

#[async_trait]
impl Parts for S3Store {
    /// Nothing is stored for an upload without bytes.
    async fn create_parts(&self, upload: UploadId, length: u64) -> Result<(), StoreError> {
        crate::Uploads::create_upload(self, upload, Some(length)).await
    }

    async fn part_set(&self, upload: UploadId, terms: Terms) -> Result<PartSet, StoreError> {
        let state = self.shared.ledger.load(upload).await?;
        part_set(upload, terms, &state)
    }

    async fn begin_part(
        &self,
        upload: UploadId,
        terms: Terms,
        request: &PartRequest,
    ) -> Result<Box<dyn ReceivePart>, PartError> {
        let state = self.shared.ledger.load(upload).await?;
        let chunk = part_set(upload, terms, &state)?.admit(request)?;
        if chunk.is_repeat() {
            return Ok(Box::new(ComparePart::new(chunk)));
        }
        let receiving = Receiving {
            shared: self.shared.clone(),
            upload,
            terms,
            start: request.range.start,
            pieces: Pieces::default(),
            held: Held::default(),
            gathered_at: Instant::now(),
            storing: None,
            stored: Vec::new(),
        };
        let (sender, batches) = mpsc::channel(1);
        let task = tokio::spawn(receiving.run(chunk, batches));
        Ok(Box::new(S3Part { sender: Some(sender), task }))
    }

    async fn hash_parts(&self, upload: UploadId, terms: Terms) -> Result<Transfer, StoreError> {
        let _turn = self.shared.hashing.take(upload).await;
        let state = self.shared.ledger.load(upload).await?;
        let set = part_set(upload, terms, &state)?;
        let (mut offset, mut hash) = match state.hash.as_deref().map(restored) {
            Some(Some(hash)) => (state.offset, hash),
            _ => (0, WholeHash::new()),
        };
        while offset < set.contiguous() {
            let end = set.contiguous().min(offset + HASH_NOTED_EVERY_BYTES);
            hash = self.shared.hash_on(upload, hash, offset..end).await?;
            offset = end;
            let change = LedgerChange { checkpoint: Some((offset, saved(&hash))), ..LedgerChange::default() };
            self.shared.ledger.commit(upload, None, change).await?;
        }
        let transfer = Transfer::restore(Some(set.length()), terms.limit, Checkpoint { offset, hash });
        transfer.ok_or_else(|| damaged(upload, "its hash covers more bytes than it has".to_owned()))
    }
}

impl Shared {
    /// The state after these bytes, which are durable.
    async fn hash_on(
        self: &Arc<Self>,
        upload: UploadId,
        mut hash: WholeHash,
        range: std::ops::Range<u64>,
    ) -> Result<WholeHash, StoreError> {
        let mut batches = self.read(upload, range).await?.try_ready_chunks(HASH_BATCH_PIECES);
        while let Some(batch) = batches.try_next().await.map_err(|stopped| stopped.1)? {
            let hashing = spawn_blocking(move || {
                batch.iter().for_each(|piece: &Bytes| hash.update(piece));
                hash
            });
            hash = hashing.await.map_err(lost)?;
        }
        Ok(hash)
    }
}

fn damaged(upload: UploadId, problem: String) -> StoreError {
    StoreError::Damaged { what: format!("the ledger of the upload {upload}"), problem }
}

fn part_set(upload: UploadId, terms: Terms, state: &LedgerState) -> Result<PartSet, StoreError> {
    let length =
        terms.length.ok_or_else(|| damaged(upload, "it is in parts and has no length".to_owned()))?;
    let parts = state.parts.iter().map(|part| DurablePart {
        number: part.number,
        range: part.start..part.end,
        sha256: part.sha256,
    });
    PartSet::restore(length, parts).map_err(|refused| damaged(upload, refused.to_string()))
}

enum Message {
    Bytes(Vec<Bytes>),
    End(BodyEnd),
}

/// A part that is being received. Dropped before its end, its task removes what it stored.
struct S3Part {
    /// `None` once the part is over.
    sender: Option<mpsc::Sender<Message>>,
    task: JoinHandle<Result<PartSettled, PartError>>,
}

impl S3Part {
    /// Why the task ended before it was told to.
    async fn failed(&mut self) -> PartError {
        let over = || StoreError::Io {
            doing: "receiving a part after it failed".to_owned(),
            source: std::io::ErrorKind::BrokenPipe.into(),
        };
        if self.sender.take().is_none() {
            return over().into();
        }
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) => over().into(),
            Err(error) => lost(error).into(),
        }
    }
}

#[async_trait]
impl ReceivePart for S3Part {
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<(), PartError> {
        let Some(sender) = &self.sender else { return Err(self.failed().await) };
        match sender.send(Message::Bytes(batch)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failed().await),
        }
    }

    async fn end(mut self: Box<Self>, end: BodyEnd) -> Result<PartSettled, PartError> {
        let Some(sender) = self.sender.clone() else { return Err(self.failed().await) };
        if sender.send(Message::End(end)).await.is_err() {
            return Err(self.failed().await);
        }
        (&mut self.task).await.map_err(lost)?
    }
}

/// What the task of a part works on.
struct Receiving {
    shared: Arc<Shared>,
    upload: UploadId,
    terms: Terms,
    /// Where the gathered bytes begin.
    start: u64,
    pieces: Pieces,
    held: Held,
    gathered_at: Instant,
    storing: Option<JoinHandle<Result<Extent, StoreError>>>,
    stored: Vec<Extent>,
}

impl Receiving {
    async fn run(
        mut self,
        chunk: PartChunk,
        batches: mpsc::Receiver<Message>,
    ) -> Result<PartSettled, PartError> {
        let outcome = self.receive(chunk, batches).await;
        let counts = matches!(outcome, Ok(PartSettled::Store(_)));
        // Whether the ledger has named them is not known after such an error; then they stay.
        let may_count = matches!(
            outcome,
            Err(PartError::Store(
                StoreError::Unavailable { .. } | StoreError::Io { .. } | StoreError::Full { .. }
            ))
        );
        if !counts && !may_count {
            // The last one may still be on its way.
            let _ = self.finish_storing().await;
            let keys = self.stored.drain(..).map(|extent| extent.key).collect();
            self.shared.remove_in_background(keys);
        }
        outcome
    }

    async fn receive(
        &mut self,
        mut chunk: PartChunk,
        mut batches: mpsc::Receiver<Message>,
    ) -> Result<PartSettled, PartError> {
        loop {
            let message = if self.pieces.byte_len() == 0 {
                batches.recv().await
            } else {
                match timeout_at(self.gathered_at + CHECKPOINT_INTERVAL, batches.recv()).await {
                    Ok(message) => message,
                    Err(_) => {
                        self.begin_storing().await?;
                        continue;
                    }
                }
            };
            match message {
                Some(Message::Bytes(batch)) => chunk = self.take(chunk, batch).await?,
                Some(Message::End(end)) => {
                    let settled = chunk.settle(&end)?;
                    let PartSettled::Store(part) = settled else { return Ok(settled) };
                    return self.commit(part).await;
                }
                // Dropped: nobody waits for what becomes of it.
                None => return Ok(PartSettled::Discard),
            }
            if self.pieces.byte_len() >= part_bytes(self.start, self.shared.memory_bytes) {
                self.begin_storing().await?;
            }
        }
    }

    async fn take(&mut self, mut chunk: PartChunk, batch: Vec<Bytes>) -> Result<PartChunk, PartError> {
        let byte_len: u64 = batch.iter().map(|piece| piece.len() as u64).sum();
        let held = match self.shared.memory.try_hold(byte_len) {
            Some(held) => held,
            None => {
                // Whoever waits holds nothing that is not on its way.
                self.begin_storing().await?;
                self.shared.memory.hold(byte_len).await
            }
        };
        self.held.join(held);
        if self.pieces.byte_len() == 0 {
            self.gathered_at = Instant::now();
        }
        let mut pieces = mem::take(&mut self.pieces);
        let hashing = spawn_blocking(move || {
            let outcome = batch.into_iter().try_for_each(|piece| {
                chunk.take(&piece)?;
                pieces.push(piece);
                Ok(())
            });
            (chunk, pieces, outcome)
        });
        let (chunk, pieces, outcome) = hashing.await.map_err(lost)?;
        self.pieces = pieces;
        outcome.map(|()| chunk).map_err(PartError::Refused)
    }

    /// Sends what is gathered on its way; waits for what was sent before.
    async fn begin_storing(&mut self) -> Result<(), StoreError> {
        self.finish_storing().await?;
        if self.pieces.byte_len() == 0 {
            return Ok(());
        }
        let bytes = mem::take(&mut self.pieces).finish();
        let held = mem::take(&mut self.held);
        let (shared, upload, start) = (self.shared.clone(), self.upload, self.start);
        self.start += bytes.byte_len;
        self.storing = Some(tokio::spawn(async move {
            let stored = shared.store_extent(upload, start, &bytes).await;
            drop(held);
            stored
        }));
        Ok(())
    }

    async fn finish_storing(&mut self) -> Result<(), StoreError> {
        if let Some(task) = self.storing.take() {
            self.stored.push(task.await.map_err(lost)??);
        }
        Ok(())
    }

    async fn commit(&mut self, part: DurablePart) -> Result<PartSettled, PartError> {
        self.begin_storing().await?;
        self.finish_storing().await?;
        let entry = LedgerPart {
            number: part.number,
            start: part.range.start,
            end: part.range.end,
            sha256: part.sha256,
        };
        let change =
            LedgerChange { insert: self.stored.clone(), part: Some(entry), ..LedgerChange::default() };
        match self.shared.ledger.commit(self.upload, None, change).await {
            Ok(()) => Ok(PartSettled::Store(part)),
            Err(StoreError::Conflict { what }) => self.other_was_faster(part, what).await,
            Err(error) => Err(error.into()),
        }
    }

    /// The same part with the same bytes is a success; anything else is refused for the reason it has now.
    async fn other_was_faster(&self, part: DurablePart, what: String) -> Result<PartSettled, PartError> {
        let state = self.shared.ledger.load(self.upload).await?;
        let mut set = part_set(self.upload, self.terms, &state)?;
        set.insert(part.clone())?;
        let is_there = state.parts.iter().any(|there| there.number == part.number);
        if is_there { Ok(PartSettled::AlreadyThere(part)) } else { Err(StoreError::Conflict { what }.into()) }
    }
}
