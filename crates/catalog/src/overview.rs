//! Counts for metrics.

use crate::sql::sql;
use crate::{Catalog, CatalogError, rows};
use reelyard_model::{AssetState, TaskState, UploadState, work::TaskKind};

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
        let row = sql("SELECT (SELECT MIN(ready_ms) FROM task WHERE state = 'ready') AS oldest,
                    (SELECT COALESCE(MAX(seq), 0) FROM event) AS last")
        .fetch_one(&self.reader)
        .await?;
        counts.oldest_ready_ms = row.get("oldest")?;
        counts.last_event = row.get("last")?;
        Ok(counts)
    }
}
