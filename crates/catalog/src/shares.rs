//! How much of the farm a tenant gets while others wait too, and how much it may have at work at a time. Read by every
//! claim (`dispatch`); changed by an operator, with an audit line.

use crate::{
    Actor, AuditAction, Catalog, CatalogError,
    audit::{self, NewAudit},
    rows::optional_number,
    sql::sql,
};
use reelyard_model::TenantId;
use serde_json::json;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantShare {
    /// Against the others': twice the weight, twice the slots while both have work waiting. `None`: 1.
    pub weight: Option<u32>,
    /// Most tasks of all kinds at work at a time. `None`: as many as there are slots.
    pub running_tasks: Option<u32>,
}

impl Catalog {
    pub async fn tenant_share(&self, tenant: TenantId) -> Result<TenantShare, CatalogError> {
        let found = sql("SELECT share_weight, running_tasks FROM tenant_limit WHERE tenant = ?")
            .bind(tenant)
            .fetch_optional(&self.reader)
            .await?;
        let Some(row) = found else { return Ok(TenantShare::default()) };
        Ok(TenantShare {
            weight: optional_number(&row, "share_weight")?,
            running_tasks: optional_number(&row, "running_tasks")?,
        })
    }

    /// Tasks that the tenant has at work now.
    pub async fn tenant_running(&self, tenant: TenantId) -> Result<u32, CatalogError> {
        let running: i64 = sql("SELECT COUNT(*) FROM task WHERE state = 'leased' AND tenant = ?")
            .bind(tenant)
            .scalar(&self.reader)
            .await?;
        Ok(u32::try_from(running).unwrap_or(u32::MAX))
    }

    /// Replaces both. What runs goes on, also above a new cap; from the next claim on it holds.
    pub async fn set_tenant_share(
        &self,
        tenant: TenantId,
        share: TenantShare,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        write.lock_tenant(tenant).await?;
        let known: Option<i64> =
            sql("SELECT 1 FROM tenant WHERE id = ?").bind(tenant).scalar_optional(write.connection()).await?;
        if known.is_none() {
            return Err(CatalogError::not_found("tenant", tenant));
        }
        sql("INSERT INTO tenant_limit (tenant, share_weight, running_tasks, updated_ms) VALUES (?, ?, ?, ?)
             ON CONFLICT (tenant) DO UPDATE SET share_weight = excluded.share_weight,
                running_tasks = excluded.running_tasks, updated_ms = excluded.updated_ms")
        .bind(tenant)
        .bind(share.weight)
        .bind(share.running_tasks)
        .bind(now_ms)
        .execute(write.connection())
        .await?;
        let new = NewAudit {
            at_ms: now_ms,
            tenant: Some(tenant),
            actor,
            action: AuditAction::TENANT_SHARE_SET,
            subject: tenant.to_string(),
            data: json!({ "weight": share.weight, "running_tasks": share.running_tasks }),
        };
        audit::write_audit(write.connection(), new).await?;
        self.commit(write).await
    }
}
