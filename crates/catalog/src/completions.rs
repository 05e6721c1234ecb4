//! Finished encode, audio and stills tasks, many at a time. A node gathers the reports of its workers for a moment
//! (`src/flow/desk`) and stores them together: one transaction, one answer for each.
//!
//! Each is conditional on its attempt and safe to repeat, as if it had come alone: a report that does not count is
//! answered so and keeps none of the others back.

use crate::{
    Catalog, CatalogError, CompletedTask, EventKind, Settled, TaskRow, assets,
    events::NewEvent,
    rows::{text, to_json},
    sql::{Connection, Row, sql},
    store::Write,
    tasks,
};
use reelyard_crash_points::switched_off;
use reelyard_model::{
    AssetId, TaskId, TaskState,
    task_state::{self, TaskEvent},
    work::{TaskKind, TaskResult},
};
use serde_json::json;
use std::collections::{BTreeSet, HashMap};

/// What became of a report.
#[derive(Clone, Debug)]
pub struct Stored {
    pub settled: Settled,
    /// As it is now.
    pub task: TaskRow,
    /// Tasks that waited for this one, or for another of the same transaction, became ready.
    pub unblocked: bool,
}

/// A report that counts.
struct Counts {
    task: TaskRow,
    result: String,
    warnings: Vec<String>,
    now_ms: i64,
}

impl Catalog {
    /// In the order of the reports.
    pub async fn complete_tasks(&self, reports: Vec<CompletedTask>) -> Result<Vec<Stored>, CatalogError> {
        if reports.is_empty() {
            return Ok(Vec::new());
        }
        self.until_not_taken_back(|| self.complete_tasks_once(&reports)).await
    }

    async fn complete_tasks_once(&self, reports: &[CompletedTask]) -> Result<Vec<Stored>, CatalogError> {
        let mut write = self.write().await?;
        let (mut known, mut encoders) = lock(write.connection(), reports).await?;
        let mut stored = Vec::with_capacity(reports.len());
        let mut counting = Vec::new();
        for report in reports {
            let Some(task) = known.get_mut(&report.task) else {
                return Err(CatalogError::not_found("task", report.task));
            };
            let verdict = judge(task, report, &mut encoders)?;
            if verdict == Settled::Now {
                if switched_off!("without-fencing") {
                    task.state = TaskState::Leased;
                }
                task.state = task_state::next(task.state, TaskEvent::Complete)?;
                task.failure = None;
                task.done_attempt = Some(report.attempt);
                counting.push(Counts {
                    result: to_json("result", &report.result)?,
                    task: task.clone(),
                    warnings: report.warnings.clone(),
                    now_ms: report.now_ms,
                });
            }
            stored.push(Stored { settled: verdict, task: task.clone(), unblocked: false });
        }
        if counting.is_empty() {
            return Ok(stored);
        }
        store(&mut write, &counting).await?;
        for (asset, encoder) in encoders.iter().filter_map(|(asset, used)| Some((asset, used.new.as_ref()?)))
        {
            sql("UPDATE asset SET encoder = ? WHERE id = ? AND encoder IS NULL")
                .bind(encoder)
                .bind(*asset)
                .execute(write.connection())
                .await?;
        }
        for done in counting.iter().filter(|done| !done.warnings.is_empty()) {
            assets::warn_all(&mut write, done.task.asset, &done.warnings).await?;
        }
        let unblocked = unblock(&mut write, &counting).await?;
        self.commit(write).await?;
        for one in &mut stored {
            one.unblocked = unblocked && one.settled == Settled::Now;
        }
        Ok(stored)
    }
}

/// The encoder of an asset's chunks.
#[derive(Default)]
struct Encoder {
    stored: Option<String>,
    /// Said by the first chunk, in this batch.
    new: Option<String>,
}

/// The tasks as they are, and the encoders of their assets, which are locked before them: whoever changes an asset takes
/// its row first.
async fn lock(
    connection: &mut Connection,
    reports: &[CompletedTask],
) -> Result<(HashMap<TaskId, TaskRow>, HashMap<AssetId, Encoder>), CatalogError> {
    let ids: BTreeSet<TaskId> = reports.iter().map(|report| report.task).collect();
    let mut query = sql("SELECT id, encoder FROM asset WHERE id IN (SELECT asset FROM task WHERE id");
    query.push_in(ids.iter().copied()).push(") ORDER BY id");
    let owners = query.for_update().fetch_all(&mut *connection).await?;
    let encoder = |row: &Row| Ok((text(row, "id")?, Encoder { stored: row.get("encoder")?, new: None }));
    let encoders = owners.iter().map(encoder).collect::<Result<_, CatalogError>>()?;
    let mut query = sql("SELECT * FROM task WHERE id");
    query.push_in(ids.iter().copied()).push(" ORDER BY id");
    let found = query.for_update().fetch_all(connection).await?;
    let tasks = found.iter().map(|row| TaskRow::read(row).map(|task| (task.id, task)));
    Ok((tasks.collect::<Result<_, CatalogError>>()?, encoders))
}

