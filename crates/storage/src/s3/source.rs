//! Finished uploads in S3, read in order over however many objects they lie in.
//!
//! A reader begins with what the ledger says. When an object is gone because it was replaced meanwhile, the reader asks
//! the ledger again and goes on at the same byte; it notices nothing else of an assembly.

use super::{
    S3Store, Shared,
    reading::{MOST_FRUITLESS_READS, READ_AGAIN_AFTER, next_piece},
    upload::{covered, upload_prefix},
};
use crate::{
    ByteStream, Sources, StoreError,
    ledger::{Extent, LedgerChange},
    source_key,
};
use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream as SdkStream;
use bytes::Bytes;
use futures::stream;
use reelyard_model::{
    UploadId,
    work::{SourceLayout, SourcePiece},
};
use std::{fs::File, ops::Range, sync::Arc};

#[async_trait]
impl Sources for S3Store {
    async fn open_source(&self, key: &str) -> Result<File, StoreError> {
        super::scratch::open_source(&self.shared, key).await
    }

    async fn source_len(&self, key: &str) -> Result<Option<u64>, StoreError> {
        match self.shared.ledger.load(upload_of(key)?).await {
            // Without a byte there is nothing to count: an empty source is an empty object.
            Ok(state) if state.extents.is_empty() => self.shared.bucket.len(key).await,
            Ok(state) => Ok(covered(&state.extents)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read_source(&self, key: &str, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.shared.read(upload_of(key)?, range).await
    }

    async fn layout(&self, key: &str) -> Result<SourceLayout, StoreError> {
        let upload = upload_of(key)?;
        let extents = self.shared.ledger.load(upload).await?.extents;
        let what = self.shared.bucket.place(key);
        if extents.is_empty() && self.shared.bucket.len(key).await?.is_none() {
            return Err(StoreError::NotFound { what });
        }
        let byte_len = covered(&extents)
            .ok_or_else(|| StoreError::Damaged { what, problem: "its objects leave a gap".to_owned() })?;
        let piece = |Extent { start, end, key }| SourcePiece { start, end, key };
        Ok(SourceLayout { byte_len, pieces: extents.into_iter().map(piece).collect() })
    }

    async fn assemble_source(&self, key: &str) -> Result<bool, StoreError> {
        super::assemble::assemble(&self.shared, upload_of(key)?).await
    }

    /// The ledger last: while it names something, the rest is found and removed again.
    async fn delete_source(&self, key: &str) -> Result<(), StoreError> {
        let upload = upload_of(key)?;
        let bucket = &self.shared.bucket;
        self.shared.abort_begun(upload).await?;
        let mut keys = bucket.list(&upload_prefix(upload)).await?;
        keys.push(source_key(upload));
        bucket.remove(keys).await?;
        bucket.remove(vec![upload_prefix(upload)]).await?;
        let named = match self.shared.ledger.load(upload).await {
            Ok(state) => state.extents,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        let remove: Vec<u64> = named.iter().map(|extent| extent.start).collect();
        if remove.is_empty() {
            return Ok(());
        }
        let change = LedgerChange { remove, ..LedgerChange::default() };
        match self.shared.ledger.commit(upload, None, change).await {
            // Somebody else deletes it, too.
            Err(StoreError::Conflict { .. }) => Ok(()),
            outcome => outcome,
        }
    }
}

/// A source has the id of its upload.
pub(crate) fn upload_of(key: &str) -> Result<UploadId, StoreError> {
    let id = key.strip_prefix("sources/").and_then(|id| id.parse().ok());
    id.ok_or_else(|| StoreError::InvalidKey { key: key.to_owned() })
}

impl Shared {
    /// Objects of an upload, in order.
    pub(crate) async fn extents(&self, upload: UploadId) -> Result<Vec<Extent>, StoreError> {
        let extents = self.ledger.load(upload).await?.extents;
        if extents.is_empty() {
            return Err(StoreError::NotFound { what: self.bucket.place(&source_key(upload)) });
        }
        Ok(extents)
    }

    /// A range of the bytes that count.
    pub(crate) async fn read(
        self: &Arc<Self>,
        upload: UploadId,
        range: Range<u64>,
    ) -> Result<ByteStream, StoreError> {
        if range.is_empty() {
            return Ok(Box::pin(stream::empty()));
        }
        let extents = self.extents(upload).await?;
        let shared = self.clone();
        let reader = Reader { shared, upload, extents, rest: range, body: None, body_end: 0, fruitless: 0 };
        Ok(Box::pin(stream::try_unfold(reader, |mut reader| async move {
            Ok(reader.next().await?.map(|piece| (piece, reader)))
        })))
    }
}

struct Reader {
    shared: Arc<Shared>,
    upload: UploadId,
    extents: Vec<Extent>,
    rest: Range<u64>,
    /// What still comes of the object that `rest` begins in.
    body: Option<SdkStream>,
    body_end: u64,
    fruitless: u32,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while !self.rest.is_empty() {
            let patience = self.shared.bucket.patience.attempt_time(0);
            let Some(body) = &mut self.body else {
                self.begin().await?;
                continue;
            };
            let reason = match next_piece(body, patience).await {
                Ok(mut piece) => {
                    let wanted = self.rest.end - self.rest.start;
                    piece.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
                    self.rest.start += piece.len() as u64;
                    self.fruitless = 0;
                    if self.rest.start >= self.body_end {
                        self.body = None;
                    }
                    return Ok(Some(piece));
                }
                Err(reason) => reason,
            };
            self.body = None;
            self.fruitless += 1;
            if self.fruitless >= MOST_FRUITLESS_READS {
                let doing = format!("reading {}", self.shared.bucket.place(&source_key(self.upload)));
                return Err(StoreError::Unavailable { doing, reason });
            }
            tokio::time::sleep(READ_AGAIN_AFTER).await;
        }
        Ok(None)
    }

    /// Asks for the rest of the object that `rest` begins in.
    async fn begin(&mut self) -> Result<(), StoreError> {
        let index = self.extents.partition_point(|extent| extent.end <= self.rest.start);
        let extent = self.extents.get(index).filter(|extent| extent.start <= self.rest.start);
        let extent = extent.ok_or_else(|| self.damaged("it has no byte", self.rest.start))?;
        let range = self.rest.start - extent.start..extent.end.min(self.rest.end) - extent.start;
        self.body_end = extent.start + range.end;
        self.body = self.shared.bucket.begin_read(&extent.key, range, None).await?;
        if self.body.is_none() {
            let extents = self.shared.extents(self.upload).await?;
            if extents == self.extents {
                return Err(self.damaged("the object is gone that holds byte", self.rest.start));
            }
            self.extents = extents;
        }
        Ok(())
    }

    fn damaged(&self, problem: &str, byte: u64) -> StoreError {
        StoreError::Damaged {
            what: self.shared.bucket.place(&source_key(self.upload)),
            problem: format!("{problem} {byte}"),
        }
    }
}
