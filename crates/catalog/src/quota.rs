//! What a tenant may have and do: limits, and the bytes that are counted against them.
//!
//! Reserved where an upload is begun, inside the transaction that makes its row, so that two uploads can never share
//! the last free byte. Nothing is booked that would have to be booked back: what counts is summed from the rows
//! themselves (the lengths of open uploads, the bytes of assets that are kept), so an upload that ends or an asset that
//! is deleted frees its bytes by the change of its state, after a crash too.
//!
//! An upload that has not told its length counts as far as it was let in, in steps of [`DEFERRED_STEP_BYTES`]. A final
//! upload (concatenation) counts with its pieces until it is an asset; of a piece that it names more than once, the
//! repeats count with it from the beginning (its `reserved_bytes`).

use crate::sql::{Connection, Row, either, sql};
use crate::{
    Actor, AuditAction, Catalog, CatalogError, NewUpload, UploadRow,
    audit::{NewAudit, write_audit},
    rows,
    rows::signed,
    store::Write,
};
use reelyard_model::{TenantId, UploadId, UploadKind};
use serde_json::json;

/// How far ahead an upload of unknown length is let in: one commit for so many bytes, and no more than this is held
/// back from others for bytes that may never come.
pub const DEFERRED_STEP_BYTES: u64 = 64 << 20;

/// What a tenant is held to; `None`: no limit but the server's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
    /// Of sources: what is kept, and what open uploads will bring. Renditions are not counted.
    pub storage_bytes: Option<u64>,
    pub max_upload_bytes: Option<u64>,
    /// Begun and neither finished nor given up nor expired.
    pub open_uploads: Option<u32>,
    /// Bodies that are received at the same time.
    pub concurrent_transfers: Option<u32>,
    pub requests_per_second: Option<u32>,
}

/// What counts against the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub kept_bytes: u64,
    pub reserved_bytes: u64,
    pub open_uploads: u64,
}

impl Usage {
    pub const fn bytes(self) -> u64 {
        self.kept_bytes.saturating_add(self.reserved_bytes)
    }
}

/// What an upload was allowed when it was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadGrant {
    /// The upload token that begins it, and how many that one may begin.
    pub token: Option<(String, u32)>,
    /// Longest that it may become, where somebody said.
    pub max_byte_len: Option<u64>,
    /// Open uploads of a tenant that has no limit of its own.
    pub open_uploads: Option<u32>,
}

/// A limit stands in the way. The texts are public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverQuota {
    #[error(
        "the tenant may store {allowed} bytes; {used} are taken by its videos and open uploads, and this needs {wanted} more"
    )]
    Storage { allowed: u64, used: u64, wanted: u64 },
    #[error("an upload may have {allowed} bytes here, and this one has {wanted}")]
    UploadLength { allowed: u64, wanted: u64 },
    #[error("the tenant may have {allowed} uploads open at a time and has {open}")]
    OpenUploads { allowed: u64, open: u64 },
    #[error("the upload token may begin {allowed} uploads and has begun them")]
    TokenUploads { allowed: u64 },
}

impl Catalog {
    /// Replaces all limits of the tenant.
    pub async fn set_tenant_limits(
        &self,
        tenant: TenantId,
        limits: TenantLimits,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        write.lock_tenant(tenant).await?;
        let known: Option<i64> = sql("SELECT 1 FROM tenant WHERE id = ?")
            .bind(tenant.to_string())
            .scalar_optional(write.connection())
            .await?;
        if known.is_none() {
            return Err(CatalogError::not_found("tenant", tenant));
        }
        sql(
            "INSERT INTO tenant_limit (tenant, storage_bytes, max_upload_bytes, open_uploads, concurrent_transfers,
                                       requests_per_second, updated_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (tenant) DO UPDATE SET
                storage_bytes = excluded.storage_bytes, max_upload_bytes = excluded.max_upload_bytes,
                open_uploads = excluded.open_uploads, concurrent_transfers = excluded.concurrent_transfers,
                requests_per_second = excluded.requests_per_second, updated_ms = excluded.updated_ms",
        )
        .bind(tenant.to_string())
        .bind(limits.storage_bytes.map(signed))
        .bind(limits.max_upload_bytes.map(signed))
        .bind(limits.open_uploads)
        .bind(limits.concurrent_transfers)
        .bind(limits.requests_per_second)
        .bind(now_ms)
        .execute(write.connection())
        .await?;
        let line = NewAudit {
            at_ms: now_ms,
            tenant: Some(tenant),
            actor,
            action: AuditAction::TENANT_LIMITS_SET,
            subject: tenant.to_string(),
            data: json!({
                "storage_bytes": limits.storage_bytes,
                "max_upload_bytes": limits.max_upload_bytes,
                "open_uploads": limits.open_uploads,
                "concurrent_transfers": limits.concurrent_transfers,
                "requests_per_second": limits.requests_per_second,
            }),
        };
        write_audit(write.connection(), line).await?;
        self.commit(write).await
    }

