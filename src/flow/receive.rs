//! **receive**: an upload is announced, filled, and becomes an asset.
//!
//! Called by the tus shell in `http/uploads`, and at start (`recover`). The order of writes makes every crash healable:
//! the row first, then the bytes; at the end `finishing` in the row, then the rename of the file, then one transaction
//! with upload, asset, probe task and events. An asset has the id of its upload, so that the rename has one possible
//! target however often it is tried.

use super::{FlowError, collect, same_content};
use crate::app::App;
use reelyard_catalog::{FinishUpload, NewUpload, UploadGrant, UploadRow};
use reelyard_model::{AssetId, Completion, TaskId, TenantId, Tier, UploadId, UploadKind, UploadState};
use reelyard_storage::{StoreError, Terms, source_key};
use reelyard_upload::{Transfer, tus::Metadata};
use uuid::Uuid;

/// An upload that nobody continued for so long is given up.
pub(crate) const UPLOAD_EXPIRES_AFTER_MS: i64 = 7 * 24 * 3600 * 1000;
/// Before all else: the answer "this is not a video" should not wait for somebody's two hours of encoding.
pub(crate) const PROBE_PRIORITY: i32 = 30;
/// Characters of a title made of a file name.
const MAX_TITLE_CHARS: usize = 200;

/// What a client says about what it is going to send.
#[derive(Clone, Debug)]
pub(crate) struct Announcement {
    pub(crate) tenant: TenantId,
    /// What whoever announces it may, where that is less than its tenant may.
    pub(crate) grant: UploadGrant,
    pub(crate) kind: UploadKind,
    pub(crate) completion: Completion,
    /// Of a final upload, in order, and the list as it came.
    pub(crate) partials: Vec<UploadId>,
    pub(crate) concat_header: Option<String>,
    /// What the whole is to hash to, where the client said it.
    pub(crate) expected_sha256: Option<[u8; 32]>,
    /// `None`: the client will say later.
    pub(crate) byte_len: Option<u64>,
    pub(crate) file_name: Option<String>,
    /// As it came (tus: `Upload-Metadata`).
    pub(crate) metadata: String,
    /// `None`: the default preset.
    pub(crate) preset: Option<String>,
    /// How urgent it is; 0 unless somebody says so.
    pub(crate) priority: i32,
    /// W3C trace context of the request, where there was a valid one.
    pub(crate) traceparent: Option<String>,
}

/// All bytes of an upload are durable, so many, and hash to this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) byte_len: u64,
    pub(crate) sha256: [u8; 32],
}

impl Whole {
    pub(crate) fn of(transfer: &Transfer) -> Result<Self, FlowError> {
        match transfer.sha256() {
            Some(sha256) => Ok(Self { byte_len: transfer.offset(), sha256 }),
            None => Err(FlowError::NotWhole { offset: transfer.offset(), byte_len: transfer.length() }),
        }
    }
}

/// What the store has to know of an upload. `fence`: of whoever holds it; 0 is enough for reading.
pub(crate) fn terms(app: &App, row: &UploadRow, fence: u64) -> Terms {
    let limit = row.max_byte_len.map_or(app.max_upload_bytes, |most| most.min(app.max_upload_bytes));
    Terms { length: row.byte_len, limit, fence }
}

