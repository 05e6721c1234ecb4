//! Renditions and publications, whether they lie on a disk or in S3: objects by key, written whole or not at all.
//!
//! Workers put files here, publishing copies them, playback reads them, sweeping removes them; all of them see nothing
//! but [`Objects`]. [`crate::LocalStore`] and `s3::S3Objects` keep them, and one suite (`tests/conformance/objects.rs`)
//! shows that both do. The promise: what a call reports as done is durable, and each call is safe to run twice. An
//! object is never changed once it is there, except that the same call may put the same bytes again.

use crate::{ByteStream, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::{fmt, ops::Range, path::Path, time::SystemTime};

#[async_trait]
pub trait Objects: fmt::Debug + Send + Sync + 'static {
    /// Moves a finished file of this machine to `key`; the file is gone afterwards.
    async fn put_file(&self, scratch_file: &Path, key: &str) -> Result<(), StoreError>;

    async fn put_bytes(&self, key: &str, bytes: Bytes) -> Result<(), StoreError>;

    /// Gives every object at a first key a second one, without its bytes passing through this process. All are durable
    /// on return; when it fails, some may be there. [`StoreError::NotFound`] names the object that is missing.
    async fn copy_all(&self, copies: Vec<(String, String)>) -> Result<(), StoreError>;

    /// What is told of an object, and a way to its bytes.
    async fn open(&self, key: &str, intent: Intent) -> Result<OpenObject, StoreError>;

    /// A range that lies inside an object, also inside an object that a [`reelyard_model::work::SourceLayout`] names.
    /// [`StoreError::NotFound`] comes before the first byte when there is no such object (any more).
    async fn read_range(&self, key: &str, range: Range<u64>) -> Result<ByteStream, StoreError>;

    /// `None` when there is no such object.
    async fn byte_len(&self, key: &str) -> Result<Option<u64>, StoreError>;

    /// The whole of a small object.
    async fn read(&self, key: &str) -> Result<Bytes, StoreError>;

    /// Everything below `prefix` (whole path parts: `renditions/x` never touches `renditions/xy`), or the object of
    /// that name. That there is nothing is fine.
    async fn delete_prefix(&self, prefix: &str) -> Result<(), StoreError>;

    /// All objects below `prefix`, by key.
    async fn list_prefix(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError>;

    /// The names of what lies directly below `prefix` and has something below itself, in order. Cheap however much that
    /// is. A name may come once more after the last object below it has gone.
    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError>;
}

/// What an object is opened for: saves a request where a look is one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Its facts decide whether and what is read.
    Look,
    /// All of it is going to be read.
    ReadAll,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEntry {
    pub key: String,
    pub byte_len: u64,
}

type Reader = Box<dyn FnOnce(Range<u64>) -> BoxFuture<'static, Result<ByteStream, StoreError>> + Send + Sync>;

/// An object that was found. On a disk the descriptor stays good when the object is deleted meanwhile; in S3 a reader is
/// told that it is gone.
pub struct OpenObject {
    pub byte_len: u64,
    pub modified: Option<SystemTime>,
    /// Strong, with its quotes (RFC 9110 section 8.8.3): another one for other bytes under the same key.
    pub etag: String,
    reader: Reader,
}

impl OpenObject {
    pub(crate) fn new(
        byte_len: u64,
        modified: Option<SystemTime>,
        etag: String,
        reader: impl FnOnce(Range<u64>) -> BoxFuture<'static, Result<ByteStream, StoreError>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self { byte_len, modified, etag, reader: Box::new(reader) }
    }

    /// A range that lies inside the object, read as fast as it is taken: only a bounded part of it waits in memory.
    /// Returns when the first bytes are on their way, so that what is wrong can still be told as a status.
    pub async fn read(self, range: Range<u64>) -> Result<ByteStream, StoreError> {
        (self.reader)(range).await
    }
}

impl fmt::Debug for OpenObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenObject({} bytes, {})", self.byte_len, self.etag)
    }
}

/// What stands in for a tag where a store tells none: length and time of an object that is written once.
pub(crate) fn etag_of(byte_len: u64, modified: Option<SystemTime>) -> String {
    let modified = modified.and_then(|modified| modified.duration_since(SystemTime::UNIX_EPOCH).ok());
    format!("\"{byte_len:x}-{:x}\"", modified.unwrap_or_default().as_nanos())
}

/// What a published file is by its name: for the answers of the playback origin, and for objects in S3, which a CDN may
/// read directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentKind {
    pub media_type: &'static str,
    /// In seconds, where no token ends earlier.
    pub max_age_seconds: u64,
    /// Never changes under its address.
    pub immutable: bool,
}

/// Segments, pictures and initialization segments never change under their address.
const MAX_AGE_SEGMENT_SECONDS: u64 = 365 * 24 * 3600;
/// Playlists are rewritten when a video is published anew, which is rare.
const MAX_AGE_PLAYLIST_SECONDS: u64 = 60;

impl ContentKind {
    /// `None` for names that publishing never makes.
    pub fn of(file: &str) -> Option<Self> {
        let (media_type, immutable) = match file.rsplit_once('.')?.1 {
            "m3u8" => ("application/vnd.apple.mpegurl", false),
            "mpd" => ("application/dash+xml", false),
            "mp4" => ("video/mp4", true),
            "m4s" => ("video/iso.segment", true),
            "vtt" => ("text/vtt; charset=utf-8", true),
            "jpg" => ("image/jpeg", true),
            _ => return None,
        };
        let max_age_seconds = if immutable { MAX_AGE_SEGMENT_SECONDS } else { MAX_AGE_PLAYLIST_SECONDS };
        Some(Self { media_type, max_age_seconds, immutable })
    }

    /// For an answer that may be kept for `seconds_left` at most.
    pub fn cache_control(self, seconds_left: u64) -> String {
        let max_age = self.max_age_seconds.min(seconds_left);
        // `immutable` only stops revalidation on reload; max-age still ends it.
        let immutable = if self.immutable { ", immutable" } else { "" };
        format!("public, max-age={max_age}{immutable}")
    }
}

#[cfg(test)]
mod tests {
    use super::ContentKind;

    #[test]
    fn types_by_name_and_no_answer_outlives_its_time() {
        assert_eq!(ContentKind::of("master.m3u8").unwrap().media_type, "application/vnd.apple.mpegurl");
        assert_eq!(ContentKind::of("manifest.mpd").unwrap().media_type, "application/dash+xml");
        assert_eq!(ContentKind::of("1080p/00001.m4s").unwrap().media_type, "video/iso.segment");
        for none in ["notes.json", "1080p/init", "sources/0192"] {
            assert_eq!(ContentKind::of(none), None, "{none}");
        }
        let segment = ContentKind::of("1080p/00001.m4s").unwrap();
        assert_eq!(segment.cache_control(7), "public, max-age=7, immutable");
        let playlist = ContentKind::of("master.m3u8").unwrap();
        assert_eq!(playlist.cache_control(3600), "public, max-age=60");
        assert_eq!(playlist.cache_control(7), "public, max-age=7");
    }
}
