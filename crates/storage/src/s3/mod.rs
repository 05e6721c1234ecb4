//! Uploads, sources, renditions and publications in S3, or in a server that speaks its protocol.
//!
//! Below the configured prefix:
//!
//! | key | what |
//! |---|---|
//! | `uploads/{upload}/{start:016x}-{random}` | bytes of an upload from `start` on: written once, never changed |
//! | `sources/{asset}` | a source that was put together |
//! | `renditions/...`, `publications/...` | as on a disk: [`S3Objects`], which needs no ledger |
//!
//! S3 holds bytes; what counts of an upload is said by the [`Ledger`]. An object is stored first, then an entry of the ledger names
//! it, and an object that was replaced is removed after that; so whatever is interrupted leaves at most objects that
//! nobody names, which [`crate::Uploads::forget_upload`] removes. Any node goes on with any upload.

mod assemble;
mod bucket;
mod config;
mod joining;
mod listing;
mod memory;
mod multipart;
mod objects;
mod parts;
mod patience;
mod pieces;
mod put_file;
mod reading;
mod receiving;
mod scratch;
mod sizes;
mod source;
mod storing;
mod upload;

pub use config::{S3Config, S3ConfigError, S3Credentials};
pub use objects::S3Objects;
pub use patience::Patience;

use crate::{StoreError, ledger::Ledger};
use bucket::Bucket;
use memory::Memory;
use reelyard_model::UploadId;
use scratch::Fetched;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::sync::OwnedMutexGuard;

/// Bytes of all uploads together on their way to S3, unless the operator says otherwise: 16 senders at full speed
/// without waiting for one another.
pub const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;

/// S3 takes 10,000 parts; a long object is more than one part (5 GiB each), so some are left for those.
pub const DEFAULT_OBJECTS_JOINED_AT_ONCE: usize = 8_000;

/// What an operator may want otherwise, and tests do.
#[derive(Clone, Debug)]
pub struct S3Settings {
    /// For the bytes of all uploads of this process on their way to S3.
    pub memory_bytes: u64,
    pub patience: Patience,
    /// Objects that are joined in one go.
    pub objects_joined_at_once: usize,
    /// A directory on this machine for sources that a child reads as a file; the files have no names there.
    pub scratch: PathBuf,
}

impl S3Settings {
    pub fn new(scratch: impl Into<PathBuf>) -> Self {
        Self {
            memory_bytes: DEFAULT_MEMORY_BYTES,
            patience: Patience::default(),
            objects_joined_at_once: DEFAULT_OBJECTS_JOINED_AT_ONCE,
            scratch: scratch.into(),
        }
    }
}

/// A place in S3. Cheap to clone.
#[derive(Clone, Debug)]
pub struct S3Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) bucket: Bucket,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) memory: Memory,
    pub(crate) memory_bytes: u64,
    pub(crate) objects_joined_at_once: usize,
    pub(crate) scratch: PathBuf,
    fetched: Fetched,
    turns: Turns,
    /// Of hashing the parts of an upload.
    hashing: Turns,
}

impl S3Store {
    /// Fails when there is no such bucket or it may not be written to; that it does not answer now is only told.
    pub async fn open(
        config: &S3Config,
        credentials: S3Credentials,
        ledger: Arc<dyn Ledger>,
        settings: S3Settings,
    ) -> Result<Self, StoreError> {
        let S3Settings { memory_bytes, patience, objects_joined_at_once, scratch } = settings;
        let bucket = Bucket::open(config, credentials, patience).await?;
        let memory = Memory::new(memory_bytes);
        let (turns, hashing) = (Turns::default(), Turns::default());
        let fetched = Fetched::default();
        let shared = Shared {
            bucket,
            ledger,
            memory,
            memory_bytes,
            objects_joined_at_once,
            scratch,
            fetched,
            turns,
            hashing,
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl S3Store {
    /// Renditions and publications at the same place, over the same connections.
    pub fn objects(&self) -> S3Objects {
        S3Objects::new(self.shared.bucket.clone())
    }
}

/// One after another: work of this process on the same upload that goes on when whoever asked for it has gone.
#[derive(Debug, Default)]
struct Turns(Mutex<HashMap<UploadId, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    async fn take(&self, upload: UploadId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let there = turns.get(&upload).and_then(Weak::upgrade);
            there.unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(upload, Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}
