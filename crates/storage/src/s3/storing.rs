//! One part on its way into S3: short objects before it taken up, stored under a new name, named by the ledger.
//!
//! The order is the promise: the object is confirmed by S3, then the ledger names it, then what it replaced is removed.
//! A name is never used twice: a request whose answer was lost may still arrive, and must not touch anything that
//! counts. What is left over by a failure is removed as far as that goes, and otherwise by
//! [`crate::Uploads::forget_upload`].

use super::{
    Shared, bucket,
    memory::Held,
    pieces::Sendable,
    sizes::taken_up,
    upload::{saved, upload_prefix},
};
use crate::{
    StoreError,
    ledger::{Extent, LedgerChange},
};
use reelyard_crash_points::{crash_point, switched_off};
use reelyard_model::UploadId;
use reelyard_upload::Checkpoint;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedMutexGuard;

/// How late bytes are that a test has promised too early: as a disk that writes when it likes.
const LATE: std::time::Duration = std::time::Duration::from_secs(1);
/// Objects at the end of an upload that may be taken up: with every one twice as long as the next, more are never short.
const MOST_SHORT_OBJECTS: usize = 40;

/// Objects of an upload, as far as those who add to it need to know them.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// The last ones that the ledger names.
    counted: Vec<Extent>,
    /// Stored behind those, not named yet.
    pending: Vec<Extent>,
    /// Named ones whose bytes are in pending ones, too.
    replaced: Vec<Extent>,
}

impl Objects {
    pub(crate) fn new(mut extents: Vec<Extent>) -> Self {
        extents.drain(..extents.len().saturating_sub(MOST_SHORT_OBJECTS));
        Self { counted: extents, ..Self::default() }
    }

    /// Lengths of objects that a new one may take up. Only objects that count are taken up: while some are pending,
    /// none.
    pub(crate) fn short_lengths(&self) -> impl DoubleEndedIterator<Item = u64> {
        let counted = if self.pending.is_empty() { self.counted.as_slice() } else { &[] };
        counted.iter().map(|extent| extent.end - extent.start)
    }

    /// What is pending will never count.
    pub(crate) fn give_up(self, shared: &Arc<Shared>) {
        shared.remove_in_background(keys(self.pending));
    }

    /// After an error that leaves open whether the ledger names the pending objects, they stay.
    pub(crate) fn give_up_after(self, shared: &Arc<Shared>, error: &StoreError) {
        if matches!(
            error,
            StoreError::Fenced { .. } | StoreError::Conflict { .. } | StoreError::NotFound { .. }
        ) {
            self.give_up(shared);
        }
    }
}

fn keys(extents: Vec<Extent>) -> Vec<String> {
    extents.into_iter().map(|extent| extent.key).collect()
}

/// Bytes that are to be stored, and what they are to make durable.
pub(crate) struct Job {
    pub(crate) shared: Arc<Shared>,
    pub(crate) upload: UploadId,
    pub(crate) fence: u64,
    /// A full part has so many bytes here.
    pub(crate) part: u64,
    pub(crate) start: u64,
    /// None: only the ledger is told of what is pending.
    pub(crate) bytes: Sendable,
    pub(crate) held: Held,
    pub(crate) objects: Objects,
    /// `None`: the bytes may not count yet.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Nobody opens the upload until the ledger has said yes or no.
    pub(crate) _turn: OwnedMutexGuard<()>,
}

pub(crate) struct Stored {
    pub(crate) objects: Objects,
    /// What is durable now.
    pub(crate) outcome: Result<Option<Checkpoint>, StoreError>,
}

impl Job {
    pub(crate) async fn run(mut self) -> Stored {
        let outcome = self.store_and_commit().await;
        Stored { objects: self.objects, outcome }
    }

