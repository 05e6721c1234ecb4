//! The workers elsewhere: who said hello, when each was last heard of, and which ones an operator wants idle.
//!
//! The rows are the truth, for all nodes. This node knows those of the workers that have a stream of orders here, and
//! remembers each other one for a moment, so that calls that come many times a second cost no more than one look. It gathers who was heard, so that this costs one write for all of them every
//! few seconds. Nothing about leases depends on it.

use super::STORED_LEASE_MS;
use crate::app::App;
use reelyard_catalog::{Actor, CatalogError, NewWorker};
use reelyard_model::{WorkerId, worker_protocol::HelloCall};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// So long a row is believed: an operator's order through another node takes effect that late.
const REMEMBERED_MS: i64 = 1_000;
const LOOK_AGAIN: Duration = Duration::from_millis(REMEMBERED_MS.unsigned_abs());
/// Between two writes of who was heard.
const HEARD_EVERY_MS: i64 = 5_000;
/// Workers that are remembered; beyond that all are looked up anew.
const MOST_REMEMBERED: usize = 4096;

/// What a row said a moment ago.
#[derive(Clone, Copy)]
struct Remembered {
    drain: bool,
    at_ms: i64,
}

#[derive(Default)]
struct Heard {
    workers: HashSet<WorkerId>,
    told_ms: i64,
}

pub(crate) struct Fleet {
    /// Length of every lease.
    pub(crate) lease_ms: u64,
    remembered: Mutex<HashMap<WorkerId, Remembered>>,
    heard: Mutex<Heard>,
    /// Rises when an operator has changed something through this node.
    orders: watch::Sender<u64>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self::with_leases_of(STORED_LEASE_MS)
    }
}

impl Fleet {
    pub(crate) fn with_leases_of(lease_ms: u64) -> Self {
        Self {
            lease_ms,
            remembered: Mutex::default(),
            heard: Mutex::default(),
            orders: watch::Sender::new(0),
        }
    }

    fn remember(&self, worker: WorkerId, remembered: Remembered) {
        let mut all = lock(&self.remembered);
        if all.len() >= MOST_REMEMBERED {
            all.clear();
        }
        all.insert(worker, remembered);
    }
}

/// A worker is there. Safe to repeat. False: it has the id of a worker inside a server.
pub(crate) async fn hello(app: &App, hello: HelloCall) -> Result<bool, CatalogError> {
    let machine = serde_json::to_value(&hello.machine).unwrap_or_default();
    let new = NewWorker {
        id: hello.worker,
        name: hello.name,
        node: None,
        version: hello.version,
        machine,
        now_ms: app.now_ms(),
    };
    app.catalog.register_worker(&new).await
}

/// A call of it came. `None`: it has no row, so it has to say hello; else whether it is to take nothing new.
pub(crate) async fn heard(app: &App, worker: WorkerId) -> Result<Option<bool>, CatalogError> {
    let now_ms = app.now_ms();
    let told = {
        let mut heard = lock(&app.fleet.heard);
        heard.workers.insert(worker);
        let due = now_ms - heard.told_ms >= HEARD_EVERY_MS;
        if due {
            heard.told_ms = now_ms;
        }
        due.then(|| heard.workers.drain().collect::<Vec<_>>())
    };
    if let Some(told) = told {
        // It is for people: no call fails for it.
        if let Err(error) = app.catalog.workers_seen(&told, now_ms).await {
            tracing::warn!(%error, workers = told.len(), "dispatch: when workers were heard last is not stored");
        }
    }
    drains(app, worker).await
}

async fn drains(app: &App, worker: WorkerId) -> Result<Option<bool>, CatalogError> {
    if let Some(drain) = app.orders.drain_of(worker) {
        return Ok(Some(drain));
    }
    let now_ms = app.now_ms();
    let remembered = lock(&app.fleet.remembered).get(&worker).copied();
    if let Some(remembered) = remembered.filter(|one| now_ms - one.at_ms < REMEMBERED_MS) {
        return Ok(Some(remembered.drain));
    }
    let drain = app.catalog.worker_drains(worker).await?;
    if let Some(drain) = drain {
        app.fleet.remember(worker, Remembered { drain, at_ms: now_ms });
    }
    Ok(drain)
}

/// It ends. It holds nothing that it knows of; what the answer of a claim brought that it did not wait for goes back.
pub(crate) async fn goodbye(app: &App, worker: WorkerId) -> Result<(), CatalogError> {
    if app.catalog.release_all_of(worker, app.now_ms()).await? > 0 {
        app.ring();
    }
    app.catalog.worker_ended(worker, app.now_ms()).await
}

/// False: there is no such worker.
pub(crate) async fn set_drain(
    app: &App,
    worker: WorkerId,
    drain: bool,
    actor: &Actor,
) -> Result<bool, CatalogError> {
    let now_ms = app.now_ms();
    let is_there = app.catalog.set_worker_drain(worker, drain, actor, now_ms).await?;
    if is_there {
        app.fleet.remember(worker, Remembered { drain, at_ms: now_ms });
        app.orders.drain(worker, drain);
        app.fleet.orders.send_modify(|changes| *changes += 1);
    }
    Ok(is_there)
}

/// Returns when this worker's `drain` is another than the one it knows.
pub(crate) async fn drain_is_not(
    app: &App,
    worker: WorkerId,
    known_to_it: bool,
) -> Result<bool, CatalogError> {
    let mut changes = app.fleet.orders.subscribe();
    loop {
        let drain = drains(app, worker).await?.unwrap_or(known_to_it);
        if drain != known_to_it {
            return Ok(drain);
        }
        // Through this node it is told at once; through another one it is seen at the next look.
        let _ = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
    }
}

/// Whoever panicked with it left whole entries.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
