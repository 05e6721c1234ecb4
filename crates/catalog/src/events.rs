//! Events: what happened, numbered without gaps being promised, never changed.

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
}

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

    /// The story of one asset, oldest first.
    pub async fn events_of_asset(&self, asset: AssetId, limit: u32) -> Result<Vec<EventRow>, CatalogError> {
        let found = sqlx::query("SELECT * FROM event WHERE asset = ? ORDER BY seq LIMIT ?")
            .bind(asset.to_string())
            .bind(limit.min(MAX_PAGE_ROWS))
            .fetch_all(&self.reader)
            .await?;
        found.iter().map(EventRow::read).collect()
    }
}
