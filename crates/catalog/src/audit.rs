//! The audit log: what people did to jobs, videos, queues, workers, tenants and keys. Only ever grows; the database
//! itself refuses to change or remove a row.
//!
//! Written in the same transaction as what it tells of, so nothing is done without a line and no line tells of what
//! was not done.

use crate::{
    Catalog, CatalogError,
    page::MAX_PAGE_ROWS,
    rows::{json, optional_text},
    sql::{Connection, Row, sql},
};
use reelyard_model::TenantId;
use uuid::Uuid;

/// Who does something, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// An API key by its id and label, or the command line on the server's machine.
    pub name: String,
    /// In their words.
    pub reason: Option<String>,
}

/// What was done, as `noun.verb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditAction(pub &'static str);

impl AuditAction {
    pub const JOB_CANCELLED: Self = Self("job.cancelled");
    pub const JOB_RETRIED: Self = Self("job.retried");
    pub const JOBS_REPLAYED: Self = Self("jobs.replayed");
    pub const RENDITION_REMADE: Self = Self("rendition.remade");
    pub const ASSET_CANCELLED: Self = Self("asset.cancelled");
    pub const ASSET_RETRIED: Self = Self("asset.retried");
    pub const ASSET_DELETED: Self = Self("asset.deleted");
    pub const QUEUE_PAUSED: Self = Self("queue.paused");
    pub const QUEUE_RESUMED: Self = Self("queue.resumed");
    pub const WORKER_DRAINED: Self = Self("worker.drained");
    pub const WORKER_RESUMED: Self = Self("worker.resumed");
    pub const TENANT_SHARE_SET: Self = Self("tenant.share_set");
    pub const TENANT_LIMITS_SET: Self = Self("tenant.limits_set");
    pub const KEY_ADDED: Self = Self("key.added");
    pub const KEY_REVOKED: Self = Self("key.revoked");
}

/// One line that is to be written.
#[derive(Clone, Debug)]
pub(crate) struct NewAudit<'a> {
    pub(crate) at_ms: i64,
    /// `None`: the whole fleet's.
    pub(crate) tenant: Option<TenantId>,
    pub(crate) actor: &'a Actor,
    pub(crate) action: AuditAction,
    pub(crate) subject: String,
    pub(crate) data: serde_json::Value,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AuditRow {
    /// Rises with every line.
    pub seq: i64,
    pub at_ms: i64,
    pub tenant: Option<TenantId>,
    pub actor: String,
    pub action: String,
    /// The id of a job, asset, worker, tenant or key, or the name of a queue.
    pub subject: String,
    pub reason: Option<String>,
    pub data: serde_json::Value,
}

impl AuditRow {
    fn read(row: &Row) -> Result<Self, CatalogError> {
        Ok(Self {
            seq: row.get("seq")?,
            at_ms: row.get("at_ms")?,
            tenant: optional_text(row, "tenant")?,
            actor: row.get("actor")?,
            action: row.get("action")?,
            subject: row.get("subject")?,
            reason: row.get("reason")?,
            data: json(row, "data")?,
        })
    }
}

/// Which lines.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Its lines, and the fleet's. `None`: all tenants' too.
    pub tenant: Option<TenantId>,
    pub subject: Option<String>,
    /// Only lines before this one.
    pub before_seq: Option<i64>,
    pub limit: u32,
}

impl Catalog {
    /// The name of an API key in the log. Its label is what people know it by, its id what nobody can choose.
    pub async fn name_of_key(&self, key: Uuid) -> Result<String, CatalogError> {
        let label: Option<String> =
            sql("SELECT label FROM api_key WHERE id = ?").bind(key).scalar_optional(&self.reader).await?;
        Ok(match label {
            Some(label) => format!("key {label:?} ({key})"),
            None => format!("key {key}"),
        })
    }

    /// Newest first. For older ones give the last line's `seq` as `before_seq`.
    pub async fn audit_log(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>, CatalogError> {
        let mut query = sql("SELECT * FROM audit WHERE 1 = 1");
        if let Some(tenant) = filter.tenant {
            query.push(" AND (tenant IS NULL OR tenant = ").push_bind(tenant).push(")");
        }
        if let Some(subject) = &filter.subject {
            query.push(" AND subject = ").push_bind(subject);
        }
        if let Some(before) = filter.before_seq {
            query.push(" AND seq < ").push_bind(before);
        }
        query.push(" ORDER BY seq DESC LIMIT ").push_bind(filter.limit.clamp(1, MAX_PAGE_ROWS));
        let found = query.fetch_all(&self.reader).await?;
        found.iter().map(AuditRow::read).collect()
    }
}

pub(crate) async fn write_audit(connection: &mut Connection, new: NewAudit<'_>) -> Result<(), CatalogError> {
    sql("INSERT INTO audit (at_ms, tenant, actor, action, subject, reason, data) VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(new.at_ms)
        .bind(new.tenant)
        .bind(&new.actor.name)
        .bind(new.action.0)
        .bind(new.subject)
        .bind(&new.actor.reason)
        .bind(new.data.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{Actor, AuditFilter, Catalog, PostgresSettings, sql::sql};
    use reelyard_model::work::TaskKind;
    use reelyard_testkit::PostgresServer;

    async fn no_line_is_changed_or_removed(catalog: Catalog) {
        let actor = Actor { name: "a person".into(), reason: Some("they said so".into()) };
        catalog.pause_queue(TaskKind::Encode, &actor, 1).await.unwrap();
        let filter = AuditFilter { limit: 10, ..AuditFilter::default() };
        let before = catalog.audit_log(&filter).await.unwrap();
        assert_eq!(before.len(), 1);
        for statement in ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"] {
            let mut write = catalog.write().await.unwrap();
            let refused = sql(statement).execute(write.connection()).await;
            let told = refused.unwrap_err().to_string();
            assert!(told.contains("append-only"), "{statement}: {told}");
        }
        assert_eq!(catalog.audit_log(&filter).await.unwrap(), before);
    }

    #[tokio::test]
    async fn sqlite_refuses_to_change_the_log() {
        let directory = tempfile::tempdir().unwrap();
        no_line_is_changed_or_removed(Catalog::open(&directory.path().join("catalog.sqlite")).await.unwrap())
            .await;
    }

    #[tokio::test]
    async fn postgresql_refuses_to_change_the_log() {
        let Some(server) = PostgresServer::start_without_fsync() else { return };
        let url = server.new_database();
        no_line_is_changed_or_removed(Catalog::connect(&url, &PostgresSettings::default()).await.unwrap())
            .await;
    }
}
