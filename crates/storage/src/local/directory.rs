//! Names that survive a power cut: a file's name is durable when its directory was synced (fsync(2), "does not
//! necessarily ensure that the entry in the directory containing the file has also reached disk").

use crate::StoreError;
use std::{
    fs::{self, File},
    io,
    path::Path,
};

pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|e| StoreError::io("syncing", path, e))
}

/// The directory exists, and so do the names of all directories that were made on the way to it, durably.
pub(crate) fn ensure_directory(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        ensure_directory(parent)?;
        match fs::create_dir(path) {
            Ok(()) => return sync_directory(parent),
            // Another task was faster; it syncs the parent too, but maybe not before we return.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                return sync_directory(parent);
            }
            Err(e) => return Err(StoreError::io("making the directory", path, e)),
        }
    }
    fs::create_dir_all(path).map_err(|e| StoreError::io("making the directory", path, e))
}

pub(crate) fn parent_of(path: &Path) -> Result<&Path, StoreError> {
    path.parent().ok_or_else(|| StoreError::InvalidKey { key: path.display().to_string() })
}

/// Removes a file; that it is not there is fine.
pub(crate) fn remove_if_there(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io("removing", path, e)),
    }
}

/// Removes a directory with all that is in it, or a file; that it is not there is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<bool, StoreError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(facts) if facts.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io("removing", path, e)),
    }
}

/// Removes what is in a directory; the directory itself, which may be a mount point, stays.
pub(crate) fn empty_directory(path: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(path).map_err(|e| StoreError::io("listing", path, e))? {
        remove_tree(&entry.map_err(|e| StoreError::io("listing", path, e))?.path())?;
    }
    Ok(())
}

/// Runs file work on a blocking thread. The work goes on to its end even when the caller stops waiting.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(lost_thread(e)))
}

/// The blocking thread panicked or the runtime is going down.
pub(crate) fn lost_thread(error: tokio::task::JoinError) -> StoreError {
    StoreError::Io { doing: "waiting for file work".to_owned(), source: io::Error::other(error) }
}