/// Makes the row, then the file. A crash between the two leaves a row that nobody knows of and that expires.
pub(crate) async fn create(app: &App, announcement: Announcement) -> Result<UploadRow, FlowError> {
    let preset = app.preset_name(announcement.preset.as_deref())?;
    let now_ms = app.now_ms();
    let id = UploadId::from_uuid(Uuid::now_v7());
    let upload = app
        .catalog
        .create_upload_within(
            NewUpload {
                id,
                tenant: announcement.tenant,
                kind: announcement.kind,
                completion: announcement.completion,
                partials: announcement.partials,
                concat_header: announcement.concat_header,
                expected_sha256: announcement.expected_sha256.map(hex::encode),
                byte_len: announcement.byte_len,
                file_name: announcement.file_name,
                metadata: announcement.metadata,
                preset,
                priority: announcement.priority,
                traceparent: announcement.traceparent.unwrap_or_else(new_traceparent),
                now_ms,
                expires_ms: now_ms.saturating_add(UPLOAD_EXPIRES_AFTER_MS),
            },
            announcement.grant,
        )
        .await?;
    let made = match (announcement.kind, announcement.byte_len) {
        (UploadKind::Parts, Some(length)) => app.uploads.create_parts(id, length).await,
        (_, byte_len) => app.uploads.create_upload(id, byte_len).await,
    };
    if let Err(error) = made {
        // Nobody will ever learn its address; what was reserved for it is free again.
        if let Err(error) = terminate(app, id).await {
            tracing::warn!(upload = %id, %error, "receive: an upload that was not made stays until it expires");
        }
        return Err(error.into());
    }
    tracing::info!(upload = %id, trace_id = trace_id(&upload.traceparent), byte_len = announcement.byte_len, "receive: upload announced");
    Ok(upload)
}

/// Bytes up to `offset` are durable. For display and to push the expiry out; the caller need not call it for every
/// chunk. Failing is no reason to fail the chunk: the bytes are safe.
pub(crate) async fn received(app: &App, id: UploadId, offset: u64) -> Result<(), FlowError> {
    let now_ms = app.now_ms();
    app.catalog.upload_received(id, offset, now_ms, now_ms.saturating_add(UPLOAD_EXPIRES_AFTER_MS)).await?;
    Ok(())
}

/// All bytes are durable: the upload becomes an asset. Safe to repeat. Bytes that are not what was announced are
/// [`FlowError::OtherBytes`]: nothing is made of them, now or later.
pub(crate) async fn finish(app: &App, id: UploadId, whole: &Whole) -> Result<AssetId, FlowError> {
    check_digest(app, id, whole).await?;
    let upload = app.catalog.upload_finishing_or_finished(id, whole.byte_len, app.now_ms()).await?;
    if let Some(asset) = upload.asset {
        return Ok(asset);
    }
    app.uploads.finish_upload(id, whole.byte_len).await?;
    let title = title_of(&upload.metadata, upload.file_name.as_deref());
    let finish = finish_request(app, id, &upload.preset, title, whole);
    let finished = app.catalog.finish_upload(finish).await?;
    if finished.first_time {
        tracing::info!(upload = %id, asset = %finished.asset, trace_id = trace_id(&upload.traceparent), byte_len = whole.byte_len, "receive: upload finished");
        app.ring();
        app.assemble_ticket.notify_one();
    }
    if let Some(content) = finished.content_of {
        tracing::info!(asset = %finished.asset, %content, "receive: the tenant has these bytes already; nothing is processed again");
        same_content::remove_spare(app, finished.asset, &source_key(id)).await;
    }
    Ok(finished.asset)
}

/// What the finishing transaction has to know.
pub(crate) fn finish_request(
    app: &App,
    id: UploadId,
    preset: &str,
    title: String,
    whole: &Whole,
) -> FinishUpload {
    FinishUpload {
        id,
        byte_len: whole.byte_len,
        sha256: hex::encode(whole.sha256),
        asset: asset_of(id),
        title,
        source_key: source_key(id),
        probe_task: TaskId::from_uuid(Uuid::now_v7()),
        probe_priority: PROBE_PRIORITY,
        recipe: same_content::recipe(app, preset),
        playback_id: collect::new_playback_id(),
        to_assemble: app.sources_in_pieces,
        now_ms: app.now_ms(),
    }
}

async fn check_digest(app: &App, id: UploadId, whole: &Whole) -> Result<(), FlowError> {
    let row = app.catalog.upload(id).await?;
    // One that is finishing was compared before.
    let row = row.filter(|row| row.asset.is_none() && row.state != UploadState::Finishing);
    let Some(expected) = row.and_then(|row| row.expected_sha256) else { return Ok(()) };
    let found = hex::encode(whole.sha256);
    if found == expected {
        return Ok(());
    }
    app.catalog.reject_upload(id, app.now_ms()).await?;
    forget(app, id).await?;
    tracing::warn!(upload = %id, expected, found, "receive: the bytes are not what was announced; upload rejected");
    Err(FlowError::OtherBytes { expected, found })
}