    async fn store_and_commit(&mut self) -> Result<Option<Checkpoint>, StoreError> {
        if self.bytes.byte_len > 0 {
            self.take_up_short_ones().await;
            let extent = self.shared.store_extent(self.upload, self.start, &self.bytes).await?;
            crash_point!("upload-between-object-and-commit")?;
            self.objects.pending.push(extent);
            self.bytes = Sendable::empty();
            self.held = Held::default();
        }
        let Some(checkpoint) = self.checkpoint.take() else { return Ok(None) };
        let objects = &mut self.objects;
        let change = LedgerChange {
            checkpoint: Some((checkpoint.offset, saved(&checkpoint.hash))),
            remove: objects.replaced.iter().map(|extent| extent.start).collect(),
            insert: objects.pending.clone(),
            part: None,
        };
        self.shared.ledger.commit(self.upload, Some(self.fence), change).await?;
        let replaced = std::mem::take(&mut objects.replaced);
        objects.counted.retain(|extent| !replaced.contains(extent));
        objects.counted.append(&mut objects.pending);
        let surplus = objects.counted.len().saturating_sub(MOST_SHORT_OBJECTS);
        objects.counted.drain(..surplus);
        self.shared.remove_in_background(keys(replaced));
        Ok(Some(checkpoint))
    }

    /// Puts the short objects before the bytes in front of them. A merely thrifty thing: when memory is short or one
    /// cannot be read now, they stay as they are.
    async fn take_up_short_ones(&mut self) {
        let (count, byte_len) = taken_up(self.objects.short_lengths(), self.bytes.byte_len, self.part);
        if count == 0 {
            return;
        }
        let Some(held) = self.shared.memory.try_hold(byte_len) else { return };
        let counted = &self.objects.counted;
        let short = counted[counted.len() - count..].to_vec();
        let mut all = Sendable::empty();
        for extent in &short {
            match self.shared.bucket.read_whole(&extent.key, extent.end - extent.start).await {
                Ok(Some(bytes)) => all = all.followed_by(bytes),
                Ok(None) => {
                    tracing::error!(key = extent.key, "an object that the ledger names is not there");
                    return;
                }
                Err(error) => return tracing::debug!(%error, "short objects stay as they are"),
            }
        }
        self.held.join(held);
        self.start = short.first().map_or(self.start, |extent| extent.start);
        self.bytes = all.followed_by(std::mem::replace(&mut self.bytes, Sendable::empty()));
        self.objects.replaced = short;
    }
}

impl Shared {
    /// Stores bytes under a new name, another one for every attempt.
    pub(crate) async fn store_extent(
        self: &Arc<Self>,
        upload: UploadId,
        start: u64,
        bytes: &Sendable,
    ) -> Result<Extent, StoreError> {
        let doing = format!("storing {} bytes of the upload {upload}", bytes.byte_len);
        let tried = Mutex::new(Vec::new());
        let attempt = || async {
            let random = bucket::random_name().map_err(super::patience::Fault::Lasting)?;
            let key = format!("{}{start:016x}-{random}", upload_prefix(upload));
            if switched_off!("without-sync") {
                self.promise_without_storing(key.clone(), bytes.clone());
                return Ok(key);
            }
            tried.lock().unwrap_or_else(PoisonError::into_inner).push(key.clone());
            self.bucket.put_once(&doing, &key, bytes).await.map(|()| key)
        };
        let stored = self.bucket.patience.keep_trying(&doing, bytes.byte_len, attempt).await;
        let mut left_over = tried.into_inner().unwrap_or_else(PoisonError::into_inner);
        let stored = stored.and_then(|key| {
            key.ok_or_else(|| StoreError::NotFound { what: format!("the bucket {}", self.bucket.name) })
        });
        if let Ok(key) = &stored {
            left_over.retain(|tried| tried != key);
        }
        self.remove_in_background(left_over);
        Ok(Extent { start, end: start + bytes.byte_len, key: stored? })
    }

    /// What a store does that answers before it has anything: for a test that has to notice, and for nobody else.
    fn promise_without_storing(self: &Arc<Self>, key: String, bytes: Sendable) {
        let shared = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LATE).await;
            if let Err(error) = shared.bucket.put(&key, &bytes).await {
                tracing::warn!(%error, key, "promised, and not stored");
            }
        });
    }

    /// What does not go away now is found by whoever sweeps.
    pub(crate) fn remove_in_background(self: &Arc<Self>, keys: Vec<String>) {
        if keys.is_empty() {
            return;
        }
        let shared = self.clone();
        tokio::spawn(async move {
            if let Err(error) = shared.bucket.remove(keys).await {
                tracing::debug!(%error, "objects that do not count stay for now");
            }
        });
    }
}
