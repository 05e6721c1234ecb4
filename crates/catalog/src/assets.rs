//! Asset rows: listed, swept, and moved by what people do (`operations`) and by what happens to their tasks.

use crate::sql::{Connection, sql};
use crate::{
    AssetRow, Catalog, CatalogError, Condition, Cursor, EventKind, Page, RenditionRow, TaskRow, content,
    events::NewEvent,
    page::MAX_PAGE_ROWS,
    publications,
    rows::{ASSET_SELECT, json, to_json},
    store::Write,
    tasks,
};
use reelyard_model::{
    AssetId, AssetState, MediaInfo, Plan, TaskState, TenantId,
    asset_state::{self, AssetEvent},
    task_state::TaskEvent,
    work::TaskKind,
};
use serde_json::json;

/// Warnings kept with an asset; a file that is odd in more ways than these needs no longer list.
const MAX_WARNINGS: usize = 32;

#[derive(Clone, Debug)]
pub struct AssetFilter {
    pub tenant: TenantId,
    /// Empty: any but deleted.
    pub states: Vec<AssetState>,
    /// Part of the title, in any case (ASCII).
    pub title_contains: Option<String>,
    pub after: Option<Cursor>,
    pub limit: u32,
}

impl Catalog {
    pub async fn asset(&self, id: AssetId) -> Result<Option<AssetRow>, CatalogError> {
        let mut connection = self.reader.acquire().await?;
        find(&mut connection, id).await
    }

    /// Newest first.
    pub async fn list_assets(&self, filter: &AssetFilter) -> Result<Page<AssetRow>, CatalogError> {
        let limit = filter.limit.clamp(1, MAX_PAGE_ROWS);
        let mut query = sql(ASSET_SELECT);
        query.push(" WHERE asset.tenant = ").push_bind(filter.tenant.to_string());
        if filter.states.is_empty() {
            query.push(" AND asset.state <> 'deleted'");
        }
        tasks::push_any_of(&mut query, "asset.state", filter.states.iter().map(|state| state.as_str()));
        if let Some(part) = &filter.title_contains {
            query.push_either(
                " AND INSTR(LOWER(asset.title), LOWER(",
                " AND STRPOS(LOWER(asset.title), LOWER(",
            );
            query.push_bind(part).push_either(")) > 0", " COLLATE \"C\")) > 0");
        }
        if let Some(Cursor(after)) = filter.after {
            query.push(" AND asset.id < ").push_bind(after.to_string());
        }
        query.push(" ORDER BY asset.id DESC LIMIT ").push_bind(i64::from(limit) + 1);
        let found = query.fetch_all(&self.reader).await?;
        let rows = found.iter().map(AssetRow::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(rows, limit, |row| *row.id.as_uuid()))
    }

    /// All that the probe found, with the keyframe index.
    pub async fn media_info(&self, asset: AssetId) -> Result<Option<MediaInfo>, CatalogError> {
        let found = sql(
            "SELECT info FROM media_info WHERE asset = (SELECT COALESCE(content_of, id) FROM asset WHERE id = ?)",
        )
        .bind(asset.to_string())
        .fetch_optional(&self.reader)
        .await?;
        found.as_ref().map(|row| json(row, "info")).transpose()
    }

    pub async fn plan(&self, asset: AssetId) -> Result<Option<Plan>, CatalogError> {
        let found = sql(
            "SELECT plan FROM plan WHERE asset = (SELECT COALESCE(content_of, id) FROM asset WHERE id = ?)",
        )
        .bind(asset.to_string())
        .fetch_optional(&self.reader)
        .await?;
        found.as_ref().map(|row| json(row, "plan")).transpose()
    }

    /// Largest picture first, sound last.
    pub async fn renditions(&self, asset: AssetId) -> Result<Vec<RenditionRow>, CatalogError> {
        let found = sql(
            "SELECT * FROM rendition WHERE asset = (SELECT COALESCE(content_of, id) FROM asset WHERE id = ?)
             ORDER BY height IS NULL, height DESC, max_bit_rate DESC, name",
        )
        .bind(asset.to_string())
        .fetch_all(&self.reader)
        .await?;
        found.iter().map(RenditionRow::read).collect()
    }

    /// Assets whose end was reached and whose superfluous files were not removed yet.
    pub async fn assets_to_sweep(&self) -> Result<Vec<AssetRow>, CatalogError> {
        let found = sql(format!(
            "{ASSET_SELECT} WHERE asset.swept_ms IS NULL AND asset.state IN ('ready', 'failed', 'cancelled', 'deleted')"
        ))
        .fetch_all(&self.reader)
        .await?;
        found.iter().map(AssetRow::read).collect()
    }

