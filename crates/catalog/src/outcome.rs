//! How an attempt ended, and what follows from it in the same transaction. Every method is conditional on the attempt
//! and safe to repeat.

use crate::sql::sql;
use crate::{
    Catalog, CatalogError, EventKind, TaskRow, assets,
    content::{self, Published},
    leases::settle_failure,
    publications,
    rows::{signed, to_json},
    store::Write,
    tasks,
};
use reelyard_model::{
    Failure, MediaInfo, Plan, PlaybackId, TaskId, TaskState,
    asset_state::AssetEvent,
    retry_policy::{self, WhatNext},
    task_state::{self, TaskEvent},
    work::{TaskKind, TaskResult},
};
use serde_json::json;

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Stored, with all that follows from it.
    Now,
    /// Stored before: the same report came twice.
    Before,
    /// Somebody cancelled meanwhile: nothing was written.
    Cancelled,
    /// The lease is another's, or over: nothing was written.
    Lost,
    /// Chunks of one asset have to come from one encoder, and others were made with another: nothing was written.
    OtherEncoder,
    /// It is the result of another kind of task: nothing was written.
    OtherKind,
}

#[derive(Clone, Debug)]
pub struct NewTask {
    pub id: TaskId,
    pub kind: TaskKind,
    pub ordinal: u32,
    pub required: bool,
    pub priority: i32,
    /// Tasks that have to end first, of the same batch or older.
    pub needs: Vec<TaskId>,
}

#[derive(Clone, Debug)]
pub struct NewRendition {
    pub name: String,
    /// `video` or `audio`.
    pub kind: &'static str,
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub max_bit_rate: u64,
}

/// A probe that worked: facts, plan, and the tasks that come of it.
#[derive(Clone, Debug)]
pub struct CompletedProbe {
    pub task: TaskId,
    pub attempt: u32,
    pub info: MediaInfo,
    pub plan: Plan,
    pub tasks: Vec<NewTask>,
    pub renditions: Vec<NewRendition>,
    /// Kept only when the asset has none yet.
    pub playback_id: PlaybackId,
    /// What the plan was made with, as a digest of the preset.
    pub recipe: String,
    pub now_ms: i64,
}

/// An encode, audio or stills task that worked.
#[derive(Clone, Debug)]
pub struct CompletedTask {
    pub task: TaskId,
    pub attempt: u32,
    pub result: TaskResult,
    /// For the creator; added to the asset's.
    pub warnings: Vec<String>,
    pub now_ms: i64,
}

#[derive(Clone, Debug)]
pub struct PublishedRendition {
    pub name: String,
    pub codecs: String,
    pub byte_len: u64,
}

/// All files lie under `prefix`, durable: from this transaction on they play.
#[derive(Clone, Debug)]
pub struct CompletedPublish {
    pub task: TaskId,
    pub attempt: u32,
    pub prefix: String,
    pub summary: serde_json::Value,
    pub renditions: Vec<PublishedRendition>,
    pub now_ms: i64,
}

#[derive(Clone, Debug)]
pub struct FailedTask {
    pub task: TaskId,
    pub attempt: u32,
    pub failure: Failure,
    /// Uniform over u32, for the back-off.
    pub random: u32,
    pub now_ms: i64,
}

impl Catalog {
    pub async fn complete_probe(&self, done: CompletedProbe) -> Result<Settled, CatalogError> {
        self.until_not_taken_back(|| self.complete_probe_once(&done)).await
    }

