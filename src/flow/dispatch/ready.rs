//! That there may be something to claim, for workers that wait without a broker.
//!
//! One look at every event for all who wait (`orders` has the ear), and no question to the catalogue: of each kind the
//! number of the last event is kept that may have made something ready. Wakes too often rather than too seldom; what no
//! event tells (a tenant whose turn has come) is found by looking now and then.

use reelyard_catalog::{EventKind, EventRow};
use reelyard_model::{TaskState, work::TaskKind};
use std::collections::HashMap;
use tokio::sync::watch;

pub(super) struct Ready(watch::Sender<HashMap<TaskKind, i64>>);

impl Ready {
    /// `newest`: the number of the last event that will not be seen here. What came before may have been anything.
    pub(super) fn since(newest: i64) -> Self {
        Self(watch::Sender::new(TaskKind::ALL.into_iter().map(|kind| (kind, newest)).collect()))
    }

    pub(super) fn saw(&self, event: &EventRow) {
        if brings(event) {
            self.mark(&TaskKind::ALL, event.seq);
        } else if becomes_ready(event) {
            let kind = TaskKind::ALL.into_iter().find(|kind| event.data["kind"] == kind.as_str());
            self.mark(kind.as_slice(), event.seq);
        }
    }

    /// Events up to this one went by unseen.
    pub(super) fn missed_until(&self, newest: i64) {
        self.mark(&TaskKind::ALL, newest);
    }

    fn mark(&self, kinds: &[TaskKind], number: i64) {
        self.0.send_modify(|marks| {
            for kind in kinds {
                let mark = marks.entry(*kind).or_insert(number);
                *mark = number.max(*mark);
            }
        });
    }

    /// Returns when something of these kinds may have become ready after the event number `after`.
    pub(super) async fn after(&self, kinds: &[TaskKind], after: i64) {
        let mut marks = self.0.subscribe();
        let is_ready = |marks: &HashMap<TaskKind, i64>| kinds.iter().any(|kind| marks[kind] > after);
        // An error means that the server ends; its callers look at that themselves.
        if marks.wait_for(is_ready).await.is_err() {
            std::future::pending().await
        }
    }
}

/// These bring tasks that are ready from the first.
fn brings(event: &EventRow) -> bool {
    [EventKind::ASSET_CREATED, EventKind::ASSET_PLANNED, EventKind::ASSET_RETRIED]
        .iter()
        .any(|kind| event.kind == kind.0)
}

fn becomes_ready(event: &EventRow) -> bool {
    event.kind == EventKind::TASK_CHANGED.0 && event.data["state"] == TaskState::Ready.as_str()
}
