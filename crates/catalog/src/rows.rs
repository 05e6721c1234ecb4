//! The rows as callers see them, and how they are read. Reading is the one place where stored text becomes types;
//! what cannot be read is an error that names the column, never a default.

use crate::sql::Row;
use crate::{CatalogError, Scopes};
use reelyard_model::{
    AssetId, AssetState, Completion, Failure, MediaInfo, PlaybackId, PublicationState, TaskId, TaskState,
    TenantId, Tier, UploadId, UploadKind, UploadState, WorkerId,
    work::{TaskKind, TaskResult},
};
use serde::de::DeserializeOwned;
use std::{fmt::Display, str::FromStr};

#[derive(Clone, Debug)]
pub struct UploadRow {
    pub id: UploadId,
    pub tenant: TenantId,
    pub state: UploadState,
    pub kind: UploadKind,
    pub completion: Completion,
    /// Of a final upload, in order.
    pub partials: Vec<UploadId>,
    /// The list of partials as its sender wrote it.
    pub concat_header: Option<String>,
    /// What the whole is to hash to, lower-case hexadecimal, where its sender said it.
    pub expected_sha256: Option<String>,
    pub byte_len: Option<u64>,
    /// As of the last write of this row; the journal in the storage knows better.
    pub byte_offset: u64,
    pub file_name: Option<String>,
    /// The client's metadata as it came (tus: the `Upload-Metadata` header).
    pub metadata: String,
    pub preset: String,
    /// As its sender asked for; its asset's.
    pub priority: i32,
    pub sha256: Option<String>,
    /// Once finished.
    pub asset: Option<AssetId>,
    /// The `jti` of the upload token that began it; `None`: an API key did.
    pub token: Option<String>,
    /// Longest that it may become, where its token or its tenant's limits say so.
    pub max_byte_len: Option<u64>,
    pub traceparent: String,
    pub created_ms: i64,
    pub updated_ms: i64,
    pub expires_ms: i64,
}

#[derive(Clone, Debug)]
pub struct AssetRow {
    pub id: AssetId,
    pub tenant: TenantId,
    pub upload: Option<UploadId>,
    pub state: AssetState,
    pub title: String,
    pub preset: String,
    pub source_key: String,
    pub byte_len: u64,
    pub sha256: String,
    /// Without the keyframes, which are many: [`crate::Catalog::media_info`] has all of it.
    pub media_info: Option<MediaInfo>,
    /// Sentences for the creator.
    pub warnings: Vec<String>,
    pub failure: Option<Failure>,
    /// As its sender asked for; says the tier of its tasks.
    pub priority: i32,
    /// Which made its first chunk that was done, and so has to make all others.
    pub encoder: Option<String>,
    pub traceparent: String,
    pub created_ms: i64,
    pub updated_ms: i64,
    pub ready_ms: Option<i64>,
    /// Known from the plan on; of one that uses another's files, from the beginning.
    pub playback_id: Option<PlaybackId>,
    /// The asset whose source and renditions it uses, because the bytes were the same; `None`: its own.
    pub content_of: Option<AssetId>,
}

#[derive(Clone, Debug)]
pub struct TaskRow {
    pub id: TaskId,
    pub asset: AssetId,
    pub tenant: TenantId,
    pub kind: TaskKind,
    /// The chunk of an encode task, else 0.
    pub ordinal: u32,
    /// Without it the asset does not play.
    pub required: bool,
    pub state: TaskState,
    pub tier: Tier,
    /// Within its tier and kind.
    pub priority: i32,
    /// The fencing token; 0 before the first lease.
    pub attempt: u32,
    pub worker: Option<WorkerId>,
    pub lease_until_ms: Option<i64>,
    pub not_before_ms: i64,
    pub failed_count: u32,
    pub lost_count: u32,
    /// Ends of the server's process with this task at work in it.
    pub restart_count: u32,
    /// Of the last attempt that failed.
    pub failure: Option<Failure>,
    pub done_us: i64,
    pub total_us: i64,
    /// Of an encode, audio or stills task that is done, until its asset is published and swept; not in lists. A probe's
    /// is the asset's media info.
    pub result: Option<TaskResult>,
    /// The attempt whose outputs count.
    pub done_attempt: Option<u32>,
    pub traceparent: String,
    pub created_ms: i64,
    pub updated_ms: i64,
    pub started_ms: Option<i64>,
    pub finished_ms: Option<i64>,
    /// When it became ready for the last time; 0: never yet.
    pub ready_ms: i64,
}

