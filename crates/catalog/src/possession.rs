//! Questions to clients that say they have certain bytes: asked, answered once, kept for a while.
//!
//! Called by `src/flow/same_content`. In the catalogue and not in memory, so that any node may take the answer and none
//! takes it twice. A question counts against its asker until it is answered rightly: who sees the places asked for and
//! keeps silent has had his try as well. Rows go when they are too old to count.

use crate::sql::{Row, either, sql};
use crate::{
    Catalog, CatalogError, FinishUpload, FinishedUpload, NewUpload, UploadGrant,
    rows::{number, optional_text, signed, text},
    uploads,
};
use reelyard_model::{
    TenantId, UploadId,
    upload_state::{self, UploadEvent},
};
use uuid::Uuid;

#[derive(Clone, Debug)]
pub struct PossessionRow {
    /// The upload that comes of it has this id.
    pub id: UploadId,
    pub tenant: TenantId,
    pub byte_len: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
    pub file_name: Option<String>,
    /// As tus has it in `Upload-Metadata`.
    pub metadata: String,
    pub preset: String,
    pub nonce: Vec<u8>,
    pub created_ms: i64,
    pub expires_ms: i64,
    /// The right answer, once it came; lower-case hexadecimal.
    pub proof: Option<String>,
    /// The API key that asked; `None`: the server has no keys.
    pub asked_by: Option<Uuid>,
}

/// How often one content may be asked for in vain.
#[derive(Clone, Copy, Debug)]
pub struct VainTries {
    pub most: u32,
    pub within_ms: i64,
}

/// The right answer came.
#[derive(Clone, Debug)]
pub struct Proven {
    /// Of a question whose answer was taken.
    pub upload: NewUpload,
    pub grant: UploadGrant,
    pub finish: FinishUpload,
    pub proof: String,
}

impl Catalog {
    /// False: too many questions about this content stayed without the right answer lately.
    pub async fn ask_possession(&self, new: &PossessionRow, limit: VainTries) -> Result<bool, CatalogError> {
        let mut write = self.write().await?;
        let since_ms = new.created_ms.saturating_sub(limit.within_ms);
        write.lock_tenant(new.tenant).await?;
        // Those of all tenants; where somebody else is at it, they go without us.
        either(
            "DELETE FROM possession WHERE created_ms < ?",
            "DELETE FROM possession WHERE id IN
             (SELECT id FROM possession WHERE created_ms < ? FOR UPDATE SKIP LOCKED)",
        )
        .bind(since_ms)
        .execute(write.connection())
        .await?;
        let vain: i64 = sql(
            "SELECT COUNT(*) FROM possession WHERE tenant = ? AND sha256 = ? AND created_ms >= ? AND proof IS NULL",
        )
        .bind(new.tenant.to_string())
        .bind(&new.sha256)
        .bind(since_ms)
        .scalar(write.connection())
        .await?;
        let may = vain < i64::from(limit.most);
        if may {
            sql(
                "INSERT INTO possession (id, tenant, byte_len, sha256, file_name, metadata, preset, nonce, created_ms,
                                         expires_ms, asked_by)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(new.id.to_string())
            .bind(new.tenant.to_string())
            .bind(signed(new.byte_len))
            .bind(&new.sha256)
            .bind(&new.file_name)
            .bind(&new.metadata)
            .bind(&new.preset)
            .bind(&new.nonce)
            .bind(new.created_ms)
            .bind(new.expires_ms)
            .bind(new.asked_by.map(|key| key.to_string()))
            .execute(write.connection())
            .await?;
        }
        self.commit(write).await?;
        Ok(may)
    }

    /// Of this tenant and this key, open or not.
    pub async fn possession(
        &self,
        id: UploadId,
        tenant: TenantId,
        asked_by: Option<Uuid>,
    ) -> Result<Option<PossessionRow>, CatalogError> {
        let found =
            sql("SELECT * FROM possession WHERE id = ? AND tenant = ? AND asked_by IS NOT DISTINCT FROM ?")
                .bind(id.to_string())
                .bind(tenant.to_string())
                .bind(asked_by.map(|key| key.to_string()))
                .fetch_optional(&self.reader)
                .await?;
        found.as_ref().map(PossessionRow::read).transpose()
    }

    /// From here on no other answer is taken. False: there was one, or the time is over.
    pub async fn take_possession_answer(&self, id: UploadId, now_ms: i64) -> Result<bool, CatalogError> {
        let mut write = self.write().await?;
        let done = sql(
            "UPDATE possession SET answered_ms = ? WHERE id = ? AND answered_ms IS NULL AND expires_ms >= ?",
        )
        .bind(now_ms)
        .bind(id.to_string())
        .bind(now_ms)
        .execute(write.connection())
        .await?;
        self.commit(write).await?;
        Ok(done > 0)
    }

    /// An upload that is finished without a byte, and its asset, in one transaction. `None`: the tenant has the content
    /// no more.
    pub async fn finish_proven(&self, proven: Proven) -> Result<Option<FinishedUpload>, CatalogError> {
        let mut write = self.write().await?;
        write.lock_tenant(proven.upload.tenant).await?;
        let mut upload = uploads::insert_upload(&mut write, &proven.upload, &proven.grant).await?;
        let Some(content) = uploads::find_content(&mut write, &upload, &proven.finish).await? else {
            return Ok(None);
        };
        upload.state = upload_state::next(upload.state, UploadEvent::AllBytesDurable)?;
        let finished = uploads::finish_with(&mut write, &upload, &proven.finish, Some(&content)).await?;
        sql("UPDATE possession SET proof = ? WHERE id = ?")
            .bind(&proven.proof)
            .bind(upload.id.to_string())
            .execute(write.connection())
            .await?;
        self.commit(write).await?;
        Ok(Some(finished))
    }
}

impl PossessionRow {
    fn read(row: &Row) -> Result<Self, CatalogError> {
        Ok(Self {
            id: text(row, "id")?,
            tenant: text(row, "tenant")?,
            byte_len: number(row, "byte_len")?,
            sha256: row.get("sha256")?,
            file_name: row.get("file_name")?,
            metadata: row.get("metadata")?,
            preset: row.get("preset")?,
            nonce: row.get("nonce")?,
            created_ms: row.get("created_ms")?,
            expires_ms: row.get("expires_ms")?,
            proof: row.get("proof")?,
            asked_by: optional_text(row, "asked_by")?,
        })
    }
}
