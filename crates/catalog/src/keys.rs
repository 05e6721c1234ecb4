//! Tenants, API keys with their scopes, and workers: who may speak to the server.
//!
//! Called by `src/http/auth.rs` on every request, by `serve` at start, and by the commands `keys` and `tenants`. A key
//! itself is never stored, only its SHA-256.

use crate::sql::sql;
use crate::{
    Actor, ApiKeyRow, AuditAction, Catalog, CatalogError, TenantLimits,
    audit::{NewAudit, write_audit},
    quota, rows,
};
use reelyard_model::TenantId;
use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    fmt,
    str::FromStr,
};
use uuid::Uuid;

macro_rules! scopes {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal;)*) => {
        /// What a key may do. Words in the database, in `reelyard keys` and in problems.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Scope { $($(#[doc = $doc])* $variant,)* }

        impl Scope {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

scopes! {
    /// Everything but what a worker does.
    Admin = "admin";
    /// Begin, continue and give up uploads.
    UploadsWrite = "uploads:write";
    /// Sign upload tokens for browsers.
    UploadsSign = "uploads:sign";
    /// Look at assets, jobs and events; get sources back.
    AssetsRead = "assets:read";
    /// Delete, cancel and retry assets and jobs.
    AssetsWrite = "assets:write";
    /// Make playback links.
    PlaybackSign = "playback:sign";
    /// Read the metrics, which are of the whole server.
    MetricsRead = "metrics:read";
    /// Take work, and bring its results: for `reelyard worker`. Nothing else goes with it, and no other scope holds it.
    Worker = "worker";
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u32);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no scope {name:?}; there are {}", Scope::ALL.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownScope {
    name: String,
}

impl Scopes {
    pub fn of(scopes: &[Scope]) -> Self {
        Self(scopes.iter().fold(0, |bits, &scope| bits | 1 << scope as u32))
    }

    /// `admin` holds all the others, save `worker`: people are no workers, and a worker works for all tenants.
    pub const fn contain(self, scope: Scope) -> bool {
        let by_admin = match scope {
            Scope::Worker => 0,
            _ => 1 << Scope::Admin as u32,
        };
        self.0 & (1 << scope as u32 | by_admin) != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Separated by commas or spaces.
impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let mut scopes = Vec::new();
        for name in text.split([',', ' ']).filter(|name| !name.is_empty()) {
            let found = Scope::ALL.iter().find(|scope| scope.as_str() == name);
            scopes.push(*found.ok_or_else(|| UnknownScope { name: name.to_owned() })?);
        }
        Ok(Self::of(&scopes))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Scope::ALL.iter().filter(|&&scope| self.0 & (1 << scope as u32) != 0);
        f.write_str(&named.map(|scope| scope.as_str()).collect::<Vec<_>>().join(" "))
    }
}

/// A key to be stored.
#[derive(Clone, Debug)]
pub struct NewApiKey<'text> {
    pub id: Uuid,
    pub tenant: TenantId,
    pub label: &'text str,
    /// Lower-case hexadecimal.
    pub key_sha256: &'text str,
    pub scopes: Scopes,
    pub now_ms: i64,
}

/// A key that opens something now, and what its tenant is held to.
#[derive(Clone, Debug)]
pub struct LiveApiKey {
    pub key: ApiKeyRow,
    pub limits: TenantLimits,
}

#[derive(Clone, Debug)]
pub struct TenantRow {
    pub id: TenantId,
    pub name: String,
    pub created_ms: i64,
    pub limits: TenantLimits,
}

