//! A scratch folder that is this process's alone: the agent empties it at start, so two workers must not share one.
//!
//! The first of the folders 0, 1, 2, ... that no living worker holds (a lock of the system, which ends with the
//! process) is taken; so what a killed worker left is emptied by the next one.

use anyhow::Context as _;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use std::{
    fs::{self, File},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// Workers on one machine: more is a mistake.
const MOST_WORKERS: u32 = 64;

pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    /// Held as long as it is open.
    pub(crate) lock: File,
}

pub(crate) fn take(told: Option<&Path>) -> anyhow::Result<Place> {
    let root = match told {
        Some(path) => path.to_owned(),
        // Each user's own: the folder for temporary files belongs to all of them.
        None => std::env::temp_dir().join(format!("reelyard-worker-{}", rustix::process::getuid().as_raw())),
    };
    let why =
        || format!("the scratch folder {} cannot be used; choose another with --scratch", root.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).with_context(why)?;
    for number in 0..MOST_WORKERS {
        let lock = File::create(root.join(format!("{number}.lock"))).with_context(why)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let folder = root.join(number.to_string());
                fs::create_dir_all(&folder).with_context(why)?;
                return Ok(Place { folder, lock });
            }
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error).with_context(why),
        }
    }
    anyhow::bail!("{MOST_WORKERS} workers use the scratch folder {} already", root.display())
}

#[cfg(test)]
mod tests {
    use super::take;

    #[test]
    fn two_workers_get_two_folders_and_one_that_ended_leaves_its_own() {
        let root = tempfile::tempdir().unwrap();
        let first = take(Some(root.path())).unwrap();
        let second = take(Some(root.path())).unwrap();
        assert_ne!(first.folder, second.folder);
        let left = first.folder.clone();
        drop(first);
        assert_eq!(take(Some(root.path())).unwrap().folder, left);
    }
}
