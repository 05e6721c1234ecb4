//! One object made of ranges of others, by S3 itself as far as it can (multipart upload with copied parts).
//!
//! An object appears whole or not at all. What an interruption leaves is a multipart upload that nobody sees and that
//! is paid for all the same; [`Bucket::abort_multipart`] removes it.

use super::{
    Shared,
    bucket::Bucket,
    joining::{Part, Slice},
    patience::{Fault, fault},
    pieces::Sendable,
};
use crate::{ContentKind, StoreError};
use aws_sdk_s3::{
    primitives::{ByteStream as SdkStream, SdkBody},
    types::{CompletedMultipartUpload, CompletedPart},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use md5::{Digest as _, Md5};
use std::{future::ready, sync::Arc};

/// Parts on their way at the same time. Copies cost us nothing but the waiting.
const PARTS_AT_ONCE: usize = 8;

/// What became of an attempt to put an object together.
pub(super) enum Joined {
    Done,
    /// One of the objects that it was to be made of is gone.
    SourceGone,
}

/// A multipart upload that is going on.
pub(super) struct Begun<'bucket> {
    bucket: &'bucket Bucket,
    key: &'bucket str,
    id: String,
}

impl Shared {
    /// Makes `key` of the parts. Nothing is left over when it fails.
    pub(super) async fn join(self: &Arc<Self>, key: &str, parts: &[Part]) -> Result<Joined, StoreError> {
        match parts {
            [Part::Copied(whole)] => {
                let done = self.bucket.copy(&whole.key, key).await?;
                Ok(if done.is_some() { Joined::Done } else { Joined::SourceGone })
            }
            [Part::Gathered(slices)] => {
                let byte_len = slices.iter().map(Slice::byte_len).sum();
                let _held = self.memory.hold(byte_len).await;
                let Some(bytes) = self.bucket.gather(slices).await? else { return Ok(Joined::SourceGone) };
                self.bucket.put(key, &bytes).await.map(|()| Joined::Done)
            }
            parts => {
                let begun = Begun::begin(&self.bucket, key, None).await?;
                let joined = self.join_parts(&begun, parts).await;
                if !matches!(joined, Ok(Joined::Done)) {
                    begun.abort().await;
                }
                joined
            }
        }
    }

    async fn join_parts(&self, begun: &Begun<'_>, parts: &[Part]) -> Result<Joined, StoreError> {
        let numbered = (1..).zip(parts.to_vec()).map(|(number, part)| self.part(begun, number, part));
        let done: Vec<Option<CompletedPart>> =
            stream::iter(numbered).buffered(PARTS_AT_ONCE).try_collect().await?;
        match done.into_iter().collect::<Option<Vec<_>>>() {
            None => Ok(Joined::SourceGone),
            Some(parts) => begun.complete(parts).await.map(|()| Joined::Done),
        }
    }

    /// `None`: the object that it is to be made of is gone.
    async fn part(
        &self,
        begun: &Begun<'_>,
        number: i32,
        part: Part,
    ) -> Result<Option<CompletedPart>, StoreError> {
        match part {
            Part::Copied(slice) => begun.copied(number, &slice).await,
            Part::Gathered(slices) => {
                let byte_len = slices.iter().map(Slice::byte_len).sum();
                let _held = self.memory.hold(byte_len).await;
                let Some(bytes) = self.bucket.gather(&slices).await? else { return Ok(None) };
                // A CRC of a part wants to be announced when the multipart upload begins, and then all parts need one.
                let mut md5 = Md5::new();
                bytes.pieces.iter().for_each(|piece| md5.update(piece));
                let md5 = BASE64_STANDARD.encode(md5.finalize());
                let body = || ready(Ok(SdkStream::new(SdkBody::from_body_1_x(bytes.body()))));
                begun.send(number, bytes.byte_len, &md5, body).await
            }
        }
    }
}

impl<'bucket> Begun<'bucket> {
    /// `kind`: what S3 tells of the object to whoever reads it.
    pub(super) async fn begin(
        bucket: &'bucket Bucket,
        key: &'bucket str,
        kind: Option<ContentKind>,
    ) -> Result<Self, StoreError> {
        let doing = format!("beginning to put {} together", bucket.place(key));
        let create = || async {
            let request =
                bucket.client.create_multipart_upload().bucket(&bucket.name).key(bucket.full_key(key));
            let request = request
                .set_content_type(kind.map(|kind| kind.media_type.to_owned()))
                .set_cache_control(kind.map(|kind| kind.cache_control(kind.max_age_seconds)));
            let answer = request.send().await.map_err(|error| fault(&doing, error))?;
            answer.upload_id.ok_or_else(|| Fault::Passing("S3 gave no upload id".to_owned()))
        };
        let id = bucket.patience.keep_trying(&doing, 0, create).await?;
        let id = id.ok_or_else(|| bucket.missing())?;
        Ok(Self { bucket, key, id })
    }

    /// `None`: the object that it is to be made of is gone.
    async fn copied(&self, number: i32, slice: &Slice) -> Result<Option<CompletedPart>, StoreError> {
        let bucket = self.bucket;
        let doing = format!("copying {} into {}", bucket.place(&slice.key), bucket.place(self.key));
        let copy = || async {
            let request =
                bucket.client.upload_part_copy().bucket(&bucket.name).key(bucket.full_key(self.key));
            let request = request
                .upload_id(&self.id)
                .part_number(number)
                .copy_source(format!("{}/{}", bucket.name, bucket.full_key(&slice.key)))
                .copy_source_range(format!("bytes={}-{}", slice.range.start, slice.range.end - 1));
            let answer = request.send().await.map_err(|error| fault(&doing, error))?;
            let etag = answer.copy_part_result.and_then(|result| result.e_tag);
            etag.ok_or_else(|| Fault::Passing("S3 gave no ETag".to_owned()))
        };
        let etag = bucket.patience.keep_trying(&doing, slice.byte_len(), copy).await?;
        Ok(etag.map(|etag| completed(number, etag)))
    }