    /// `None`: there is no such tenant.
    pub async fn tenant_limits(&self, tenant: TenantId) -> Result<Option<TenantLimits>, CatalogError> {
        let found =
            sql("SELECT tenant_limit.* FROM tenant LEFT JOIN tenant_limit ON tenant_limit.tenant = tenant.id
             WHERE tenant.id = ?")
            .bind(tenant.to_string())
            .fetch_optional(&self.reader)
            .await?;
        found.as_ref().map(read_limits).transpose()
    }

    pub async fn usage(&self, tenant: TenantId) -> Result<Usage, CatalogError> {
        let mut connection = self.reader.acquire().await?;
        usage_of(&mut connection, tenant, None).await
    }

    /// Lets an upload of unknown length in up to `up_to` bytes. Safe to repeat; nothing to do for a known length, which
    /// was reserved whole.
    pub async fn reserve_up_to(&self, id: UploadId, up_to: u64) -> Result<(), CatalogError> {
        // Most calls end here, without the write lock: the step is there already, or nobody counts.
        let found = sql(
            "SELECT upload.byte_len, upload.reserved_bytes, upload.max_byte_len, tenant_limit.storage_bytes
             FROM upload LEFT JOIN tenant_limit ON tenant_limit.tenant = upload.tenant WHERE upload.id = ?",
        )
        .bind(id.to_string())
        .fetch_optional(&self.reader)
        .await?
        .ok_or_else(|| CatalogError::not_found("upload", id))?;
        check_length(rows::optional_number(&found, "max_byte_len")?, up_to)?;
        let reserved: u64 = rows::number(&found, "reserved_bytes")?;
        let length: Option<u64> = rows::optional_number(&found, "byte_len")?;
        let storage: Option<u64> = rows::optional_number(&found, "storage_bytes")?;
        if length.is_some() || storage.is_none() || reserved >= up_to {
            return Ok(());
        }
        let mut write = self.write().await?;
        write.lock_tenant_of_upload(id).await?;
        write.lock_upload(id).await?;
        let upload = crate::uploads::require_upload(write.connection(), id).await?;
        check_storage(&mut write, upload.tenant, Some(id), up_to).await?;
        sql("UPDATE upload SET reserved_bytes = GREATEST(reserved_bytes, ?) WHERE id = ?")
            .bind(signed(up_to))
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        self.commit(write).await
    }
}

/// What an upload gets that may be begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserved {
    /// The longest that it may become.
    pub(crate) max_byte_len: Option<u64>,
    /// What counts beside the length: a final upload's repeats.
    pub(crate) repeated_bytes: u64,
}

/// Before an upload's row is made, in the same transaction: may it be begun?
pub(crate) async fn reserve(
    write: &mut Write,
    new: &NewUpload,
    grant: &UploadGrant,
) -> Result<Reserved, CatalogError> {
    let (tenant, byte_len) = (new.tenant, new.byte_len);
    let limits = limits_of(write.connection(), tenant).await?;
    let max_byte_len = [grant.max_byte_len, limits.max_upload_bytes].into_iter().flatten().min();
    check_length(max_byte_len, byte_len.unwrap_or_default())?;
    if let Some((token, most)) = &grant.token {
        let begun: i64 = sql("SELECT COUNT(*) FROM upload WHERE tenant = ? AND token = ?")
            .bind(tenant.to_string())
            .bind(token)
            .scalar(write.connection())
            .await?;
        if begun >= i64::from(*most) {
            return Err(OverQuota::TokenUploads { allowed: u64::from(*most) }.into());
        }
    }
    if let Some(allowed) = limits.open_uploads.or(grant.open_uploads) {
        let open: i64 = sql(
            "SELECT COUNT(*) FROM upload WHERE tenant = ? AND state IN ('created', 'receiving', 'finishing')",
        )
        .bind(tenant.to_string())
        .scalar(write.connection())
        .await?;
        if open >= i64::from(allowed) {
            let (allowed, open) = (u64::from(allowed), open.unsigned_abs());
            return Err(OverQuota::OpenUploads { allowed, open }.into());
        }
    }
    let repeated_bytes = match (new.kind, byte_len) {
        (UploadKind::Final, Some(byte_len)) => repeated_bytes(write, &new.partials, byte_len).await?,
        _ => 0,
    };
    let counted = if new.kind == UploadKind::Final { repeated_bytes } else { byte_len.unwrap_or_default() };
    check_storage(write, tenant, None, counted).await?;
    Ok(Reserved { max_byte_len, repeated_bytes })
}

