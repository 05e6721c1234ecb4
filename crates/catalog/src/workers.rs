//! The workers of the farm, as rows: what each said about itself, when it was heard last, whether it is to take nothing
//! new. A worker proves nothing by its row: what it may write is decided by the attempts that it holds.

use crate::{
    Actor, AuditAction, Catalog, CatalogError,
    audit::{self, NewAudit},
    rows::{json, number, text},
    sql::{Row, sql},
};
use reelyard_model::WorkerId;
use serde_json::json;
use std::collections::HashMap;

/// What a worker says when it begins.
#[derive(Clone, Debug)]
pub struct NewWorker {
    pub id: WorkerId,
    /// For people.
    pub name: String,
    /// The server process that it lives in; `None`: it is a program of its own.
    pub node: Option<String>,
    /// Of its program.
    pub version: String,
    /// What its machine is, as JSON for people and pages.
    pub machine: serde_json::Value,
    pub now_ms: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct WorkerRow {
    pub id: WorkerId,
    pub name: String,
    pub in_process: bool,
    pub node: Option<String>,
    pub version: String,
    pub machine: serde_json::Value,
    pub started_ms: i64,
    pub last_seen_ms: i64,
    /// Somebody wants it to take nothing new.
    pub drain: bool,
    /// When it said that it ends.
    pub ended_ms: Option<i64>,
    /// Tasks that it has under lease.
    pub running: u64,
}

impl WorkerRow {
    fn read(row: &Row) -> Result<Self, CatalogError> {
        Ok(Self {
            id: text(row, "id")?,
            name: row.get("name")?,
            in_process: row.get::<i64>("in_process")? != 0,
            node: row.get("node")?,
            version: row.get("version")?,
            machine: json(row, "machine")?,
            started_ms: row.get("started_ms")?,
            last_seen_ms: row.get("last_seen_ms")?,
            drain: row.get::<i64>("drain")? != 0,
            ended_ms: row.get("ended_ms")?,
            running: number(row, "running")?,
        })
    }
}

const SELECT: &str =
    "SELECT worker.*, (SELECT COUNT(*) FROM task WHERE task.state = 'leased' AND task.worker = worker.id)
                      AS running FROM worker";

impl Catalog {
    /// Safe to repeat: it is there then, and has not ended. False: one of this id lives in a server's process and this
    /// one does not, or the other way round, so that it is another's.
    pub async fn register_worker(&self, new: &NewWorker) -> Result<bool, CatalogError> {
        let mut write = self.write().await?;
        let written = sql("INSERT INTO worker (id, name, in_process, started_ms, node, version, machine, last_seen_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?4)
             ON CONFLICT (id) DO UPDATE SET name = ?2, node = ?5, version = ?6, machine = ?7, last_seen_ms = ?4,
                                            ended_ms = NULL
             WHERE worker.in_process = ?3")
            .bind(new.id)
            .bind(&new.name)
            .bind(new.node.is_some())
            .bind(new.now_ms)
            .bind(&new.node)
            .bind(&new.version)
            .bind(new.machine.to_string())
            .execute(write.connection())
            .await?;
        self.commit(write).await?;
        Ok(written > 0)
    }

    pub async fn worker(&self, id: WorkerId) -> Result<Option<WorkerRow>, CatalogError> {
        let found =
            sql(format!("{SELECT} WHERE worker.id = ?")).bind(id).fetch_optional(&self.reader).await?;
        found.as_ref().map(WorkerRow::read).transpose()
    }

    /// Whether it is to take nothing new; `None`: there is no such worker.
    pub async fn worker_drains(&self, id: WorkerId) -> Result<Option<bool>, CatalogError> {
        let drain: Option<i64> =
            sql("SELECT drain FROM worker WHERE id = ?").bind(id).scalar_optional(&self.reader).await?;
        Ok(drain.map(|drain| drain != 0))
    }

    /// The same of many; those that do not exist are left out.
    pub async fn workers_drain(&self, ids: &[WorkerId]) -> Result<HashMap<WorkerId, bool>, CatalogError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let mut query = sql("SELECT id, drain FROM worker WHERE id");
        query.push_in(ids.iter().copied());
        let found = query.fetch_all(&self.reader).await?;
        found.iter().map(|row| Ok((text(row, "id")?, row.get::<i64>("drain")? != 0))).collect()
    }

