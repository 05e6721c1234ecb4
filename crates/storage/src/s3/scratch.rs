//! Sources as files of this machine, for children that read a descriptor.
//!
//! The file has no name, so a crash leaves nothing behind. It is fetched once: whoever asks while it is being fetched
//! waits, and whoever asks later gets it for as long as anybody holds a descriptor, and some time longer, because the
//! tasks of one asset come one after another. Every descriptor that is given out is a file description of its own under
//! a shared lock, which lasts until its last copy, in whatever child, is closed; an exclusive lock tells that none is
//! left.

use super::{Shared, receiving::lost, source::upload_of, upload::covered};
use crate::StoreError;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reelyard_model::UploadId;
use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

/// Fetched by one request to S3; more would gain nothing, less would be more requests.
const RANGE_BYTES: u64 = 16 << 20;
/// Ranges fetched at the same time: one connection seldom fills a line.
const RANGES_AT_ONCE: usize = 4;
/// Written at once.
const WRITE_BYTES: usize = 1 << 20;
/// How often a file is looked at whether somebody still reads it.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// After so many looks without a reader its room is given back.
const LOOKS_WITHOUT_READER: u32 = 6;

type Slot = Arc<tokio::sync::Mutex<Option<File>>>;

/// Files that are there or being fetched.
#[derive(Debug, Default)]
pub(crate) struct Fetched(Mutex<HashMap<UploadId, Slot>>);

impl Fetched {
    fn slot(&self, upload: UploadId) -> Slot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(upload).or_default().clone()
    }

    fn forget(&self, upload: UploadId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&upload);
    }
}

pub(super) async fn open_source(shared: &Arc<Shared>, key: &str) -> Result<File, StoreError> {
    let upload = upload_of(key)?;
    let slot = shared.fetched.slot(upload);
    let mut file = slot.lock().await;
    if file.is_none() {
        *file = Some(fetch(shared, upload).await?);
        tokio::spawn(keep_while_read(Arc::downgrade(shared), upload, slot.clone()));
    }
    let opened = file.as_ref().map(open_again);
    opened.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into())).map_err(|source| opening(key, source))
}

fn opening(key: &str, source: io::Error) -> StoreError {
    StoreError::Io { doing: format!("opening the fetched file of {key}"), source }
}

/// A description of its own: its own position, read only, and its own share of the lock.
fn open_again(file: &File) -> io::Result<File> {
    let opened = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    opened.try_lock_shared()?;
    Ok(opened)
}

fn is_read(file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => file.unlock().is_err(),
        Err(_) => true,
    }
}

async fn keep_while_read(shared: Weak<Shared>, upload: UploadId, slot: Slot) {
    let mut quiet = 0;
    while quiet < LOOKS_WITHOUT_READER {
        tokio::time::sleep(LOOK_EVERY).await;
        if shared.strong_count() == 0 {
            return;
        }
        quiet = if slot.lock().await.as_ref().is_some_and(is_read) { 0 } else { quiet + 1 };
    }
    let Some(shared) = shared.upgrade() else { return };
    let mut file = slot.lock().await;
    shared.fetched.forget(upload);
    *file = None;
}

async fn fetch(shared: &Arc<Shared>, upload: UploadId) -> Result<File, StoreError> {
    let scratch = shared.scratch.clone();
    let path = scratch.clone();
    let file = blocking(move || {
        tempfile::tempfile_in(&path).map_err(|e| StoreError::io("making a file in", &path, e))
    });
    let file = Arc::new(file.await?);
    let state = shared.ledger.load(upload).await?;
    let byte_len = covered(&state.extents).ok_or_else(|| StoreError::Damaged {
        what: shared.bucket.place(&crate::source_key(upload)),
        problem: "its objects leave a gap".to_owned(),
    })?;
    let starts = (0..byte_len).step_by(RANGE_BYTES as usize);
    let ranges = starts
        .map(|start| fetch_range(shared, upload, start..byte_len.min(start + RANGE_BYTES), &file, &scratch));
    stream::iter(ranges).buffer_unordered(RANGES_AT_ONCE).try_collect::<()>().await?;
    Arc::into_inner(file)
        .ok_or_else(|| opening(&crate::source_key(upload), io::ErrorKind::ResourceBusy.into()))
}

async fn fetch_range(
    shared: &Arc<Shared>,
    upload: UploadId,
    range: std::ops::Range<u64>,
    file: &Arc<File>,
    scratch: &std::path::Path,
) -> Result<(), StoreError> {
    let mut position = range.start;
    let bytes = shared.read(upload, range).await?;
    let mut batches = bytes.try_ready_chunks(WRITE_BYTES / (16 << 10));
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(|stopped| stopped.1)?;
        let at = position;
        position += batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
        write_at(file.clone(), scratch.to_owned(), at, batch).await?;
    }
    Ok(())
}

async fn write_at(
    file: Arc<File>,
    scratch: PathBuf,
    mut at: u64,
    batch: Vec<Bytes>,
) -> Result<(), StoreError> {
    blocking(move || {
        batch.iter().try_for_each(|piece| {
            file.write_all_at(piece, at).map_err(|e| StoreError::io("writing to a file in", &scratch, e))?;
            at += piece.len() as u64;
            Ok(())
        })
    })
    .await
}

/// The work goes on to its end even when the caller stops waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(lost(error)))
}
