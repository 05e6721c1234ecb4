//! Blocks of sources that this worker has fetched: the newest in memory, more of them in one nameless file in the
//! scratch directory, which the system removes with the process. Shared by all children, so that the index of a film is
//! fetched once for all its chunks.
//!
//! Nothing here fails a task: where the disk is full or broken, blocks are kept in memory only, and fetched again.

use super::blocks::{BLOCK_BYTES, BlockId, Recent};
use bytes::Bytes;
use std::{
    collections::HashSet,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;

/// On disk, for each worker: some films, so that probe, sound, stills and chunks of the same one fetch it once.
pub(crate) const DISK_BYTES: u64 = 2 << 30;
/// In memory, 16 MiB: what children read right now.
const MEMORY_BLOCKS: usize = (16 << 20) / BLOCK_BYTES as usize;

/// Bytes and requests, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// That came from the store.
    pub fetched_bytes: u64,
    /// Ranges asked of the store.
    pub requests: u64,
    /// That children read.
    pub served_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) fetched_bytes: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) served_bytes: AtomicU64,
}

impl Counters {
    pub(super) fn now(&self) -> Traffic {
        Traffic {
            fetched_bytes: self.fetched_bytes.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            served_bytes: self.served_bytes.load(Ordering::Relaxed),
        }
    }
}

/// One for each worker.
#[derive(Clone)]
pub struct SourceCache {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// Some block came, or will not come.
    pub(super) changed: Notify,
    pub(super) counters: Arc<Counters>,
    folder: PathBuf,
    /// Made with the first block: the folder may not be there before.
    file: OnceLock<Option<File>>,
}

struct State {
    in_memory: Recent<Bytes>,
    on_disk: Recent<Slot>,
    free_slots: Vec<u32>,
    /// Slots from here on were never used.
    unused_from: u32,
    most_slots: u32,
    generation: u64,
    arriving: HashSet<BlockId>,
}

/// A place in the file. The generation tells whether it still holds what it held when it was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    number: u32,
    byte_len: u32,
    generation: u64,
}

pub(super) enum Found {
    Bytes(Bytes),
    OnDisk(Slot),
    /// Somebody fetches it right now.
    Arriving,
    Nowhere,
}

impl SourceCache {
    /// Keeps at most so many bytes in a file in this folder.
    pub fn new(folder: &Path, disk_bytes: u64) -> Self {
        let state = State {
            in_memory: Recent::new(MEMORY_BLOCKS),
            on_disk: Recent::new(usize::MAX),
            free_slots: Vec::new(),
            unused_from: 0,
            most_slots: u32::try_from(disk_bytes / BLOCK_BYTES).unwrap_or(u32::MAX),
            generation: 0,
            arriving: HashSet::new(),
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Notify::new(),
                counters: Arc::default(),
                folder: folder.to_owned(),
                file: OnceLock::new(),
            }),
        }
    }

    /// Since the beginning, over all tasks.
    pub fn traffic(&self) -> Traffic {
        self.shared.counters.now()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn look(&self, id: &BlockId) -> Found {
        let mut state = self.state();
        if let Some(bytes) = state.in_memory.get(id) {
            return Found::Bytes(bytes.clone());
        }
        if let Some(slot) = state.on_disk.get(id) {
            return Found::OnDisk(*slot);
        }
        if state.arriving.contains(id) { Found::Arriving } else { Found::Nowhere }
    }

    /// What lies in the slot, if it is still this block.
    pub(super) async fn read(self: &Arc<Self>, id: &BlockId, slot: Slot) -> Option<Bytes> {
        let shared = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; slot.byte_len as usize];
            let file = shared.file.get()?.as_ref()?;
            file.read_exact_at(&mut bytes, u64::from(slot.number) * BLOCK_BYTES).ok()?;
            Some(Bytes::from(bytes))
        });
        let bytes = reading.await.ok().flatten();
        let mut state = self.state();
        let is_still_there = state.on_disk.get(id) == Some(&slot);
        match bytes {
            Some(bytes) if is_still_there => {
                state.in_memory.insert(id.clone(), bytes.clone());
                Some(bytes)
            }
            _ => {
                if is_still_there {
                    // The disk does not give it back. The slot is not used again.
                    state.on_disk.remove(id);
                }
                None
            }
        }
    }

    /// Claims blocks from `from` on that are nowhere, at most up to `until`, for the caller to fetch. Empty when
    /// somebody was faster.
    pub(super) fn claim(self: &Arc<Self>, source: &Arc<str>, from: u64, until: u64) -> Claim {
        let mut state = self.state();
        let mut end = from;
        while end < until {
            let id = BlockId { source: Arc::clone(source), number: end };
            if state.in_memory.contains(&id) || state.on_disk.contains(&id) || !state.arriving.insert(id) {
                break;
            }
            end += 1;
        }
        Claim { shared: Arc::clone(self), source: Arc::clone(source), blocks: from..end }
    }

    fn file(&self) -> Option<&File> {
        self.file.get_or_init(|| tempfile::tempfile_in(&self.folder).map_err(warn_of_disk).ok()).as_ref()
    }

    fn store(&self, id: BlockId, bytes: &Bytes) {
        let Some(file) = self.file() else { return };
        let Some(number) = self.state().free_slot() else { return };
        let written = file.write_all_at(bytes, u64::from(number) * BLOCK_BYTES);
        let mut state = self.state();
        match written {
            Ok(()) => {
                state.generation += 1;
                let slot = Slot { number, byte_len: bytes.len() as u32, generation: state.generation };
                if let Some(replaced) = state.on_disk.insert(id, slot) {
                    state.free_slots.push(replaced.number);
                }
            }
            Err(error) => {
                state.free_slots.push(number);
                drop(state);
                warn_of_disk(error);
            }
        }
    }
}

