//! What a worker is told without having asked for it: that an attempt is over, and that there may be something to claim.
//!
//! Both come from the catalogue's events, which reach every node of a fleet, so it does not matter through which node
//! somebody cancelled. The events only wake: what is said comes from the rows. A subscription begins before the rows
//! are read, so nothing falls between the two.

use crate::app::App;
use reelyard_catalog::{Catalog, CatalogError, EventKind, EventRow};
use reelyard_model::{
    TaskId, TaskState,
    work::{TaskKind, Verdict},
    worker_protocol::{Held, Over},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{
    Notify,
    broadcast::{Receiver, error::RecvError},
};

/// Events that are read at once to see whether something became ready; behind more of them something surely did.
const EVENTS_LOOKED_AT: u32 = 200;

/// Who wants to hear of which task. One look at every event for all of them: each of many listeners with an ear of its
/// own would be woken by the events of all the others.
pub(crate) struct Ends(Arc<Listeners>);

#[derive(Default)]
struct Listeners(Mutex<HashMap<TaskId, Vec<Arc<Notify>>>>);

impl Ends {
    /// Inside a tokio runtime; a task looks at the events until the catalogue is closed.
    pub(crate) fn watch(catalog: &Catalog) -> Self {
        let listeners = Arc::new(Listeners::default());
        tokio::spawn(wake(listeners.clone(), catalog.subscribe()));
        Self(listeners)
    }

    fn listen(&self, held: &[Held]) -> Listening {
        let woken = Arc::new(Notify::new());
        let tasks: HashSet<TaskId> = held.iter().map(|held| held.task).collect();
        let mut all = self.0.all();
        for task in &tasks {
            all.entry(*task).or_default().push(woken.clone());
        }
        drop(all);
        Listening { listeners: self.0.clone(), tasks, woken }
    }
}

impl Listeners {
    /// Whoever panicked with it left whole entries.
    fn all(&self) -> MutexGuard<'_, HashMap<TaskId, Vec<Arc<Notify>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As long as it lives.
struct Listening {
    listeners: Arc<Listeners>,
    tasks: HashSet<TaskId>,
    woken: Arc<Notify>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut all = self.listeners.all();
        for task in &self.tasks {
            let Some(listening) = all.get_mut(task) else { continue };
            listening.retain(|one| !Arc::ptr_eq(one, &self.woken));
            if listening.is_empty() {
                all.remove(task);
            }
        }
    }
}

async fn wake(listeners: Arc<Listeners>, mut events: Receiver<Arc<EventRow>>) {
    loop {
        match events.recv().await {
            Ok(event) if may_end(&event) => {
                let all = listeners.all();
                event
                    .task
                    .and_then(|task| all.get(&task))
                    .into_iter()
                    .flatten()
                    .for_each(|one| one.notify_one());
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => listeners.all().values().flatten().for_each(|one| one.notify_one()),
            Err(RecvError::Closed) => return,
        }
    }
}

/// An attempt is over when its task leaves the lease without being done.
fn may_end(event: &EventRow) -> bool {
    let goes_on = [TaskState::Leased.as_str(), TaskState::Done.as_str()];
    event.kind == EventKind::TASK_CHANGED.0 && goes_on.iter().all(|state| event.data["state"] != *state)
}

/// Returns when at least one of these attempts is over, and which. Never returns where none ends.
pub(crate) async fn over(app: &App, held: &[Held]) -> Result<Vec<Over>, CatalogError> {
    let listening = app.ends.listen(held);
    let tasks: Vec<TaskId> = held.iter().map(|held| held.task).collect();
    loop {
        let states = app.catalog.task_states(&tasks).await?;
        let verdict = |held: &Held| {
            let verdict = verdict(states.get(&held.task).copied(), held.attempt)?;
            Some(Over { task: held.task, attempt: held.attempt, verdict })
        };
        let found: Vec<Over> = held.iter().filter_map(verdict).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        listening.woken.notified().await;
    }
}

/// `None`: it is at work, or its report was taken.
fn verdict(newest: Option<(u32, TaskState)>, attempt: u32) -> Option<Verdict> {
    match newest {
        Some((newest, TaskState::Leased | TaskState::Done)) if newest == attempt => None,
        Some((newest, TaskState::Cancelled)) if newest == attempt => Some(Verdict::Cancelled),
        _ => Some(Verdict::Lost),
    }
}

/// Returns when something of these kinds may have become ready after the event number `after`. Wakes too often rather
/// than too seldom; what it cannot see (a tenant whose turn has come) is found by looking now and then.
pub(crate) async fn something_ready(app: &App, kinds: &[TaskKind], after: i64) -> Result<(), CatalogError> {
    let mut events = app.catalog.subscribe();
    let newest = *app.catalog.last_event().borrow();
    // A number from the future belongs to another database.
    if after < newest {
        let stored = app.catalog.events_after(after, EVENTS_LOOKED_AT).await?;
        if stored.len() >= EVENTS_LOOKED_AT as usize || stored.iter().any(|event| wakes(event, kinds)) {
            return Ok(());
        }
    }
    loop {
        match events.recv().await {
            Ok(event) if wakes(&event, kinds) => return Ok(()),
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return Ok(()),
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn wakes(event: &EventRow, kinds: &[TaskKind]) -> bool {
    // These bring tasks that are ready from the first.
    let brings = [EventKind::ASSET_CREATED, EventKind::ASSET_PLANNED, EventKind::ASSET_RETRIED];
    if brings.iter().any(|kind| event.kind == kind.0) {
        return true;
    }
    event.kind == EventKind::TASK_CHANGED.0
        && event.data["state"] == TaskState::Ready.as_str()
        && kinds.iter().any(|kind| event.data["kind"] == kind.as_str())
}
