//! Events: what happened, never changed. Numbers rise by one with each stored event, also across nodes; the oldest are
//! removed in time.

use crate::{
    Catalog, CatalogError,
    page::MAX_PAGE_ROWS,
    rows,
    sql::{Connection, Engine, Pool, Row, Sql, Value, either, sql},
};
use reelyard_model::{AssetId, TaskId, TenantId, UploadId};

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
    /// `data.state` is where the task went, `data.from` where it was; `data.worker` whose attempt is over, where the task
    /// left a lease without being done.
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

/// Rows of one statement: its values stay well below what either database takes.
const STORED_AT_ONCE: usize = 1_000;
/// Held by a PostgreSQL transaction from its first event to its end. An arbitrary number, known to nobody else.
const NUMBERING_LOCK: i64 = 0x5265_656c_7961_7264;

/// The last thing before a commit. Their numbers become visible in their order, and there are no gaps: on SQLite,
/// because there is one writer; on PostgreSQL, because transactions with events pass a lock one at a time from here to
/// their end, and whoever has it counts on from the newest row. Who waits for that lock waits for commits only: a
/// transaction that has it asks for no other.
pub(crate) async fn store(
    connection: &mut Connection,
    events: Vec<NewEvent>,
) -> Result<Vec<EventRow>, CatalogError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    if connection.engine() == Engine::Postgres {
        sql("SELECT PG_ADVISORY_XACT_LOCK(?)").bind(NUMBERING_LOCK).execute(&mut *connection).await?;
    }
    let mut numbers = Vec::with_capacity(events.len());
    for some in events.chunks(STORED_AT_ONCE) {
        let insert = match connection.engine() {
            Engine::Sqlite => insert_on_sqlite(some),
            Engine::Postgres => insert_on_postgres(some),
        };
        let before = numbers.len();
        numbers.extend(insert.scalars::<i64>(&mut *connection).await?);
        // Given in the order of the rows, and returned in whatever order.
        numbers[before..].sort_unstable();
    }
    if numbers.len() != events.len() {
        let reason = format!("{} of {} were stored", numbers.len(), events.len());
        return Err(CatalogError::Unreadable { what: "event", reason });
    }
    Ok(numbers.into_iter().zip(events).map(|(seq, event)| event.stored_as(seq)).collect())
}