/// How much longer a final upload is than its pieces, which are counted themselves: each once, while it lives.
async fn repeated_bytes(
    write: &mut Write,
    partials: &[UploadId],
    byte_len: u64,
) -> Result<u64, CatalogError> {
    let pieces: i64 = either(
        "SELECT COALESCE(SUM(byte_len), 0) FROM upload
         WHERE id IN (SELECT value FROM json_each(?)) AND state IN ('created', 'receiving', 'finishing')",
        "SELECT CAST(COALESCE(SUM(byte_len), 0) AS BIGINT) FROM upload
         WHERE id IN (SELECT JSON_ARRAY_ELEMENTS_TEXT(CAST(? AS JSON)) COLLATE \"C\")
           AND state IN ('created', 'receiving', 'finishing')",
    )
    .bind(json!(partials).to_string())
    .scalar(write.connection())
    .await?;
    Ok(byte_len.saturating_sub(pieces.max(0).unsigned_abs()))
}

/// A deferred length is told, or bytes are counted anew at the end: does it still fit?
pub(crate) async fn check_declared(
    write: &mut Write,
    upload: &UploadRow,
    byte_len: u64,
) -> Result<(), CatalogError> {
    check_length(upload.max_byte_len, byte_len)?;
    if upload.byte_len.is_some() {
        return Ok(());
    }
    if upload.kind != UploadKind::Final {
        return check_storage(write, upload.tenant, Some(upload.id), byte_len).await;
    }
    let repeated = repeated_bytes(write, &upload.partials, byte_len).await?;
    check_storage(write, upload.tenant, Some(upload.id), repeated).await?;
    sql("UPDATE upload SET reserved_bytes = ? WHERE id = ?")
        .bind(signed(repeated))
        .bind(upload.id.to_string())
        .execute(write.connection())
        .await?;
    Ok(())
}

/// On declaration and again at the end.
pub(crate) fn check_length(allowed: Option<u64>, wanted: u64) -> Result<(), OverQuota> {
    match allowed {
        Some(allowed) if wanted > allowed => Err(OverQuota::UploadLength { allowed, wanted }),
        _ => Ok(()),
    }
}

/// `wanted`: all that the upload needs; `but` is that upload, whose own bytes are not counted twice.
async fn check_storage(
    write: &mut Write,
    tenant: TenantId,
    but: Option<UploadId>,
    wanted: u64,
) -> Result<(), CatalogError> {
    let limits = limits_of(write.connection(), tenant).await?;
    let Some(allowed) = limits.storage_bytes else { return Ok(()) };
    let used = usage_of(write.connection(), tenant, but).await?.bytes();
    if wanted > allowed.saturating_sub(used) {
        return Err(OverQuota::Storage { allowed, used, wanted }.into());
    }
    Ok(())
}

async fn limits_of(connection: &mut Connection, tenant: TenantId) -> Result<TenantLimits, CatalogError> {
    let found = sql("SELECT * FROM tenant_limit WHERE tenant = ?")
        .bind(tenant.to_string())
        .fetch_optional(connection)
        .await?;
    found.as_ref().map_or(Ok(TenantLimits::default()), read_limits)
}

async fn usage_of(
    connection: &mut Connection,
    tenant: TenantId,
    but: Option<UploadId>,
) -> Result<Usage, CatalogError> {
    let open = sql(
        "SELECT COUNT(*) AS uploads,
                CAST(COALESCE(SUM(CASE WHEN kind = 'final' THEN reserved_bytes
                                  ELSE COALESCE(byte_len, GREATEST(reserved_bytes, byte_offset)) END), 0) AS BIGINT) AS bytes
         FROM upload
         WHERE tenant = ?1 AND state IN ('created', 'receiving', 'finishing') AND (?2 IS NULL OR id <> ?2)",
    )
    .bind(tenant.to_string())
    .bind(but.map(|but| but.to_string()))
    .fetch_one(&mut *connection)
    .await?;
    let kept: i64 = sql(
        "SELECT CAST(COALESCE(SUM(byte_len), 0) AS BIGINT) FROM asset WHERE tenant = ? AND state <> 'deleted'",
    )
    .bind(tenant.to_string())
    .scalar(connection)
    .await?;
    Ok(Usage {
        kept_bytes: kept.max(0).unsigned_abs(),
        reserved_bytes: rows::number(&open, "bytes")?,
        open_uploads: rows::number(&open, "uploads")?,
    })
}

/// Of a row that `tenant_limit` was joined to.
pub(crate) fn read_limits(row: &Row) -> Result<TenantLimits, CatalogError> {
    Ok(TenantLimits {
        storage_bytes: rows::optional_number(row, "storage_bytes")?,
        max_upload_bytes: rows::optional_number(row, "max_upload_bytes")?,
        open_uploads: rows::optional_number(row, "open_uploads")?,
        concurrent_transfers: rows::optional_number(row, "concurrent_transfers")?,
        requests_per_second: rows::optional_number(row, "requests_per_second")?,
    })
}
