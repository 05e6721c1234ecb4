//! Tenants, API keys and workers: who may speak to the server.

use crate::{ApiKeyRow, Catalog, CatalogError};
use reelyard_model::{TenantId, WorkerId};
use uuid::Uuid;

impl Catalog {
    /// Safe to repeat.
    pub async fn add_tenant(&self, id: TenantId, name: &str, now_ms: i64) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        sqlx::query("INSERT OR IGNORE INTO tenant (id, name, created_ms) VALUES (?, ?, ?)")
            .bind(id.to_string())
            .bind(name)
            .bind(now_ms)
            .execute(write.connection())
            .await?;
        self.commit(write).await
    }

    /// Stores the hash of a key, never the key. Safe to repeat with the same hash; a revoked key stays revoked.
    pub async fn add_api_key(
        &self,
        id: Uuid,
        tenant: TenantId,
        label: &str,
        key_sha256: &str,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        sqlx::query(
            "INSERT INTO api_key (id, tenant, label, key_sha256, created_ms) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (key_sha256) DO NOTHING",
        )
        .bind(id.to_string())
        .bind(tenant.to_string())
        .bind(label)
        .bind(key_sha256)
        .bind(now_ms)
        .execute(write.connection())
        .await?;
        self.commit(write).await
    }

    /// This one is the admin key from now on, and no other is.
    pub async fn install_admin_key(
        &self,
        id: Uuid,
        tenant: TenantId,
        key_sha256: &str,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        sqlx::query(
            "UPDATE api_key SET revoked_ms = ? WHERE label = 'admin' AND key_sha256 <> ? AND revoked_ms IS NULL",
        )
        .bind(now_ms)
        .bind(key_sha256)
        .execute(write.connection())
        .await?;
        sqlx::query(
            "INSERT INTO api_key (id, tenant, label, key_sha256, created_ms) VALUES (?, ?, 'admin', ?, ?)
             ON CONFLICT (key_sha256) DO UPDATE SET revoked_ms = NULL",
        )
        .bind(id.to_string())
        .bind(tenant.to_string())
        .bind(key_sha256)
        .bind(now_ms)
        .execute(write.connection())
        .await?;
        self.commit(write).await
    }

    /// The key with this hash (lower-case hexadecimal SHA-256), unless it was revoked.
    pub async fn live_api_key(&self, key_sha256: &str) -> Result<Option<ApiKeyRow>, CatalogError> {
        let found = sqlx::query("SELECT * FROM api_key WHERE key_sha256 = ? AND revoked_ms IS NULL")
            .bind(key_sha256)
            .fetch_optional(&self.reader)
            .await?;
        found.as_ref().map(ApiKeyRow::read).transpose()
    }

    pub async fn api_keys(&self, tenant: TenantId) -> Result<Vec<ApiKeyRow>, CatalogError> {
        let found = sqlx::query("SELECT * FROM api_key WHERE tenant = ? ORDER BY id")
            .bind(tenant.to_string())
            .fetch_all(&self.reader)
            .await?;
        found.iter().map(ApiKeyRow::read).collect()
    }

    /// False: there is no such live key.
    pub async fn revoke_api_key(&self, id: Uuid, now_ms: i64) -> Result<bool, CatalogError> {
        let mut write = self.write().await?;
        let done = sqlx::query("UPDATE api_key SET revoked_ms = ? WHERE id = ? AND revoked_ms IS NULL")
            .bind(now_ms)
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        self.commit(write).await?;
        Ok(done.rows_affected() > 0)
    }

    pub async fn add_worker(
        &self,
        id: WorkerId,
        name: &str,
        in_process: bool,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        sqlx::query("INSERT OR IGNORE INTO worker (id, name, in_process, started_ms) VALUES (?, ?, ?, ?)")
            .bind(id.to_string())
            .bind(name)
            .bind(in_process)
            .bind(now_ms)
            .execute(write.connection())
            .await?;
        self.commit(write).await
    }
}
