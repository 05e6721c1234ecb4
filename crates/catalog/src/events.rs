//! Events: what happened, never changed. Numbers rise by one with each stored event; the oldest are removed in time.

use crate::{Catalog, CatalogError, page::MAX_PAGE_ROWS, rows};
use reelyard_model::{AssetId, TaskId, TenantId, UploadId};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

/// The names of events, stable for programs: `noun.verb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventKind(pub &'static str);

impl EventKind {
    pub const UPLOAD_CREATED: Self = Self("upload.created");
    pub const UPLOAD_FINISHED: Self = Self("upload.finished");
    pub const UPLOAD_TERMINATED: Self = Self("upload.terminated");
    pub const UPLOAD_EXPIRED: Self = Self("upload.expired");
    pub const UPLOAD_REJECTED: Self = Self("upload.rejected");
    pub const ASSET_CREATED: Self = Self("asset.created");
    pub const ASSET_PLANNED: Self = Self("asset.planned");
    pub const ASSET_READY: Self = Self("asset.ready");
    pub const ASSET_FAILED: Self = Self("asset.failed");
    pub const ASSET_CANCELLED: Self = Self("asset.cancelled");
    pub const ASSET_RETRIED: Self = Self("asset.retried");
    pub const ASSET_DELETED: Self = Self("asset.deleted");
    /// `data.state` is where the task went, `data.from` where it was.
    pub const TASK_CHANGED: Self = Self("task.changed");
    /// Passing: announced to subscribers, not stored.
    pub const TASK_PROGRESS: Self = Self("task.progress");
    /// Passing, for one reader: events after the number that it gave were removed already.
    pub const EVENTS_REMOVED: Self = Self("events.removed");
}

/// Events removed in one transaction: few enough that no other write waits long.
const PRUNED_AT_ONCE: u32 = 1_000;

#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// Rises with every stored event; 0: passing, not stored.
    pub seq: i64,
    pub at_ms: i64,
    pub tenant: TenantId,
    pub kind: String,
    pub upload: Option<UploadId>,
    pub asset: Option<AssetId>,
    pub task: Option<TaskId>,
    pub data: serde_json::Value,
}

#[derive(Clone, Debug)]
pub(crate) struct NewEvent {
    pub(crate) at_ms: i64,
    pub(crate) tenant: TenantId,
    pub(crate) kind: EventKind,
    pub(crate) upload: Option<UploadId>,
    pub(crate) asset: Option<AssetId>,
    pub(crate) task: Option<TaskId>,
    pub(crate) data: serde_json::Value,
}

pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    event: NewEvent,
) -> Result<EventRow, CatalogError> {
    let done = sqlx::query(
        "INSERT INTO event (at_ms, tenant, kind, upload, asset, task, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(event.at_ms)
    .bind(event.tenant.to_string())
    .bind(event.kind.0)
    .bind(event.upload.map(|id| id.to_string()))
    .bind(event.asset.map(|id| id.to_string()))
    .bind(event.task.map(|id| id.to_string()))
    .bind(event.data.to_string())
    .execute(connection)
    .await?;
    Ok(EventRow {
        seq: done.last_insert_rowid(),
        at_ms: event.at_ms,
        tenant: event.tenant,
        kind: event.kind.0.to_owned(),
        upload: event.upload,
        asset: event.asset,
        task: event.task,
        data: event.data,
    })
}

impl EventRow {
    fn read(row: &SqliteRow) -> Result<Self, CatalogError> {
        Ok(Self {
            seq: row.try_get("seq")?,
            at_ms: row.try_get("at_ms")?,
            tenant: rows::text(row, "tenant")?,
            kind: row.try_get("kind")?,
            upload: rows::optional_text(row, "upload")?,
            asset: rows::optional_text(row, "asset")?,
            task: rows::optional_text(row, "task")?,
            data: rows::json(row, "data")?,
        })
    }
}

impl Catalog {
    /// Stored events after `seq`, oldest first.
    pub async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<EventRow>, CatalogError> {
        let found = sqlx::query("SELECT * FROM event WHERE seq > ? ORDER BY seq LIMIT ?")
            .bind(seq)
            .bind(limit.min(MAX_PAGE_ROWS))
            .fetch_all(&self.reader)
            .await?;
        found.iter().map(EventRow::read).collect()
    }

    /// The number of the oldest event that is still there; 0 when there never was one.
    pub async fn oldest_event(&self) -> Result<i64, CatalogError> {
        let oldest =
            sqlx::query_scalar("SELECT COALESCE(MIN(seq), 0) FROM event").fetch_one(&self.reader).await?;
        Ok(oldest)
    }

    /// Removes the oldest events, those from before this time, some of them at once. Never the newest: readers and the
    /// next start go by its number. Returns how many; 0 when all are gone.
    pub async fn prune_events(&self, before_ms: i64) -> Result<u64, CatalogError> {
        // Looking costs no write lock.
        let oldest: Option<i64> = sqlx::query_scalar(
            "SELECT at_ms FROM event WHERE seq < (SELECT MAX(seq) FROM event) ORDER BY seq LIMIT 1",
        )
        .fetch_optional(&self.reader)
        .await?;
        if oldest.is_none_or(|at_ms| at_ms >= before_ms) {
            return Ok(0);
        }
        let mut write = self.write().await?;
        let done = sqlx::query(
            "DELETE FROM event WHERE seq IN (SELECT seq FROM event ORDER BY seq LIMIT ?)
             AND at_ms < ? AND seq < (SELECT MAX(seq) FROM event)",
        )
        .bind(PRUNED_AT_ONCE)
        .bind(before_ms)
        .execute(write.connection())
        .await?;
        self.commit(write).await?;
        Ok(done.rows_affected())
    }

    /// The story of one asset, oldest first, as far as it was not removed.
    pub async fn events_of_asset(&self, asset: AssetId, limit: u32) -> Result<Vec<EventRow>, CatalogError> {
        let found = sqlx::query("SELECT * FROM event WHERE asset = ? ORDER BY seq LIMIT ?")
            .bind(asset.to_string())
            .bind(limit.min(MAX_PAGE_ROWS))
            .fetch_all(&self.reader)
            .await?;
        found.iter().map(EventRow::read).collect()
    }
}
