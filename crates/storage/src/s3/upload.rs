//! Uploads in S3: opened from the ledger, finished without a copy, cleaned up.
//!
//! Bytes come in through [`S3Receive`]. That only one node writes to an upload is the ledger's matter (its fencing
//! token), that one request of this process does is the caller's.

use super::{S3Store, Shared, pieces::Sendable, receiving::S3Receive};
use crate::{
    ByteStream, OpenUpload, Receive, ReceiveError, StoreError, Terms, Uploads,
    ledger::{Extent, LedgerState},
    source_key,
};
use async_trait::async_trait;
use futures::TryStreamExt as _;
use reelyard_model::UploadId;
use reelyard_upload::{Checkpoint, ChunkRequest, Transfer, WholeHash, whole_hash::STATE_KIND};
use std::{collections::HashSet, ops::Range, sync::Arc};

const UPLOADS: &str = "uploads/";

/// An upload whose ledger was read.
#[derive(Debug)]
pub(crate) struct S3Upload {
    pub(crate) shared: Arc<Shared>,
    pub(crate) upload: UploadId,
    pub(crate) fence: u64,
    pub(crate) transfer: Transfer,
    /// What counts, in order and without a gap.
    pub(crate) extents: Vec<Extent>,
}

impl OpenUpload for S3Upload {
    fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    fn begin(self: Box<Self>, request: &ChunkRequest) -> Result<Box<dyn Receive>, ReceiveError> {
        S3Receive::begin(*self, request).map(|receiving| Box::new(receiving) as Box<dyn Receive>)
    }
}

#[async_trait]
impl Uploads for S3Store {
    /// Nothing is stored for an upload without bytes: that its id is taken is seen once it has some.
    async fn create_upload(&self, upload: UploadId, _length: Option<u64>) -> Result<(), StoreError> {
        match self.shared.ledger.load(upload).await {
            Ok(state) if state == LedgerState::default() => Ok(()),
            Ok(_) => Err(StoreError::Conflict { what: format!("the upload {upload} is there already") }),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn open_upload(&self, upload: UploadId, terms: Terms) -> Result<Box<dyn OpenUpload>, StoreError> {
        // A request that was dropped in the middle may have left a part on its way.
        let turn = self.shared.turns.take(upload).await;
        let state = self.shared.ledger.load(upload).await?;
        drop(turn);
        let damaged =
            |problem| StoreError::Damaged { what: format!("the ledger of the upload {upload}"), problem };
        let offset = state.offset;
        if covered(&state.extents) != Some(offset) {
            return Err(damaged(format!("{offset} bytes are counted and the objects do not make them up")));
        }
        let hash = match state.hash.as_deref().map(restored) {
            None if offset == 0 => WholeHash::new(),
            Some(Some(hash)) => hash,
            _ => self.shared.hash_again(upload, offset).await?,
        };
        let transfer = Transfer::restore(terms.length, terms.limit, Checkpoint { offset, hash })
            .ok_or_else(|| damaged(format!("{offset} bytes are counted of {:?}", terms.length)))?;
        let shared = self.shared.clone();
        Ok(Box::new(S3Upload { shared, upload, fence: terms.fence, transfer, extents: state.extents }))
    }

    async fn read_upload(&self, upload: UploadId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.shared.read(upload, range).await
    }

    /// The objects are the source as they are; they become one later ([`crate::Sources::assemble_source`]).
    async fn finish_upload(&self, upload: UploadId, byte_len: u64) -> Result<(), StoreError> {
        let state = self.shared.ledger.load(upload).await?;
        if byte_len == 0 && state.extents.is_empty() {
            return self.shared.bucket.put(&source_key(upload), &Sendable::empty()).await;
        }
        if covered(&state.extents) == Some(byte_len) {
            return Ok(());
        }
        let what = format!("the upload {upload}");
        Err(StoreError::Damaged { what, problem: format!("its objects do not make up {byte_len} bytes") })
    }

    /// Objects that the ledger names stay: they are the source. An upload that was given up is one that the ledger
    /// does not know any more, or that has no entries; then everything goes.
    async fn forget_upload(&self, upload: UploadId) -> Result<(), StoreError> {
        let turn = self.shared.turns.take(upload).await;
        let named = match self.shared.ledger.load(upload).await {
            Ok(state) => state.extents,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error),
        };
        let bucket = &self.shared.bucket;
        if named.is_empty() {
            self.shared.abort_begun(upload).await?;
        }
        let named: HashSet<String> = named.into_iter().map(|extent| extent.key).collect();
        let mut there = bucket.list(&upload_prefix(upload)).await?;
        let before = there.len();
        there.retain(|key| !named.contains(key));
        let is_all = there.len() == before;
        bucket.remove(there).await?;
        if is_all {
            bucket.remove(vec![upload_prefix(upload)]).await?;
        }
        drop(turn);
        Ok(())
    }

    async fn list_uploads(&self) -> Result<Vec<UploadId>, StoreError> {
        let directories = self.shared.bucket.list_directories(UPLOADS).await?;
        let names =
            directories.iter().filter_map(|directory| directory.strip_prefix(UPLOADS)?.strip_suffix('/'));
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }

    /// Nobody knows how much more S3 takes.
    async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }
}