    /// Newest first: those that have not ended, and those that were heard since then.
    pub async fn workers(&self, seen_since_ms: i64) -> Result<Vec<WorkerRow>, CatalogError> {
        let found = sql(format!(
            "{SELECT} WHERE ended_ms IS NULL OR last_seen_ms >= ? ORDER BY worker.started_ms DESC, worker.id DESC"
        ))
        .bind(seen_since_ms)
        .fetch_all(&self.reader)
        .await?;
        found.iter().map(WorkerRow::read).collect()
    }

    /// They were heard. Callers gather and say so every few seconds: it is for people.
    pub async fn workers_seen(&self, ids: &[WorkerId], now_ms: i64) -> Result<(), CatalogError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut write = self.write().await?;
        // In one order: workers behind a balancer are heard by several nodes at once.
        let mut rows = sql("SELECT id FROM worker WHERE id");
        rows.push_in(ids.iter().copied()).push(" ORDER BY id");
        write.connection().lock(rows).await?;
        let mut query = sql("UPDATE worker SET last_seen_ms = ");
        query.push_bind(now_ms).push(" WHERE last_seen_ms < ").push_bind(now_ms).push(" AND id");
        query.push_in(ids.iter().copied());
        query.execute(write.connection()).await?;
        self.commit(write).await
    }

    /// The process of this node lives, and with it the workers in it.
    pub async fn node_seen(&self, node: &str, now_ms: i64) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        sql("UPDATE worker SET last_seen_ms = ? WHERE node = ?")
            .bind(now_ms)
            .bind(node)
            .execute(write.connection())
            .await?;
        self.commit(write).await
    }

    /// False: there is no such worker.
    pub async fn set_worker_drain(
        &self,
        id: WorkerId,
        drain: bool,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<bool, CatalogError> {
        let mut write = self.write().await?;
        let changed = sql("UPDATE worker SET drain = ? WHERE id = ?")
            .bind(drain)
            .bind(id)
            .execute(write.connection())
            .await?;
        if changed > 0 {
            let action = if drain { AuditAction::WORKER_DRAINED } else { AuditAction::WORKER_RESUMED };
            let new = NewAudit {
                at_ms: now_ms,
                tenant: None,
                actor,
                action,
                subject: id.to_string(),
                data: json!({}),
            };
            audit::write_audit(write.connection(), new).await?;
        }
        self.commit(write).await?;
        Ok(changed > 0)
    }

    /// It said good-bye.
    pub async fn worker_ended(&self, id: WorkerId, now_ms: i64) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        sql("UPDATE worker SET ended_ms = ?1, last_seen_ms = ?1 WHERE id = ?2")
            .bind(now_ms)
            .bind(id)
            .execute(write.connection())
            .await?;
        self.commit(write).await
    }

    /// Rows of workers that nobody has heard of since then and that hold no task. Returns how many.
    pub async fn forget_workers(&self, silent_since_ms: i64) -> Result<u64, CatalogError> {
        let old = sql("SELECT 1 FROM worker WHERE last_seen_ms < ? LIMIT 1").bind(silent_since_ms);
        if old.fetch_optional(&self.reader).await?.is_none() {
            return Ok(0);
        }
        let mut write = self.write().await?;
        let gone = sql("DELETE FROM worker WHERE last_seen_ms < ? AND NOT EXISTS
                        (SELECT 1 FROM task WHERE task.state = 'leased' AND task.worker = worker.id)")
        .bind(silent_since_ms)
        .execute(write.connection())
        .await?;
        self.commit(write).await?;
        Ok(gone)
    }
}
