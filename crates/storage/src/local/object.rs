//! Objects by key on a disk: sources, renditions, publications. Written whole or not at all.

use crate::{
    ByteStream, Intent, LocalStore, ObjectEntry, Objects, OpenObject, StoreError,
    local::directory::{blocking, ensure_directory, parent_of, remove_if_there, remove_tree, sync_directory},
    objects::etag_of,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata},
    io::{self, Write as _},
    ops::Range,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// One read of an object from the disk; a viewer has two of these in memory at most.
const OBJECT_BUFFER_BYTES: u64 = 64 << 10;

#[async_trait]
impl Objects for LocalStore {
    /// By rename, where that can be.
    async fn put_file(&self, scratch_file: &Path, key: &str) -> Result<(), StoreError> {
        let (from, to) = (scratch_file.to_owned(), self.path_of(key)?);
        let spare = self.spare_path();
        blocking(move || {
            let file = match File::open(&from) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound && to.is_file() => return Ok(()),
                Err(e) => return Err(StoreError::io("opening", &from, e)),
            };
            file.sync_all().map_err(|e| StoreError::io("syncing", &from, e))?;
            ensure_directory(parent_of(&to)?)?;
            match fs::rename(&from, &to) {
                Ok(()) => {}
                // The scratch directory may lie on another file system.
                Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
                    copy_durably(&from, &spare)?;
                    fs::rename(&spare, &to).map_err(|e| StoreError::io("renaming to", &to, e))?;
                    remove_if_there(&from)?;
                }
                Err(e) => return Err(StoreError::io("renaming to", &to, e)),
            }
            sync_directory(parent_of(&to)?)
        })
        .await
    }

    async fn put_bytes(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let (to, spare) = (self.path_of(key)?, self.spare_path());
        blocking(move || {
            ensure_directory(parent_of(&to)?)?;
            File::create_new(&spare)
                .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
                .map_err(|e| StoreError::io("writing", &spare, e))?;
            fs::rename(&spare, &to).map_err(|e| StoreError::io("renaming to", &to, e))?;
            sync_directory(parent_of(&to)?)
        })
        .await
    }

    /// By hard links, at the price of one sync for each directory.
    async fn copy_all(&self, copies: Vec<(String, String)>) -> Result<(), StoreError> {
        let store = self.clone();
        blocking(move || {
            let mut directories = BTreeSet::new();
            for (from, to) in copies {
                let (from, to) = (store.path_of(&from)?, store.path_of(&to)?);
                let directory = parent_of(&to)?.to_owned();
                if directories.insert(directory.clone()) {
                    ensure_directory(&directory)?;
                }
                link_one(&from, &to, &store.spare_path())?;
            }
            directories.iter().try_for_each(|directory| sync_directory(directory))
        })
        .await
    }

    async fn open(&self, key: &str, _: Intent) -> Result<OpenObject, StoreError> {
        let path = self.path_of(key)?;
        let (file, facts) = self.open_file(key).await?;
        // A hard link keeps length and time, so all names of a file have the same tag.
        let (byte_len, modified) = (facts.len(), facts.modified().ok());
        let reader = move |range| {
            let bytes = super::source::stream(file, path, range, OBJECT_BUFFER_BYTES);
            std::future::ready(Ok(bytes)).boxed()
        };
        Ok(OpenObject::new(byte_len, modified, etag_of(byte_len, modified), reader))
    }

    async fn read_range(&self, key: &str, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let file = self.open_std(key).await?;
        Ok(super::source::stream(file, self.path_of(key)?, range, OBJECT_BUFFER_BYTES))
    }

    async fn byte_len(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let path = self.path_of(key)?;
        blocking(move || match fs::metadata(&path) {
            Ok(facts) => Ok(facts.is_file().then_some(facts.len())),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(StoreError::io("looking at", &path, e)),
        })
        .await
    }

    async fn read(&self, key: &str) -> Result<Bytes, StoreError> {
        let path = self.path_of(key)?;
        blocking(move || fs::read(&path).map(Bytes::from).map_err(|e| StoreError::io("reading", &path, e)))
            .await
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        let path = self.path_of(prefix.trim_end_matches('/'))?;
        blocking(move || {
            if remove_tree(&path)? {
                sync_directory(parent_of(&path)?)?;
            }
            Ok(())
        })
        .await
    }

    async fn list_prefix(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        let prefix = prefix.trim_end_matches('/').to_owned();
        let path = self.path_of(&prefix)?;
        blocking(move || {
            let mut found = Vec::new();
            collect(&path, &prefix, &mut found)?;
            found.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(found)
        })
        .await
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let path = self.path_of(prefix.trim_end_matches('/'))?;
        blocking(move || folders_in(&path)).await
    }
}

