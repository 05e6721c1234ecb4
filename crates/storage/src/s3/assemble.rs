//! A source of many objects becomes one, by copies within S3, off everybody's critical path.
//!
//! The new object is whole before the ledger names it, and the old ones are removed after that. Interrupted anywhere,
//! it is simply done again: nothing that the ledger names is touched before the ledger names something else.

use super::{
    Shared,
    joining::parts_of,
    multipart::Joined,
    upload::{covered, upload_prefix},
};
use crate::{
    StoreError,
    ledger::{Extent, LedgerChange},
    source_key,
};
use reelyard_model::UploadId;
use std::sync::Arc;

/// How often another one's assembly of the same source may get in the way.
const MOST_TRIES: u32 = 3;

pub(super) async fn assemble(shared: &Arc<Shared>, upload: UploadId) -> Result<bool, StoreError> {
    let target = source_key(upload);
    let mut tries = 0;
    loop {
        let extents = shared.ledger.load(upload).await?.extents;
        match extents.as_slice() {
            [] => return Ok(false),
            [whole] if whole.key == target => return Ok(tries > 0),
            _ if covered(&extents).is_none() => {
                let what = shared.bucket.place(&target);
                return Err(StoreError::Damaged { what, problem: "its objects leave a gap".to_owned() });
            }
            _ => {}
        }
        if extents.len() > shared.objects_joined_at_once {
            // In several steps: the result of each is an object of the upload like any other.
            let some = &extents[..shared.objects_joined_at_once];
            let key = format!("{}{:016x}-{}", upload_prefix(upload), 0, super::bucket::random_name()?);
            shared.replace(upload, some, &key, &mut tries).await?;
        } else if shared.replace(upload, &extents, &target, &mut tries).await? {
            // What earlier attempts left. One of another node that is still at work finds the source done.
            if let Err(error) = shared.abort_begun(upload).await {
                tracing::warn!(%error, %upload, "multipart uploads of a source stay until it is removed");
            }
            return Ok(true);
        }
    }
}

impl Shared {
    /// Assemblies of this source that were begun and never completed are given up.
    pub(super) async fn abort_begun(&self, upload: UploadId) -> Result<(), StoreError> {
        self.bucket.abort_multipart(&source_key(upload)).await?;
        self.bucket.abort_multipart(&upload_prefix(upload)).await
    }

    /// One object in the place of these. False: somebody else has replaced some of them, look again.
    async fn replace(
        self: &Arc<Self>,
        upload: UploadId,
        extents: &[Extent],
        key: &str,
        tries: &mut u32,
    ) -> Result<bool, StoreError> {
        let (Some(first), Some(last)) = (extents.first(), extents.last()) else { return Ok(false) };
        let damaged = |problem: &str| StoreError::Damaged {
            what: self.bucket.place(&source_key(upload)),
            problem: problem.to_owned(),
        };
        if let Joined::SourceGone = self.join(key, &parts_of(extents)).await? {
            *tries += 1;
            return if *tries < MOST_TRIES { Ok(false) } else { Err(damaged("objects of it are gone")) };
        }
        if self.bucket.len(key).await? != Some(last.end - first.start) {
            return Err(damaged("S3 put it together with another length"));
        }
        let change = LedgerChange {
            remove: extents.iter().map(|extent| extent.start).collect(),
            insert: vec![Extent { start: first.start, end: last.end, key: key.to_owned() }],
            ..LedgerChange::default()
        };
        match self.ledger.commit(upload, None, change).await {
            Ok(()) => {}
            Err(StoreError::Conflict { .. }) if *tries < MOST_TRIES => {
                *tries += 1;
                return Ok(false);
            }
            // Nobody knows the upload any more: nobody will ask for its source.
            Err(error) if error.is_not_found() => {
                self.remove_in_background(vec![key.to_owned()]);
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        let old = extents.iter().map(|extent| extent.key.clone()).filter(|old| old != key).collect();
        if let Err(error) = self.bucket.remove(old).await {
            tracing::warn!(%error, %upload, "objects of a source that was put together stay until they are swept");
        }
        Ok(true)
    }
}