/// Its owner gives it up: no more bytes are taken, what came is removed. Of a finished upload only the address goes.
/// Safe to repeat.
pub(crate) async fn terminate(app: &App, id: UploadId) -> Result<(), FlowError> {
    let upload = app.catalog.terminate_upload(id, app.now_ms()).await?;
    forget(app, id).await?;
    tracing::info!(upload = %id, trace_id = trace_id(&upload.traceparent), "receive: upload terminated");
    Ok(())
}

/// Removes the bytes of an upload that has ended, and then what the ledger has of it. Safe to repeat.
///
/// Nothing of one whose bytes are an asset's source in pieces: an assembly may be making an object that the ledger does
/// not name yet, and only `assemble` knows. It tidies up when it is done.
pub(crate) async fn forget(app: &App, id: UploadId) -> Result<(), FlowError> {
    let is_a_source =
        || async { Ok::<_, FlowError>(app.catalog.upload(id).await?.is_some_and(|row| row.asset.is_some())) };
    if app.sources_in_pieces && is_a_source().await? {
        return Ok(());
    }
    app.uploads.forget_upload(id).await?;
    if app.sources_in_pieces {
        app.catalog.forget_ledger(id).await?;
    }
    Ok(())
}

/// Takes up what a crash left: whole uploads that did not become assets yet. Called at start, before the port opens.
pub(crate) async fn recover(app: &App) -> Result<usize, FlowError> {
    let healed = finish_left_over(app, UploadState::Receiving).await?
        + finish_left_over(app, UploadState::Created).await?;
    Ok(healed + finish_interrupted(app).await?)
}

/// Uploads whose last step failed (a full disk, say) and whose client may believe that all is said. They take no more
/// bytes, so this is safe at any time.
pub(crate) async fn finish_interrupted(app: &App) -> Result<usize, FlowError> {
    finish_left_over(app, UploadState::Finishing).await
}

async fn finish_left_over(app: &App, state: UploadState) -> Result<usize, FlowError> {
    let mut finished = 0;
    for upload in app.catalog.uploads_in_state(state, None).await? {
        finished += usize::from(finish_if_whole(app, &upload).await == Ending::Finished);
    }
    Ok(finished)
}

/// What came of looking at an upload that nobody is sending to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Finished,
    /// Bytes are missing, or its sender has not said that it is complete.
    NotWhole,
    /// It could not be looked at or finished now.
    Later,
}

/// One that fails holds up neither the others nor the start: it is told, and tried again.
pub(crate) async fn finish_if_whole(app: &App, row: &UploadRow) -> Ending {
    let (id, finishing) = (row.id, row.state == UploadState::Finishing);
    // Pieces wait for their final upload, and that all bytes are there is not always that the upload is complete.
    let by_itself = finishing || row.completion == Completion::Length;
    if !by_itself {
        return Ending::NotWhole;
    }
    let transfer = match look(app, row).await {
        Ok(transfer) => transfer,
        // Announced, and the crash came before its file: it expires like any other.
        Err(StoreError::NotFound { .. }) => return Ending::NotWhole,
        Err(error @ StoreError::Damaged { .. }) => {
            tracing::error!(upload = %id, %error, "receive: an upload cannot be read, so it waits for its expiry");
            return Ending::NotWhole;
        }
        Err(error) => {
            tracing::error!(upload = %id, %error, "receive: an upload cannot be looked at now");
            return Ending::Later;
        }
    };
    let Ok(whole) = Whole::of(&transfer) else { return Ending::NotWhole };
    if row.kind == UploadKind::Partial {
        // Told of its bytes, where a crash kept that from the row. Its sender did nothing, so it expires as before.
        let told = app.catalog.upload_received(id, whole.byte_len, app.now_ms(), row.expires_ms);
        if row.byte_offset != whole.byte_len
            && let Err(error) = told.await
        {
            tracing::warn!(upload = %id, %error, "receive: the row was not told that this piece is whole");
        }
        return Ending::NotWhole;
    }
    match finish(app, id, &whole).await {
        Ok(_) => {
            if let Err(error) = super::concatenate::release_partials(app, row).await {
                tracing::warn!(upload = %id, %error, "receive: pieces of a finished upload stay until they expire");
            }
            Ending::Finished
        }
        // It has ended, and not in an asset.
        Err(FlowError::OtherBytes { .. }) => Ending::Later,
        Err(error) => {
            tracing::error!(upload = %id, %error, "receive: an upload cannot be finished yet");
            Ending::Later
        }
    }
}

