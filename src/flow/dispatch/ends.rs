//! That an attempt is over, for the worker in this process.
//!
//! The events only wake (`orders` has the ear, one for everybody): what is said comes from the rows. Whoever listens
//! does so before the rows are read, so nothing falls between the two.

use super::orders::verdict;
use crate::app::App;
use reelyard_catalog::CatalogError;
use reelyard_model::{TaskId, work::Verdict, worker_protocol::Held};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Who wants to hear of which task.
#[derive(Default)]
pub(super) struct Ends(Mutex<HashMap<TaskId, Vec<Arc<Notify>>>>);

impl Ends {
    pub(super) fn wake(&self, task: TaskId) {
        self.all().get(&task).into_iter().flatten().for_each(|one| one.notify_one());
    }

    /// Events were missed.
    pub(super) fn wake_all(&self) {
        self.all().values().flatten().for_each(|one| one.notify_one());
    }

    fn listen(&self, task: TaskId) -> Listening<'_> {
        let woken = Arc::new(Notify::new());
        self.all().entry(task).or_default().push(woken.clone());
        Listening { ends: self, task, woken }
    }

    /// Whoever panicked with it left whole entries.
    fn all(&self) -> MutexGuard<'_, HashMap<TaskId, Vec<Arc<Notify>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As long as it lives.
struct Listening<'ends> {
    ends: &'ends Ends,
    task: TaskId,
    woken: Arc<Notify>,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        let mut all = self.ends.all();
        let Some(listening) = all.get_mut(&self.task) else { return };
        listening.retain(|one| !Arc::ptr_eq(one, &self.woken));
        if listening.is_empty() {
            all.remove(&self.task);
        }
    }
}

/// Returns when this attempt is over. Never returns where it is done.
pub(crate) async fn over(app: &App, held: Held) -> Result<Verdict, CatalogError> {
    let listening = app.orders.ends().listen(held.task);
    loop {
        let states = app.catalog.task_states(&[held.task]).await?;
        if let Some(verdict) = verdict(states.get(&held.task).copied(), held.attempt) {
            return Ok(verdict);
        }
        listening.woken.notified().await;
    }
}
