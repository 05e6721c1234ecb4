//! Finished uploads on the disk: a source is one file, whole from the beginning.

use super::directory::blocking;
use crate::{ByteStream, LocalStore, Objects as _, Sources, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use reelyard_model::work::{SourceLayout, SourcePiece};
use std::{fs::File, ops::Range, os::unix::fs::FileExt as _, path::PathBuf, sync::Arc};

/// One read of a source from the disk; a reader has two of these in memory at most.
pub(super) const SOURCE_BUFFER_BYTES: u64 = 256 << 10;

#[async_trait]
impl Sources for LocalStore {
    async fn open_source(&self, key: &str) -> Result<File, StoreError> {
        self.open_std(key).await
    }

    async fn source_len(&self, key: &str) -> Result<Option<u64>, StoreError> {
        self.byte_len(key).await
    }

    async fn read_source(&self, key: &str, range: Range<u64>) -> Result<ByteStream, StoreError> {
        Ok(stream(self.open_std(key).await?, self.path_of(key)?, range, SOURCE_BUFFER_BYTES))
    }

    async fn layout(&self, key: &str) -> Result<SourceLayout, StoreError> {
        let byte_len =
            self.byte_len(key).await?.ok_or_else(|| StoreError::NotFound { what: key.to_owned() })?;
        let whole = SourcePiece { start: 0, end: byte_len, key: key.to_owned() };
        Ok(SourceLayout { byte_len, pieces: if byte_len > 0 { vec![whole] } else { Vec::new() } })
    }

    /// A rename made it whole.
    async fn assemble_source(&self, _key: &str) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn delete_source(&self, key: &str) -> Result<(), StoreError> {
        self.delete_prefix(key).await
    }
}

/// A range of an open file, at most `buffer_bytes` at a time; `path` is for errors.
pub(super) fn stream(file: File, path: PathBuf, range: Range<u64>, buffer_bytes: u64) -> ByteStream {
    let file = Arc::new(file);
    Box::pin(stream::try_unfold(range, move |rest| {
        let (file, path) = (file.clone(), path.clone());
        async move {
            if rest.is_empty() {
                return Ok(None);
            }
            let byte_len = buffer_bytes.min(rest.end - rest.start);
            let piece = blocking(move || {
                let mut piece = vec![0; byte_len as usize];
                file.read_exact_at(&mut piece, rest.start)
                    .map_err(|e| StoreError::io("reading", &path, e))?;
                Ok(Bytes::from(piece))
            });
            Ok(Some((piece.await?, rest.start + byte_len..rest.end)))
        }
    }))
}
