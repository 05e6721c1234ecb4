//! Renditions and publications in S3: put, copied, read and removed by key.
//!
//! No ledger is needed: keys hold the attempt, so nobody writes under a key that somebody else reads, and a row says
//! which attempt counts. That is why a worker without a database uses this, too. Objects carry what they are and how
//! long they may be kept (`Content-Type`, `Cache-Control`), since a CDN may read the bucket itself.

use super::{
    bucket::{Bucket, Found},
    config::{S3Config, S3Credentials},
    patience::{Patience, Patient},
    pieces::Sendable,
    reading::ObjectReader,
};
use crate::{
    ByteStream, Intent, ObjectEntry, Objects, OpenObject, StoreError,
    key::{OBJECTS, READABLE, checked},
    objects::etag_of,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use reelyard_crash_points::crash_point;
use std::{ops::Range, path::Path};

/// Copies on their way at the same time. They cost us nothing but waiting; more of them make S3 ask to slow down.
const COPIES_AT_ONCE: usize = 32;
/// A viewer's player gives up after some ten seconds: it is told before that.
const VIEWER_BOUND_MS: u64 = 6_000;
/// One attempt of those.
const VIEWER_ATTEMPT_MS: u64 = 3_000;
/// [`Objects::read`] is for playlists and the like.
const LARGEST_READ_BYTES: u64 = 64 << 20;
/// How often a prefix is listed again after everything below it was removed, before somebody is said to write there.
const MOST_SWEEPS: u32 = 3;

/// A place in S3 for objects by key. Cheap to clone.
#[derive(Clone, Debug)]
pub struct S3Objects {
    bucket: Bucket,
    /// The same bucket, for requests that a viewer waits for.
    for_viewers: Bucket,
}

impl S3Objects {
    /// Fails when there is no such bucket or it may not be written to; that it does not answer now is only told.
    pub async fn open(
        config: &S3Config,
        credentials: S3Credentials,
        patience: Patience,
    ) -> Result<Self, StoreError> {
        Bucket::open(config, credentials, patience).await.map(Self::new)
    }

    pub(super) fn new(bucket: Bucket) -> Self {
        let patience = bucket.patience.terms();
        let for_viewers = Patience {
            bound_ms: patience.bound_ms.min(VIEWER_BOUND_MS),
            attempt_ms: patience.attempt_ms.min(VIEWER_ATTEMPT_MS),
            ..patience
        };
        let for_viewers = Bucket { patience: Patient::in_a_hurry(for_viewers), ..bucket.clone() };
        Self { bucket, for_viewers }
    }

    fn not_found(&self, key: &str) -> StoreError {
        StoreError::NotFound { what: self.bucket.place(key) }
    }

    async fn copy(&self, from: String, to: String) -> Result<(), StoreError> {
        let done = self.bucket.copy(&from, &to).await?;
        done.ok_or_else(|| self.not_found(&from))
    }

    /// All objects whose keys begin so, page by page. False: there were none.
    async fn sweep(&self, prefix: &str) -> Result<bool, StoreError> {
        let (mut next, mut any) = (None, false);
        loop {
            let page = self.bucket.page(prefix, None, next).await?;
            any |= !page.objects.is_empty();
            self.bucket.remove(page.objects.into_iter().map(|object| object.key).collect()).await?;
            next = page.next;
            if next.is_none() {
                return Ok(any);
            }
        }
    }
}

#[async_trait]
impl Objects for S3Objects {
    async fn put_file(&self, scratch_file: &Path, key: &str) -> Result<(), StoreError> {
        checked(key, OBJECTS)?;
        crash_point!("objects-before-put")?;
        if !super::put_file::put_file(&self.bucket, scratch_file, key).await?
            && self.bucket.len(key).await?.is_none()
        {
            return Err(StoreError::NotFound { what: scratch_file.display().to_string() });
        }
        crash_point!("objects-after-put")?;
        Ok(())
    }

    async fn put_bytes(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        crash_point!("objects-before-put")?;
        self.bucket.put(checked(key, OBJECTS)?, &Sendable::from(bytes)).await?;
        crash_point!("objects-after-put")?;
        Ok(())
    }

    /// By requests that let S3 copy; bounded by S3 to objects of 5 GiB, and a segment is a thousandth of that.
    async fn copy_all(&self, copies: Vec<(String, String)>) -> Result<(), StoreError> {
        for (from, to) in &copies {
            checked(from, OBJECTS)?;
            checked(to, OBJECTS)?;
        }
        let copies = copies.into_iter().map(|(from, to)| self.copy(from, to));
        stream::iter(copies).buffer_unordered(COPIES_AT_ONCE).try_collect().await
    }

    async fn open(&self, key: &str, intent: Intent) -> Result<OpenObject, StoreError> {
        let found = self.for_viewers.find(checked(key, OBJECTS)?, intent == Intent::ReadAll).await?;
        let Found { byte_len, modified, etag, body } = found.ok_or_else(|| self.not_found(key))?;
        let (bucket, key) = (self.for_viewers.clone(), key.to_owned());
        let told = etag.clone().unwrap_or_else(|| etag_of(byte_len, modified));
        let reader = move |range: Range<u64>| {
            let body = body.filter(|_| range == (0..byte_len));
            ObjectReader { bucket, key, etag, rest: range, body, fruitless: 0 }.stream().boxed()
        };
        Ok(OpenObject::new(byte_len, modified, told, reader))
    }

    async fn read_range(&self, key: &str, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let (bucket, key) = (self.bucket.clone(), checked(key, READABLE)?.to_owned());
        ObjectReader { bucket, key, etag: None, rest: range, body: None, fruitless: 0 }.stream().await
    }

    async fn byte_len(&self, key: &str) -> Result<Option<u64>, StoreError> {
        self.bucket.len(checked(key, OBJECTS)?).await
    }

    async fn read(&self, key: &str) -> Result<Bytes, StoreError> {
        let byte_len = self.byte_len(key).await?.ok_or_else(|| self.not_found(key))?;
        if byte_len > LARGEST_READ_BYTES {
            let what = self.bucket.place(key);
            let problem = format!("it has {byte_len} bytes, which is too many to be read at once");
            return Err(StoreError::Damaged { what, problem });
        }
        let whole = self.bucket.read_whole(key, byte_len).await?.ok_or_else(|| self.not_found(key))?;
        Ok(whole.pieces.concat().into())
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        let key = checked(prefix.trim_end_matches('/'), OBJECTS)?.to_owned();
        let below = format!("{key}/");
        let mut sweeps = 0;
        // Until nothing is there: pages may shift while what they list goes away.
        while self.sweep(&below).await? {
            sweeps += 1;
            if sweeps > MOST_SWEEPS {
                let doing = format!("removing what lies below {}", self.bucket.place(&below));
                let reason = "somebody goes on writing there".to_owned();
                return Err(StoreError::Unavailable { doing, reason });
            }
        }
        self.bucket.abort_multipart(&below).await?;
        // Some servers keep a directory of this name when the last object below it is gone.
        self.bucket.remove(vec![key]).await?;
        self.bucket.remove(vec![below]).await
    }

    async fn list_prefix(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        let below = format!("{}/", checked(prefix.trim_end_matches('/'), OBJECTS)?);
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let page = self.bucket.page(&below, None, next).await?;
            found.extend(page.objects);
            next = page.next;
            if next.is_none() {
                found.sort_by(|a, b| a.key.cmp(&b.key));
                return Ok(found);
            }
        }
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let below = format!("{}/", checked(prefix.trim_end_matches('/'), OBJECTS)?);
        let folders = self.bucket.list_directories(&below).await?;
        let names = folders.iter().filter_map(|folder| folder.strip_prefix(&below)?.strip_suffix('/'));
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }
}
