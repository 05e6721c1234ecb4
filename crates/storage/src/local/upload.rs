//! Uploads on disk: for each one a file and its journal, made, opened, turned into a source, removed.
//!
//! Bytes come in through [`LocalReceive`]. The caller sees to it that one request at a time has an upload open.

use super::{
    directory::{blocking, remove_if_there, sync_directory},
    journal::{Journal, Recorded},
    piece::Buffers,
    receiving::LocalReceive,
};
use crate::{
    ByteStream, LocalStore, OpenUpload, Receive, ReceiveError, StoreError, Terms, Uploads, source_key,
};
use async_trait::async_trait;
use reelyard_model::UploadId;
use reelyard_upload::{Checkpoint, ChunkRequest, Transfer, WholeHash};
use std::{
    fs::{self, File},
    io::{self, Read as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Read buffer for hashing the durable bytes again.
const REHASH_BUFFER_BYTES: usize = 1 << 20;

/// An upload that is open: its journal was read and its file ends where the journal says.
#[derive(Debug)]
pub(crate) struct UploadFile {
    pub(crate) transfer: Transfer,
    /// `None` once the file has become a source.
    pub(crate) data: Option<File>,
    pub(crate) data_path: PathBuf,
    pub(crate) journal: Journal,
    pub(crate) buffers: Arc<Buffers>,
}

impl OpenUpload for UploadFile {
    fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    fn begin(self: Box<Self>, request: &ChunkRequest) -> Result<Box<dyn Receive>, ReceiveError> {
        LocalReceive::begin(*self, request).map(|receiving| Box::new(receiving) as Box<dyn Receive>)
    }
}

#[async_trait]
impl Uploads for LocalStore {
    async fn create_upload(&self, upload: UploadId, length: Option<u64>) -> Result<(), StoreError> {
        self.make_upload(upload, move |journal| Journal::create(journal, upload, length)).await
    }

    /// Reads the journal. What it does not count is cut off when a chunk begins, and not before: whoever only looks may
    /// be a request that was given up, whose thread is late, while the next one is writing.
    async fn open_upload(&self, upload: UploadId, terms: Terms) -> Result<Box<dyn OpenUpload>, StoreError> {
        let (data_path, journal_path) = self.upload_paths(upload);
        let buffers = self.buffers.clone();
        let file = blocking(move || open_upload(data_path, &journal_path, upload, terms, buffers)).await?;
        Ok(Box::new(file))
    }

    async fn read_upload(&self, upload: UploadId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let (path, _) = self.upload_paths(upload);
        let opening = path.clone();
        let file = blocking(move || File::open(&opening).map_err(|e| StoreError::io("opening", &opening, e)));
        Ok(super::source::stream(file.await?, path, range, super::source::SOURCE_BUFFER_BYTES))
    }

    /// By rename; the journal stays until [`Self::forget_upload`].
    async fn finish_upload(&self, upload: UploadId, byte_len: u64) -> Result<(), StoreError> {
        let (data, _) = self.upload_paths(upload);
        let source = self.root().join(source_key(upload));
        let directories = [self.root().join("sources"), self.root().join("uploads")];
        let sessions = self.sessions.clone();
        blocking(move || {
            sessions.close(upload);
            cut(&data, byte_len)?;
            match fs::rename(&data, &source) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound && source.is_file() => {}
                Err(e) => return Err(StoreError::io("making a source of", &data, e)),
            }
            directories.iter().try_for_each(|directory| sync_directory(directory))
        })
        .await
    }

    async fn forget_upload(&self, upload: UploadId) -> Result<(), StoreError> {
        let (data, journal) = self.upload_paths(upload);
        let uploads = self.root().join("uploads");
        let sessions = self.sessions.clone();
        blocking(move || {
            sessions.close(upload);
            // The journal last: while it is there, the rest can be found and removed again.
            let removed = remove_if_there(&data)? | remove_if_there(&journal)?;
            if removed { sync_directory(&uploads) } else { Ok(()) }
        })
        .await
    }

    async fn list_uploads(&self) -> Result<Vec<UploadId>, StoreError> {
        let uploads = self.root().join("uploads");
        blocking(move || {
            let mut found = Vec::new();
            let entries = fs::read_dir(&uploads).map_err(|e| StoreError::io("listing", &uploads, e))?;
            for entry in entries {
                let name = entry.map_err(|e| StoreError::io("listing", &uploads, e))?.file_name();
                let stem = name.to_str().map(|name| name.strip_suffix(".journal").unwrap_or(name));
                found.extend(stem.and_then(|stem| stem.parse::<UploadId>().ok()));
            }
            found.sort();
            found.dedup();
            Ok(found)
        })
        .await
    }

    /// Room on the disk that this user may still fill.
    async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        let root = self.root().to_owned();
        blocking(move || {
            let disk =
                rustix::fs::statvfs(&root).map_err(|e| StoreError::io("looking at", &root, e.into()))?;
            Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
        })
        .await
    }
}

