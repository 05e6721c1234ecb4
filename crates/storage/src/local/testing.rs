//! What the tests of uploads share.

use crate::{LocalStore, ReceiveError, Terms, Uploads as _};
use bytes::Bytes;
use reelyard_model::UploadId;
use reelyard_upload::{BodyEnd, ChunkRequest, WholeHash};
use uuid::Uuid;

pub(crate) async fn store() -> (tempfile::TempDir, LocalStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::open(directory.path()).await.unwrap();
    (directory, store)
}

pub(crate) fn id() -> UploadId {
    UploadId::from_uuid(Uuid::now_v7())
}

/// Of an upload with so many bytes.
pub(crate) fn terms(length: u64) -> Terms {
    Terms { length: Some(length), limit: 1 << 40, fence: 0 }
}

pub(crate) fn at(offset: u64) -> ChunkRequest {
    ChunkRequest { offset, ..ChunkRequest::default() }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = WholeHash::new();
    hash.update(bytes);
    hash.digest()
}

pub(crate) async fn send(
    store: &LocalStore,
    upload: UploadId,
    length: u64,
    request: &ChunkRequest,
    parts: &[&[u8]],
    end: BodyEnd,
) -> (u64, Result<(), ReceiveError>) {
    let file = store.open_upload(upload, terms(length)).await.unwrap();
    let mut receiving = file.begin(request).unwrap();
    for part in parts {
        let _ = receiving.write(vec![Bytes::copy_from_slice(part)]).await;
    }
    let (offset, outcome) = receiving.end(end).await;
    (offset, outcome.map(|_| ()))
}
