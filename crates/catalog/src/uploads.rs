//! Upload rows: from the announcement to the asset that a finished upload becomes.

use crate::sql::{Connection, sql};
use crate::{
    Catalog, CatalogError, EventKind, UploadGrant, UploadRow,
    events::NewEvent,
    quota,
    rows::{UPLOAD_SELECT, signed, text},
    store::Write,
};
use reelyard_model::{
    AssetId, Completion, PlaybackId, TaskId, TenantId, UploadId, UploadKind, UploadState,
    upload_state::{self, UploadEvent},
};
use serde_json::json;

pub(crate) use crate::finish::{find_content, finish_with};

/// Sources named in one answer; the next look finds the others.
const ASSEMBLED_AT_ONCE: u32 = 100;

#[derive(Clone, Debug)]
pub struct NewUpload {
    pub id: UploadId,
    pub tenant: TenantId,
    pub kind: UploadKind,
    pub completion: Completion,
    /// Of a final upload, in order.
    pub partials: Vec<UploadId>,
    /// The list of partials as its sender wrote it.
    pub concat_header: Option<String>,
    /// What the whole is to hash to, lower-case hexadecimal, where its sender said it.
    pub expected_sha256: Option<String>,
    /// `None`: the client will say later.
    pub byte_len: Option<u64>,
    pub file_name: Option<String>,
    pub metadata: String,
    pub preset: String,
    /// Its asset's: says the tier of its tasks ([`reelyard_model::Tier`]).
    pub priority: i32,
    pub traceparent: String,
    pub now_ms: i64,
    pub expires_ms: i64,
}

/// All bytes are durable and the source lies at `source_key`: what the transaction needs to know.
#[derive(Clone, Debug)]
pub struct FinishUpload {
    pub id: UploadId,
    pub byte_len: u64,
    /// Of the whole, lower-case hexadecimal.
    pub sha256: String,
    pub asset: AssetId,
    pub title: String,
    pub source_key: String,
    pub probe_task: TaskId,
    pub probe_priority: i32,
    /// What its preset makes, as a digest: assets of the same bytes with the same one share their files.
    pub recipe: String,
    /// For an asset that shares another's files; else it gets one with its plan.
    pub playback_id: PlaybackId,
    /// The source lies in pieces: [`Catalog::uploads_to_assemble`] names it until it is told to be one.
    pub to_assemble: bool,
    pub now_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishedUpload {
    pub asset: AssetId,
    /// False: it was finished before, and `asset` is from then.
    pub first_time: bool,
    /// The tenant had these bytes already: the asset uses that one's files, and the upload's own are to be removed.
    pub content_of: Option<AssetId>,
}

impl Catalog {
    pub async fn create_upload(&self, new: NewUpload) -> Result<UploadRow, CatalogError> {
        self.create_upload_within(new, UploadGrant::default()).await
    }

    /// Makes the row if the tenant's limits and the grant allow it; what it will need is reserved with it.
    pub async fn create_upload_within(
        &self,
        new: NewUpload,
        grant: UploadGrant,
    ) -> Result<UploadRow, CatalogError> {
        self.until_not_taken_back(|| self.create_upload_once(&new, &grant)).await
    }

    async fn create_upload_once(
        &self,
        new: &NewUpload,
        grant: &UploadGrant,
    ) -> Result<UploadRow, CatalogError> {
        let mut write = self.write().await?;
        write.lock_tenant(new.tenant).await?;
        let upload = insert_upload(&mut write, new, grant).await?;
        self.commit(write).await?;
        Ok(upload)
    }

    pub async fn upload(&self, id: UploadId) -> Result<Option<UploadRow>, CatalogError> {
        let found = sql(format!("{UPLOAD_SELECT} WHERE upload.id = ?"))
            .bind(id.to_string())
            .fetch_optional(&self.reader)
            .await?;
        found.as_ref().map(UploadRow::read).transpose()
    }

    /// The client told the length that it had deferred, which must fit into the limits. Refused when it had told
    /// another one before.
    pub async fn set_upload_length(
        &self,
        id: UploadId,
        byte_len: u64,
        now_ms: i64,
    ) -> Result<bool, CatalogError> {
        let mut write = self.write().await?;
        write.lock_tenant_of_upload(id).await?;
        write.lock_upload(id).await?;
        let upload = require_upload(write.connection(), id).await?;
        quota::check_declared(&mut write, &upload, byte_len).await?;
        let done = sql(
            "UPDATE upload SET byte_len = ?, updated_ms = ? WHERE id = ? AND (byte_len IS NULL OR byte_len = ?)",
        )
        .bind(signed(byte_len))
        .bind(now_ms)
        .bind(id.to_string())
        .bind(signed(byte_len))
        .execute(write.connection())
        .await?;
        self.commit(write).await?;
        Ok(done > 0)
    }