impl Shared {
    /// Reads what counts of an upload once more: its hash state is of a kind that this program does not know.
    async fn hash_again(self: &Arc<Self>, upload: UploadId, byte_len: u64) -> Result<WholeHash, StoreError> {
        let mut bytes = self.read(upload, 0..byte_len).await?;
        let mut hash = WholeHash::new();
        while let Some(piece) = bytes.try_next().await? {
            hash.update(&piece);
        }
        Ok(hash)
    }
}

/// All objects of an upload begin so. Some servers keep a directory of this name when the last of them is gone; it is
/// removed like an object, and elsewhere there is none.
pub(crate) fn upload_prefix(upload: UploadId) -> String {
    format!("{UPLOADS}{upload}/")
}

/// How many bytes the extents make up from the front without a gap; `None` when they do not.
pub(crate) fn covered(extents: &[Extent]) -> Option<u64> {
    extents.iter().try_fold(0, |end, extent| (extent.start == end && extent.end > end).then_some(extent.end))
}

/// As the ledger keeps it: the kind of the state, then the state.
pub(crate) fn saved(hash: &WholeHash) -> Vec<u8> {
    let mut saved = vec![STATE_KIND];
    saved.extend_from_slice(&hash.save());
    saved
}

/// `None`: of a kind that this program does not know.
pub(crate) fn restored(saved: &[u8]) -> Option<WholeHash> {
    match saved.split_first() {
        Some((&STATE_KIND, state)) => WholeHash::restore(state),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{covered, restored, saved};
    use crate::ledger::Extent;
    use reelyard_upload::WholeHash;

    #[test]
    fn extents_cover_what_they_make_up_without_a_gap() {
        let extents = |ends: &[(u64, u64)]| -> Vec<Extent> {
            ends.iter().map(|&(start, end)| Extent { start, end, key: String::new() }).collect()
        };
        assert_eq!(covered(&[]), Some(0));
        assert_eq!(covered(&extents(&[(0, 5), (5, 6)])), Some(6));
        assert_eq!(covered(&extents(&[(0, 5), (6, 7)])), None);
        assert_eq!(covered(&extents(&[(1, 5)])), None);
    }

    #[test]
    fn a_hash_is_stored_with_its_kind() {
        let mut hash = WholeHash::new();
        hash.update(b"abc");
        let mut state = saved(&hash);
        assert_eq!(restored(&state).unwrap().digest(), hash.digest());
        state[0] += 1;
        assert!(restored(&state).is_none());
        assert!(restored(&[]).is_none());
    }
}
