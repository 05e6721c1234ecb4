//! Task rows: made with their needs, moved by events, listed.

use crate::rows::TASK_LIST_COLUMNS;
use crate::sql::{Connection, Sql, sql};
use crate::{
    Catalog, CatalogError, Cursor, EventKind, NewTask, Page, TaskRow, events::NewEvent, outbox,
    page::MAX_PAGE_ROWS, store::Write,
};
use reelyard_model::{
    AssetId, TaskId, TaskState, TenantId, Tier,
    task_state::{self, TaskEvent},
    work::TaskKind,
};
use serde_json::json;

#[derive(Clone, Debug)]
pub struct TaskFilter {
    pub tenant: TenantId,
    /// Those that make its content, which may have come with another asset of the same bytes.
    pub asset: Option<AssetId>,
    /// Empty: any.
    pub states: Vec<TaskState>,
    /// Empty: any.
    pub kinds: Vec<TaskKind>,
    pub after: Option<Cursor>,
    pub limit: u32,
}

/// Whose task it is.
pub(crate) struct TaskOwner<'a> {
    pub(crate) asset: AssetId,
    pub(crate) tenant: TenantId,
    pub(crate) tier: Tier,
    pub(crate) traceparent: &'a str,
    pub(crate) now_ms: i64,
}

impl Catalog {
    pub async fn task(&self, id: TaskId) -> Result<Option<TaskRow>, CatalogError> {
        let found =
            sql("SELECT * FROM task WHERE id = ?").bind(id.to_string()).fetch_optional(&self.reader).await?;
        found.as_ref().map(TaskRow::read).transpose()
    }

    /// Newest first. Those of deleted assets only where that asset is asked for: nobody can do anything about them.
    pub async fn list_tasks(&self, filter: &TaskFilter) -> Result<Page<TaskRow>, CatalogError> {
        let limit = filter.limit.clamp(1, MAX_PAGE_ROWS);
        let mut query = sql("SELECT ");
        query.push(TASK_LIST_COLUMNS).push(" FROM task WHERE tenant = ");
        query.push_bind(filter.tenant.to_string());
        if let Some(asset) = filter.asset {
            query.push(" AND asset = (SELECT COALESCE(content_of, id) FROM asset WHERE id = ");
            query.push_bind(asset.to_string()).push(")");
        } else {
            query.push(
                " AND asset NOT IN (SELECT id FROM asset AS owner WHERE state = 'deleted' AND NOT EXISTS
                  (SELECT 1 FROM asset WHERE content_of = owner.id AND state <> 'deleted'))",
            );
        }
        push_any_of(&mut query, "state", filter.states.iter().map(|state| state.as_str()));
        push_any_of(&mut query, "kind", filter.kinds.iter().map(|kind| kind.as_str()));
        if let Some(Cursor(after)) = filter.after {
            query.push(" AND id < ").push_bind(after.to_string());
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit) + 1);
        let found = query.fetch_all(&self.reader).await?;
        let rows = found.iter().map(TaskRow::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(rows, limit, |row| *row.id.as_uuid()))
    }

    /// All tasks of an asset, in the order in which they were made. One that uses another's content has none.
    pub async fn tasks_of_asset(&self, asset: AssetId) -> Result<Vec<TaskRow>, CatalogError> {
        let mut connection = self.reader.acquire().await?;
        of_asset(&mut connection, asset).await
    }

    /// The encoder of the chunks of this asset that are done, if any is.
    pub async fn encoder_in_use(&self, asset: AssetId) -> Result<Option<String>, CatalogError> {
        let found: Option<Option<String>> =
            sql("SELECT encoder FROM asset WHERE id = ?").bind(asset).scalar_optional(&self.reader).await?;
        Ok(found.flatten())
    }
}

pub(crate) fn push_any_of<'a>(query: &mut Sql, column: &'static str, names: impl Iterator<Item = &'a str>) {
    let mut before = " IN (";
    for name in names {
        if before == " IN (" {
            query.push(" AND ").push(column);
        }
        query.push(before).push_bind(name);
        before = ", ";
    }
    if before == ", " {
        query.push(")");
    }
}

/// To be changed: nobody else changes it until the transaction ends.
pub(crate) async fn require(connection: &mut Connection, id: TaskId) -> Result<TaskRow, CatalogError> {
    let found =
        sql("SELECT * FROM task WHERE id = ?").bind(id).for_update().fetch_optional(connection).await?;
    TaskRow::read(found.as_ref().ok_or_else(|| CatalogError::not_found("task", id))?)
}

