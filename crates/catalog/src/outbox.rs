//! Tickets that are still to be given to the broker: written with the change that made a task ready, removed when the
//! broker has confirmed them, or when the task was claimed without one.
//!
//! `src/flow/relay` takes some at a time under a token of its own; what it takes is out of everybody else's way for a
//! while and then free again, so a relay that dies in the middle loses nothing, and at worst a ticket is given twice,
//! which is harmless. Kept only where there is a broker ([`Catalog::with_outbox`]).

use crate::{
    Catalog, CatalogError,
    rows::{number, text},
    sql::{Sql, sql},
    store::Write,
};
use reelyard_model::{TaskId, Tier, work::TaskKind};
use uuid::Uuid;

/// Tickets taken at a time: what a broker confirms in a few milliseconds.
const MOST_AT_ONCE: u32 = 1_000;

/// A ticket that somebody has taken to give it to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxTicket {
    pub task: TaskId,
    pub kind: TaskKind,
    pub tier: Tier,
    pub traceparent: String,
}

/// Ready tasks of a kind and tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyQueue {
    pub kind: TaskKind,
    pub tier: Tier,
    pub waiting: u64,
    /// When the one that waits longest became ready.
    pub oldest_ready_ms: i64,
}

impl Catalog {
    /// The oldest tickets that nobody is giving to the broker, in the order in which they were written; they are this
    /// token's until `until_ms`.
    pub async fn take_tickets(
        &self,
        token: Uuid,
        limit: u32,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<Vec<OutboxTicket>, CatalogError> {
        // Looking costs no write lock.
        // In the order of an index, or PostgreSQL may go through all rows that were removed lately.
        let any =
            sql("SELECT 1 FROM ticket_outbox WHERE claimed_until_ms <= ? ORDER BY claimed_until_ms LIMIT 1")
                .bind(now_ms);
        if any.fetch_optional(&self.reader).await?.is_none() {
            return Ok(Vec::new());
        }
        let mut write = self.write().await?;
        let mut take = sql("UPDATE ticket_outbox SET claim_token = ");
        take.push_bind(token).push(", claimed_until_ms = ").push_bind(until_ms).push(" WHERE ");
        free_tickets(&mut take, |free| {
            free.push(" WHERE claimed_until_ms <= ").push_bind(now_ms);
            free.push(" ORDER BY created_ms, task LIMIT ").push_bind(limit.min(MOST_AT_ONCE));
        });
        take.push(" RETURNING task, kind, tier, traceparent, created_ms");
        let taken = take.fetch_all(write.connection()).await?;
        self.commit(write).await?;
        let mut tickets = Vec::with_capacity(taken.len());
        for row in &taken {
            let ticket = OutboxTicket {
                task: text(row, "task")?,
                kind: text(row, "kind")?,
                tier: text(row, "tier")?,
                traceparent: row.get("traceparent")?,
            };
            tickets.push((row.get::<i64>("created_ms")?, ticket));
        }
        tickets.sort_unstable_by_key(|(created_ms, ticket)| (*created_ms, ticket.task));
        Ok(tickets.into_iter().map(|(_, ticket)| ticket).collect())
    }

    /// The broker has them. Those that were written anew meanwhile stay. Those that a claim is just removing are left to
    /// it: to wait for it would be to wait in a circle now and then, which the database breaks after a second only. If it
    /// comes to nothing, they are given to the broker once more.
    pub async fn tickets_issued(&self, token: Uuid, tasks: &[TaskId]) -> Result<(), CatalogError> {
        if tasks.is_empty() {
            return Ok(());
        }
        let mut write = self.write().await?;
        let mut query = sql("DELETE FROM ticket_outbox WHERE ");
        free_tickets(&mut query, |free| {
            free.push(" WHERE claim_token = ").push_bind(token).push(" AND task");
            free.push_in(tasks.iter().copied());
        });
        query.execute(write.connection()).await?;
        self.commit(write).await
    }

    /// The broker did not take those that are left of this token: whoever comes from `not_before_ms` on may try. Those
    /// that a claim is just removing are left to it, as by [`Catalog::tickets_issued`].
    pub async fn tickets_given_back(&self, token: Uuid, not_before_ms: i64) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        let mut query = sql("UPDATE ticket_outbox SET claim_token = NULL, claimed_until_ms = ");
        query.push_bind(not_before_ms).push(" WHERE ");
        free_tickets(&mut query, |free| {
            free.push(" WHERE claim_token = ").push_bind(token);
        });
        query.execute(write.connection()).await?;
        self.commit(write).await
    }

