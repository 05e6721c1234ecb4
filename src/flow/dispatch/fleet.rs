//! The workers that this server knows: who said hello, when each was last heard of, and which ones an operator wants idle.
//!
//! Kept in memory: a worker that a node does not know (it started anew, or the call came through another node) is
//! asked to say hello again. Nothing about leases depends on it.

use super::STORED_LEASE_MS;
use reelyard_model::{WorkerId, worker_protocol::HelloCall};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Workers that are remembered; each start of a worker is a new one. Beyond that, the one silent for longest goes.
const MOST_WORKERS: usize = 4096;
/// A worker that was silent for so long, without a good-bye, is shown as gone: several of its calls are missing.
pub(crate) const SILENT_AFTER_MS: i64 = 60_000;

#[derive(Clone, Debug)]
pub(crate) struct KnownWorker {
    pub(crate) hello: HelloCall,
    pub(crate) since_ms: i64,
    pub(crate) last_seen_ms: i64,
    /// An operator wants it to take nothing new.
    pub(crate) drain: bool,
    /// It said good-bye.
    pub(crate) ended_ms: Option<i64>,
}

pub(crate) struct Fleet {
    /// Length of every lease.
    pub(crate) lease_ms: u64,
    workers: Mutex<HashMap<WorkerId, KnownWorker>>,
    /// Rises when an operator has changed something.
    orders: watch::Sender<u64>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self::with_leases_of(STORED_LEASE_MS)
    }
}

impl Fleet {
    pub(crate) fn with_leases_of(lease_ms: u64) -> Self {
        Self { lease_ms, workers: Mutex::default(), orders: watch::Sender::new(0) }
    }

    /// A worker is there. Safe to repeat: it stays what it was.
    pub(crate) fn hello(&self, hello: HelloCall, now_ms: i64) {
        let mut workers = self.workers();
        if workers.len() >= MOST_WORKERS
            && !workers.contains_key(&hello.worker)
            && let Some(silent) =
                workers.iter().min_by_key(|(_, known)| known.last_seen_ms).map(|(id, _)| *id)
        {
            workers.remove(&silent);
        }
        let known = workers.entry(hello.worker).or_insert_with(|| KnownWorker {
            hello: hello.clone(),
            since_ms: now_ms,
            last_seen_ms: now_ms,
            drain: false,
            ended_ms: None,
        });
        known.hello = hello;
        known.last_seen_ms = now_ms;
        known.ended_ms = None;
    }

    /// A call of it came. `None`: it is not known here; else whether it is to take nothing new.
    pub(crate) fn seen(&self, worker: WorkerId, now_ms: i64) -> Option<bool> {
        let mut workers = self.workers();
        let known = workers.get_mut(&worker)?;
        known.last_seen_ms = now_ms;
        Some(known.drain)
    }

    pub(crate) fn goodbye(&self, worker: WorkerId, now_ms: i64) {
        if let Some(known) = self.workers().get_mut(&worker) {
            known.ended_ms = Some(now_ms);
        }
    }

    /// `None`: there is no such worker.
    pub(crate) fn set_drain(&self, worker: WorkerId, drain: bool) -> Option<KnownWorker> {
        let mut workers = self.workers();
        let known = workers.get_mut(&worker)?;
        known.drain = drain;
        let known = known.clone();
        drop(workers);
        self.orders.send_modify(|changes| *changes += 1);
        Some(known)
    }

    /// Returns when this worker's `drain` is another than the one it knows.
    pub(crate) async fn drain_is_not(&self, worker: WorkerId, known_to_it: bool) -> bool {
        let mut changes = self.orders.subscribe();
        loop {
            let drain = self.workers().get(&worker).is_some_and(|known| known.drain);
            if drain != known_to_it {
                return drain;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Newest first.
    pub(crate) fn list(&self) -> Vec<KnownWorker> {
        let mut all: Vec<KnownWorker> = self.workers().values().cloned().collect();
        all.sort_by_key(|known| std::cmp::Reverse((known.since_ms, known.hello.worker)));
        all
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<WorkerId, KnownWorker>> {
        // Whoever panicked with it left a whole entry.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
