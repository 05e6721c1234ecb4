//! Bytes on their way into an upload: the one write path.
//!
//! Either pieces from the socket are gathered by the caller, and [`LocalReceive`] hashes and writes them on a blocking
//! thread while the caller gathers the next ones: at most two batches of one upload are in memory. Or the thread
//! fetches them itself ([`Pull`]), through one buffer. Checkpoints are made durable on the way, and the last one before
//! anybody is told.

use super::upload::{UploadFile, cut_file};
use crate::{
    Inflow, MAX_BATCH_PIECES, Pull, Receive, ReceiveError, StoreError,
    local::directory::{blocking, lost_thread},
    local::journal::Journal,
};
use async_trait::async_trait;
use bytes::Bytes;
use reelyard_upload::{BodyEnd, Check, Checkpoint, Chunk, ChunkRequest, Settled, Transfer};
use rustix::io::pwritev;
use std::{
    fs::File,
    io::{self, IoSlice},
    mem,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::{JoinHandle, spawn_blocking};

/// A checkpoint on the way after so many bytes: what a kill in the middle of a long request can cost.
const CHECKPOINT_BYTES: u64 = 32 << 20;
/// And after so long, for slow senders, as soon as there is something to count.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// The most that is fetched at a time. Each fetch opens the sender's window again, and the kernel then sends for it on our
/// time: with 256 KiB a GiB cost a tenth more (benches/README.md).
const FETCH_BYTES: u64 = 2 << 20;
/// What is hashed and written at a time: it is still in the processor's cache (L2, half a MiB or more) when it is written.
const PIECE_BYTES: usize = 256 << 10;
/// Kept when nothing is fetched: as many as fetch at a time where few processors are.
const IDLE_BUFFERS: usize = 4;

/// A chunk that is being received.
pub(crate) struct LocalReceive {
    transfer: Transfer,
    data: Arc<File>,
    data_path: PathBuf,
    writing: Writing,
    /// Elsewhere while a checkpoint is being made durable.
    syncing: Syncing,
    checkpoint_offset: u64,
    checkpoint_at: Instant,
    /// Where the next byte goes.
    position: u64,
    /// No byte counts before the whole chunk is verified.
    checked: bool,
    buffers: Arc<Buffers>,
}

/// Buffers between two fetches: new memory costs a page fault for each 4 KiB, a twentieth of receiving a GiB.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self, byte_len: usize) -> Vec<u8> {
        let mut buffer = self.idle().pop().unwrap_or_default();
        buffer.resize(buffer.len().max(byte_len), 0);
        buffer
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut idle = self.idle();
        if idle.len() < IDLE_BUFFERS {
            idle.push(buffer);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Taking and giving leave it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Written = (Chunk, Result<(), ReceiveError>);
type Synced = (Journal, Result<Checkpoint, StoreError>);

enum Writing {
    Idle(Box<Chunk>),
    Running(JoinHandle<Written>),
    /// A thread was lost, or a write failed: nothing more is written.
    Broken,
}

enum Syncing {
    Idle(Journal),
    Running(JoinHandle<Synced>),
    Broken,
}

impl LocalReceive {
    /// Begins a chunk, or says why not; the upload is as it was then.
    pub(super) fn begin(upload: UploadFile, request: &ChunkRequest) -> Result<Self, ReceiveError> {
        let UploadFile { transfer, data, data_path, journal, buffers } = upload;
        let chunk = transfer.begin_chunk(request)?;
        let data = data.ok_or_else(|| StoreError::NotFound { what: data_path.display().to_string() })?;
        cut_file(&data, &data_path, transfer.offset())?;
        Ok(Self {
            checkpoint_offset: transfer.offset(),
            checkpoint_at: Instant::now(),
            position: transfer.offset(),
            checked: request.check != Check::None,
            transfer,
            data,
            data_path,
            writing: Writing::Idle(Box::new(chunk)),
            syncing: Syncing::Idle(journal),
            buffers,
        })
    }

    /// Bytes that do not count are cut off at the next opening anyway; on a full disk their room is wanted now.
    async fn give_back_room(&self) {
        let (data, path, offset) = (self.data.clone(), self.data_path.clone(), self.transfer.offset());
        let cut =
            blocking(move || data.set_len(offset).map_err(|e| StoreError::io("cutting", &path, e))).await;
        if let Err(error) = cut {
            tracing::debug!(%error, "bytes that do not count stay on the disk for now");
        }
    }

    async fn finish(&mut self, end: BodyEnd) -> Result<(), ReceiveError> {
        let written = self.written().await;
        let journal = self.synced().await?;
        let Settled::Advance(checkpoint) = written?.settle(end)? else { return Ok(()) };
        if checkpoint.offset == self.transfer.offset() {
            return Ok(());
        }
        let syncing = sync_in_background(self.data.clone(), self.data_path.clone(), journal, checkpoint);
        self.syncing = Syncing::Running(syncing);
        self.synced().await?;
        Ok(())
    }

    /// Waits for the batch that is being written.
    async fn written(&mut self) -> Result<Chunk, ReceiveError> {
        match mem::replace(&mut self.writing, Writing::Broken) {
            Writing::Idle(chunk) => Ok(*chunk),
            Writing::Running(thread) => {
                let (chunk, outcome) = thread.await.map_err(lost_thread)?;
                outcome.map(|()| chunk)
            }
            Writing::Broken => Err(broken().into()),
        }
    }

    /// Waits for the checkpoint that is being made durable, and counts it.
    async fn synced(&mut self) -> Result<Journal, StoreError> {
        match mem::replace(&mut self.syncing, Syncing::Broken) {
            Syncing::Idle(journal) => Ok(journal),
            Syncing::Running(thread) => {
                let (journal, outcome) = thread.await.map_err(lost_thread)?;
                self.transfer.advance(outcome?);
                Ok(journal)
            }
            Syncing::Broken => Err(broken()),
        }
    }

    /// Starts a checkpoint of all that is written, when one is due and none is under way.
    async fn make_checkpoint(&mut self, chunk: &Chunk) -> Result<(), StoreError> {
        if matches!(&self.syncing, Syncing::Running(thread) if !thread.is_finished()) {
            return Ok(());
        }
        let journal = self.synced().await?;
        let behind = chunk.position() - self.checkpoint_offset;
        let due =
            behind >= CHECKPOINT_BYTES || (behind > 0 && self.checkpoint_at.elapsed() >= CHECKPOINT_INTERVAL);
        self.syncing = match chunk.checkpoint().filter(|_| due) {
            None => Syncing::Idle(journal),
            Some(checkpoint) => {
                self.checkpoint_offset = checkpoint.offset;
                self.checkpoint_at = Instant::now();
                let (data, path) = (self.data.clone(), self.data_path.clone());
                Syncing::Running(sync_in_background(data, path, journal, checkpoint))
            }
        };
        Ok(())
    }
}

#[async_trait]
impl Receive for LocalReceive {
    /// Returns when the batch before this one is written: so two batches at most are in memory.
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<(), ReceiveError> {
        let mut chunk = self.written().await?;
        self.make_checkpoint(&chunk).await?;
        if batch.is_empty() {
            self.writing = Writing::Idle(Box::new(chunk));
            return Ok(());
        }
        self.position += batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let (data, path) = (self.data.clone(), self.data_path.clone());
        self.writing = Writing::Running(spawn_blocking(move || {
            let outcome = write_batch(&mut chunk, &data, &path, &batch);
            (chunk, outcome)
        }));
        Ok(())
    }

    async fn end(mut self: Box<Self>, end: BodyEnd) -> (u64, Result<Transfer, ReceiveError>) {
        let outcome = self.finish(end).await;
        if self.transfer.offset() < self.position {
            self.give_back_room().await;
        }
        (self.transfer.offset(), outcome.map(|()| self.transfer))
    }

    fn durable_offset(&self) -> u64 {
        self.transfer.offset()
    }

    fn as_pull(&mut self) -> Option<&mut dyn Pull> {
        Some(self)
    }

    fn wants_checkpoint(&self) -> bool {
        !self.checked
            && self.transfer.offset() < self.position
            && self.transfer.length() != Some(self.position)
    }
}

#[async_trait]
impl Pull for LocalReceive {
    async fn pull(&mut self, inflow: Arc<dyn Inflow>) -> Result<(), ReceiveError> {
        let mut chunk = self.written().await?;
        self.make_checkpoint(&chunk).await?;
        let (data, path, buffers) = (self.data.clone(), self.data_path.clone(), self.buffers.clone());
        let fetching = spawn_blocking(move || {
            let most = inflow.most().min(FETCH_BYTES) as usize;
            let mut buffer = buffers.take(most);
            let outcome = fetch_all(&mut chunk, &data, &path, &*inflow, &mut buffer[..most]);
            buffers.give_back(buffer);
            (chunk, outcome)
        });
        let (chunk, outcome) = fetching.await.map_err(lost_thread)?;
        self.position = chunk.position();
        outcome?;
        self.writing = Writing::Idle(Box::new(chunk));
        Ok(())
    }
}

fn broken() -> StoreError {
    StoreError::Io {
        doing: "writing an upload after a failed write".to_owned(),
        source: io::Error::from(io::ErrorKind::BrokenPipe),
    }
}

/// Bytes first, then the record that counts them.
fn sync_in_background(
    data: Arc<File>,
    path: PathBuf,
    mut journal: Journal,
    checkpoint: Checkpoint,
) -> JoinHandle<Synced> {
    spawn_blocking(move || {
        let synced = data.sync_data().map_err(|e| StoreError::io("syncing", &path, e));
        let outcome = synced.and_then(|()| journal.append(&checkpoint)).map(|()| checkpoint);
        (journal, outcome)
    })
}

/// Until the inflow gives no more for now.
fn fetch_all(
    chunk: &mut Chunk,
    data: &File,
    path: &Path,
    inflow: &dyn Inflow,
    buffer: &mut [u8],
) -> Result<(), ReceiveError> {
    loop {
        let mut filled = 0;
        let mut fetched = inflow.fetch(buffer);
        while fetched > 0 {
            filled += fetched;
            fetched = if filled < buffer.len() { inflow.fetch(&mut buffer[filled..]) } else { 0 };
        }
        for piece in buffer[..filled].chunks(PIECE_BYTES) {
            let position = chunk.position();
            chunk.take(piece)?;
            data.write_all_at(piece, position).map_err(|e| StoreError::io("writing", path, e))?;
        }
        if filled < buffer.len() || inflow.most() == 0 {
            return Ok(());
        }
    }
}

fn write_batch(chunk: &mut Chunk, data: &File, path: &Path, batch: &[Bytes]) -> Result<(), ReceiveError> {
    for pieces in batch.chunks(MAX_BATCH_PIECES) {
        let position = chunk.position();
        for piece in pieces {
            chunk.take(piece)?;
        }
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        write_all_at(data, &mut slices, position).map_err(|e| StoreError::io("writing", path, e))?;
    }
    Ok(())
}

pub(super) fn write_all_at(file: &File, mut slices: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match pwritev(file, slices, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(byte_len) => {
                IoSlice::advance_slices(&mut slices, byte_len);
                position += byte_len as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{
        ReceiveError, Uploads as _,
        local::testing::{at, id, send, store, terms},
    };
    use bytes::Bytes;
    use reelyard_upload::{Algorithm, BodyEnd, Check, Checksum, ChunkRequest, Refusal};
    use std::fs;

    #[tokio::test]
    async fn a_chunk_with_a_wrong_checksum_leaves_nothing() {
        let (_directory, store) = store().await;
        let upload = id();
        store.create_upload(upload, Some(10)).await.unwrap();
        let check = Check::Announced(Checksum::of(Algorithm::Sha1, b"abc"));
        let request = ChunkRequest { check, ..at(0) };
        let (offset, outcome) = send(&store, upload, 10, &request, &[b"abX"], BodyEnd::Complete).await;
        assert_eq!(offset, 0);
        assert!(matches!(outcome, Err(ReceiveError::Refused(Refusal::ChecksumMismatch { .. }))));
        let file = store.root().join("uploads").join(upload.to_string());
        assert_eq!(fs::metadata(file).unwrap().len(), 0, "its room is given back at once");
        send(&store, upload, 10, &request, &[b"ab"], BodyEnd::Cut).await.1.unwrap();
        assert_eq!(
            store.open_upload(upload, terms(10)).await.unwrap().transfer().offset(),
            0,
            "cut before verified"
        );
        send(&store, upload, 10, &request, &[b"a", b"bc"], BodyEnd::Complete).await.1.unwrap();
        assert_eq!(store.open_upload(upload, terms(10)).await.unwrap().transfer().offset(), 3);
    }

    #[tokio::test]
    async fn a_body_that_overruns_is_refused_and_the_upload_is_not_whole() {
        let (_directory, store) = store().await;
        let upload = id();
        store.create_upload(upload, Some(4)).await.unwrap();
        let (offset, outcome) = send(&store, upload, 4, &at(0), &[b"abcd", b"e"], BodyEnd::Complete).await;
        assert!(matches!(outcome, Err(ReceiveError::Refused(Refusal::BeyondLength { .. }))), "{outcome:?}");
        assert_eq!(offset, 0);
        assert!(!store.open_upload(upload, terms(4)).await.unwrap().transfer().is_whole());
    }

    #[tokio::test]
    async fn a_long_chunk_makes_checkpoints_on_the_way() {
        let (_directory, store) = store().await;
        let upload = id();
        store.create_upload(upload, Some(200 << 20)).await.unwrap();
        let file = store.open_upload(upload, terms(200 << 20)).await.unwrap();
        let mut receiving = file.begin(&at(0)).unwrap();
        let batch = Bytes::from(vec![3; 1 << 20]);
        let mut sent = 0;
        while receiving.durable_offset() == 0 {
            receiving.write(vec![batch.clone()]).await.unwrap();
            sent += 1;
            assert!(sent < 150, "no checkpoint in 150 MiB");
        }
        drop(receiving);
        assert!(store.open_upload(upload, terms(200 << 20)).await.unwrap().transfer().offset() >= 32 << 20);
    }
}