    /// As errors call it.
    pub(super) fn sending(&self) -> String {
        format!("sending a part of {}", self.bucket.place(self.key))
    }

    /// Bytes of ours, made anew for every attempt. `None`: S3 does not know this multipart upload (any more).
    pub(super) async fn send<Body: Future<Output = Result<SdkStream, Fault>>>(
        &self,
        number: i32,
        byte_len: u64,
        md5: &str,
        body: impl Fn() -> Body,
    ) -> Result<Option<CompletedPart>, StoreError> {
        let (bucket, doing) = (self.bucket, self.sending());
        let send = || async {
            let body = body().await?;
            let request = bucket.client.upload_part().bucket(&bucket.name).key(bucket.full_key(self.key));
            let request = request
                .upload_id(&self.id)
                .part_number(number)
                .content_length(byte_len as i64)
                .content_md5(md5)
                .body(body);
            let answer = request.send().await.map_err(|error| fault(&doing, error))?;
            answer.e_tag.ok_or_else(|| Fault::Passing("S3 gave no ETag".to_owned()))
        };
        let etag = bucket.patience.keep_trying(&doing, byte_len, send).await?;
        Ok(etag.map(|etag| completed(number, etag)))
    }

    pub(super) async fn complete(&self, parts: Vec<CompletedPart>) -> Result<(), StoreError> {
        let bucket = self.bucket;
        let doing = format!("putting {} together", bucket.place(self.key));
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = || async {
            let request = bucket.client.complete_multipart_upload().bucket(&bucket.name);
            let request =
                request.key(bucket.full_key(self.key)).upload_id(&self.id).multipart_upload(parts.clone());
            request.send().await.map(|_| ()).map_err(|error| fault(&doing, error))
        };
        // "There is no such upload" is what the second request hears when the answer to the first was lost: whether
        // the object is there is looked at by the caller anyway.
        bucket.patience.keep_trying(&doing, 0, complete).await.map(|_| ())
    }

    pub(super) async fn abort(&self) {
        if let Err(error) = self.bucket.abort_one(self.key, &self.id).await {
            tracing::debug!(%error, key = self.key, "a multipart upload stays for now");
        }
    }
}

fn completed(number: i32, etag: String) -> CompletedPart {
    CompletedPart::builder().part_number(number).e_tag(etag).build()
}

impl Bucket {
    /// With all that S3 tells of the object. Its bound for this is 5 GiB, and so is that of a part. `None`: there is no
    /// object at `from`.
    pub(super) async fn copy(&self, from: &str, to: &str) -> Result<Option<()>, StoreError> {
        let doing = format!("copying {} to {}", self.place(from), self.place(to));
        let copy = || async {
            let request = self.client.copy_object().bucket(&self.name).key(self.full_key(to));
            let answer = request.copy_source(format!("{}/{}", self.name, self.full_key(from))).send().await;
            answer.map(|_| ()).map_err(|error| fault(&doing, error))
        };
        self.patience.keep_trying(&doing, 0, copy).await
    }

    /// Ranges of objects, behind one another; `None` when one is gone.
    async fn gather(&self, slices: &[Slice]) -> Result<Option<Sendable>, StoreError> {
        let mut all = Sendable::empty();
        for slice in slices {
            match self.read_slice(slice).await? {
                Some(bytes) => all = all.followed_by(bytes),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }

    async fn read_slice(&self, slice: &Slice) -> Result<Option<Sendable>, StoreError> {
        let doing = format!("reading {}", self.place(&slice.key));
        let get = || async {
            let body = self.read_once(&doing, &slice.key, slice.range.clone(), None).await?;
            let bytes = body.collect().await.map_err(|error| Fault::Passing(error.to_string()))?;
            let bytes = Sendable::from(bytes.into_bytes());
            if bytes.byte_len == slice.byte_len() {
                Ok(bytes)
            } else {
                Err(Fault::Passing("it ended early".to_owned()))
            }
        };
        self.patience.keep_trying(&doing, slice.byte_len(), get).await
    }

    /// Multipart uploads below this prefix that were begun and never completed.
    pub(crate) async fn abort_multipart(&self, prefix: &str) -> Result<(), StoreError> {
        let doing = format!("listing what was begun below {}", self.place(prefix));
        let full_prefix = self.full_key(prefix);
        let list = || async {
            let request = self.client.list_multipart_uploads().bucket(&self.name).prefix(&full_prefix);
            request.send().await.map_err(|error| fault(&doing, error))
        };
        // One page is enough: nobody begins a thousand for one source, and what is left is found the next time.
        let Some(page) = self.patience.keep_trying(&doing, 0, list).await? else { return Ok(()) };
        for begun in page.uploads() {
            let key = begun.key().and_then(|key| key.strip_prefix(self.prefix.as_str()));
            // Not every server heeds the prefix.
            if let (Some(key), Some(id)) = (key.filter(|key| key.starts_with(prefix)), begun.upload_id()) {
                self.abort_one(key, id).await?;
            }
        }
        Ok(())
    }

    async fn abort_one(&self, key: &str, id: &str) -> Result<(), StoreError> {
        let doing = format!("giving up what was begun of {}", self.place(key));
        let abort = || async {
            let request = self.client.abort_multipart_upload().bucket(&self.name).key(self.full_key(key));
            request.upload_id(id).send().await.map(|_| ()).map_err(|error| fault(&doing, error))
        };
        self.patience.keep_trying(&doing, 0, abort).await.map(|_| ())
    }
}
