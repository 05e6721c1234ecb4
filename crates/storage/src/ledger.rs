//! Who says what is durable when the bytes lie in S3 and several nodes may work on one upload.
//!
//! S3 can keep objects, but it cannot decide between two nodes that both believe to hold an upload. The ledger can:
//! the application keeps it in the catalogue. An object counts when a committed entry names it, and not before; a
//! commit under an old fencing token is refused. The local store needs none of this: it has its journal.

use crate::StoreError;
use async_trait::async_trait;
use reelyard_model::UploadId;
use std::fmt;

pub use reelyard_upload::ledger::{Extent, LedgerChange, LedgerPart, LedgerState};

#[async_trait]
pub trait Ledger: fmt::Debug + Send + Sync + 'static {
    /// An upload without an entry has nothing durable. [`StoreError::NotFound`] when nobody knows the upload, or it
    /// was given up before it became a source: then its objects are nobody's and are removed.
    async fn load(&self, upload: UploadId) -> Result<LedgerState, StoreError>;

    /// [`StoreError::Fenced`] when `fence` is not the newest token of the upload, or when the upload takes no more
    /// bytes; [`StoreError::Conflict`] when the change's part is there already, or an extent that it removes is not.
    /// `None` for steps that any node may make at any time: parts, and replacing extents by the same bytes.
    async fn commit(
        &self,
        upload: UploadId,
        fence: Option<u64>,
        change: LedgerChange,
    ) -> Result<(), StoreError>;
}
