//! What people do to work and to videos: cancel, try again, try many again at once, delete. Each writes its audit line in
//! the transaction that does it, so nothing is done without a line and no line tells of what was not done.
//!
//! Called by `src/http` for whoever asked. All of it is safe to repeat: what is done already is told as it is, without a
//! second line. What work there is for one content is shared by all assets of the same bytes (`content`), and so are
//! the consequences here.

use crate::{
    Actor, AssetRow, AuditAction, Catalog, CatalogError, Condition, TaskRow, assets,
    audit::{self, NewAudit},
    content,
    rows::TASK_LIST_COLUMNS,
    sql::sql,
    store::Write,
    tasks,
};
use reelyard_model::{
    AssetId, AssetState, FailureCode, TaskId, TaskState, TenantId, state::Refused, task_state::TaskEvent,
    work::TaskKind,
};
use serde_json::{Value, json};

/// Jobs that one replay brings back at most: each is a transaction of a few milliseconds, and a request should end
/// within seconds. For more, the same call is made again.
pub const MAX_REPLAYED: u32 = 500;

/// Which dead letters.
#[derive(Clone, Debug)]
pub struct ReplayFilter {
    pub tenant: TenantId,
    /// Empty: any.
    pub kinds: Vec<TaskKind>,
    /// What they were given up for. Empty: anything.
    pub codes: Vec<FailureCode>,
    /// Given up at this time or later.
    pub since_ms: Option<i64>,
    pub asset: Option<AssetId>,
    /// At most so many, and at most [`MAX_REPLAYED`].
    pub limit: u32,
}

#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Back in line, oldest first.
    pub jobs: Vec<TaskId>,
    /// That came back with another one of the same asset, or that somebody else was quicker with.
    pub back_already: u32,
    /// There are more than the limit.
    pub more: bool,
}

impl Catalog {
    /// Stops one task. When its assets cannot do without it, all that wait for it are cancelled; else they go on.
    /// Safe to repeat.
    pub async fn cancel_task(&self, id: TaskId, actor: &Actor, now_ms: i64) -> Result<TaskRow, CatalogError> {
        self.until_not_taken_back(|| self.cancel_task_once(id, actor, now_ms)).await
    }

