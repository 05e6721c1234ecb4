//! Objects by key: sources, renditions, publications. Written whole or not at all.

use crate::{
    LocalStore, StoreError,
    local::directory::{blocking, ensure_directory, parent_of, remove_if_there, remove_tree, sync_directory},
};
use bytes::Bytes;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};
use uuid::Uuid;

/// An object that is open for reading. The descriptor stays good when the object is deleted meanwhile.
#[derive(Debug)]
pub struct OpenObject {
    pub file: File,
    pub byte_len: u64,
    pub modified: Option<SystemTime>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEntry {
    pub key: String,
    pub byte_len: u64,
}

impl LocalStore {
    /// Moves a finished file to `key`. Safe to repeat after the first call worked.
    pub async fn put_file(&self, scratch_file: &Path, key: &str) -> Result<(), StoreError> {
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

    pub async fn put_bytes(&self, key: &str, bytes: impl Into<Bytes>) -> Result<(), StoreError> {
        let (to, bytes, spare) = (self.path_of(key)?, bytes.into(), self.spare_path());
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

    /// Gives the object at `from` a second key, without a copy.
    pub async fn link(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.link_all(vec![(from.to_owned(), to.to_owned())]).await
    }

    /// Many links at the price of one sync for each directory.
    pub async fn link_all(&self, links: Vec<(String, String)>) -> Result<(), StoreError> {
        let store = self.clone();
        blocking(move || {
            let mut directories = BTreeSet::new();
            for (from, to) in links {
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

    pub async fn open_object(&self, key: &str) -> Result<OpenObject, StoreError> {
        let path = self.path_of(key)?;
        blocking(move || {
            let file = File::open(&path).map_err(|e| StoreError::io("opening", &path, e))?;
            let facts = file.metadata().map_err(|e| StoreError::io("looking at", &path, e))?;
            if !facts.is_file() {
                return Err(StoreError::NotFound { what: path.display().to_string() });
            }
            Ok(OpenObject { file, byte_len: facts.len(), modified: facts.modified().ok() })
        })
        .await
    }

    /// The bare descriptor, to hand to a child.
    pub async fn open_std(&self, key: &str) -> Result<File, StoreError> {
        self.open_object(key).await.map(|object| object.file)
    }

    /// `None` when there is no such object.
    pub async fn byte_len(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let path = self.path_of(key)?;
        blocking(move || match fs::metadata(&path) {
            Ok(facts) => Ok(facts.is_file().then_some(facts.len())),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(StoreError::io("looking at", &path, e)),
        })
        .await
    }

    /// The whole of a small object.
    pub async fn read(&self, key: &str) -> Result<Bytes, StoreError> {
        let path = self.path_of(key)?;
        blocking(move || fs::read(&path).map(Bytes::from).map_err(|e| StoreError::io("reading", &path, e)))
            .await
    }

    /// Everything below `prefix` (whole path parts: `renditions/x` never touches `renditions/xy`), or the object of
    /// that name. That there is nothing is fine.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        let path = self.path_of(prefix.trim_end_matches('/'))?;
        blocking(move || {
            if remove_tree(&path)? {
                sync_directory(parent_of(&path)?)?;
            }
            Ok(())
        })
        .await
    }

    /// All objects below `prefix`, by key.
    pub async fn list_prefix(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
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

#[cfg(test)]
mod tests {
    use crate::LocalStore;
    use std::fs;

    async fn store() -> (tempfile::TempDir, LocalStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(directory.path().join("data")).await.unwrap();
        (directory, store)
    }

    #[tokio::test]
    async fn a_file_is_moved_and_moving_it_again_is_fine() {
        let (_directory, store) = store().await;
        let scratch = store.scratch().join("x.m4s");
        fs::write(&scratch, b"segment").unwrap();
        for _ in 0..2 {
            store.put_file(&scratch, "renditions/a/b/a1/x.m4s").await.unwrap();
        }
        assert!(!scratch.exists());
        assert_eq!(&store.read("renditions/a/b/a1/x.m4s").await.unwrap()[..], b"segment");
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
    async fn links_can_be_made_twice_and_replaced() {
        let (_directory, store) = store().await;
        store.put_bytes("renditions/a/one", "1").await.unwrap();
        store.put_bytes("renditions/a/two", "2").await.unwrap();
        for _ in 0..2 {
            store.link("renditions/a/one", "publications/p/x").await.unwrap();
        }
        store.link("renditions/a/two", "publications/p/x").await.unwrap();
        assert_eq!(&store.read("publications/p/x").await.unwrap()[..], b"2");
        assert!(store.link("renditions/a/none", "publications/p/y").await.unwrap_err().is_not_found());
        assert_eq!(fs::read_dir(store.scratch()).unwrap().count(), 0, "nothing is left over");
    }

    #[tokio::test]
    async fn prefixes_end_at_path_parts() {
        let (_directory, store) = store().await;
        for key in ["renditions/x/a1/1", "renditions/x/a2/1", "renditions/xy/1"] {
            store.put_bytes(key, "...").await.unwrap();
        }
        let keys = |entries: Vec<crate::ObjectEntry>| entries.into_iter().map(|e| e.key).collect::<Vec<_>>();
        assert_eq!(
            keys(store.list_prefix("renditions/x/").await.unwrap()),
            ["renditions/x/a1/1", "renditions/x/a2/1"]
        );
        for _ in 0..2 {
            store.delete_prefix("renditions/x").await.unwrap();
        }
        assert!(store.list_prefix("renditions/x").await.unwrap().is_empty());
        assert_eq!(store.byte_len("renditions/xy/1").await.unwrap(), Some(3));
        assert_eq!(store.byte_len("renditions/x/a1/1").await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found_and_directories_are_no_objects() {
        let (_directory, store) = store().await;
        store.put_bytes("sources/a/b", "x").await.unwrap();
        assert!(store.open_object("sources/none").await.unwrap_err().is_not_found());
        assert!(store.open_object("sources/a").await.unwrap_err().is_not_found());
    }
}