#[derive(Clone, Debug)]
pub struct RenditionRow {
    pub asset: AssetId,
    pub name: String,
    /// `video` or `audio`.
    pub kind: String,
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub max_bit_rate: u64,
    pub codecs: Option<String>,
    pub byte_len: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct PublicationRow {
    pub asset: AssetId,
    pub playback_id: PlaybackId,
    pub state: PublicationState,
    pub attempt: Option<u32>,
    /// Storage prefix of what plays, without a trailing slash.
    pub prefix: Option<String>,
    /// What there is to play, as the publish step described it.
    pub summary: Option<serde_json::Value>,
    pub created_ms: i64,
    pub live_ms: Option<i64>,
    pub withdrawn_ms: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct ApiKeyRow {
    pub id: String,
    pub tenant: TenantId,
    pub label: String,
    pub scopes: Scopes,
    pub created_ms: i64,
    pub revoked_ms: Option<i64>,
}

/// Columns of [`AssetRow`]; `publication` is joined in.
pub(crate) const ASSET_SELECT: &str = "SELECT asset.*, publication.playback_id FROM asset LEFT JOIN publication ON publication.asset = asset.id";
/// Columns of [`TaskRow`] for lists: without the result, which is as long as the video.
pub(crate) const TASK_LIST_COLUMNS: &str = "id, asset, tenant, kind, ordinal, required, state, priority, attempt, \
     worker, lease_until_ms, not_before_ms, failed_count, lost_count, restart_count, failure, done_us, total_us, \
     NULL AS result, done_attempt, traceparent, created_ms, updated_ms, started_ms, finished_ms, tier, ready_ms";
/// Columns of [`UploadRow`].
pub(crate) const UPLOAD_SELECT: &str =
    "SELECT upload.*, asset.id AS asset FROM upload LEFT JOIN asset ON asset.upload = upload.id";

pub(crate) fn text<T>(row: &Row, column: &'static str) -> Result<T, CatalogError>
where
    T: FromStr,
    T::Err: Display,
{
    let stored: String = row.get(column)?;
    stored.parse().map_err(|error: T::Err| unreadable(column, error))
}

pub(crate) fn optional_text<T>(row: &Row, column: &'static str) -> Result<Option<T>, CatalogError>
where
    T: FromStr,
    T::Err: Display,
{
    let stored: Option<String> = row.get(column)?;
    stored.map(|stored| stored.parse().map_err(|error: T::Err| unreadable(column, error))).transpose()
}

pub(crate) fn number<T: TryFrom<i64>>(row: &Row, column: &'static str) -> Result<T, CatalogError> {
    let stored: i64 = row.get(column)?;
    T::try_from(stored).map_err(|_| unreadable(column, format_args!("{stored} is out of range")))
}

pub(crate) fn optional_number<T: TryFrom<i64>>(
    row: &Row,
    column: &'static str,
) -> Result<Option<T>, CatalogError> {
    let stored: Option<i64> = row.get(column)?;
    stored
        .map(|stored| {
            T::try_from(stored).map_err(|_| unreadable(column, format_args!("{stored} is out of range")))
        })
        .transpose()
}

pub(crate) fn json<T: DeserializeOwned>(row: &Row, column: &'static str) -> Result<T, CatalogError> {
    let stored: String = row.get(column)?;
    serde_json::from_str(&stored).map_err(|error| unreadable(column, error))
}

pub(crate) fn optional_json<T: DeserializeOwned>(
    row: &Row,
    column: &'static str,
) -> Result<Option<T>, CatalogError> {
    let stored: Option<String> = row.get(column)?;
    stored.map(|stored| serde_json::from_str(&stored).map_err(|error| unreadable(column, error))).transpose()
}

pub(crate) fn to_json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, CatalogError> {
    serde_json::to_string(value).map_err(|error| unreadable(what, error))
}

/// Unsigned 64-bit lengths in SQLite's signed integers; beyond 8 EiB they saturate.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unreadable(what: &'static str, reason: impl Display) -> CatalogError {
    CatalogError::Unreadable { what, reason: reason.to_string() }
}

impl UploadRow {
    pub(crate) fn read(row: &Row) -> Result<Self, CatalogError> {
        Ok(Self {
            id: text(row, "id")?,
            tenant: text(row, "tenant")?,
            state: text(row, "state")?,
            kind: text(row, "kind")?,
            completion: text(row, "completion")?,
            partials: json(row, "partials")?,
            concat_header: row.get("concat_header")?,
            expected_sha256: row.get("expected_sha256")?,
            byte_len: optional_number(row, "byte_len")?,
            byte_offset: number(row, "byte_offset")?,
            file_name: row.get("file_name")?,
            metadata: row.get("metadata")?,
            preset: row.get("preset")?,
            priority: number(row, "priority")?,
            sha256: row.get("sha256")?,
            asset: optional_text(row, "asset")?,
            token: row.get("token")?,
            max_byte_len: optional_number(row, "max_byte_len")?,
            traceparent: row.get("traceparent")?,
            created_ms: row.get("created_ms")?,
            updated_ms: row.get("updated_ms")?,
            expires_ms: row.get("expires_ms")?,
        })
    }
}

impl AssetRow {
    pub(crate) fn read(row: &Row) -> Result<Self, CatalogError> {
        Ok(Self {
            id: text(row, "id")?,
            tenant: text(row, "tenant")?,
            upload: optional_text(row, "upload")?,
            state: text(row, "state")?,
            title: row.get("title")?,
            preset: row.get("preset")?,
            source_key: row.get("source_key")?,
            byte_len: number(row, "byte_len")?,
            sha256: row.get("sha256")?,
            media_info: optional_json(row, "media_facts")?,
            warnings: json(row, "warnings")?,
            failure: optional_json(row, "failure")?,
            priority: number(row, "priority")?,
            encoder: row.get("encoder")?,
            traceparent: row.get("traceparent")?,
            created_ms: row.get("created_ms")?,
            updated_ms: row.get("updated_ms")?,
            ready_ms: row.get("ready_ms")?,
            playback_id: optional_text(row, "playback_id")?,
            content_of: optional_text(row, "content_of")?,
        })
    }
}

impl TaskRow {
    pub(crate) fn read(row: &Row) -> Result<Self, CatalogError> {
        Ok(Self {
            id: text(row, "id")?,
            asset: text(row, "asset")?,
            tenant: text(row, "tenant")?,
            kind: text(row, "kind")?,
            ordinal: number(row, "ordinal")?,
            required: row.get::<i64>("required")? != 0,
            state: text(row, "state")?,
            tier: text(row, "tier")?,
            priority: number(row, "priority")?,
            attempt: number(row, "attempt")?,
            worker: optional_text(row, "worker")?,
            lease_until_ms: row.get("lease_until_ms")?,
            not_before_ms: row.get("not_before_ms")?,
            failed_count: number(row, "failed_count")?,
            lost_count: number(row, "lost_count")?,
            restart_count: number(row, "restart_count")?,
            failure: optional_json(row, "failure")?,
            done_us: row.get("done_us")?,
            total_us: row.get("total_us")?,
            result: optional_json(row, "result")?,
            done_attempt: optional_number(row, "done_attempt")?,
            traceparent: row.get("traceparent")?,
            created_ms: row.get("created_ms")?,
            updated_ms: row.get("updated_ms")?,
            started_ms: row.get("started_ms")?,
            finished_ms: row.get("finished_ms")?,
            ready_ms: row.get("ready_ms")?,
        })
    }
}

impl RenditionRow {
    pub(crate) fn read(row: &Row) -> Result<Self, CatalogError> {
        Ok(Self {
            asset: text(row, "asset")?,
            name: row.get("name")?,
            kind: row.get("kind")?,
            width: optional_number(row, "width")?,
            height: optional_number(row, "height")?,
            max_bit_rate: number(row, "max_bit_rate")?,
            codecs: row.get("codecs")?,
            byte_len: optional_number(row, "byte_len")?,
        })
    }
}

impl PublicationRow {
    pub(crate) fn read(row: &Row) -> Result<Self, CatalogError> {
        Ok(Self {
            asset: text(row, "asset")?,
            playback_id: text(row, "playback_id")?,
            state: text(row, "state")?,
            attempt: optional_number(row, "attempt")?,
            prefix: row.get("prefix")?,
            summary: optional_json(row, "summary")?,
            created_ms: row.get("created_ms")?,
            live_ms: row.get("live_ms")?,
            withdrawn_ms: row.get("withdrawn_ms")?,
        })
    }
}

impl ApiKeyRow {
    pub(crate) fn read(row: &Row) -> Result<Self, CatalogError> {
        Ok(Self {
            id: row.get("id")?,
            tenant: text(row, "tenant")?,
            label: row.get("label")?,
            scopes: text(row, "scopes")?,
            created_ms: row.get("created_ms")?,
            revoked_ms: row.get("revoked_ms")?,
        })
    }
}
