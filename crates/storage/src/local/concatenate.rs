//! One upload made of others (tus concatenation): the bytes of the partials behind one another in a new file.
//!
//! They go through the same write path as bytes from a socket, so the journal counts them and the hash covers them; a
//! concatenation that was interrupted goes on at the durable offset.

use super::directory::blocking;
use crate::{LocalStore, ReceiveError, StoreError, Terms, Uploads as _};
use bytes::Bytes;
use reelyard_model::UploadId;
use reelyard_upload::{BodyEnd, ChunkRequest, Transfer};
use std::{fs::File, os::unix::fs::FileExt as _, path::PathBuf, sync::Arc};

/// Read at once; two of these are in memory.
const PIECE_BYTES: u64 = 1 << 20;

pub(super) async fn concatenate(
    store: &LocalStore,
    into: UploadId,
    terms: Terms,
    partials: &[(UploadId, u64)],
) -> Result<Transfer, StoreError> {
    let open = store.open_upload(into, terms).await?;
    if open.transfer().is_whole() {
        return Ok(open.transfer().clone());
    }
    let mut position = open.transfer().offset();
    let request = ChunkRequest { offset: position, ..ChunkRequest::default() };
    let mut receiving = open.begin(&request).map_err(|error| unexpected(into, error))?;
    let mut start = 0;
    for (partial, byte_len) in partials {
        let end = start + byte_len;
        if position < end {
            let (path, _) = store.upload_paths(*partial);
            let file = Arc::new(open_file(path.clone()).await?);
            while position < end {
                let piece = read(&file, &path, position - start, PIECE_BYTES.min(end - position)).await?;
                position += piece.len() as u64;
                receiving.write(vec![piece]).await.map_err(|error| unexpected(into, error))?;
            }
        }
        start = end;
    }
    receiving.end(BodyEnd::Complete).await.1.map_err(|error| unexpected(into, error))
}

async fn open_file(path: PathBuf) -> Result<File, StoreError> {
    blocking(move || File::open(&path).map_err(|e| StoreError::io("opening", &path, e))).await
}

async fn read(
    file: &Arc<File>,
    path: &std::path::Path,
    offset: u64,
    byte_len: u64,
) -> Result<Bytes, StoreError> {
    let (file, path) = (file.clone(), path.to_owned());
    blocking(move || {
        let mut piece = vec![0; byte_len as usize];
        file.read_exact_at(&mut piece, offset).map_err(|e| StoreError::io("reading", &path, e))?;
        Ok(Bytes::from(piece))
    })
    .await
}

/// The lengths were checked before: a refusal here means that the partials are not what they were.
fn unexpected(into: UploadId, error: ReceiveError) -> StoreError {
    match error {
        ReceiveError::Store(error) => error,
        ReceiveError::Refused(refused) => {
            StoreError::Damaged { what: format!("the concatenation {into}"), problem: refused.to_string() }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Uploads as _,
        local::testing::{at, id, send, sha256, store, terms},
        source_key,
    };
    use reelyard_upload::BodyEnd;

    #[tokio::test]
    async fn partials_become_one_upload_also_when_it_was_interrupted() {
        let (_directory, store) = store().await;
        let (first, empty, second, whole) = (id(), id(), id(), id());
        for (upload, bytes) in [(first, b"abc" as &[u8]), (empty, b""), (second, b"defgh")] {
            store.create_upload(upload, Some(bytes.len() as u64)).await.unwrap();
            send(&store, upload, bytes.len() as u64, &at(0), &[bytes], BodyEnd::Complete).await.1.unwrap();
        }
        store.create_upload(whole, Some(8)).await.unwrap();
        send(&store, whole, 8, &at(0), &[b"abcd"], BodyEnd::Cut).await.1.unwrap();
        for _ in 0..2 {
            let partials = [(first, 3), (empty, 0), (second, 5)];
            let transfer = store.concatenate(whole, terms(8), &partials).await.unwrap();
            assert_eq!(transfer.sha256(), Some(sha256(b"abcdefgh")));
        }
        store.finish_upload(whole, 8).await.unwrap();
        assert_eq!(&store.read(&source_key(whole)).await.unwrap()[..], b"abcdefgh");
    }
}
