//! Bytes on their way into an upload: the one write path.
//!
//! Either pieces from the socket are gathered by the caller, and [`LocalReceive`] hashes and writes them on a blocking
//! thread while the caller gathers the next ones: at most two batches of one upload are in memory. Or the thread
//! fetches and hashes them itself ([`Pull`]), while another writes the piece before: two pieces at most. Checkpoints are
//! made durable on the way, and the last one before anybody is told.

use super::upload::{UploadFile, cut_file};
use crate::{
    Inflow, MAX_BATCH_PIECES, Pull, Receive, ReceiveError, StoreError,
    local::directory::{blocking, lost_thread},
    local::journal::Journal,
    local::piece::{Buffers, DataFile},
};
use async_trait::async_trait;
use bytes::Bytes;
use reelyard_upload::{BodyEnd, Check, Checkpoint, Chunk, ChunkRequest, Settled, Transfer};
use std::{
    io::{self, IoSlice},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    task::{JoinHandle, spawn_blocking},
};

/// A checkpoint on the way after so many bytes: what a kill in the middle of a long request can cost.
const CHECKPOINT_BYTES: u64 = 32 << 20;
/// And after so long, for slow senders, as soon as there is something to count.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// A chunk that is being received.
pub(crate) struct LocalReceive {
    transfer: Transfer,
    data: Arc<DataFile>,
    writing: Writing,
    /// The last piece that was fetched and is hashed, on its way to the disk. Waited for before anything counts it,
    /// and before anybody else may write.
    behind: Option<Behind>,
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

type Behind = JoinHandle<Result<(), StoreError>>;
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
            data: Arc::new(DataFile::new(data, data_path)),
            checkpoint_offset: transfer.offset(),
            checkpoint_at: Instant::now(),
            position: transfer.offset(),
            checked: request.check != Check::None,
            transfer,
            writing: Writing::Idle(Box::new(chunk)),
            behind: None,
            syncing: Syncing::Idle(journal),
            buffers,
        })
    }

    /// Bytes that do not count are cut off at the next opening anyway; on a full disk their room is wanted now.
    async fn give_back_room(&self) {
        let (data, offset) = (self.data.clone(), self.transfer.offset());
        let cut = blocking(move || data.cut(offset)).await;
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
        self.sync_in_background(journal, checkpoint);
        self.synced().await?;
        Ok(())
    }

    /// Bytes first, then the record that counts them.
    fn sync_in_background(&mut self, mut journal: Journal, checkpoint: Checkpoint) {
        let (data, behind) = (self.data.clone(), self.behind.take());
        self.syncing = Syncing::Running(spawn_blocking(move || {
            let synced = settle(behind).and_then(|()| data.sync());
            let outcome = synced.and_then(|()| journal.append(&checkpoint)).map(|()| checkpoint);
            (journal, outcome)
        }));
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
        match chunk.checkpoint().filter(|_| due) {
            None => self.syncing = Syncing::Idle(journal),
            Some(checkpoint) => {
                self.checkpoint_offset = checkpoint.offset;
                self.checkpoint_at = Instant::now();
                self.sync_in_background(journal, checkpoint);
            }
        }
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
        let data = self.data.clone();
        self.writing = Writing::Running(spawn_blocking(move || {
            let outcome = write_batch(&mut chunk, &data, &batch);
            (chunk, outcome)
        }));
        Ok(())
    }

    async fn end(mut self: Box<Self>, end: BodyEnd) -> (u64, Result<Transfer, ReceiveError>) {
        let outcome = self.finish(end).await;
        if let Some(behind) = self.behind.take()
            && let Err(error) = behind.await.map_err(lost_thread).flatten()
        {
            tracing::debug!(%error, "bytes that do not count were not written");
        }
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
        let (data, buffers, mut behind) = (self.data.clone(), self.buffers.clone(), self.behind.take());
        let fetching = spawn_blocking(move || {
            let outcome = fetch_all(&mut chunk, &data, &buffers, &*inflow, &mut behind);
            (chunk, behind, outcome)
        });
        let (chunk, behind, outcome) = fetching.await.map_err(lost_thread)?;
        self.behind = behind;
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

/// Until the inflow gives no more for now. The last large piece may still be on its way to the disk then.
fn fetch_all(
    chunk: &mut Chunk,
    data: &Arc<DataFile>,
    buffers: &Arc<Buffers>,
    inflow: &dyn Inflow,
    behind: &mut Option<Behind>,
) -> Result<(), ReceiveError> {
    loop {
        let mut piece = buffers.piece(chunk.position(), inflow.most());
        piece.fill(|room| inflow.fetch(room));
        chunk.take(piece.bytes())?;
        let is_over = !piece.is_full() || inflow.most() == 0;
        settle(behind.take())?;
        if piece.is_large() {
            let (data, buffers) = (data.clone(), buffers.clone());
            *behind = Some(spawn_blocking(move || {
                let written = data.write(&piece);
                buffers.give_back(piece);
                written
            }));
        } else {
            data.write(&piece)?;
            buffers.give_back(piece);
        }
        if is_over {
            return Ok(());
        }
    }
}

/// Waits on the thread for the piece that is being written.
fn settle(behind: Option<Behind>) -> Result<(), StoreError> {
    behind.map_or(Ok(()), |writing| Handle::current().block_on(writing).map_err(lost_thread).flatten())
}

fn write_batch(chunk: &mut Chunk, data: &DataFile, batch: &[Bytes]) -> Result<(), ReceiveError> {
    for pieces in batch.chunks(MAX_BATCH_PIECES) {
        let position = chunk.position();
        for piece in pieces {
            chunk.take(piece)?;
        }
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        data.write_slices(&mut slices, position)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::LocalReceive;
    use crate::{
        Inflow, LocalStore, Pull as _, Receive as _, ReceiveError, Uploads as _,
        local::{
            piece::DataFile,
            testing::{at, id, send, sha256, store, terms},
            upload::{UploadFile, open_upload},
        },
    };
    use bytes::Bytes;
    use proptest::prelude::*;
    use reelyard_model::UploadId;
    use reelyard_upload::{Algorithm, BodyEnd, Check, Checksum, ChunkRequest, Refusal};
    use std::{
        fs::{self, File},
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering},
        },
    };

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

    /// What a sender has sent so far, in the portions in which a socket gives it.
    struct Sender {
        bytes: Vec<u8>,
        portions: Mutex<Vec<usize>>,
        given: AtomicUsize,
    }

    impl Inflow for Sender {
        fn fetch(&self, buffer: &mut [u8]) -> usize {
            let given = self.given.load(Ordering::SeqCst);
            let portion = self.portions.lock().unwrap().pop().unwrap_or(usize::MAX);
            let byte_len = portion.min(buffer.len()).min(self.bytes.len() - given);
            buffer[..byte_len].copy_from_slice(&self.bytes[given..given + byte_len]);
            self.given.fetch_add(byte_len, Ordering::SeqCst);
            byte_len
        }

        fn most(&self) -> u64 {
            (self.bytes.len() - self.given.load(Ordering::SeqCst)) as u64
        }
    }

    fn sender(bytes: Vec<u8>, portions: Vec<usize>) -> Arc<Sender> {
        Arc::new(Sender { bytes, portions: Mutex::new(portions), given: AtomicUsize::new(0) })
    }

    fn begin(store: &LocalStore, upload: UploadId, length: u64, offset: u64) -> LocalReceive {
        let (data, journal) = store.upload_paths(upload);
        let file: UploadFile =
            open_upload(data, &journal, upload, terms(length), store.buffers.clone()).unwrap();
        LocalReceive::begin(file, &at(offset)).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Whatever the socket gives at a time, a portion of nothing included, and wherever a request is cut.
        #[test]
        fn what_was_fetched_is_durable_and_hashed(
            requests in prop::collection::vec(
                (0..5_u32 << 20, prop::collection::vec(0..3_usize << 20, 0..6)),
                1..4,
            ),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (_directory, store) = store().await;
                let upload = id();
                let length = requests.iter().map(|(byte_len, _)| u64::from(*byte_len)).sum();
                store.create_upload(upload, Some(length)).await.unwrap();
                let mut sent = Vec::new();
                for (byte_len, portions) in requests {
                    let bytes: Vec<u8> = (0..byte_len).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
                    let sender = sender(bytes, portions);
                    let mut receiving = begin(&store, upload, length, sent.len() as u64);
                    while sender.most() > 0 {
                        receiving.pull(sender.clone()).await.unwrap();
                    }
                    let (offset, outcome) = Box::new(receiving).end(BodyEnd::Cut).await;
                    sent.extend_from_slice(&sender.bytes);
                    assert_eq!(offset, sent.len() as u64);
                    outcome.unwrap();
                }
                let whole = store.open_upload(upload, terms(length)).await.unwrap();
                assert_eq!(whole.transfer().sha256(), Some(sha256(&sent)));
                assert!(fs::read(store.upload_paths(upload).0).unwrap() == sent);
            });
        }
    }

    #[tokio::test]
    async fn a_disk_that_is_full_is_told_and_no_byte_of_the_chunk_counts() {
        let length = 3 << 20;
        // One that is noticed when the next piece comes, one at the end only.
        for byte_len in [3 << 20, 2 << 20] {
            let (_directory, store) = store().await;
            let upload = id();
            store.create_upload(upload, Some(length)).await.unwrap();
            let mut receiving = begin(&store, upload, length, 0);
            let full = File::options().write(true).open("/dev/full").unwrap();
            receiving.data = Arc::new(DataFile::new(full, "/dev/full".into()));
            let pulled = receiving.pull(sender(vec![1; byte_len], Vec::new())).await;
            assert_eq!(pulled.is_err(), byte_len > 2 << 20, "{pulled:?}");
            let (offset, outcome) = Box::new(receiving).end(BodyEnd::Complete).await;
            assert_eq!(offset, 0);
            assert!(matches!(outcome, Err(ReceiveError::Store(_))));
            assert_eq!(store.open_upload(upload, terms(length)).await.unwrap().transfer().offset(), 0);
        }
    }
}