impl LocalStore {
    /// An empty file and its journal; their names are durable on return.
    pub(super) async fn make_upload(
        &self,
        upload: UploadId,
        make_journal: impl FnOnce(&Path) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let (data, journal) = self.upload_paths(upload);
        let uploads = self.root().join("uploads");
        blocking(move || {
            File::create_new(&data)
                .and_then(|file| file.sync_all())
                .map_err(|e| StoreError::io("making the upload", &data, e))?;
            make_journal(&journal)?;
            sync_directory(&uploads)
        })
        .await
    }

    pub(super) fn upload_paths(&self, upload: UploadId) -> (PathBuf, PathBuf) {
        let uploads = self.root().join("uploads");
        (uploads.join(upload.to_string()), uploads.join(format!("{upload}.journal")))
    }
}

pub(super) fn open_upload(
    data_path: PathBuf,
    journal_path: &Path,
    upload: UploadId,
    terms: Terms,
    buffers: Arc<Buffers>,
) -> Result<UploadFile, StoreError> {
    let (journal, Recorded { length: announced, offset, hash }) = Journal::open(journal_path, upload)?;
    let damaged = |problem| StoreError::Damaged { what: data_path.display().to_string(), problem };
    let length = match (announced, terms.length) {
        (Some(announced), Some(length)) if announced != length => {
            return Err(damaged(format!(
                "it was announced with {announced} bytes and is said to have {length}"
            )));
        }
        (announced, told_later) => announced.or(told_later),
    };
    let restore = |hash| Transfer::restore(length, terms.limit, Checkpoint { offset, hash });
    let reading = |e| StoreError::io("reading", &data_path, e);
    let data = match File::options().read(true).write(true).open(&data_path) {
        Ok(file) => Some(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(reading(e)),
    };
    let Some(file) = data else {
        // Renamed away already, which happens to whole uploads only, or half removed.
        let restored = hash.filter(|_| length == Some(offset)).and_then(restore);
        let transfer = restored.ok_or(StoreError::NotFound { what: data_path.display().to_string() })?;
        return Ok(UploadFile { transfer, data: None, data_path, journal, buffers });
    };
    let file_len = file.metadata().map_err(reading)?.len();
    if file_len < offset {
        return Err(damaged(format!("{offset} bytes were acknowledged and {file_len} are there")));
    }
    let hash = match hash {
        Some(hash) => hash,
        None => hash_of(&file, offset).map_err(reading)?,
    };
    let transfer =
        restore(hash).ok_or_else(|| damaged(format!("{offset} bytes are counted of {length:?}")))?;
    Ok(UploadFile { transfer, data: Some(file), data_path, journal, buffers })
}

/// Bytes of a body that overran the upload may lie behind its end.
fn cut(path: &Path, byte_len: u64) -> Result<(), StoreError> {
    let file = match File::options().write(true).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(StoreError::io("opening", path, e)),
    };
    cut_file(&file, path, byte_len)
}

pub(super) fn cut_file(file: &File, path: &Path, byte_len: u64) -> Result<(), StoreError> {
    let cutting = |e| StoreError::io("cutting", path, e);
    if file.metadata().map_err(cutting)?.len() > byte_len {
        file.set_len(byte_len).map_err(cutting)?;
    }
    Ok(())
}

