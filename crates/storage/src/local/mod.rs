//! Bytes on a local disk: uploads with their journals, and objects by key.
//!
//! [`LocalStore`] owns the data directory's `uploads/`, `sources/`, `renditions/`, `publications/` and `scratch/`, and is
//! their only user. Data is durable before the names that lead to it. File work runs on tokio's blocking threads.

mod directory;
mod journal;
mod object;
mod parts;
mod parts_journal;
mod parts_session;
#[cfg(test)]
mod parts_tests;
mod piece;
mod receiving;
mod source;
#[cfg(test)]
mod testing;
mod upload;

use crate::StoreError;
use directory::{blocking, empty_directory, ensure_directory};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The data directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalStore {
    root: Arc<Path>,
    /// Uploads in parts that are open.
    sessions: Arc<parts_session::Sessions>,
    buffers: Arc<piece::Buffers>,
}

/// What a killed process had written to a journal and not synced is believed from here on, so it must not be lost with
/// the next cut of power.
fn sync_journals(uploads: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(uploads).map_err(|e| StoreError::io("listing", uploads, e))? {
        let path = entry.map_err(|e| StoreError::io("listing", uploads, e))?.path();
        if path.extension().is_some_and(|extension| extension == "journal") {
            File::open(&path)
                .and_then(|journal| journal.sync_data())
                .map_err(|e| StoreError::io("syncing", &path, e))?;
        }
    }
    Ok(())
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
            sync_journals(&root.join("uploads"))?;
            Ok(Self { root: root.into(), sessions: Arc::default(), buffers: Arc::default() })
        })
        .await
    }

    pub(crate) fn path_of(&self, key: &str) -> Result<PathBuf, StoreError> {
        crate::key::checked(key, crate::key::OBJECTS).map(|key| self.root.join(key))
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
