//! One object read by range, as fast as whoever asked takes it.
//!
//! A line that breaks is taken up at the same byte, a few times. The object must still be the same one then (`If-Match`),
//! so that nobody gets the front of one and the back of another.

use super::bucket::Bucket;
use crate::{ByteStream, StoreError};
use aws_sdk_s3::primitives::ByteStream as SdkStream;
use bytes::Bytes;
use futures::stream;
use std::{ops::Range, time::Duration};

/// How often a reader begins anew without a byte in between, before it gives up.
pub(super) const MOST_FRUITLESS_READS: u32 = 5;
/// The wait before such a new beginning.
pub(super) const READ_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The next bytes of an answer; or a sentence that says why there are none.
pub(super) async fn next_piece(body: &mut SdkStream, patience: Duration) -> Result<Bytes, String> {
    loop {
        match tokio::time::timeout(patience, body.next()).await {
            Ok(Some(Ok(piece))) if piece.is_empty() => {}
            Ok(Some(Ok(piece))) => return Ok(piece),
            Ok(Some(Err(error))) => return Err(error.to_string()),
            Ok(None) => return Err("the answer ended early".to_owned()),
            Err(_) => return Err(format!("nothing came for {patience:?}")),
        }
    }
}

pub(super) struct ObjectReader {
    pub(super) bucket: Bucket,
    pub(super) key: String,
    /// `None`: whichever object is there under the key, which is for objects that are never written twice.
    pub(super) etag: Option<String>,
    pub(super) rest: Range<u64>,
    /// The answer that `rest` comes from, if it has begun.
    pub(super) body: Option<SdkStream>,
    pub(super) fruitless: u32,
}

impl ObjectReader {
    /// On return the first bytes are on their way.
    pub(super) async fn stream(mut self) -> Result<ByteStream, StoreError> {
        if self.rest.is_empty() {
            return Ok(Box::pin(stream::empty()));
        }
        if self.body.is_none() {
            self.body = Some(self.begin().await?);
        }
        Ok(Box::pin(stream::try_unfold(self, |mut reader| async move {
            Ok(reader.next().await?.map(|piece| (piece, reader)))
        })))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while !self.rest.is_empty() {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.begin().await?,
            };
            let patience = self.bucket.patience.attempt_time(0);
            match next_piece(&mut body, patience).await {
                Ok(mut piece) => {
                    let wanted = usize::try_from(self.rest.end - self.rest.start).unwrap_or(usize::MAX);
                    piece.truncate(wanted);
                    self.rest.start += piece.len() as u64;
                    self.fruitless = 0;
                    self.body = Some(body);
                    return Ok(Some(piece));
                }
                Err(reason) => self.count_fruitless(reason)?,
            }
            tokio::time::sleep(READ_AGAIN_AFTER).await;
        }
        Ok(None)
    }

    fn count_fruitless(&mut self, reason: String) -> Result<(), StoreError> {
        self.fruitless += 1;
        if self.fruitless < MOST_FRUITLESS_READS {
            return Ok(());
        }
        let doing = format!("reading {}", self.bucket.place(&self.key));
        Err(StoreError::Unavailable { doing, reason })
    }

    async fn begin(&self) -> Result<SdkStream, StoreError> {
        let body = self.bucket.begin_read(&self.key, self.rest.clone(), self.etag.as_deref()).await?;
        body.ok_or_else(|| StoreError::NotFound { what: self.bucket.place(&self.key) })
    }
}