    async fn complete_probe_once(&self, done: &CompletedProbe) -> Result<Settled, CatalogError> {
        let mut write = self.write().await?;
        let mut task = match leased_as(&mut write, done.task, done.attempt, TaskEvent::Complete).await? {
            Ok(task) => task,
            Err(settled) => return Ok(settled),
        };
        store_done(&mut write, &mut task, done.now_ms).await?;
        store_media_info(&mut write, &task, &done.info, done.now_ms).await?;
        sql("INSERT INTO plan (asset, plan, created_ms) VALUES (?, ?, ?)
             ON CONFLICT (asset) DO UPDATE SET plan = excluded.plan, created_ms = excluded.created_ms")
        .bind(task.asset.to_string())
        .bind(to_json("plan", &done.plan)?)
        .bind(done.now_ms)
        .execute(write.connection())
        .await?;
        for rendition in &done.renditions {
            insert_rendition(&mut write, &task, rendition).await?;
        }
        publications::prepare(&mut write, task.asset, done.playback_id, done.now_ms).await?;
        let owner = tasks::TaskOwner {
            asset: task.asset,
            tenant: task.tenant,
            tier: task.tier,
            traceparent: &task.traceparent,
            now_ms: done.now_ms,
        };
        tasks::insert_tasks(&mut write, &owner, &done.tasks).await?;
        sql("UPDATE asset SET recipe = ?1 WHERE id = ?2 OR content_of = ?2")
            .bind(&done.recipe)
            .bind(task.asset.to_string())
            .execute(write.connection())
            .await?;
        assets::warn_all(&mut write, task.asset, &done.info.warnings).await?;
        let data = json!({ "duration_us": done.plan.duration_us, "tasks": done.tasks.len() });
        for mut asset in content::open_members(write.connection(), task.asset).await? {
            let (kind, data) = (Some(EventKind::ASSET_PLANNED), data.clone());
            assets::move_asset(&mut write, &mut asset, AssetEvent::Planned, kind, data, done.now_ms).await?;
        }
        self.commit(write).await?;
        Ok(Settled::Now)
    }

    /// One of [`Catalog::complete_tasks`].
    pub async fn complete_task(&self, done: CompletedTask) -> Result<Settled, CatalogError> {
        let task = done.task;
        let stored = self.complete_tasks(vec![done]).await?;
        stored.first().map(|one| one.settled).ok_or_else(|| CatalogError::not_found("task", task))
    }

    /// The one conditional update that publishes: for every asset that waited for it.
    pub async fn complete_publish(&self, done: CompletedPublish) -> Result<Settled, CatalogError> {
        self.until_not_taken_back(|| self.complete_publish_once(&done)).await
    }

    async fn complete_publish_once(&self, done: &CompletedPublish) -> Result<Settled, CatalogError> {
        let mut write = self.write().await?;
        let mut task = match leased_as(&mut write, done.task, done.attempt, TaskEvent::Complete).await? {
            Ok(task) => task,
            Err(settled) => return Ok(settled),
        };
        store_done(&mut write, &mut task, done.now_ms).await?;
        for rendition in &done.renditions {
            sql("UPDATE rendition SET codecs = ?, byte_len = ? WHERE asset = ? AND name = ?")
                .bind(&rendition.codecs)
                .bind(signed(rendition.byte_len))
                .bind(task.asset.to_string())
                .bind(&rendition.name)
                .execute(write.connection())
                .await?;
        }
        let published = Published {
            attempt: done.attempt,
            prefix: done.prefix.clone(),
            summary: Some(done.summary.clone()),
        };
        for mut asset in content::open_members(write.connection(), task.asset).await? {
            content::make_ready(&mut write, &mut asset, &published, done.now_ms).await?;
        }
        content::sweep_owner_again(&mut write, task.asset, done.now_ms).await?;
        self.commit(write).await?;
        Ok(Settled::Now)
    }

    /// Tried again after a while, or given up, as the retry policy says.
    pub async fn fail_task(&self, failed: FailedTask) -> Result<Settled, CatalogError> {
        self.until_not_taken_back(|| self.fail_task_once(&failed)).await
    }

    async fn fail_task_once(&self, failed: &FailedTask) -> Result<Settled, CatalogError> {
        let mut write = self.write().await?;
        let mut task = match leased_as(&mut write, failed.task, failed.attempt, TaskEvent::FailForNow).await?
        {
            Ok(task) => task,
            Err(settled) => return Ok(settled),
        };
        task.failed_count += 1;
        sql("UPDATE task SET failed_count = ? WHERE id = ?")
            .bind(task.failed_count)
            .bind(task.id.to_string())
            .execute(write.connection())
            .await?;
        let what_next = retry_policy::after_failure(failed.failure.class(), task.failed_count, failed.random);
        let event = match what_next {
            WhatNext::RetryAfter { .. } => TaskEvent::FailForNow,
            WhatNext::GiveUp => TaskEvent::FailForGood,
        };
        settle_failure(&mut write, &mut task, failed.failure.clone(), event, what_next, failed.now_ms)
            .await?;
        self.commit(write).await?;
        Ok(Settled::Now)
    }
}

/// The task, when the attempt may still speak for it; else what to answer.
async fn leased_as(
    write: &mut Write,
    id: TaskId,
    attempt: u32,
    event: TaskEvent,
) -> Result<Result<TaskRow, Settled>, CatalogError> {
    write.lock_content_of_task(id).await?;
    let task = tasks::require(write.connection(), id).await?;
    Ok(match refusal(&task, attempt, event) {
        Some(settled) => Err(settled),
        None => Ok(task),
    })
}

/// What to answer where the attempt may not speak for the task any more.
pub(crate) fn refusal(task: &TaskRow, attempt: u32, event: TaskEvent) -> Option<Settled> {
    if task.attempt != attempt {
        let is_fenced = !reelyard_crash_points::switched_off!("without-fencing");
        return is_fenced.then_some(Settled::Lost);
    }
    if task_state::next(task.state, event).is_ok() {
        return None;
    }
    let completing = event == TaskEvent::Complete;
    Some(match task.state {
        TaskState::Cancelled => Settled::Cancelled,
        TaskState::Done if completing => Settled::Before,
        TaskState::RetryWait | TaskState::Dead if !completing => Settled::Before,
        _ => Settled::Lost,
    })
}

/// A probe or a publishing that worked: what it found or made is kept elsewhere.
async fn store_done(write: &mut Write, task: &mut TaskRow, now_ms: i64) -> Result<(), CatalogError> {
    task.failure = None;
    task.done_attempt = Some(task.attempt);
    sql(
        "UPDATE task SET result = NULL, done_attempt = ?, failure = NULL, done_us = GREATEST(done_us, total_us)
         WHERE id = ?",
    )
    .bind(task.attempt)
    .bind(task.id.to_string())
    .execute(write.connection())
    .await?;
    tasks::move_task(write, task, TaskEvent::Complete, now_ms).await
}

async fn store_media_info(
    write: &mut Write,
    task: &TaskRow,
    info: &MediaInfo,
    now_ms: i64,
) -> Result<(), CatalogError> {
    sql("INSERT INTO media_info (asset, info, created_ms) VALUES (?, ?, ?)
         ON CONFLICT (asset) DO UPDATE SET info = excluded.info, created_ms = excluded.created_ms")
    .bind(task.asset.to_string())
    .bind(to_json("media_info", info)?)
    .bind(now_ms)
    .execute(write.connection())
    .await?;
    let mut facts = info.clone();
    for track in &mut facts.video {
        track.keyframes.clear();
    }
    sql("UPDATE asset SET media_facts = ?1 WHERE id = ?2 OR content_of = ?2")
        .bind(to_json("media_facts", &facts)?)
        .bind(task.asset.to_string())
        .execute(write.connection())
        .await?;
    Ok(())
}

async fn insert_rendition(
    write: &mut Write,
    task: &TaskRow,
    rendition: &NewRendition,
) -> Result<(), CatalogError> {
    sql("INSERT INTO rendition (asset, name, kind, width, height, max_bit_rate) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (asset, name) DO NOTHING")
    .bind(task.asset.to_string())
    .bind(&rendition.name)
    .bind(rendition.kind)
    .bind(rendition.width)
    .bind(rendition.height)
    .bind(signed(rendition.max_bit_rate))
    .execute(write.connection())
    .await?;
    Ok(())
}