/// What is durable of it from the front.
async fn look(app: &App, row: &UploadRow) -> Result<Transfer, StoreError> {
    let terms = terms(app, row, 0);
    match row.kind {
        UploadKind::Parts => app.uploads.hash_parts(row.id, terms).await,
        _ => Ok(app.uploads.open_upload(row.id, terms).await?.transfer().clone()),
    }
}

/// The asset that an upload becomes.
pub(crate) fn asset_of(upload: UploadId) -> AssetId {
    AssetId::from_uuid(*upload.as_uuid())
}

/// The title that the client gave, else one made of the file's name.
/// As the metadata that was accepted says it.
pub(crate) fn priority_of(metadata: &str) -> i32 {
    let metadata = Metadata::parse(metadata).unwrap_or_default();
    let tier = metadata.text("tier").and_then(|name| name.parse::<Tier>().ok());
    tier.unwrap_or(Tier::Normal).priority()
}

pub(crate) fn title_of(metadata: &str, file_name: Option<&str>) -> String {
    let metadata = Metadata::parse(metadata).unwrap_or_default();
    let given: String = metadata
        .text("title")
        .unwrap_or_default()
        .chars()
        .filter(|letter| !letter.is_control())
        .take(MAX_TITLE_CHARS)
        .collect();
    let given = given.trim();
    if given.is_empty() { title(file_name) } else { given.to_owned() }
}

/// `holiday_2024.final.mov` -> `holiday_2024.final`.
fn title(file_name: Option<&str>) -> String {
    let name = file_name.unwrap_or_default();
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem });
    let title: String = stem.chars().filter(|letter| !letter.is_control()).take(MAX_TITLE_CHARS).collect();
    let title = title.trim();
    if title.is_empty() { "Untitled".to_owned() } else { title.to_owned() }
}

/// A new trace (W3C Trace Context, section 3.2): version 00, random ids, sampled. UUIDv4 would fix six bits of the
/// trace id, which the recommendation's level 2 allows but does not love; random bytes it is.
pub(crate) fn new_traceparent() -> String {
    let mut ids = [0u8; 24];
    if getrandom::fill(&mut ids).is_err() {
        // All zeros would be invalid; time is better than nothing.
        ids[..16].copy_from_slice(Uuid::now_v7().as_bytes());
        ids[16..].copy_from_slice(&Uuid::now_v7().as_bytes()[8..]);
    }
    format!("00-{}-{}-01", hex::encode(&ids[..16]), hex::encode(&ids[16..]))
}

/// The trace id in a `traceparent`: 32 hexadecimal digits.
pub(crate) fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{new_traceparent, title, trace_id};

    #[test]
    fn titles_come_from_file_names() {
        for (file_name, expected) in [
            (Some("holiday_2024.final.mov"), "holiday_2024.final"),
            (Some("C:\\Videos\\cat.mp4"), "cat"),
            (Some("../../etc/passwd"), "passwd"),
            (Some(".mp4"), ".mp4"),
            (Some("  .mov"), "Untitled"),
            (Some(""), "Untitled"),
            (None, "Untitled"),
        ] {
            assert_eq!(title(file_name), expected, "{file_name:?}");
        }
    }

    #[test]
    fn traces_have_the_w3c_form() {
        let traceparent = new_traceparent();
        assert_eq!(traceparent.len(), 55);
        assert_eq!(trace_id(&traceparent).len(), 32);
        assert_ne!(traceparent, new_traceparent());
    }
}