    /// Bytes up to `byte_offset` are durable. For display and expiry, so callers may be sparing with it; the journal
    /// beside the bytes is the truth.
    pub async fn upload_received(
        &self,
        id: UploadId,
        byte_offset: u64,
        now_ms: i64,
        expires_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        write.lock_upload(id).await?;
        let upload = require_upload(write.connection(), id).await?;
        let state = upload_state::next(upload.state, UploadEvent::BytesAcknowledged)?;
        sql(
            "UPDATE upload SET state = ?, byte_offset = GREATEST(byte_offset, ?), updated_ms = ?, expires_ms = ? WHERE id = ?",
        )
        .bind(state.as_str())
        .bind(signed(byte_offset))
        .bind(now_ms)
        .bind(expires_ms)
        .bind(id.to_string())
        .execute(write.connection())
        .await?;
        self.commit(write).await
    }

    /// All bytes are durable: from here on the upload can only become a source. Written before the file moves, so
    /// that a crash between the two is seen at the next start. Safe to repeat: an upload that is finished already
    /// comes back with its asset.
    pub async fn upload_finishing_or_finished(
        &self,
        id: UploadId,
        byte_len: u64,
        now_ms: i64,
    ) -> Result<UploadRow, CatalogError> {
        let mut write = self.write().await?;
        write.lock_upload(id).await?;
        let mut upload = require_upload(write.connection(), id).await?;
        if upload.asset.is_some() {
            return Ok(upload);
        }
        // Again: what was promised at the beginning is what may become an asset.
        quota::check_length(upload.max_byte_len, byte_len)?;
        upload.state = upload_state::next(upload.state, UploadEvent::AllBytesDurable)?;
        sql("UPDATE upload SET state = ?, byte_len = ?, byte_offset = ?, updated_ms = ? WHERE id = ?")
            .bind(upload.state.as_str())
            .bind(signed(byte_len))
            .bind(signed(byte_len))
            .bind(now_ms)
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        self.commit(write).await?;
        Ok(upload)
    }

    /// The upload becomes an asset, in one transaction: with a probe task, or, where the tenant has these bytes already,
    /// with what was made of those. Safe to repeat: the second call answers with the first one's asset.
    pub async fn finish_upload(&self, finish: FinishUpload) -> Result<FinishedUpload, CatalogError> {
        self.until_not_taken_back(|| self.finish_upload_once(&finish)).await
    }

    async fn finish_upload_once(&self, finish: &FinishUpload) -> Result<FinishedUpload, CatalogError> {
        let mut write = self.write().await?;
        // The tenant too: of two uploads with the same bytes that end at once, the second has to find the first.
        write.lock_tenant_of_upload(finish.id).await?;
        write.lock_upload(finish.id).await?;
        let upload = require_upload(write.connection(), finish.id).await?;
        if let Some(asset) = upload.asset {
            return Ok(FinishedUpload { asset, first_time: false, content_of: None });
        }
        let content = find_content(&mut write, &upload, finish).await?;
        let finished = finish_with(&mut write, &upload, finish, content.as_ref()).await?;
        if content.is_some() {
            sql("UPDATE asset SET spare_source_key = ? WHERE id = ?")
                .bind(&finish.source_key)
                .bind(finish.asset.to_string())
                .execute(write.connection())
                .await?;
        }
        self.commit(write).await?;
        Ok(finished)
    }

    /// Its owner gave it up. The caller removes the bytes afterwards. Safe to repeat.
    pub async fn terminate_upload(&self, id: UploadId, now_ms: i64) -> Result<UploadRow, CatalogError> {
        self.end_upload(id, UploadEvent::Terminate, EventKind::UPLOAD_TERMINATED, now_ms).await
    }

    /// Nobody came back in time. The caller removes the bytes afterwards; an upload whose time is not over (any more)
    /// stays as it is. Safe to repeat.
    pub async fn expire_upload(&self, id: UploadId, now_ms: i64) -> Result<UploadRow, CatalogError> {
        self.end_upload(id, UploadEvent::Expire, EventKind::UPLOAD_EXPIRED, now_ms).await
    }

    /// Its bytes are not what was announced. The caller removes them afterwards. Safe to repeat.
    pub async fn reject_upload(&self, id: UploadId, now_ms: i64) -> Result<UploadRow, CatalogError> {
        self.end_upload(id, UploadEvent::Reject, EventKind::UPLOAD_REJECTED, now_ms).await
    }

    /// What the whole is to hash to, told after the announcement. Refused (`false`) when something else was told, or the
    /// upload is past the comparison.
    pub async fn expect_digest(&self, id: UploadId, sha256: &str, now_ms: i64) -> Result<bool, CatalogError> {
        let mut write = self.write().await?;
        let done = sql(
            "UPDATE upload SET expected_sha256 = ?, updated_ms = ?
             WHERE id = ? AND (expected_sha256 IS NULL OR expected_sha256 = ?) AND state IN ('created', 'receiving')",
        )
        .bind(sha256)
        .bind(now_ms)
        .bind(id.to_string())
        .bind(sha256)
        .execute(write.connection())
        .await?;
        self.commit(write).await?;
        Ok(done > 0)
    }

