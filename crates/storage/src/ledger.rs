//! Who says what is durable when the bytes lie in S3 and several nodes may work on one upload.
//!
//! S3 can keep objects, but it cannot decide between two nodes that both believe to hold an upload. The ledger can:
//! the application keeps it in the catalogue. An object counts when a committed entry names it, and not before; a
//! commit under an old fencing token is refused. The local store needs none of this: it has its journal.

use crate::StoreError;
use async_trait::async_trait;
use reelyard_model::UploadId;
use std::fmt;

/// The bytes `start..end` of an upload are the whole object `key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    pub start: u64,
    pub end: u64,
    pub key: String,
}

/// A part of an upload in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerPart {
    pub number: u32,
    pub start: u64,
    pub end: u64,
    pub sha256: [u8; 32],
}

/// All that is durable of one upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerState {
    /// Of an upload that grows from the front: the bytes that count. Of one in parts: how far its hash has come.
    pub offset: u64,
    /// State of the whole's SHA-256 at `offset`; `None` at 0.
    pub hash: Option<Vec<u8>>,
    /// Sorted by `start`, without overlaps.
    pub extents: Vec<Extent>,
    /// Sorted by number.
    pub parts: Vec<LedgerPart>,
}

/// One step, committed whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerChange {
    /// New offset with its hash state. Offsets never go down: a lower one is a fault of the caller.
    pub checkpoint: Option<(u64, Vec<u8>)>,
    /// Extents that the new ones replace, by their start.
    pub remove: Vec<u64>,
    pub insert: Vec<Extent>,
    /// Refused with [`StoreError::Conflict`] when a part of this number or one that overlaps it is there already.
    pub part: Option<LedgerPart>,
}

#[async_trait]
pub trait Ledger: fmt::Debug + Send + Sync + 'static {
    /// An upload without an entry has nothing durable. [`StoreError::NotFound`] when nobody knows the upload.
    async fn load(&self, upload: UploadId) -> Result<LedgerState, StoreError>;

    /// [`StoreError::Fenced`] when `fence` is not the newest token of the upload, or when the upload takes no more
    /// bytes. `None` for steps that any node may make at any time: parts, and replacing extents by the same bytes.
    async fn commit(
        &self,
        upload: UploadId,
        fence: Option<u64>,
        change: LedgerChange,
    ) -> Result<(), StoreError>;
}
