//! A ledger that keeps its promises in memory: the catalogue's part in these tests. It outlives the stores.

use async_trait::async_trait;
use reelyard_model::UploadId;
use reelyard_storage::{
    StoreError,
    ledger::{Ledger, LedgerChange, LedgerState},
};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

#[derive(Debug, Default)]
pub(crate) struct MemoryLedger {
    uploads: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// One token for all uploads: they change hands together here.
    fence: u64,
    states: HashMap<UploadId, LedgerState>,
}

impl MemoryLedger {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.uploads.lock().unwrap()
    }

    pub(crate) fn add(&self, upload: UploadId) {
        self.known().states.insert(upload, LedgerState::default());
    }

    pub(crate) fn remove(&self, upload: UploadId) {
        self.known().states.remove(&upload);
    }

    pub(crate) fn fence(&self) -> u64 {
        self.known().fence
    }

    /// Another node holds all uploads from now on.
    pub(crate) fn change_hands(&self) {
        self.known().fence += 1;
    }

    pub(crate) fn state(&self, upload: UploadId) -> LedgerState {
        self.known().states[&upload].clone()
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn load(&self, upload: UploadId) -> Result<LedgerState, StoreError> {
        let not_found = || StoreError::NotFound { what: format!("the upload {upload}") };
        self.known().states.get(&upload).cloned().ok_or_else(not_found)
    }

    async fn commit(
        &self,
        upload: UploadId,
        fence: Option<u64>,
        change: LedgerChange,
    ) -> Result<(), StoreError> {
        let mut known = self.known();
        let newest = known.fence;
        let not_found = || StoreError::NotFound { what: format!("the upload {upload}") };
        let state = known.states.get_mut(&upload).ok_or_else(not_found)?;
        if fence.is_some_and(|fence| fence != newest) {
            return Err(StoreError::Fenced { what: format!("the upload {upload}") });
        }
        let next = changed(state.clone(), change).map_err(|what| StoreError::Conflict { what })?;
        *state = next;
        Ok(())
    }
}

fn changed(mut state: LedgerState, change: LedgerChange) -> Result<LedgerState, String> {
    if let Some(part) = change.part {
        let meets = |other: &&reelyard_storage::ledger::LedgerPart| {
            other.number == part.number || (other.start < part.end && part.start < other.end)
        };
        if let Some(other) = state.parts.iter().find(meets) {
            return Err(format!("part {} meets part {}", part.number, other.number));
        }
        state.parts.push(part);
        state.parts.sort_by_key(|part| part.number);
    }
    for start in change.remove {
        let found = state.extents.iter().position(|extent| extent.start == start);
        state.extents.remove(found.ok_or_else(|| format!("no extent begins at {start}"))?);
    }
    state.extents.extend(change.insert);
    state.extents.sort_by_key(|extent| extent.start);
    assert!(state.extents.windows(2).all(|pair| pair[0].end <= pair[1].start), "{:?}", state.extents);
    if let Some((offset, hash)) = change.checkpoint {
        assert!(offset >= state.offset, "an offset went down from {} to {offset}", state.offset);
        (state.offset, state.hash) = (offset, Some(hash));
    }
    Ok(state)
}