    /// Whether an upload that is complete by its length waits for somebody who may finish it, or is finished as soon as
    /// all bytes are there. One whose sender has to declare it is left as it is.
    pub async fn withhold_upload(&self, id: UploadId, withheld: bool) -> Result<(), CatalogError> {
        let (from, to) = match withheld {
            true => (Completion::Length, Completion::Withheld),
            false => (Completion::Withheld, Completion::Length),
        };
        let mut write = self.write().await?;
        sql("UPDATE upload SET completion = ? WHERE id = ? AND completion = ?")
            .bind(to.as_str())
            .bind(id.to_string())
            .bind(from.as_str())
            .execute(write.connection())
            .await?;
        self.commit(write).await
    }

    /// Finished uploads whose sources lie in pieces, oldest first, some at a time.
    pub async fn uploads_to_assemble(&self) -> Result<Vec<UploadId>, CatalogError> {
        let found = sql("SELECT id FROM upload WHERE to_assemble = 1 ORDER BY id LIMIT ?")
            .bind(ASSEMBLED_AT_ONCE)
            .fetch_all(&self.reader)
            .await?;
        found.iter().map(|row| text(row, "id")).collect()
    }

    pub async fn upload_assembled(&self, id: UploadId) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        sql("UPDATE upload SET to_assemble = 0 WHERE id = ?")
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        self.commit(write).await
    }

    async fn end_upload(
        &self,
        id: UploadId,
        event: UploadEvent,
        kind: EventKind,
        now_ms: i64,
    ) -> Result<UploadRow, CatalogError> {
        let mut write = self.write().await?;
        write.lock_upload(id).await?;
        let mut upload = require_upload(write.connection(), id).await?;
        let before = upload.state;
        let after = upload_state::next(before, event)?;
        if event == UploadEvent::Expire && upload.expires_ms > now_ms {
            return Ok(upload);
        }
        upload.state = after;
        if upload.state != before {
            sql("UPDATE upload SET state = ?, updated_ms = ? WHERE id = ?")
                .bind(upload.state.as_str())
                .bind(now_ms)
                .bind(id.to_string())
                .execute(write.connection())
                .await?;
            write.emit(upload_event(&upload, kind, now_ms, json!({ "from": before })));
            self.commit(write).await?;
        }
        Ok(upload)
    }

    /// Uploads in this state, oldest first; `expired_by_ms` narrows it to those whose time is over.
    pub async fn uploads_in_state(
        &self,
        state: UploadState,
        expired_by_ms: Option<i64>,
    ) -> Result<Vec<UploadRow>, CatalogError> {
        let found = sql(format!(
            "{UPLOAD_SELECT} WHERE upload.state = ? AND upload.expires_ms <= ? ORDER BY upload.id"
        ))
        .bind(state.as_str())
        .bind(expired_by_ms.unwrap_or(i64::MAX))
        .fetch_all(&self.reader)
        .await?;
        found.iter().map(UploadRow::read).collect()
    }
}

pub(crate) async fn insert_upload(
    write: &mut Write,
    new: &NewUpload,
    grant: &UploadGrant,
) -> Result<UploadRow, CatalogError> {
    let reserved = quota::reserve(write, new, grant).await?;
    sql(
        "INSERT INTO upload (id, tenant, state, kind, completion, partials, concat_header, expected_sha256, byte_len,
                             byte_offset, file_name, metadata, preset, traceparent, created_ms, updated_ms,
                             expires_ms, token, max_byte_len, reserved_bytes, priority)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(new.id.to_string())
    .bind(new.tenant.to_string())
    .bind(UploadState::Created.as_str())
    .bind(new.kind.as_str())
    .bind(new.completion.as_str())
    .bind(json!(new.partials).to_string())
    .bind(&new.concat_header)
    .bind(&new.expected_sha256)
    .bind(new.byte_len.map(signed))
    .bind(&new.file_name)
    .bind(&new.metadata)
    .bind(&new.preset)
    .bind(&new.traceparent)
    .bind(new.now_ms)
    .bind(new.now_ms)
    .bind(new.expires_ms)
    .bind(grant.token.as_ref().map(|(token, _)| token))
    .bind(reserved.max_byte_len.map(signed))
    .bind(signed(reserved.repeated_bytes))
    .bind(new.priority)
    .execute(write.connection())
    .await?;
    let upload = require_upload(write.connection(), new.id).await?;
    let data = json!({ "byte_len": new.byte_len, "file_name": new.file_name });
    write.emit(upload_event(&upload, EventKind::UPLOAD_CREATED, new.now_ms, data));
    Ok(upload)
}

pub(crate) async fn require_upload(
    connection: &mut Connection,
    id: UploadId,
) -> Result<UploadRow, CatalogError> {
    let found = sql(format!("{UPLOAD_SELECT} WHERE upload.id = ?"))
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    UploadRow::read(found.as_ref().ok_or_else(|| CatalogError::not_found("upload", id))?)
}

pub(crate) fn upload_event(
    upload: &UploadRow,
    kind: EventKind,
    at_ms: i64,
    data: serde_json::Value,
) -> NewEvent {
    NewEvent {
        at_ms,
        tenant: upload.tenant,
        kind,
        upload: Some(upload.id),
        asset: upload.asset,
        task: None,
        data,
    }
}
