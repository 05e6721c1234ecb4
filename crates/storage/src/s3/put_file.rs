//! A file of this machine becomes an object: read once for its checksum, a second time on its way.
//!
//! The second reading comes out of the page cache: a worker has just written the file. What is in memory is a buffer,
//! never the file. Every attempt reads anew, under the same key: the same bytes.

use super::{bucket::Bucket, multipart::Begun, patience::unbuilt, receiving::lost};
use crate::{ContentKind, StoreError};
use aws_sdk_s3::primitives::{ByteStream as SdkStream, Length};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use md5::{Digest as _, Md5};
use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// A longer file goes up in parts, so that a line that breaks costs one part. A segment is seldom longer.
pub(super) const MULTIPART_ABOVE_BYTES: u64 = 64 << 20;
/// S3 takes 10,000 parts and copies objects of at most 5 GiB, which is far less.
const PART_BYTES: u64 = 32 << 20;
/// One connection seldom fills a line.
const PARTS_AT_ONCE: usize = 4;
/// Read from the file at once.
const BUFFER_BYTES: usize = 128 << 10;

/// False: there is no such file, which is how it looks when an earlier call has worked.
pub(super) async fn put_file(bucket: &Bucket, file: &Path, key: &str) -> Result<bool, StoreError> {
    let Some(byte_len) = len_of(file).await? else { return Ok(false) };
    if byte_len <= MULTIPART_ABOVE_BYTES {
        put_at_once(bucket, file, byte_len, key).await?;
    } else {
        put_in_parts(bucket, file, byte_len, key).await?;
    }
    let path = file.to_owned();
    blocking(move || match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("removing", &path, e)),
        _ => Ok(()),
    })
    .await?;
    Ok(true)
}

async fn len_of(file: &Path) -> Result<Option<u64>, StoreError> {
    let path = file.to_owned();
    blocking(move || match fs::metadata(&path) {
        Ok(facts) => Ok(Some(facts.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("looking at", &path, e)),
    })
    .await
}

async fn put_at_once(bucket: &Bucket, file: &Path, byte_len: u64, key: &str) -> Result<(), StoreError> {
    let doing = format!("storing {}", bucket.place(key));
    let crc32c = checked_bytes(file, 0..byte_len, 0, crc32c::crc32c_append).await?;
    let put = || async {
        let body = body_of(&doing, file, 0..byte_len).await?;
        bucket.send_once(&doing, key, byte_len, crc32c, body).await
    };
    let done = bucket.patience.keep_trying(&doing, byte_len, put).await?;
    done.ok_or_else(|| bucket.missing())
}

async fn put_in_parts(bucket: &Bucket, file: &Path, byte_len: u64, key: &str) -> Result<(), StoreError> {
    let begun = Begun::begin(bucket, key, ContentKind::of(key)).await?;
    let sent = send_parts(&begun, file, byte_len).await;
    if sent.is_err() {
        begun.abort().await;
    }
    sent?;
    // An answer that was lost is made up for here, and so is a server that counts otherwise.
    if bucket.len(key).await? == Some(byte_len) {
        return Ok(());
    }
    let problem = format!("S3 put it together with another length than {byte_len} bytes");
    Err(StoreError::Damaged { what: bucket.place(key), problem })
}

async fn send_parts(begun: &Begun<'_>, file: &Path, byte_len: u64) -> Result<(), StoreError> {
    let starts = (0..byte_len).step_by(PART_BYTES as usize);
    let parts = (1..).zip(starts).map(|(number, start)| async move {
        let range = start..byte_len.min(start + PART_BYTES);
        let md5 = |mut md5: Md5, bytes: &[u8]| {
            md5.update(bytes);
            md5
        };
        let md5 = checked_bytes(file, range.clone(), Md5::new(), md5).await?;
        let md5 = BASE64_STANDARD.encode(md5.finalize());
        let doing = begun.sending();
        let body = || body_of(&doing, file, range.clone());
        let part = begun.send(number, range.end - range.start, &md5, body).await?;
        part.ok_or_else(|| StoreError::Unavailable {
            doing: begun.sending(),
            reason: "S3 does not know any more what was begun".to_owned(),
        })
    });
    let parts = stream::iter(parts).buffered(PARTS_AT_ONCE).try_collect::<Vec<_>>().await?;
    begun.complete(parts).await
}

async fn body_of(doing: &str, file: &Path, range: Range<u64>) -> Result<SdkStream, super::patience::Fault> {
    let body = SdkStream::read_from().path(file).offset(range.start).buffer_size(BUFFER_BYTES);
    let body = body.length(Length::Exact(range.end - range.start)).build().await;
    body.map_err(|error| unbuilt(doing, error))
}

/// A checksum over a range of a file.
async fn checked_bytes<Sum: Send + 'static>(
    file: &Path,
    range: Range<u64>,
    mut sum: Sum,
    mut add: impl FnMut(Sum, &[u8]) -> Sum + Send + 'static,
) -> Result<Sum, StoreError> {
    let path: PathBuf = file.to_owned();
    blocking(move || {
        let reading = |e| StoreError::io("reading", &path, e);
        let file = File::open(&path).map_err(reading)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut at = range.start;
        while at < range.end {
            let piece = &mut buffer[..BUFFER_BYTES.min((range.end - at) as usize)];
            file.read_exact_at(piece, at).map_err(reading)?;
            sum = add(sum, piece);
            at += piece.len() as u64;
        }
        Ok(sum)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(lost(error)))
}
