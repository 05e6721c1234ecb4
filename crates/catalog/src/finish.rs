//! A finished upload becomes an asset, inside the transaction of whoever finishes it: the first of its content, with a
//! probe task, or one more that uses what was made of the same bytes.
//!
//! Called by `uploads` and by `possession`, which have locked the tenant and the upload.

use crate::sql::sql;
use crate::{
    AssetRow, CatalogError, ContentQuery, EventKind, FinishUpload, FinishedUpload, UploadRow, assets,
    content, publications, rows::signed, store::Write, uploads::upload_event,
};
use reelyard_model::{
    AssetState, Tier,
    upload_state::{self, UploadEvent},
    work::TaskKind,
};
use serde_json::json;

/// The content of this upload's bytes, if its tenant has it already, locked.
pub(crate) async fn find_content(
    write: &mut Write,
    upload: &UploadRow,
    finish: &FinishUpload,
) -> Result<Option<AssetRow>, CatalogError> {
    let query = ContentQuery {
        tenant: upload.tenant,
        byte_len: finish.byte_len,
        sha256: &finish.sha256,
        preset: &upload.preset,
        recipe: &finish.recipe,
    };
    let mut locked = None;
    loop {
        let found = content::find(write.connection(), &query).await?;
        match found {
            // It may have come to an end, or been deleted, before the lock was ours: so it is looked for again.
            Some(owner) if locked != Some(owner.id) => {
                write.lock_content_of(owner.id).await?;
                locked = Some(owner.id);
            }
            settled => return Ok(settled),
        }
    }
}

/// The upload becomes an asset: one of this content, or the first of its own, with a probe task.
pub(crate) async fn finish_with(
    write: &mut Write,
    upload: &UploadRow,
    finish: &FinishUpload,
    content: Option<&AssetRow>,
) -> Result<FinishedUpload, CatalogError> {
    let state = upload_state::next(upload.state, UploadEvent::SourceStored)?;
    sql(
        "UPDATE upload SET state = ?, byte_len = ?, byte_offset = ?, sha256 = ?, to_assemble = ?, updated_ms = ?
         WHERE id = ?",
    )
    .bind(state.as_str())
    .bind(signed(finish.byte_len))
    .bind(signed(finish.byte_len))
    .bind(&finish.sha256)
    // Its own bytes are about to be removed.
    .bind(finish.to_assemble && content.is_none())
    .bind(finish.now_ms)
    .bind(finish.id.to_string())
    .execute(write.connection())
    .await?;
    insert_asset(write, upload, finish, content).await?;
    let data = json!({ "byte_len": finish.byte_len, "sha256": finish.sha256 });
    let mut finished = upload_event(upload, EventKind::UPLOAD_FINISHED, finish.now_ms, data);
    finished.asset = Some(finish.asset);
    if content.is_none() {
        insert_probe(write, upload, finish).await?;
    }
    write.emit(finished);
    let data = json!({ "title": finish.title, "state": AssetState::Waiting });
    let mut created = upload_event(upload, EventKind::ASSET_CREATED, finish.now_ms, data);
    created.asset = Some(finish.asset);
    write.emit(created);
    if content.is_some() {
        publications::prepare(write, finish.asset, finish.playback_id, finish.now_ms).await?;
        let mut asset = assets::require(write.connection(), finish.asset).await?;
        content::catch_up(write, &mut asset, finish.now_ms).await?;
    }
    Ok(FinishedUpload {
        asset: finish.asset,
        first_time: true,
        content_of: content.map(|content| content.id),
    })
}

async fn insert_asset(
    write: &mut Write,
    upload: &UploadRow,
    finish: &FinishUpload,
    content: Option<&AssetRow>,
) -> Result<(), CatalogError> {
    // What was found in the bytes so far holds for the new asset too.
    sql(
        "INSERT INTO asset (id, tenant, upload, state, title, preset, source_key, byte_len, sha256, priority,
                            traceparent, created_ms, updated_ms, content_of, recipe, warnings, media_facts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?15, ?10, ?11, ?12, ?13, ?14,
                 COALESCE((SELECT warnings FROM asset WHERE id = ?13), '[]'),
                 (SELECT media_facts FROM asset WHERE id = ?13))",
    )
    .bind(finish.asset.to_string())
    .bind(upload.tenant.to_string())
    .bind(upload.id.to_string())
    .bind(AssetState::Waiting.as_str())
    .bind(&finish.title)
    .bind(&upload.preset)
    .bind(content.map_or(&finish.source_key, |content| &content.source_key))
    .bind(signed(finish.byte_len))
    .bind(&finish.sha256)
    .bind(&upload.traceparent)
    .bind(finish.now_ms)
    .bind(finish.now_ms)
    .bind(content.map(|content| content.id.to_string()))
    .bind(&finish.recipe)
    .bind(upload.priority)
    .execute(write.connection())
    .await?;
    Ok(())
}

async fn insert_probe(
    write: &mut Write,
    upload: &UploadRow,
    finish: &FinishUpload,
) -> Result<(), CatalogError> {
    crate::tasks::insert_tasks(
        write,
        &crate::tasks::TaskOwner {
            asset: finish.asset,
            tenant: upload.tenant,
            tier: Tier::of_priority(upload.priority),
            traceparent: &upload.traceparent,
            now_ms: finish.now_ms,
        },
        &[crate::NewTask {
            id: finish.probe_task,
            kind: TaskKind::Probe,
            ordinal: 0,
            required: true,
            priority: finish.probe_priority,
            needs: Vec::new(),
        }],
    )
    .await
}
