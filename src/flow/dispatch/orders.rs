//! What a worker is told without having asked for it: that an attempt is over, and that there may be something to claim.
//!
//! Both come from the catalogue's events, which reach every node of a fleet, so it does not matter through which node
//! somebody cancelled. The events only wake: what is said comes from the rows. A subscription begins before the rows
//! are read, so nothing falls between the two.

use crate::app::App;
use reelyard_catalog::{CatalogError, EventKind, EventRow};
use reelyard_model::{
    TaskState,
    work::{TaskKind, Verdict},
    worker_protocol::{Held, Over},
};
use std::collections::HashSet;
use tokio::sync::broadcast::error::RecvError;

/// Events that are read at once to see whether something became ready; behind more of them something surely did.
const EVENTS_LOOKED_AT: u32 = 200;

/// Returns when at least one of these attempts is over, and which. Never returns where none ends.
pub(crate) async fn over(app: &App, held: &[Held]) -> Result<Vec<Over>, CatalogError> {
    let mut events = app.catalog.subscribe();
    let tasks: HashSet<_> = held.iter().map(|held| held.task).collect();
    let mut looked_for = held.to_vec();
    loop {
        let mut found = Vec::new();
        for held in looked_for.drain(..) {
            found.extend(verdict(app, held).await?);
        }
        if !found.is_empty() {
            return Ok(found);
        }
        while looked_for.is_empty() {
            match events.recv().await {
                Ok(event) if event.kind == EventKind::TASK_CHANGED.0 => {
                    let named = event.task.filter(|task| tasks.contains(task));
                    looked_for.extend(held.iter().filter(|held| Some(held.task) == named));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => looked_for = held.to_vec(),
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// `None`: it is at work, or its report was taken.
async fn verdict(app: &App, held: Held) -> Result<Option<Over>, CatalogError> {
    let Held { task, attempt } = held;
    let verdict = match app.catalog.task(task).await? {
        None => Verdict::Lost,
        Some(row) if row.attempt != attempt => Verdict::Lost,
        Some(row) => match row.state {
            TaskState::Leased | TaskState::Done => return Ok(None),
            TaskState::Cancelled => Verdict::Cancelled,
            _ => Verdict::Lost,
        },
    };
    Ok(Some(Over { task, attempt, verdict }))
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