fn hash_of(file: &File, byte_len: u64) -> io::Result<WholeHash> {
    let mut hash = WholeHash::new();
    let mut buffer = vec![0; REHASH_BUFFER_BYTES];
    let mut rest = file.take(byte_len);
    loop {
        match rest.read(&mut buffer)? {
            0 => return Ok(hash),
            n => hash.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Objects as _, StoreError, Uploads as _,
        local::testing::{at, id, send, sha256, store, terms},
        source_key,
    };
    use reelyard_upload::BodyEnd;
    use std::fs;

    #[tokio::test]
    async fn bytes_come_in_parts_and_become_a_source() {
        let (_directory, store) = store().await;
        let upload = id();
        store.create_upload(upload, Some(10)).await.unwrap();
        let (offset, outcome) =
            send(&store, upload, 10, &at(0), &[b"abc", b"", b"de"], BodyEnd::Complete).await;
        outcome.unwrap();
        assert_eq!(offset, 5);
        send(&store, upload, 10, &at(5), &[b"fghij"], BodyEnd::Cut).await.1.unwrap();
        let whole = store.open_upload(upload, terms(10)).await.unwrap();
        assert_eq!(whole.transfer().sha256(), Some(sha256(b"abcdefghij")));
        for _ in 0..2 {
            store.finish_upload(upload, 10).await.unwrap();
            let whole = store.open_upload(upload, terms(10)).await.unwrap();
            assert_eq!(whole.transfer().sha256(), Some(sha256(b"abcdefghij")), "the journal still tells");
        }
        for _ in 0..2 {
            store.forget_upload(upload).await.unwrap();
        }
        assert!(store.open_upload(upload, terms(10)).await.unwrap_err().is_not_found());
        assert_eq!(&store.read(&source_key(upload)).await.unwrap()[..], b"abcdefghij");
    }

    #[tokio::test]
    async fn what_the_journal_does_not_count_is_cut_off() {
        let (_directory, store) = store().await;
        let upload = id();
        store.create_upload(upload, Some(10)).await.unwrap();
        send(&store, upload, 10, &at(0), &[b"abc"], BodyEnd::Complete).await.1.unwrap();
        let path = store.root().join("uploads").join(upload.to_string());
        fs::write(&path, b"abcXYZ").unwrap();
        let open = store.open_upload(upload, terms(10)).await.unwrap();
        assert_eq!(open.transfer().offset(), 3);
        assert_eq!(fs::read(&path).unwrap(), b"abcXYZ", "looking changes nothing");
        open.begin(&at(3)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
    }

    #[tokio::test]
    async fn acknowledged_bytes_that_are_gone_are_reported_as_damage() {
        let (_directory, store) = store().await;
        let upload = id();
        store.create_upload(upload, Some(10)).await.unwrap();
        send(&store, upload, 10, &at(0), &[b"abc"], BodyEnd::Complete).await.1.unwrap();
        fs::write(store.root().join("uploads").join(upload.to_string()), b"ab").unwrap();
        assert!(matches!(store.open_upload(upload, terms(10)).await, Err(StoreError::Damaged { .. })));
    }

    #[tokio::test]
    async fn a_state_of_an_unknown_kind_is_computed_again() {
        let (_directory, store) = store().await;
        let upload = id();
        store.create_upload(upload, Some(10)).await.unwrap();
        send(&store, upload, 10, &at(0), &[b"abc"], BodyEnd::Complete).await.1.unwrap();
        let file = fs::File::open(store.root().join("uploads").join(upload.to_string())).unwrap();
        assert_eq!(super::hash_of(&file, 3).unwrap().digest(), sha256(b"abc"));
    }

    #[tokio::test]
    async fn an_upload_nobody_made_is_not_found_and_an_id_is_taken_once() {
        let (_directory, store) = store().await;
        let upload = id();
        assert!(store.open_upload(upload, terms(0)).await.unwrap_err().is_not_found());
        store.create_upload(upload, Some(0)).await.unwrap();
        assert!(store.create_upload(upload, Some(0)).await.is_err());
        assert_eq!(store.open_upload(upload, terms(0)).await.unwrap().transfer().sha256(), Some(sha256(b"")));
        assert_eq!(store.list_uploads().await.unwrap(), [upload]);
    }
}
