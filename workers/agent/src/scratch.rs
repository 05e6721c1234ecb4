//! A working directory for one child: made empty, removed with all that is in it.

use std::{
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Removed when dropped, in the background: a child can leave many files.
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes `{root}/{name}`. Something of that name was left by an earlier life and is removed.
    pub(crate) async fn make(root: &Path, name: String) -> io::Result<Self> {
        let path = root.join(name);
        let made = Self { path: path.clone() };
        blocking(move || {
            remove_if_there(&path)?;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)
        })
        .await?;
        Ok(made)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it and waits for that. The child must have ended.
    pub(crate) async fn remove(self) {
        let path = self.path.clone();
        if let Err(error) = blocking(move || remove_if_there(&path)).await {
            tracing::warn!(%error, path = %self.path.display(), "a scratch directory could not be removed");
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        if path.exists() {
            // Without a thread it stays until the next start, which empties the root.
            let _ = std::thread::Builder::new().spawn(move || remove_if_there(&path));
        }
    }
}

/// Empties the root of all scratch directories: what an agent that was killed left behind.
pub(crate) async fn empty(root: &Path) -> io::Result<()> {
    let root = root.to_owned();
    blocking(move || {
        std::fs::create_dir_all(&root)?;
        for entry in std::fs::read_dir(&root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                remove_if_there(&entry.path())?;
            } else {
                // Somebody else may have cleared it away meanwhile.
                match std::fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    })
    .await
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
