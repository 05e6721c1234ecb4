//! Bytes on local disk: uploads with their journals, and objects by key.
//!
//! [`LocalStore`] owns the data directory's `uploads/`, `sources/`, `renditions/`, `publications/` and `scratch/`.
//! The flow and the HTTP shells call it; it knows no rows and decides nothing about uploads that `reelyard-upload` has
//! not decided. Whatever a call reports as done is durable: data, then the names that lead to it. Each call is safe
//! to run twice. File work runs on tokio's blocking threads.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod directory;
mod error;
mod journal;
mod key;
mod object;
mod receiving;
#[cfg(test)]
mod testing;
mod upload;

pub use error::StoreError;
pub use object::{ObjectEntry, OpenObject};
pub use receiving::{MAX_BATCH_PIECES, ReceiveError, Receiving};
pub use upload::UploadFile;

use directory::{blocking, empty_directory, ensure_directory};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The data directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalStore {
    root: Arc<Path>,
}

impl LocalStore {
    /// Makes what is missing of the directory's layout, and removes what an earlier process had in the making. The
    /// caller is the directory's only user.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root: PathBuf = root.into();
        blocking(move || {
            for part in ["uploads", "sources", "renditions", "publications", "scratch"] {
                ensure_directory(&root.join(part))?;
            }
            empty_directory(&root.join("scratch"))?;
            Ok(Self { root: root.into() })
        })
        .await
    }

    /// Room on the disk that this user may still fill.
    pub async fn free_bytes(&self) -> Result<u64, StoreError> {
        let root = self.root.clone();
        blocking(move || {
            let disk =
                rustix::fs::statvfs(&*root).map_err(|e| StoreError::io("looking at", &root, e.into()))?;
            Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
        })
        .await
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// For files in the making and the working directories of running children, on the same file system as everything
    /// else.
    pub fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }
}