fn insert_on_sqlite(events: &[NewEvent]) -> Sql {
    let mut insert = sql("INSERT INTO event (at_ms, tenant, kind, upload, asset, task, data)
         SELECT column1, column2, column3, column4, column5, column6, column7 FROM ");
    let rows = events.iter().map(NewEvent::values).collect();
    insert.push_rows(rows, "added").push(" WHERE TRUE RETURNING seq");
    insert
}

/// Tells the other nodes, too: a notification goes out when its transaction is committed.
fn insert_on_postgres(events: &[NewEvent]) -> Sql {
    let mut insert = sql(
        "WITH stored AS (INSERT INTO event (seq, at_ms, tenant, kind, upload, asset, task, data)
         SELECT newest.seq + added.column8, added.column1, added.column2, added.column3, added.column4, added.column5,
                added.column6, added.column7
         FROM (SELECT COALESCE(MAX(seq), 0) AS seq FROM event) AS newest, ",
    );
    let numbered = |(place, event): (i64, &NewEvent)| {
        let [at_ms, tenant, kind, upload, asset, task, data] = event.values();
        [at_ms, tenant, kind, upload, asset, task, data, place.into()]
    };
    insert
        .push_rows((1i64..).zip(events).map(numbered).collect(), "added")
        .push(" RETURNING seq) SELECT stored.seq FROM stored, PG_NOTIFY('reelyard_event', '') AS told");
    insert
}

impl NewEvent {
    fn values(&self) -> [Value; 7] {
        [
            self.at_ms.into(),
            self.tenant.into(),
            self.kind.0.into(),
            self.upload.into(),
            self.asset.into(),
            self.task.into(),
            self.data.to_string().into(),
        ]
    }

    fn stored_as(self, seq: i64) -> EventRow {
        EventRow {
            seq,
            at_ms: self.at_ms,
            tenant: self.tenant,
            kind: self.kind.0.to_owned(),
            upload: self.upload,
            asset: self.asset,
            task: self.task,
            data: self.data,
        }
    }
}

impl EventRow {
    fn read(row: &Row) -> Result<Self, CatalogError> {
        Ok(Self {
            seq: row.get("seq")?,
            at_ms: row.get("at_ms")?,
            tenant: rows::text(row, "tenant")?,
            kind: row.get("kind")?,
            upload: rows::optional_text(row, "upload")?,
            asset: rows::optional_text(row, "asset")?,
            task: rows::optional_text(row, "task")?,
            data: rows::json(row, "data")?,
        })
    }
}

pub(crate) async fn after(pool: &Pool, seq: i64, limit: u32) -> Result<Vec<EventRow>, CatalogError> {
    let found = sql("SELECT * FROM event WHERE seq > ? ORDER BY seq LIMIT ?")
        .bind(seq)
        .bind(limit.min(MAX_PAGE_ROWS))
        .fetch_all(pool)
        .await?;
    found.iter().map(EventRow::read).collect()
}

impl Catalog {
    /// Stored events after `seq`, oldest first.
    pub async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<EventRow>, CatalogError> {
        after(&self.reader, seq, limit).await
    }

    /// The number of the newest event, asked of the database: this node may not have heard of it yet.
    pub async fn newest_event(&self) -> Result<i64, CatalogError> {
        sql("SELECT COALESCE(MAX(seq), 0) FROM event").scalar(&self.reader).await
    }

    /// The number of the oldest event that is still there; 0 when there never was one.
    pub async fn oldest_event(&self) -> Result<i64, CatalogError> {
        sql("SELECT COALESCE(MIN(seq), 0) FROM event").scalar(&self.reader).await
    }

    /// Removes the oldest events, those from before this time, some of them at once. Never the newest: readers and the
    /// next start go by its number. Returns how many; 0 when all are gone.
    pub async fn prune_events(&self, before_ms: i64) -> Result<u64, CatalogError> {
        // Looking costs no write lock.
        let oldest: Option<i64> =
            sql("SELECT at_ms FROM event WHERE seq < (SELECT MAX(seq) FROM event) ORDER BY seq LIMIT 1")
                .scalar_optional(&self.reader)
                .await?;
        if oldest.is_none_or(|at_ms| at_ms >= before_ms) {
            return Ok(0);
        }
        let mut write = self.write().await?;
        // Where another node is at it, it goes on with those that come after.
        let done = either(
            "DELETE FROM event WHERE seq IN (SELECT seq FROM event ORDER BY seq LIMIT ?)
             AND at_ms < ? AND seq < (SELECT MAX(seq) FROM event)",
            "DELETE FROM event WHERE seq IN (SELECT seq FROM event ORDER BY seq LIMIT ? FOR UPDATE SKIP LOCKED)
             AND at_ms < ? AND seq < (SELECT MAX(seq) FROM event)",
        )
        .bind(PRUNED_AT_ONCE)
        .bind(before_ms)
        .execute(write.connection())
        .await?;
        self.commit(write).await?;
        Ok(done)
    }

    /// The story of one asset, oldest first, as far as it was not removed.
    pub async fn events_of_asset(&self, asset: AssetId, limit: u32) -> Result<Vec<EventRow>, CatalogError> {
        let found = sql("SELECT * FROM event WHERE asset = ? ORDER BY seq LIMIT ?")
            .bind(asset.to_string())
            .bind(limit.min(MAX_PAGE_ROWS))
            .fetch_all(&self.reader)
            .await?;
        found.iter().map(EventRow::read).collect()
    }
}
