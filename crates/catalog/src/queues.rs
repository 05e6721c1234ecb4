//! Kinds of work that nobody is to take up for now: an operator's brake, for all nodes and workers at once. What runs
//! goes on.

use crate::{
    Actor, AuditAction, Catalog, CatalogError,
    audit::{self, NewAudit},
    rows::text,
    sql::{Connection, Row, sql},
};
use reelyard_model::work::TaskKind;
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

impl Catalog {
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