const OF_ASSET: &str = "SELECT * FROM task WHERE asset = ? ORDER BY created_ms, kind, ordinal, id";

pub(crate) async fn of_asset(
    connection: &mut Connection,
    asset: AssetId,
) -> Result<Vec<TaskRow>, CatalogError> {
    let found = sql(OF_ASSET).bind(asset).fetch_all(connection).await?;
    found.iter().map(TaskRow::read).collect()
}

/// To be changed: no worker gets one, and none is given back, until the transaction ends. By their ids: that is the order
/// in which batches of heartbeats and reports take rows of this table, too.
pub(crate) async fn of_asset_locked(
    connection: &mut Connection,
    asset: AssetId,
) -> Result<Vec<TaskRow>, CatalogError> {
    let found = sql("SELECT * FROM task WHERE asset = ? ORDER BY id")
        .bind(asset)
        .for_update()
        .fetch_all(connection)
        .await?;
    found.iter().map(TaskRow::read).collect()
}

/// Rows of one statement: its values stay below what either database takes.
const INSERTED_AT_ONCE: usize = 500;

/// Ready at once where they need nothing, else blocked.
pub(crate) async fn insert_tasks(
    write: &mut Write,
    owner: &TaskOwner<'_>,
    tasks: &[NewTask],
) -> Result<(), CatalogError> {
    for some in tasks.chunks(INSERTED_AT_ONCE) {
        insert_some(write, owner, some).await?;
    }
    let needs: Vec<(TaskId, TaskId)> =
        tasks.iter().flat_map(|new| new.needs.iter().map(|needed| (new.id, *needed))).collect();
    for some in needs.chunks(INSERTED_AT_ONCE) {
        let mut insert = sql("INSERT INTO task_need (task, needs) SELECT column1, column2 FROM ");
        insert
            .push_rows(some.iter().map(|(task, needed)| [(*task).into(), (*needed).into()]).collect(), "new");
        insert.execute(write.connection()).await?;
    }
    for new in tasks {
        let state = first_state(new);
        write.emit(NewEvent {
            at_ms: owner.now_ms,
            tenant: owner.tenant,
            kind: EventKind::TASK_CHANGED,
            upload: None,
            asset: Some(owner.asset),
            task: Some(new.id),
            data: json!({ "kind": new.kind, "ordinal": new.ordinal, "state": state, "from": null }),
        });
    }
    Ok(())
}

const fn first_state(new: &NewTask) -> TaskState {
    if new.needs.is_empty() { TaskState::Ready } else { TaskState::Blocked }
}

async fn insert_some(
    write: &mut Write,
    owner: &TaskOwner<'_>,
    tasks: &[NewTask],
) -> Result<(), CatalogError> {
    let mut insert = sql(
        "INSERT INTO task (id, kind, ordinal, required, state, priority, ready_ms, attempt, not_before_ms, failed_count,
                           lost_count, done_us, total_us, asset, tenant, tier, traceparent, created_ms, updated_ms)
         SELECT column1, column2, column3, column4, column5, column6, column7, 0, 0, 0, 0, 0, 0, ",
    );
    insert.push_bind(owner.asset).push(", ").push_bind(owner.tenant).push(", ");
    insert.push_bind(owner.tier.as_str()).push(", ").push_bind(owner.traceparent).push(", ");
    insert.push_bind(owner.now_ms).push(", ").push_bind(owner.now_ms).push(" FROM ");
    let row = |new: &NewTask| {
        let state = first_state(new);
        let ready_ms = if state == TaskState::Ready { owner.now_ms } else { 0 };
        [
            new.id.into(),
            new.kind.as_str().into(),
            new.ordinal.into(),
            new.required.into(),
            state.as_str().into(),
            new.priority.into(),
            ready_ms.into(),
        ]
    };
    insert.push_rows(tasks.iter().map(row).collect(), "new");
    insert.execute(write.connection()).await?;
    let ready = tasks.iter().filter(|new| first_state(new) == TaskState::Ready);
    let ready = ready.map(|new| (new.id, new.kind)).collect::<Vec<_>>();
    outbox::write_tickets(write, &ready, owner.tier, owner.traceparent, owner.now_ms).await
}

