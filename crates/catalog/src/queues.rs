//! The queues as an operator sees them, one for each kind of work; and the brake on them: a kind that nobody is to take
//! up for now, for all nodes and workers at once. What runs goes on.

use crate::{
    Actor, AuditAction, Catalog, CatalogError, ReadyQueue, Takers, WORKER_SILENT_AFTER_MS,
    audit::{self, NewAudit},
    rows::text,
    sql::{Connection, Row, sql},
};
use reelyard_model::{TaskState, work::TaskKind};
use serde_json::json;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePause {
    pub kind: TaskKind,
    pub paused_by: String,
    pub reason: String,
    pub paused_ms: i64,
}

impl QueuePause {
    fn read(row: &Row) -> Result<Self, CatalogError> {
        Ok(Self {
            kind: text(row, "kind")?,
            paused_by: row.get("paused_by")?,
            reason: row.get("reason")?,
            paused_ms: row.get("paused_ms")?,
        })
    }
}

/// One kind of work: what waits, what runs, and who takes it.
#[derive(Clone, Debug)]
pub struct QueueView {
    pub kind: TaskKind,
    /// What may be claimed, by tier; a tier in which nothing waits has no entry.
    pub ready: Vec<ReadyQueue>,
    pub running: u64,
    /// Between a failure and the next try.
    pub backing_off: u64,
    pub dead: u64,
    pub takers: Takers,
    pub pause: Option<QueuePause>,
}

impl QueueView {
    /// When the one that waits longest became ready.
    pub fn oldest_ready_ms(&self) -> Option<i64> {
        self.ready.iter().map(|ready| ready.oldest_ready_ms).min()
    }
}

impl Catalog {
    /// Every kind, in the order of the story.
    pub async fn queues(&self, now_ms: i64) -> Result<Vec<QueueView>, CatalogError> {
        let ready = self.ready_queues().await?;
        let workers = self.workers(now_ms - WORKER_SILENT_AFTER_MS).await?;
        let pauses = self.queue_pauses().await?;
        let counts = self.counts().await?;
        let views = TaskKind::ALL.into_iter().map(|kind| {
            let count = |state| {
                let found = counts.tasks.iter().find(|count| count.kind == kind && count.state == state);
                found.map_or(0, |count| count.count)
            };
            QueueView {
                kind,
                ready: ready.iter().filter(|queue| queue.kind == kind).copied().collect(),
                running: count(TaskState::Leased),
                backing_off: count(TaskState::RetryWait),
                dead: count(TaskState::Dead),
                takers: Takers::of(&workers, kind, now_ms),
                pause: pauses.iter().find(|pause| pause.kind == kind).cloned(),
            }
        });
        Ok(views.collect())
    }

    pub async fn queue_pauses(&self) -> Result<Vec<QueuePause>, CatalogError> {
        let found = sql("SELECT * FROM queue_pause ORDER BY kind").fetch_all(&self.reader).await?;
        found.iter().map(QueuePause::read).collect()
    }

    /// Safe to repeat: the first pause counts. False: it was paused already.
    pub async fn pause_queue(
        &self,
        kind: TaskKind,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<bool, CatalogError> {
        let mut write = self.write().await?;
        let made = sql("INSERT INTO queue_pause (kind, paused_by, reason, paused_ms) VALUES (?, ?, ?, ?)
                        ON CONFLICT (kind) DO NOTHING")
        .bind(kind.as_str())
        .bind(&actor.name)
        .bind(actor.reason.as_deref().unwrap_or_default())
        .bind(now_ms)
        .execute(write.connection())
        .await?;
        if made > 0 {
            write_line(write.connection(), kind, actor, AuditAction::QUEUE_PAUSED, now_ms).await?;
        }
        self.commit(write).await?;
        Ok(made > 0)
    }

    /// False: it was not paused.
    pub async fn resume_queue(
        &self,
        kind: TaskKind,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<bool, CatalogError> {
        let mut write = self.write().await?;
        let ended = sql("DELETE FROM queue_pause WHERE kind = ?")
            .bind(kind.as_str())
            .execute(write.connection())
            .await?;
        if ended > 0 {
            write_line(write.connection(), kind, actor, AuditAction::QUEUE_RESUMED, now_ms).await?;
        }
        self.commit(write).await?;
        Ok(ended > 0)
    }
}

async fn write_line(
    connection: &mut Connection,
    kind: TaskKind,
    actor: &Actor,
    action: AuditAction,
    at_ms: i64,
) -> Result<(), CatalogError> {
    let subject = kind.as_str().to_owned();
    let new = NewAudit { at_ms, tenant: None, actor, action, subject, data: json!({}) };
    audit::write_audit(connection, new).await
}
