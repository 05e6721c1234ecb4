//! What can go wrong with a store, by what the caller can do about it.

use std::{io, path::Path};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It was never there, or it is gone.
    #[error("nothing is stored as {what}")]
    NotFound { what: String },
    /// The key is not one this store would make: a fault of the caller, never a way out of the data directory.
    #[error("{key:?} is not a storage key")]
    InvalidKey { key: String },
    /// No room, or the quota of the file system is used up: make room and try again, nothing acknowledged is lost.
    #[error("no room left on the disk while {doing}")]
    Full { doing: String, source: io::Error },
    /// What is on the disk contradicts itself. Not repaired by trying again; the file is left as it is for a look.
    #[error("{what} is damaged: {problem}")]
    Damaged { what: String, problem: String },
    /// Somebody newer works on the upload: whoever is told this stops at once.
    #[error("{what} has been taken over by another node")]
    Fenced { what: String },
    /// Something else is there already.
    #[error("{what}")]
    Conflict { what: String },
    /// The store or the database behind it does not answer, or asks to come back later. Trying again may help.
    #[error("{doing} is not possible now: {reason}")]
    Unavailable { doing: String, reason: String },
    #[error("{doing}: {source}")]
    Io { doing: String, source: io::Error },
}

impl StoreError {
    pub(crate) fn io(doing: &str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { what: path.display().to_string() },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { doing: format!("{doing} {}", path.display()), source }
            }
            _ => Self::Io { doing: format!("{doing} {}", path.display()), source },
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// Of a test that makes a store fail.
impl From<reelyard_crash_points::Injected> for StoreError {
    fn from(injected: reelyard_crash_points::Injected) -> Self {
        Self::Unavailable { doing: "storing".to_owned(), reason: injected.to_string() }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::NotFound { .. } => io::ErrorKind::NotFound,
            StoreError::InvalidKey { .. } => io::ErrorKind::InvalidInput,
            StoreError::Full { .. } => io::ErrorKind::StorageFull,
            StoreError::Damaged { .. } => io::ErrorKind::InvalidData,
            StoreError::Fenced { .. } | StoreError::Conflict { .. } => io::ErrorKind::ResourceBusy,
            StoreError::Unavailable { .. } => io::ErrorKind::TimedOut,
            StoreError::Io { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}