impl State {
    fn free_slot(&mut self) -> Option<u32> {
        if let Some(number) = self.free_slots.pop() {
            return Some(number);
        }
        if self.unused_from < self.most_slots {
            self.unused_from += 1;
            return Some(self.unused_from - 1);
        }
        self.on_disk.remove_oldest().map(|slot| slot.number)
    }
}

/// Blocks that one fetch has promised to bring. Dropped early, those that did not come are anybody's again.
pub(super) struct Claim {
    shared: Arc<Shared>,
    source: Arc<str>,
    /// Still to come.
    blocks: Range<u64>,
}

impl Claim {
    pub(super) fn blocks(&self) -> &Range<u64> {
        &self.blocks
    }

    /// The next of the claimed blocks is here.
    pub(super) fn arrived(&mut self, bytes: Bytes) {
        let id = BlockId { source: Arc::clone(&self.source), number: self.blocks.start };
        self.blocks.start += 1;
        {
            let mut state = self.shared.state();
            state.arriving.remove(&id);
            state.in_memory.insert(id.clone(), bytes.clone());
        }
        self.shared.changed.notify_waiters();
        let shared = Arc::clone(&self.shared);
        // Nobody waits for it: until it is written the block is in memory.
        drop(tokio::task::spawn_blocking(move || shared.store(id, &bytes)));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.blocks.is_empty() {
            let mut state = self.shared.state();
            for number in self.blocks.clone() {
                state.arriving.remove(&BlockId { source: Arc::clone(&self.source), number });
            }
        }
        self.shared.changed.notify_waiters();
    }
}

/// Once: it is the disk's state, not the task's.
fn warn_of_disk(error: io::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(%error, "blocks of sources cannot be kept on disk; they are fetched again when they are needed");
    });
}

#[cfg(test)]
mod tests {
    use super::{BlockId, Found, SourceCache};
    use crate::source::blocks::BLOCK_BYTES;
    use bytes::Bytes;
    use std::{path::Path, sync::Arc};

    fn block(number: u64) -> Bytes {
        Bytes::from(vec![number as u8; BLOCK_BYTES as usize])
    }

    fn id(source: &Arc<str>, number: u64) -> BlockId {
        BlockId { source: Arc::clone(source), number }
    }

    fn fill(cache: &SourceCache, source: &Arc<str>, blocks: std::ops::Range<u64>) {
        for number in blocks {
            // As `arrived`, without the thread, so that the order is known.
            let id = id(source, number);
            cache.shared.store(id, &block(number));
        }
    }

    #[tokio::test]
    async fn the_file_holds_as_many_blocks_as_it_may_and_the_newest_stay() {
        let folder = tempfile::tempdir().unwrap();
        let cache = SourceCache::new(folder.path(), 4 * BLOCK_BYTES);
        let source: Arc<str> = "sources/one".into();
        fill(&cache, &source, 0..10);
        assert_eq!(cache.shared.file().unwrap().metadata().unwrap().len(), 4 * BLOCK_BYTES);
        for number in 0..10 {
            match cache.shared.look(&id(&source, number)) {
                Found::OnDisk(slot) => {
                    assert!(number >= 6);
                    let read = cache.shared.read(&id(&source, number), slot).await.unwrap();
                    assert_eq!(read, block(number));
                }
                _ => assert!(number < 6, "{number}"),
            }
        }
    }

    #[tokio::test]
    async fn a_slot_that_was_given_to_another_block_meanwhile_is_not_read_as_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let cache = SourceCache::new(folder.path(), BLOCK_BYTES);
        let source: Arc<str> = "sources/one".into();
        fill(&cache, &source, 1..2);
        let Found::OnDisk(slot) = cache.shared.look(&id(&source, 1)) else { panic!("not on disk") };
        fill(&cache, &source, 2..3);
        assert_eq!(cache.shared.read(&id(&source, 1), slot).await, None);
    }

    #[tokio::test]
    async fn without_a_disk_blocks_are_kept_in_memory() {
        let cache = SourceCache::new(Path::new("/nowhere/at/all"), 1 << 30);
        let source: Arc<str> = "sources/one".into();
        let mut claim = cache.shared.claim(&source, 3, 5);
        assert!(matches!(cache.shared.look(&id(&source, 4)), Found::Arriving));
        claim.arrived(block(3));
        drop(claim);
        assert!(matches!(cache.shared.look(&id(&source, 3)), Found::Bytes(bytes) if bytes == block(3)));
        assert!(matches!(cache.shared.look(&id(&source, 4)), Found::Nowhere), "it did not come");
    }

    #[tokio::test]
    async fn two_who_want_the_same_blocks_do_not_both_fetch_them() {
        let folder = tempfile::tempdir().unwrap();
        let cache = SourceCache::new(folder.path(), 1 << 30);
        let source: Arc<str> = "sources/one".into();
        let first = cache.shared.claim(&source, 4, 8);
        assert_eq!(*first.blocks(), 4..8);
        assert_eq!(*cache.shared.claim(&source, 2, 8).blocks(), 2..4);
        assert!(cache.shared.claim(&source, 5, 8).blocks().is_empty());
        drop(first);
        assert_eq!(*cache.shared.claim(&source, 5, 8).blocks(), 5..8);
    }
}