impl Catalog {
    /// Safe to repeat.
    pub async fn add_tenant(&self, id: TenantId, name: &str, now_ms: i64) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        sql("INSERT INTO tenant (id, name, created_ms) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING")
            .bind(id.to_string())
            .bind(name)
            .bind(now_ms)
            .execute(write.connection())
            .await?;
        self.commit(write).await
    }

    /// Oldest first.
    pub async fn tenants(&self) -> Result<Vec<TenantRow>, CatalogError> {
        let found = sql(
            "SELECT tenant.*, tenant_limit.* FROM tenant LEFT JOIN tenant_limit ON tenant_limit.tenant = tenant.id
             ORDER BY tenant.created_ms, tenant.id",
        )
        .fetch_all(&self.reader)
        .await?;
        found
            .iter()
            .map(|row| {
                Ok(TenantRow {
                    id: crate::rows::text(row, "id")?,
                    name: row.get("name")?,
                    created_ms: row.get("created_ms")?,
                    limits: quota::read_limits(row)?,
                })
            })
            .collect()
    }

    /// Stores the hash of a key, never the key. Safe to repeat with the same hash; a revoked key stays revoked.
    pub async fn add_api_key(&self, new: NewApiKey<'_>, actor: &Actor) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        let added = sql(
            "INSERT INTO api_key (id, tenant, label, key_sha256, scopes, created_ms) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (key_sha256) DO NOTHING",
        )
        .bind(new.id.to_string())
        .bind(new.tenant.to_string())
        .bind(new.label)
        .bind(new.key_sha256)
        .bind(new.scopes.to_string())
        .bind(new.now_ms)
        .execute(write.connection())
        .await?;
        if added > 0 {
            let line = NewAudit {
                at_ms: new.now_ms,
                tenant: Some(new.tenant),
                actor,
                action: AuditAction::KEY_ADDED,
                subject: new.id.to_string(),
                data: json!({ "label": new.label, "scopes": new.scopes.to_string() }),
            };
            write_audit(write.connection(), line).await?;
        }
        self.commit(write).await
    }

    /// This one is the admin key from now on, and no other of that label is.
    pub async fn install_admin_key(
        &self,
        id: Uuid,
        tenant: TenantId,
        key_sha256: &str,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        write.lock_tenant(tenant).await?;
        sql(
            "UPDATE api_key SET revoked_ms = ? WHERE label = 'admin' AND key_sha256 <> ? AND revoked_ms IS NULL",
        )
        .bind(now_ms)
        .bind(key_sha256)
        .execute(write.connection())
        .await?;
        sql(
            "INSERT INTO api_key (id, tenant, label, key_sha256, scopes, created_ms) VALUES (?, ?, 'admin', ?, 'admin', ?)
             ON CONFLICT (key_sha256) DO UPDATE SET revoked_ms = NULL, scopes = 'admin', label = 'admin'",
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
    pub async fn live_api_key(&self, key_sha256: &str) -> Result<Option<LiveApiKey>, CatalogError> {
        Ok(self.live_api_keys(&[key_sha256]).await?.remove(key_sha256))
    }

    /// Those of these that were not revoked, by their hashes.
    pub async fn live_api_keys(&self, sha256s: &[&str]) -> Result<HashMap<String, LiveApiKey>, CatalogError> {
        let mut query = sql(
            "SELECT api_key.*, tenant_limit.storage_bytes, tenant_limit.max_upload_bytes, tenant_limit.open_uploads,
                    tenant_limit.concurrent_transfers, tenant_limit.requests_per_second
             FROM api_key LEFT JOIN tenant_limit ON tenant_limit.tenant = api_key.tenant
             WHERE revoked_ms IS NULL AND key_sha256",
        );
        query.push_in(sha256s.iter().copied());
        let found = query.fetch_all(&self.reader).await?;
        found
            .iter()
            .map(|row| {
                let live = LiveApiKey { key: ApiKeyRow::read(row)?, limits: quota::read_limits(row)? };
                Ok((row.get("key_sha256")?, live))
            })
            .collect()
    }

    /// Is this key still good? For requests that take long.
    pub async fn api_key_lives(&self, id: &str) -> Result<bool, CatalogError> {
        let found: Option<i64> = sql("SELECT 1 FROM api_key WHERE id = ? AND revoked_ms IS NULL")
            .bind(id)
            .scalar_optional(&self.reader)
            .await?;
        Ok(found.is_some())
    }

    /// Those of these that were not revoked. For answers that last.
    pub async fn api_keys_that_live(&self, ids: &[Uuid]) -> Result<HashSet<Uuid>, CatalogError> {
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let mut query = sql("SELECT id FROM api_key WHERE revoked_ms IS NULL AND id");
        query.push_in(ids.iter().map(Uuid::to_string));
        let found = query.fetch_all(&self.reader).await?;
        found.iter().map(|row| rows::text(row, "id")).collect()
    }

    /// Of one tenant or of all, revoked ones too, oldest first.
    pub async fn api_keys(&self, tenant: Option<TenantId>) -> Result<Vec<ApiKeyRow>, CatalogError> {
        let found = sql("SELECT * FROM api_key WHERE ?1 IS NULL OR tenant = ?1 ORDER BY id")
            .bind(tenant.map(|tenant| tenant.to_string()))
            .fetch_all(&self.reader)
            .await?;
        found.iter().map(ApiKeyRow::read).collect()
    }

    /// False: there is no such live key.
    pub async fn revoke_api_key(&self, id: Uuid, actor: &Actor, now_ms: i64) -> Result<bool, CatalogError> {
        let mut write = self.write().await?;
        let revoked = sql(
            "UPDATE api_key SET revoked_ms = ? WHERE id = ? AND revoked_ms IS NULL RETURNING tenant, label",
        )
        .bind(now_ms)
        .bind(id.to_string())
        .fetch_optional(write.connection())
        .await?;
        let Some(row) = revoked else { return Ok(false) };
        let line = NewAudit {
            at_ms: now_ms,
            tenant: Some(rows::text(&row, "tenant")?),
            actor,
            action: AuditAction::KEY_REVOKED,
            subject: id.to_string(),
            data: json!({ "label": row.get::<String>("label")? }),
        };
        write_audit(write.connection(), line).await?;
        self.commit(write).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::{Scope, Scopes};

    #[test]
    fn scopes_are_read_as_they_are_written() {
        let both: Scopes = "assets:read,uploads:write".parse().unwrap();
        assert_eq!(both.to_string(), "uploads:write assets:read");
        assert_eq!(both.to_string().parse(), Ok(both));
        assert!(both.contain(Scope::AssetsRead) && !both.contain(Scope::AssetsWrite));
        assert!(!both.contain(Scope::Admin));
        let unknown = "assets:read everything".parse::<Scopes>().unwrap_err().to_string();
        assert!(unknown.contains("\"everything\"") && unknown.contains("uploads:sign"), "{unknown}");
    }

    #[test]
    fn an_admin_may_everything_but_work_and_nobody_nothing() {
        for &scope in Scope::ALL {
            assert_eq!(Scopes::of(&[Scope::Admin]).contain(scope), scope != Scope::Worker);
            assert_eq!(Scopes::of(&[Scope::Worker]).contain(scope), scope == Scope::Worker);
            assert!(!Scopes::default().contain(scope));
        }
    }
}