impl LocalStore {
    async fn open_file(&self, key: &str) -> Result<(File, Metadata), StoreError> {
        let path = self.path_of(key)?;
        blocking(move || {
            let file = File::open(&path).map_err(|e| StoreError::io("opening", &path, e))?;
            let facts = file.metadata().map_err(|e| StoreError::io("looking at", &path, e))?;
            if !facts.is_file() {
                return Err(StoreError::NotFound { what: path.display().to_string() });
            }
            Ok((file, facts))
        })
        .await
    }

    /// The bare descriptor, to hand to a child.
    pub(super) async fn open_std(&self, key: &str) -> Result<File, StoreError> {
        self.open_file(key).await.map(|(file, _)| file)
    }

    /// A name for a file in the making, on the same file system as all objects.
    fn spare_path(&self) -> PathBuf {
        self.scratch().join(format!("store-{}", Uuid::now_v7()))
    }
}

fn copy_durably(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::copy(from, to)
        .and_then(|_| File::open(to)?.sync_all())
        .map_err(|e| StoreError::io("copying to", to, e))
}

fn link_one(from: &Path, to: &Path, spare: &Path) -> Result<(), StoreError> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let inode = |path: &Path| {
                fs::metadata(path)
                    .map(|m| (m.dev(), m.ino()))
                    .map_err(|e| StoreError::io("looking at", path, e))
            };
            if inode(from)? == inode(to)? {
                return Ok(());
            }
            fs::hard_link(from, spare).map_err(|e| StoreError::io("linking", spare, e))?;
            fs::rename(spare, to).map_err(|e| StoreError::io("renaming to", to, e))
        }
        Err(e) => Err(StoreError::io("linking", from, e)),
    }
}

fn collect(path: &Path, key: &str, found: &mut Vec<ObjectEntry>) -> Result<(), StoreError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(StoreError::io("listing", path, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| StoreError::io("listing", path, e))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let (child_path, child_key) = (entry.path(), format!("{key}/{name}"));
        match entry.metadata() {
            Ok(facts) if facts.is_dir() => collect(&child_path, &child_key, found)?,
            Ok(facts) if facts.is_file() => {
                found.push(ObjectEntry { key: child_key, byte_len: facts.len() });
            }
            Ok(_) => {}
            // Deleted while we looked.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(StoreError::io("looking at", &child_path, e)),
        }
    }
    Ok(())
}

fn folders_in(path: &Path) -> Result<Vec<String>, StoreError> {
    let listing = |e| StoreError::io("listing", path, e);
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(listing(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(listing)?;
        if entry.file_type().map_err(listing)?.is_dir() {
            found.extend(entry.file_name().to_str().map(str::to_owned));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use crate::{LocalStore, Objects as _};
    use std::{fs, os::unix::fs::MetadataExt as _};

    async fn store() -> (tempfile::TempDir, LocalStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(directory.path().join("data")).await.unwrap();
        (directory, store)
    }

    #[tokio::test]
    async fn what_was_in_the_making_goes_at_the_next_opening() {
        let (directory, store) = store().await;
        fs::write(store.scratch().join("store-half"), "half").unwrap();
        fs::create_dir(store.scratch().join("children")).unwrap();
        let again = LocalStore::open(directory.path().join("data")).await.unwrap();
        assert_eq!(fs::read_dir(again.scratch()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_file_from_another_file_system_is_copied() {
        let (_directory, store) = store().await;
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
            eprintln!("SKIPPED: no second file system at /dev/shm");
            return;
        };
        let scratch = elsewhere.path().join("x");
        fs::write(&scratch, b"from afar").unwrap();
        store.put_file(&scratch, "sources/x").await.unwrap();
        assert!(!scratch.exists());
        assert_eq!(&store.read("sources/x").await.unwrap()[..], b"from afar");
    }

    #[tokio::test]
    async fn copies_are_links_and_leave_nothing_in_scratch() {
        let (_directory, store) = store().await;
        store.put_bytes("renditions/a/one", "1".into()).await.unwrap();
        store.put_bytes("renditions/a/two", "2".into()).await.unwrap();
        for from in ["one", "one", "two"] {
            let copy = (format!("renditions/a/{from}"), "publications/p/x".to_owned());
            store.copy_all(vec![copy]).await.unwrap();
        }
        let inode = |key: &str| fs::metadata(store.root().join(key)).unwrap().ino();
        assert_eq!(inode("renditions/a/two"), inode("publications/p/x"));
        assert_eq!(fs::read_dir(store.scratch()).unwrap().count(), 0, "nothing is left over");
    }
}