    async fn cancel_task_once(
        &self,
        id: TaskId,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<TaskRow, CatalogError> {
        let mut write = self.write().await?;
        write.lock_content_of_task(id).await?;
        let mut task = tasks::require(write.connection(), id).await?;
        if task.state == TaskState::Cancelled {
            return Ok(task);
        }
        let from = task.state;
        tasks::move_task(&mut write, &mut task, TaskEvent::Cancel, now_ms).await?;
        if task.required {
            // The last of them cancels the rest of the work.
            for mut asset in content::open_members(write.connection(), task.asset).await? {
                assets::cancel(&mut write, &mut asset, now_ms).await?;
            }
        } else {
            tasks::unblock_dependents(&mut write, &task, now_ms).await?;
        }
        let line = Line { action: AuditAction::JOB_CANCELLED, subject: id.to_string(), tenant: task.tenant };
        line.write(&mut write, actor, about(&task, from), now_ms).await?;
        self.commit(write).await?;
        Ok(task)
    }

    /// Another try for a task that waits for one or was given up. Where the asset was given up with it, the whole
    /// asset is tried again: what is done stays done. Refused for a part that publishing has gone on without: by then
    /// the outputs of the others may be gone.
    pub async fn retry_task(&self, id: TaskId, actor: &Actor, now_ms: i64) -> Result<TaskRow, CatalogError> {
        self.until_not_taken_back(|| self.retry_task_once(id, actor, now_ms)).await
    }

    async fn retry_task_once(&self, id: TaskId, actor: &Actor, now_ms: i64) -> Result<TaskRow, CatalogError> {
        let mut write = self.write().await?;
        write.lock_content_of_task(id).await?;
        let task = tasks::require(write.connection(), id).await?;
        self.retry_locked(write, task, actor, now_ms).await
    }

    /// In a transaction that holds the task and its content.
    async fn retry_locked(
        &self,
        mut write: Write,
        mut task: TaskRow,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<TaskRow, CatalogError> {
        let told = about(&task, task.state);
        bring_back(&mut write, std::slice::from_mut(&mut task), now_ms).await?;
        let line =
            Line { action: AuditAction::JOB_RETRIED, subject: task.id.to_string(), tenant: task.tenant };
        line.write(&mut write, actor, told, now_ms).await?;
        self.commit(write).await?;
        Ok(task)
    }

    /// Stops all work on it, unless other assets with the same bytes wait for that too. Safe to repeat; refused once it
    /// is ready.
    pub async fn cancel_asset(
        &self,
        id: AssetId,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<AssetRow, CatalogError> {
        self.until_not_taken_back(|| self.cancel_asset_once(id, actor, now_ms)).await
    }

    async fn cancel_asset_once(
        &self,
        id: AssetId,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<AssetRow, CatalogError> {
        let mut write = self.write().await?;
        write.lock_content_of(id).await?;
        let mut asset = assets::require(write.connection(), id).await?;
        let from = asset.state;
        assets::cancel(&mut write, &mut asset, now_ms).await?;
        if asset.state != from {
            let line =
                Line { action: AuditAction::ASSET_CANCELLED, subject: id.to_string(), tenant: asset.tenant };
            line.write(&mut write, actor, json!({ "from": from }), now_ms).await?;
        }
        self.commit(write).await?;
        Ok(asset)
    }

    /// Stops all work, takes it off the air and leaves a tombstone. Work and files that another asset with the same bytes
    /// needs stay. Safe to repeat.
    pub async fn delete_asset(
        &self,
        id: AssetId,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<AssetRow, CatalogError> {
        self.until_not_taken_back(|| self.delete_asset_once(id, actor, now_ms)).await
    }

    async fn delete_asset_once(
        &self,
        id: AssetId,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<AssetRow, CatalogError> {
        let mut write = self.write().await?;
        write.lock_content_of(id).await?;
        let mut asset = assets::require(write.connection(), id).await?;
        let from = asset.state;
        if from == AssetState::Deleted {
            return Ok(asset);
        }
        assets::delete(&mut write, &mut asset, now_ms).await?;
        let line = Line { action: AuditAction::ASSET_DELETED, subject: id.to_string(), tenant: asset.tenant };
        line.write(&mut write, actor, json!({ "title": asset.title, "from": from }), now_ms).await?;
        self.commit(write).await?;
        Ok(asset)
    }

    /// Another try for all that died or was cancelled; what is done stays done. Assets with the same bytes that failed
    /// with it get the other try too.
    pub async fn retry_asset(
        &self,
        id: AssetId,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<AssetRow, CatalogError> {
        self.until_not_taken_back(|| self.retry_asset_once(id, actor, now_ms)).await
    }

    async fn retry_asset_once(
        &self,
        id: AssetId,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<AssetRow, CatalogError> {
        let mut write = self.write().await?;
        write.lock_content_of(id).await?;
        let mut asset = assets::require(write.connection(), id).await?;
        let told =
            json!({ "from": asset.state, "failure": asset.failure.as_ref().map(|failure| failure.code) });
        assets::retry(&mut write, &mut asset, now_ms).await?;
        let line = Line { action: AuditAction::ASSET_RETRIED, subject: id.to_string(), tenant: asset.tenant };
        line.write(&mut write, actor, told, now_ms).await?;
        self.commit(write).await?;
        Ok(asset)
    }

    /// Another try for all that makes one rendition and was given up or cancelled: the sound's one task, or of a video
    /// rendition the chunks, which make all of them at once. Where the asset was given up, the whole asset is tried
    /// again, as by [`Catalog::retry_task`]. Nothing that needs it: an empty list, and no line.
    pub async fn retry_rendition(
        &self,
        asset: AssetId,
        name: &str,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<Vec<TaskRow>, CatalogError> {
        self.until_not_taken_back(|| self.retry_rendition_once(asset, name, actor, now_ms)).await
    }

    async fn retry_rendition_once(
        &self,
        id: AssetId,
        name: &str,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<Vec<TaskRow>, CatalogError> {
        let mut write = self.write().await?;
        write.lock_content_of(id).await?;
        let asset = assets::require(write.connection(), id).await?;
        let kind: Option<String> = sql("SELECT kind FROM rendition WHERE asset IN (?, ?) AND name = ?")
            .bind(id)
            .bind(asset.content())
            .bind(name)
            .scalar_optional(write.connection())
            .await?;
        let made_by = match kind.as_deref() {
            Some("audio") => TaskKind::Audio,
            Some(_) => TaskKind::Encode,
            None => return Err(CatalogError::not_found("rendition", name)),
        };
        let mut given_up = tasks::of_asset_locked(write.connection(), asset.content()).await?;
        given_up.retain(|task| {
            task.kind == made_by && matches!(task.state, TaskState::Dead | TaskState::Cancelled)
        });
        if given_up.is_empty() {
            return Ok(given_up);
        }
        bring_back(&mut write, &mut given_up, now_ms).await?;
        let told =
            json!({ "rendition": name, "jobs": given_up.iter().map(|task| task.id).collect::<Vec<_>>() });
        let line =
            Line { action: AuditAction::RENDITION_REMADE, subject: id.to_string(), tenant: asset.tenant };
        line.write(&mut write, actor, told, now_ms).await?;
        self.commit(write).await?;
        Ok(given_up)
    }

    /// The dead letters that a replay would bring back, oldest first, and whether there are more. Those of assets that
    /// were published without them, or deleted, are none: nobody can do anything about them.
    pub async fn to_replay(&self, filter: &ReplayFilter) -> Result<(Vec<TaskRow>, bool), CatalogError> {
        const OF: &str = "asset IN (SELECT COALESCE(content_of, id) FROM asset WHERE state IN ";
        let limit = filter.limit.clamp(1, MAX_REPLAYED);
        let mut query = sql("SELECT ");
        query.push(TASK_LIST_COLUMNS).push(" FROM task WHERE state = 'dead' AND tenant = ");
        query.push_bind(filter.tenant);
        query.push(" AND (").push(OF).push("('waiting', 'processing')) OR (");
        query.push(OF).push("('failed', 'cancelled')) AND NOT ").push(OF).push("('ready'))))");
        if let Some(asset) = filter.asset {
            query.push(" AND asset = (SELECT COALESCE(content_of, id) FROM asset WHERE id = ");
            query.push_bind(asset).push(")");
        }
        if let Some(since_ms) = filter.since_ms {
            query.push(" AND finished_ms >= ").push_bind(since_ms);
        }
        tasks::push_any_of(&mut query, "kind", filter.kinds.iter().map(|kind| kind.as_str()));
        if !filter.codes.is_empty() {
            query.push_either(" AND failure ->> '$.code'", " AND failure::jsonb ->> 'code'");
            let names = filter.codes.iter().filter_map(|code| json!(code).as_str().map(str::to_owned));
            query.push_in(names);
        }
        query.push(" ORDER BY id LIMIT ").push_bind(i64::from(limit) + 1);
        let found = query.fetch_all(&self.reader).await?;
        let mut rows = found.iter().map(TaskRow::read).collect::<Result<Vec<_>, _>>()?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        Ok((rows, more))
    }

    /// Tries dead letters again, each in a transaction of its own with a line of its own, so that a call that is cut off
    /// has done what it has done, and the same call goes on from there.
    pub async fn replay(
        &self,
        filter: &ReplayFilter,
        actor: &Actor,
        now_ms: i64,
    ) -> Result<Replayed, CatalogError> {
        let (found, more) = self.to_replay(filter).await?;
        let mut replayed = Replayed { more, ..Replayed::default() };
        for task in found {
            match self.until_not_taken_back(|| self.replay_one(&task, actor, now_ms)).await {
                Ok(true) => replayed.jobs.push(task.id),
                // Published or deleted since the look.
                Ok(false) | Err(CatalogError::Refused(_)) => replayed.back_already += 1,
                Err(other) => return Err(other),
            }
        }
        if !replayed.jobs.is_empty() {
            let mut write = self.write().await?;
            let told = json!({
                "jobs": replayed.jobs.len(), "more": more, "kinds": filter.kinds, "codes": filter.codes,
                "since_ms": filter.since_ms, "asset": filter.asset,
            });
            let subject = "jobs".to_owned();
            let line = Line { action: AuditAction::JOBS_REPLAYED, subject, tenant: filter.tenant };
            line.write(&mut write, actor, told, now_ms).await?;
            self.commit(write).await?;
        }
        Ok(replayed)
    }

    async fn replay_one(&self, seen: &TaskRow, actor: &Actor, now_ms: i64) -> Result<bool, CatalogError> {
        let mut write = self.write().await?;
        write.lock_content_of_task(seen.id).await?;
        let task = tasks::require(write.connection(), seen.id).await?;
        if task.state != TaskState::Dead {
            return Ok(false);
        }
        self.retry_locked(write, task, actor, now_ms).await?;
        Ok(true)
    }
}

/// Another try for these tasks of one content, whose lock the caller holds; they are as they became afterwards.
async fn bring_back(write: &mut Write, given_up: &mut [TaskRow], now_ms: i64) -> Result<(), CatalogError> {
    let Some(owner) = given_up.first().map(|task| task.asset) else { return Ok(()) };
    let members = content::members(write.connection(), owner).await?;
    match Condition::of(members.iter().map(|asset| asset.state)) {
        Condition::Stopped => {
            for asset in members {
                // One that had failed with another was brought back with that one.
                let mut asset = assets::require(write.connection(), asset.id).await?;
                if matches!(asset.state, AssetState::Failed | AssetState::Cancelled) {
                    assets::retry(write, &mut asset, now_ms).await?;
                }
            }
            for task in given_up {
                *task = tasks::require(write.connection(), task.id).await?;
            }
            Ok(())
        }
        Condition::InTheMaking => {
            for task in given_up {
                if !task.required && tasks::publishing_has_begun(write.connection(), owner).await? {
                    return Err(Refused { state: PUBLISHING, event: TaskEvent::Retry.as_str() }.into());
                }
                tasks::retry_with_counters_reset(write, task, now_ms).await?;
            }
            Ok(())
        }
        // Published without it, or gone.
        condition @ (Condition::Published | Condition::Gone) => {
            let gone = condition == Condition::Gone;
            let state = if gone { AssetState::Deleted } else { AssetState::Ready };
            Err(Refused { state: state.as_str(), event: TaskEvent::Retry.as_str() }.into())
        }
    }
}

/// The state in a refusal: all that publishing waits for has ended, one way or the other.
const PUBLISHING: &str = "being_published";

/// What a line tells of a task.
fn about(task: &TaskRow, from: TaskState) -> Value {
    json!({
        "asset": task.asset, "kind": task.kind, "ordinal": task.ordinal, "from": from, "attempt": task.attempt,
        "failure": task.failure.as_ref().map(|failure| failure.code),
    })
}

struct Line {
    action: AuditAction,
    subject: String,
    tenant: TenantId,
}

impl Line {
    async fn write(
        self,
        write: &mut Write,
        actor: &Actor,
        data: Value,
        at_ms: i64,
    ) -> Result<(), CatalogError> {
        let Self { action, subject, tenant } = self;
        let new = NewAudit { at_ms, tenant: Some(tenant), actor, action, subject, data };
        audit::write_audit(write.connection(), new).await
    }
}