/// Whether the attempt may still speak for the task.
fn judge(
    task: &TaskRow,
    report: &CompletedTask,
    encoders: &mut HashMap<AssetId, Encoder>,
) -> Result<Settled, CatalogError> {
    if let Some(verdict) = crate::outcome::refusal(task, report.attempt, TaskEvent::Complete) {
        return Ok(verdict);
    }
    match (task.kind, &report.result) {
        (TaskKind::Encode | TaskKind::Audio, TaskResult::Encoded { .. })
        | (TaskKind::Stills, TaskResult::Stills { .. }) => {}
        _ => return Ok(Settled::OtherKind),
    }
    if let (TaskKind::Encode, TaskResult::Encoded { encoder, .. }) = (task.kind, &report.result) {
        let used = encoders.entry(task.asset).or_default();
        match used.stored.as_ref().or(used.new.as_ref()) {
            Some(other) if other != encoder => return Ok(Settled::OtherEncoder),
            Some(_) => {}
            None => used.new = Some(encoder.clone()),
        }
    }
    Ok(Settled::Now)
}

async fn store(write: &mut Write, counting: &[Counts]) -> Result<(), CatalogError> {
    let mut query = sql(
        "UPDATE task SET state = 'done', result = given.column2, done_attempt = given.column3, failure = NULL, worker = NULL,
         lease_until_ms = NULL, done_us = GREATEST(done_us, total_us), updated_ms = ",
    );
    let now_ms = counting.iter().map(|done| done.now_ms).max().unwrap_or_default();
    query.push_bind(now_ms).push(", finished_ms = ").push_bind(now_ms).push(" FROM ");
    let row = |done: &Counts| {
        let task = &done.task;
        [task.id.into(), (&done.result).into(), task.done_attempt.unwrap_or(task.attempt).into()]
    };
    query.push_rows(counting.iter().map(row).collect(), "given").push(" WHERE task.id = given.column1");
    query.execute(write.connection()).await?;
    for Counts { task, .. } in counting {
        write.emit(NewEvent {
            at_ms: now_ms,
            tenant: task.tenant,
            kind: EventKind::TASK_CHANGED,
            upload: None,
            asset: Some(task.asset),
            task: Some(task.id),
            data: json!({
                "kind": task.kind, "ordinal": task.ordinal, "state": task.state, "from": TaskState::Leased,
                "attempt": task.attempt, "failure": null,
            }),
        });
    }
    Ok(())
}

/// Tasks that waited for these, and for nothing else any more, become ready. False: there was none.
async fn unblock(write: &mut Write, counting: &[Counts]) -> Result<bool, CatalogError> {
    // A need that is still open is looked for from the end: tasks are done about in the order in which they were made, so
    // it is mostly found at once. A subquery with a limit is never turned into a join over all needs there are.
    let mut query = sql("SELECT task.id FROM task WHERE task.state = 'blocked' AND task.id IN
         (SELECT task_need.task FROM task_need WHERE task_need.needs");
    query.push_in(counting.iter().map(|done| done.task.id)).push(
        ") AND (SELECT other.needs FROM task_need AS other JOIN task AS needed ON needed.id = other.needs
            WHERE other.task = task.id AND NOT (needed.state = 'done'
                OR (needed.required = 0 AND needed.state IN ('dead', 'cancelled')))
            ORDER BY other.needs DESC LIMIT 1) IS NULL
         ORDER BY task.id",
    );
    let waiting: Vec<String> = query.scalars(write.connection()).await?;
    let now_ms = counting.iter().map(|done| done.now_ms).max().unwrap_or_default();
    let any = !waiting.is_empty();
    for id in waiting {
        let id = id
            .parse()
            .map_err(|error| CatalogError::Unreadable { what: "task", reason: format!("{id:?}: {error}") })?;
        let mut dependent = tasks::require(write.connection(), id).await?;
        tasks::move_task(write, &mut dependent, TaskEvent::Unblock, now_ms).await?;
    }
    Ok(any)
}