/// The one way in which a stored task changes state. Leaving the lease clears it; an end is stamped.
pub(crate) async fn move_task(
    write: &mut Write,
    task: &mut TaskRow,
    event: TaskEvent,
    now_ms: i64,
) -> Result<(), CatalogError> {
    let (from, worker) = (task.state, task.worker);
    task.state = task_state::next(from, event)?;
    task.updated_ms = now_ms;
    task.finished_ms = task.state.is_terminal().then_some(now_ms);
    if task.state != TaskState::Leased {
        task.worker = None;
        task.lease_until_ms = None;
    }
    if task.state == TaskState::Ready {
        task.ready_ms = now_ms;
    }
    sql("UPDATE task SET state = ?, worker = ?, lease_until_ms = ?, updated_ms = ?, finished_ms = ?, ready_ms = ?
         WHERE id = ?")
    .bind(task.state.as_str())
    .bind(task.worker)
    .bind(task.lease_until_ms)
    .bind(now_ms)
    .bind(task.finished_ms)
    .bind(task.ready_ms)
    .bind(task.id)
    .execute(write.connection())
    .await?;
    if from == task.state {
        return Ok(());
    }
    match (from, task.state) {
        (_, TaskState::Ready) => {
            outbox::write_tickets(write, &[(task.id, task.kind)], task.tier, &task.traceparent, now_ms)
                .await?;
        }
        (TaskState::Ready, _) => outbox::drop_tickets(write, std::iter::once(task.id)).await?,
        _ => {}
    }
    let failure = task.failure.as_ref().map(|failure| failure.code);
    let mut data = json!({
        "kind": task.kind, "ordinal": task.ordinal, "state": task.state, "from": from,
        "attempt": task.attempt, "failure": failure,
    });
    // The row has forgotten it; whoever has to tell that worker is not to ask.
    if let Some(worker) = worker.filter(|_| from == TaskState::Leased) {
        data["worker"] = json!(worker);
    }
    write.emit(NewEvent {
        at_ms: now_ms,
        tenant: task.tenant,
        kind: EventKind::TASK_CHANGED,
        upload: None,
        asset: Some(task.asset),
        task: Some(task.id),
        data,
    });
    Ok(())
}

/// `Retry` where all needs are met, else `RetryBlocked`; the counters start again, the attempt never does.
pub(crate) async fn retry_with_counters_reset(
    write: &mut Write,
    task: &mut TaskRow,
    now_ms: i64,
) -> Result<(), CatalogError> {
    let event = if needs_met(write.connection(), task.id).await? {
        TaskEvent::Retry
    } else {
        TaskEvent::RetryBlocked
    };
    task.failure = None;
    task.failed_count = 0;
    task.lost_count = 0;
    task.restart_count = 0;
    task.not_before_ms = 0;
    move_task(write, task, event, now_ms).await?;
    sql(
        "UPDATE task SET failure = NULL, failed_count = 0, lost_count = 0, restart_count = 0, not_before_ms = 0,
                         done_us = 0 WHERE id = ?",
    )
    .bind(task.id.to_string())
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Tasks that waited for this one, and for nothing else any more, become ready.
pub(crate) async fn unblock_dependents(
    write: &mut Write,
    task: &TaskRow,
    now_ms: i64,
) -> Result<(), CatalogError> {
    let found = sql("SELECT task.* FROM task JOIN task_need ON task_need.task = task.id
         WHERE task_need.needs = ? AND task.state = 'blocked'")
    .bind(task.id.to_string())
    .fetch_all(write.connection())
    .await?;
    for row in &found {
        let mut dependent = TaskRow::read(row)?;
        if needs_met(write.connection(), dependent.id).await? {
            move_task(write, &mut dependent, TaskEvent::Unblock, now_ms).await?;
        }
    }
    Ok(())
}

/// All that publishing waits for has ended, one way or the other.
pub(crate) async fn publishing_has_begun(
    connection: &mut Connection,
    asset: AssetId,
) -> Result<bool, CatalogError> {
    let begun: i64 = sql(
        "SELECT COUNT(*) FROM task WHERE asset = ? AND kind = 'publish' AND state IN ('ready', 'leased', 'retry_wait')",
    )
    .bind(asset.to_string())
    .scalar(connection)
    .await?;
    Ok(begun > 0)
}

/// A need is met when it is done, or when it ended otherwise and the asset can do without it.
async fn needs_met(connection: &mut Connection, task: TaskId) -> Result<bool, CatalogError> {
    let open: i64 = sql("SELECT COUNT(*) FROM task_need JOIN task ON task.id = task_need.needs
         WHERE task_need.task = ?
           AND NOT (task.state = 'done' OR (task.required = 0 AND task.state IN ('dead', 'cancelled')))")
    .bind(task.to_string())
    .scalar(connection)
    .await?;
    Ok(open == 0)
}
