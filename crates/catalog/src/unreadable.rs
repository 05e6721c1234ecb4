//! Tasks that this program cannot read, or whose asset or plan it cannot: a newer version wrote them, or a row is damaged.
//!
//! Claims pass over them for a while, because one such task at the head of its queue would stop the whole farm. Nothing
//! is written: a node that can read it takes it up. Each node knows only what it met itself.

use crate::CatalogError;
use reelyard_model::TaskId;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Then it is tried again, and told again: somebody may have mended it.
const PASSED_OVER_FOR: Duration = Duration::from_secs(600);
/// More of them are no odd rows but a whole catalogue that is not ours to work on; claims fail then, and say why.
const MOST: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Unreadable(Mutex<HashMap<TaskId, Instant>>);

impl Unreadable {
    /// The error comes back where too many are passed over already.
    pub(crate) fn pass_over(&self, these: &[TaskId], error: CatalogError) -> Result<(), CatalogError> {
        let mut tasks = self.tasks();
        if tasks.len() + these.len() > MOST {
            return Err(error);
        }
        tasks.extend(these.iter().map(|task| (*task, Instant::now())));
        tracing::error!(
            tasks = ?these, %error,
            "claims: tasks cannot be read by this version and are passed over for {} minutes; is a newer node still \
             running, or was this one put back to an older version?",
            PASSED_OVER_FOR.as_secs() / 60
        );
        Ok(())
    }

    pub(crate) fn passed_over(&self) -> Vec<TaskId> {
        let mut tasks = self.tasks();
        tasks.retain(|_, since| since.elapsed() < PASSED_OVER_FOR);
        tasks.keys().copied().collect()
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<TaskId, Instant>> {
        // Each change is whole by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
