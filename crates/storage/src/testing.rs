//! What the tests of uploads share.

use crate::{LocalStore, ReceiveError, Receiving};
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
    request: &ChunkRequest,
    parts: &[&[u8]],
    end: BodyEnd,
) -> (u64, Result<(), ReceiveError>) {
    let file = store.open_upload(upload).await.unwrap();
    let mut receiving = Receiving::begin(file, request).unwrap();
    for part in parts {
        let _ = receiving.write(vec![Bytes::copy_from_slice(part)]).await;
    }
    let (offset, outcome) = receiving.end(end).await;
    (offset, outcome.map(|_| ()))
}
