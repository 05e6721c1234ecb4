//! The memory that the bytes of all uploads may take on their way to S3, one budget for the process.
//!
//! Whoever finds it used up first sends away what it holds and only then waits, holding nothing. What is held by
//! others is on its way or will be within the checkpoint interval, so every waiter gets its turn; meanwhile the bytes
//! wait in the socket and TCP slows the sender down.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in these, because the counter of one claim has 32 bits.
const GRAIN_BYTES: u64 = 1 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Memory {
    grains: Arc<Semaphore>,
    total_grains: u64,
}

/// A piece of the budget, given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Held(Option<OwnedSemaphorePermit>);

impl Held {
    pub(crate) fn join(&mut self, other: Self) {
        match (&mut self.0, other.0) {
            (Some(permit), Some(more)) => permit.merge(more),
            (none, more @ Some(_)) => *none = more,
            (_, None) => {}
        }
    }
}

impl Memory {
    pub(crate) fn new(total_bytes: u64) -> Self {
        let total_grains = (total_bytes / GRAIN_BYTES).clamp(1, u64::from(u32::MAX));
        Self { grains: Arc::new(Semaphore::new(total_grains as usize)), total_grains }
    }

    /// More than the whole budget counts as the whole: such a piece then has it alone.
    fn grains_of(&self, bytes: u64) -> u32 {
        bytes.div_ceil(GRAIN_BYTES).min(self.total_grains) as u32
    }

    /// At once or not at all. Not at all, too, while somebody waits: what comes free is theirs.
    pub(crate) fn try_hold(&self, bytes: u64) -> Option<Held> {
        let permit = self.grains.clone().try_acquire_many_owned(self.grains_of(bytes)).ok()?;
        Some(Held(Some(permit)))
    }

    /// In the order of asking. To be called by somebody who holds nothing that is not on its way.
    pub(crate) async fn hold(&self, bytes: u64) -> Held {
        // It fails only when it is closed, which nobody does.
        Held(self.grains.clone().acquire_many_owned(self.grains_of(bytes)).await.ok())
    }

    #[cfg(test)]
    fn free_bytes(&self) -> u64 {
        self.grains.available_permits() as u64 * GRAIN_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::{GRAIN_BYTES, Memory};

    #[tokio::test]
    async fn what_is_held_comes_back() {
        let memory = Memory::new(10 * GRAIN_BYTES);
        let mut held = memory.try_hold(4 * GRAIN_BYTES).unwrap();
        held.join(memory.try_hold(4 * GRAIN_BYTES).unwrap());
        assert!(memory.try_hold(4 * GRAIN_BYTES).is_none());
        assert_eq!(memory.free_bytes(), 2 * GRAIN_BYTES);
        drop(held);
        assert_eq!(memory.free_bytes(), 10 * GRAIN_BYTES);
    }

    #[tokio::test]
    async fn more_than_all_waits_for_all() {
        let memory = Memory::new(2 * GRAIN_BYTES);
        let one = memory.try_hold(1).unwrap();
        assert!(memory.try_hold(100 * GRAIN_BYTES).is_none());
        drop(one);
        let all = memory.hold(100 * GRAIN_BYTES).await;
        assert_eq!(memory.free_bytes(), 0);
        drop(all);
    }
}