    /// Nothing is left to remove of it. Only as long as it is as the sweep saw it: an asset that was deleted or tried
    /// again meanwhile has to be swept again. What only publishing needed goes too: the lists of segments of a two-hour
    /// film are megabytes; and of a deleted asset what was found in it.
    pub async fn asset_swept(&self, seen: &AssetRow, now_ms: i64) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        write.lock_content_of(seen.id).await?;
        let done = sql("UPDATE asset SET swept_ms = ? WHERE id = ? AND state = ? AND updated_ms = ?")
            .bind(now_ms)
            .bind(seen.id.to_string())
            .bind(seen.state.as_str())
            .bind(seen.updated_ms)
            .execute(write.connection())
            .await?;
        if done == 0 {
            return Ok(());
        }
        let no_longer_needed: &[&str] = match content::condition(write.connection(), seen.content()).await? {
            // Another asset's, and not for this one to tidy up.
            _ if seen.content_of.is_some() => &[],
            // Others wait for the work: it is swept when they have come to an end.
            Condition::InTheMaking => return Ok(()),
            Condition::Published => &["UPDATE task SET result = NULL WHERE asset = ?"],
            Condition::Gone => &[
                "UPDATE task SET result = NULL WHERE asset = ?",
                "DELETE FROM media_info WHERE asset = ?",
                "DELETE FROM plan WHERE asset = ?",
            ],
            Condition::Stopped => &[],
        };
        for statement in no_longer_needed {
            sql(*statement).bind(seen.id.to_string()).execute(write.connection()).await?;
        }
        self.commit(write).await
    }
}

async fn find(connection: &mut Connection, id: AssetId) -> Result<Option<AssetRow>, CatalogError> {
    let found = sql(format!("{ASSET_SELECT} WHERE asset.id = ?"))
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    found.as_ref().map(AssetRow::read).transpose()
}

pub(crate) async fn require(connection: &mut Connection, id: AssetId) -> Result<AssetRow, CatalogError> {
    find(connection, id).await?.ok_or_else(|| CatalogError::not_found("asset", id))
}

/// The one way in which a stored asset changes state. `kind`: the event to publish when it did change.
pub(crate) async fn move_asset(
    write: &mut Write,
    asset: &mut AssetRow,
    event: AssetEvent,
    kind: Option<EventKind>,
    mut data: serde_json::Value,
    now_ms: i64,
) -> Result<(), CatalogError> {
    let from = asset.state;
    asset.state = asset_state::next(from, event)?;
    asset.updated_ms = now_ms;
    sql("UPDATE asset SET state = ?, updated_ms = ? WHERE id = ?")
        .bind(asset.state.as_str())
        .bind(now_ms)
        .bind(asset.id.to_string())
        .execute(write.connection())
        .await?;
    let Some(kind) = kind.filter(|_| from != asset.state) else {
        return Ok(());
    };
    data["state"] = json!(asset.state);
    data["from"] = json!(from);
    write.emit(NewEvent {
        at_ms: now_ms,
        tenant: asset.tenant,
        kind,
        upload: asset.upload,
        asset: Some(asset.id),
        task: None,
        data,
    });
    Ok(())
}

/// Takes it off the air and leaves a tombstone; the sweep removes the files. Work and files that another asset with the
/// same bytes needs stay.
pub(crate) async fn delete(write: &mut Write, asset: &mut AssetRow, now_ms: i64) -> Result<(), CatalogError> {
    if !content::others_wait(write.connection(), asset).await? {
        cancel_open_tasks(write, asset.content(), now_ms).await?;
    }
    publications::withdraw(write, asset.id, now_ms).await?;
    sql("UPDATE asset SET swept_ms = NULL WHERE id = ?")
        .bind(asset.id.to_string())
        .execute(write.connection())
        .await?;
    move_asset(write, asset, AssetEvent::Delete, Some(EventKind::ASSET_DELETED), json!({}), now_ms).await?;
    content::sweep_owner_again(write, asset.content(), now_ms).await
}

pub(crate) async fn cancel(write: &mut Write, asset: &mut AssetRow, now_ms: i64) -> Result<(), CatalogError> {
    move_asset(write, asset, AssetEvent::Cancel, Some(EventKind::ASSET_CANCELLED), json!({}), now_ms).await?;
    content::sweep_owner_again(write, asset.content(), now_ms).await?;
    if content::others_wait(write.connection(), asset).await? {
        return Ok(());
    }
    cancel_open_tasks(write, asset.content(), now_ms).await
}

