//! Counts for metrics, and the answer to "why is this waiting?".

use crate::sql::sql;
use crate::{Catalog, CatalogError, TaskRow, rows};
use reelyard_model::{AssetState, TaskId, TaskState, UploadState, work::TaskKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateCount<S> {
    pub state: S,
    pub count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskCount {
    pub kind: TaskKind,
    pub state: TaskState,
    pub count: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub uploads: Vec<StateCount<UploadState>>,
    pub assets: Vec<StateCount<AssetState>>,
    pub tasks: Vec<TaskCount>,
    /// When the task that has waited longest for a worker became so.
    pub oldest_ready_ms: Option<i64>,
    pub last_event: i64,
}

/// Why a task is not at work.
#[derive(Clone, Debug, PartialEq)]
pub enum Waiting {
    /// It is at work, or at its end.
    NotWaiting,
    /// For these tasks of the same asset.
    ForTasks(Vec<(TaskId, TaskKind, TaskState)>),
    /// The last try failed; the next is not before this time.
    ForBackOff { until_ms: i64 },
    /// For a worker; so many tasks come before it.
    ForWorker { ahead: u64 },
}

impl Catalog {
    pub async fn counts(&self) -> Result<Counts, CatalogError> {
        let mut counts = Counts::default();
        for row in
            sql("SELECT state, COUNT(*) AS count FROM upload GROUP BY state").fetch_all(&self.reader).await?
        {
            counts
                .uploads
                .push(StateCount { state: rows::text(&row, "state")?, count: rows::number(&row, "count")? });
        }
        for row in
            sql("SELECT state, COUNT(*) AS count FROM asset GROUP BY state").fetch_all(&self.reader).await?
        {
            counts
                .assets
                .push(StateCount { state: rows::text(&row, "state")?, count: rows::number(&row, "count")? });
        }
        // A dead letter of a deleted asset is nothing that anybody has to look at.
        let found = sql(
            "SELECT kind, state, COUNT(*) AS count FROM task
             WHERE state <> 'dead' OR asset NOT IN (SELECT id FROM asset AS owner WHERE state = 'deleted' AND NOT EXISTS
                   (SELECT 1 FROM asset WHERE content_of = owner.id AND state <> 'deleted'))
             GROUP BY kind, state",
        )
        .fetch_all(&self.reader)
        .await?;
        for row in found {
            counts.tasks.push(TaskCount {
                kind: rows::text(&row, "kind")?,
                state: rows::text(&row, "state")?,
                count: rows::number(&row, "count")?,
            });
        }
        let row = sql("SELECT (SELECT MIN(updated_ms) FROM task WHERE state = 'ready') AS oldest,
                    (SELECT COALESCE(MAX(seq), 0) FROM event) AS last")
        .fetch_one(&self.reader)
        .await?;
        counts.oldest_ready_ms = row.get("oldest")?;
        counts.last_event = row.get("last")?;
        Ok(counts)
    }

    pub async fn why_waiting(&self, task: &TaskRow) -> Result<Waiting, CatalogError> {
        match task.state {
            TaskState::Leased | TaskState::Done | TaskState::Dead | TaskState::Cancelled => {
                Ok(Waiting::NotWaiting)
            }
            TaskState::RetryWait => Ok(Waiting::ForBackOff { until_ms: task.not_before_ms }),
            TaskState::Blocked => {
                let found = sql(
                    "SELECT task.id, task.kind, task.state FROM task_need JOIN task ON task.id = task_need.needs
                     WHERE task_need.task = ?
                       AND NOT (task.state = 'done' OR (task.required = 0 AND task.state IN ('dead', 'cancelled')))
                     ORDER BY task.kind, task.ordinal",
                )
                .bind(task.id.to_string())
                .fetch_all(&self.reader)
                .await?;
                let needed = found
                    .iter()
                    .map(|row| {
                        Ok((rows::text(row, "id")?, rows::text(row, "kind")?, rows::text(row, "state")?))
                    })
                    .collect::<Result<Vec<_>, CatalogError>>()?;
                Ok(Waiting::ForTasks(needed))
            }
            TaskState::Ready => {
                let ahead: i64 = sql("SELECT COUNT(*) FROM task WHERE state = 'ready'
                     AND (-priority, created_ms, id) < (?, ?, ?)")
                .bind(-task.priority)
                .bind(task.created_ms)
                .bind(task.id.to_string())
                .scalar(&self.reader)
                .await?;
                Ok(Waiting::ForWorker { ahead: ahead.unsigned_abs() })
            }
        }
    }
}