    /// Tickets that wait for the broker: a number that grows says that the broker is away.
    pub async fn outbox_len(&self) -> Result<u64, CatalogError> {
        let waiting: i64 = sql("SELECT COUNT(*) FROM ticket_outbox").scalar(&self.reader).await?;
        Ok(waiting.unsigned_abs())
    }

    /// What may be claimed, by kind and tier: how many, and since when the oldest waits. Counts every ready task, so it
    /// is for sweeps and metrics, not for every claim.
    pub async fn ready_queues(&self) -> Result<Vec<ReadyQueue>, CatalogError> {
        let found = sql("SELECT kind, tier, COUNT(*) AS waiting, MIN(ready_ms) AS oldest FROM task
                         WHERE state = 'ready' GROUP BY kind, tier ORDER BY kind, tier")
        .fetch_all(&self.reader)
        .await?;
        found
            .iter()
            .map(|row| {
                Ok(ReadyQueue {
                    kind: text(row, "kind")?,
                    tier: text(row, "tier")?,
                    waiting: number(row, "waiting")?,
                    oldest_ready_ms: row.get("oldest")?,
                })
            })
            .collect()
    }
}

/// Those rows of the outbox that `which` picks and nobody else is changing.
///
/// PostgreSQL finds them by their places: it often believes that the outbox is empty, because it was when it was last
/// vacuumed, and would then rather look the rows up anew for each row that is there.
fn free_tickets(query: &mut Sql, which: impl FnOnce(&mut Sql)) {
    query.push_either("task IN (SELECT task", "ctid = ANY (ARRAY(SELECT ctid").push(" FROM ticket_outbox");
    which(query);
    query.push_either(")", " FOR UPDATE SKIP LOCKED))");
}

/// With the change that made these tasks ready. One ticket for each task: a newer one replaces an older.
pub(crate) async fn write_tickets(
    write: &mut Write,
    tasks: &[(TaskId, TaskKind)],
    tier: Tier,
    traceparent: &str,
    now_ms: i64,
) -> Result<(), CatalogError> {
    if !write.has_outbox || tasks.is_empty() {
        return Ok(());
    }
    let mut insert = sql(
        "INSERT INTO ticket_outbox (task, kind, tier, traceparent, created_ms) SELECT column1, column2, ",
    );
    insert
        .push_bind(tier.as_str())
        .push(", ")
        .push_bind(traceparent)
        .push(", ")
        .push_bind(now_ms)
        .push(" FROM ");
    insert.push_rows(
        tasks.iter().map(|(task, kind)| [(*task).into(), kind.as_str().into()]).collect(),
        "ready",
    );
    insert.push(
        " WHERE TRUE
          ON CONFLICT (task) DO UPDATE SET claim_token = NULL, claimed_until_ms = 0, created_ms = excluded.created_ms",
    );
    insert.execute(write.connection()).await?;
    Ok(())
}

/// They were claimed, or are not ready any more: nobody needs to be woken for them.
pub(crate) async fn drop_tickets(
    write: &mut Write,
    tasks: impl Iterator<Item = TaskId>,
) -> Result<(), CatalogError> {
    if !write.has_outbox {
        return Ok(());
    }
    let mut query = sql("DELETE FROM ticket_outbox WHERE task");
    query.push_in(tasks);
    query.execute(write.connection()).await?;
    Ok(())
}