pub(crate) async fn retry(write: &mut Write, asset: &mut AssetRow, now_ms: i64) -> Result<(), CatalogError> {
    let content = asset.content();
    let at_work = content::others_wait(write.connection(), asset).await?;
    let mut failed_with_it = content::members(write.connection(), content).await?;
    failed_with_it.retain(|other| other.id != asset.id && other.state == AssetState::Failed);
    revive(write, asset, now_ms).await?;
    for other in &mut failed_with_it {
        revive(write, other, now_ms).await?;
    }
    content::sweep_owner_again(write, content, now_ms).await?;
    // Published meanwhile for another asset, there is nothing to do again; being made for another, neither.
    let published = content::published(write.connection(), content).await?.is_some();
    if !published && !at_work {
        retry_tasks(write, content, now_ms).await?;
    }
    content::catch_up(write, asset, now_ms).await?;
    for other in &mut failed_with_it {
        content::catch_up(write, other, now_ms).await?;
    }
    Ok(())
}

async fn revive(write: &mut Write, asset: &mut AssetRow, now_ms: i64) -> Result<(), CatalogError> {
    move_asset(write, asset, AssetEvent::Retry, Some(EventKind::ASSET_RETRIED), json!({}), now_ms).await?;
    sql("UPDATE asset SET failure = NULL, swept_ms = NULL WHERE id = ?")
        .bind(asset.id.to_string())
        .execute(write.connection())
        .await?;
    asset.failure = None;
    Ok(())
}

async fn retry_tasks(write: &mut Write, content: AssetId, now_ms: i64) -> Result<(), CatalogError> {
    let mut all = tasks::of_asset_locked(write.connection(), content).await?;
    // Publish last: whether it has to wait depends on what the others became.
    all.sort_by_key(|task| task.kind == TaskKind::Publish);
    for task in &mut all {
        if matches!(task.state, TaskState::Dead | TaskState::Cancelled) {
            tasks::retry_with_counters_reset(write, task, now_ms).await?;
        }
    }
    Ok(())
}

/// A task that the asset cannot do without is dead: every asset that waited has failed, and the rest of the work is
/// pointless.
pub(crate) async fn fail_with(write: &mut Write, task: &TaskRow, now_ms: i64) -> Result<(), CatalogError> {
    let Some(failure) = &task.failure else {
        return Err(CatalogError::Unreadable {
            what: "task",
            reason: format!("{} died without a failure", task.id),
        });
    };
    let message = failure.code.for_creator_at_last();
    for mut asset in content::open_members(write.connection(), task.asset).await? {
        sql("UPDATE asset SET failure = ? WHERE id = ?")
            .bind(to_json("failure", failure)?)
            .bind(asset.id.to_string())
            .execute(write.connection())
            .await?;
        let data = json!({ "code": failure.code, "message": message, "task_kind": task.kind });
        move_asset(write, &mut asset, AssetEvent::Fail, Some(EventKind::ASSET_FAILED), data, now_ms).await?;
    }
    content::sweep_owner_again(write, task.asset, now_ms).await?;
    cancel_open_tasks(write, task.asset, now_ms).await
}

/// A task that the asset can do without is dead: say so and go on.
pub(crate) async fn warn_without(write: &mut Write, task: &TaskRow) -> Result<(), CatalogError> {
    let sentence = match task.kind {
        TaskKind::Audio => "The sound of this video could not be processed, so it plays without sound.",
        TaskKind::Stills => "No preview pictures could be made for this video.",
        TaskKind::Probe | TaskKind::Encode | TaskKind::Publish => {
            "A part of this video could not be processed."
        }
    };
    warn_all(write, task.asset, &[sentence.to_owned()]).await
}

/// Warnings are about the content: every asset of it gets them, and so does one that joins later.
pub(crate) async fn warn_all(
    write: &mut Write,
    owner: AssetId,
    warnings: &[String],
) -> Result<(), CatalogError> {
    for mut asset in content::members(write.connection(), owner).await? {
        add_warnings(write, &mut asset, warnings).await?;
    }
    Ok(())
}

/// Adds what is not there yet.
async fn add_warnings(
    write: &mut Write,
    asset: &mut AssetRow,
    warnings: &[String],
) -> Result<(), CatalogError> {
    let before = asset.warnings.len();
    for warning in warnings {
        if asset.warnings.len() < MAX_WARNINGS && !asset.warnings.contains(warning) {
            asset.warnings.push(warning.clone());
        }
    }
    if asset.warnings.len() > before {
        sql("UPDATE asset SET warnings = ? WHERE id = ?")
            .bind(to_json("warnings", &asset.warnings)?)
            .bind(asset.id.to_string())
            .execute(write.connection())
            .await?;
    }
    Ok(())
}

async fn cancel_open_tasks(write: &mut Write, asset: AssetId, now_ms: i64) -> Result<(), CatalogError> {
    for mut task in tasks::of_asset_locked(write.connection(), asset).await? {
        if !task.state.is_terminal() {
            tasks::move_task(write, &mut task, TaskEvent::Cancel, now_ms).await?;
        }
    }
    Ok(())
}
