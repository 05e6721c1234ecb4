//! **relay**: wake-ups that the catalogue has promised are given to the broker; and the broker's become a ring here.
//!
//! The promise is a row that was written with the change that made a task ready, so it is kept whatever dies: a row goes
//! when the broker has confirmed its ticket, or when the task was claimed without one. A broker that lost its disk is
//! filled again by [`reissue`], which compares what is ready with what waits there. Every node runs all of this; rows
//! that one has taken are out of the others' way for [`HELD_FOR_MS`].

use super::FlowError;
use crate::app::App;
use reelyard_catalog::CatalogError;
use reelyard_crash_points::{crash_point, switched_off};
use reelyard_model::work::TaskKind;
use reelyard_tickets::{Ticket, TicketError, Tickets};
use serde_json::Value;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

/// Tickets in one go.
const AT_ONCE: u32 = 500;
/// Longer than a broker that is alive takes to confirm so many; then another node tries.
const HELD_FOR_MS: i64 = 30_000;
/// Tickets for a queue that is not as it should be are out of the way of the others for so long: that queue needs a
/// person.
const REFUSED_FOR_MS: i64 = 10_000;
/// A node that died between the change and the ring: its rows are found by the others so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between tries while the broker is away, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What is ready is compared with what waits in the broker so often, by one node.
const REISSUE_EVERY: Duration = Duration::from_secs(10);
const REISSUE_DUTY: &str = "reissue tickets";
/// A task that became ready within this time may have its ticket on the way.
const ON_THE_WAY_MS: i64 = 5_000;
/// Tickets that are brought back for one queue at a time: no fleet has more idle workers to wake.
const MOST_REISSUED: u64 = 500;

/// Gives tickets to the broker until the server stops.
pub(crate) async fn run(app: Arc<App>, tickets: Arc<dyn Tickets>) {
    let mut pause = FIRST_PAUSE;
    while !app.shutdown.is_cancelled() {
        let wait = match relay_some(&app, &*tickets).await {
            Ok(Relayed::Some) => {
                pause = FIRST_PAUSE;
                continue;
            }
            Ok(Relayed::Nothing) => LOOK_EVERY,
            Ok(Relayed::Refused(reason)) => {
                tracing::warn!(
                    reason,
                    pause_ms = pause.as_millis() as u64,
                    "relay: the broker took no tickets; nothing is lost, workers look by themselves meanwhile"
                );
                next(&mut pause)
            }
            Err(error) => {
                tracing::warn!(%error, "relay: the catalogue did not answer; trying again");
                next(&mut pause)
            }
        };
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = app.relay_ticket.notified(), if wait == LOOK_EVERY => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn next(pause: &mut Duration) -> Duration {
    let now = *pause;
    *pause = (now * 2).min(LONGEST_PAUSE);
    now
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Relayed {
    Nothing,
    Some,
    /// All of them, because the broker is away: with one of the reasons.
    Refused(String),
}

/// One round: take, issue, remove what was confirmed and give the rest back.
pub(crate) async fn relay_some(app: &App, tickets: &dyn Tickets) -> Result<Relayed, FlowError> {
    let token = Uuid::now_v7();
    let now_ms = app.now_ms();
    let taken = app.catalog.take_tickets(token, AT_ONCE, now_ms, now_ms + HELD_FOR_MS).await?;
    if taken.is_empty() {
        return Ok(Relayed::Nothing);
    }
    let issuing: Vec<Ticket> = taken
        .iter()
        .map(|row| Ticket {
            task: Some(row.task),
            class: row.kind,
            tier: row.tier,
            traceparent: row.traceparent.clone(),
        })
        .collect();
    crash_point!("relay-before-issue").map_err(CatalogError::from)?;
    let results = tickets.issue(&issuing).await;
    let mut confirmed = Vec::with_capacity(taken.len());
    let (mut refused, mut away) = (None, None);
    for (row, result) in taken.iter().zip(results) {
        match result {
            Ok(()) => confirmed.push(row.task),
            Err(_) if switched_off!("without-confirms") => confirmed.push(row.task),
            Err(TicketError::Misconfigured(reason)) => refused = Some(reason),
            Err(TicketError::Unavailable(reason)) => away = Some(reason),
        }
    }
    crash_point!("relay-after-confirm").map_err(CatalogError::from)?;
    metrics::counter!("reelyard_tickets_issued_total").increment(confirmed.len() as u64);
    app.catalog.tickets_issued(token, &confirmed).await?;
    if let Some(reason) = away {
        app.catalog.tickets_given_back(token, 0).await?;
        return Ok(if confirmed.is_empty() { Relayed::Refused(reason) } else { Relayed::Some });
    }
    if let Some(reason) = refused {
        tracing::warn!(
            reason,
            "relay: some tickets were refused; nothing is lost, workers look by themselves meanwhile"
        );
        app.catalog.tickets_given_back(token, now_ms + REFUSED_FOR_MS).await?;
    }
    Ok(Relayed::Some)
}

/// Tickets for what is ready and has none, for ever: after a broker that lost its disk, or whatever else went wrong.
pub(crate) async fn run_reissue(app: Arc<App>, tickets: Arc<dyn Tickets>) {
    while !app.shutdown.is_cancelled() && !switched_off!("without-safety-net") {
        match reissue(&app, &*tickets).await {
            Ok(0) => {}
            Ok(issued) => {
                tracing::info!(issued, "relay: ready tasks had no ticket in the broker; new ones were issued")
            }
            Err(error) => {
                tracing::warn!(%error, "relay: ready tasks could not be compared with the broker; trying again")
            }
        }
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(REISSUE_EVERY) => {}
        }
    }
}

/// Returns how many were issued.
pub(crate) async fn reissue(app: &App, tickets: &dyn Tickets) -> anyhow::Result<u64> {
    let now_ms = app.now_ms();
    let until_ms = now_ms.saturating_add(3 * REISSUE_EVERY.as_millis() as i64);
    if !app.catalog.take_duty(REISSUE_DUTY, &app.node, now_ms, until_ms).await? {
        return Ok(0);
    }
    let ready = app.catalog.ready_queues().await?;
    let late: Vec<_> = ready.iter().filter(|queue| now_ms - queue.oldest_ready_ms > ON_THE_WAY_MS).collect();
    if late.is_empty() {
        return Ok(0);
    }
    let waiting: HashMap<_, u64> =
        tickets.depth().await?.into_iter().map(|depth| ((depth.class, depth.tier), depth.waiting)).collect();
    let mut missing = Vec::new();
    for queue in late {
        // A queue that is wrong takes none.
        let Some(&there) = waiting.get(&(queue.kind, queue.tier)) else { continue };
        let wanted = queue.waiting.min(MOST_REISSUED).saturating_sub(there);
        let ticket = Ticket {
            task: None,
            class: queue.kind,
            tier: queue.tier,
            traceparent: super::receive::new_traceparent(),
        };
        missing.extend(std::iter::repeat_n(ticket, usize::try_from(wanted).unwrap_or_default()));
    }
    let issued = tickets.issue(&missing).await.iter().filter(|result| result.is_ok()).count();
    Ok(issued as u64)
}

/// Publishing is the nodes' own work, so they take its tickets themselves.
pub(crate) async fn take_publish_tickets(app: Arc<App>, tickets: Arc<dyn Tickets>) {
    let mut subscription = tickets.subscribe(&[TaskKind::Publish], 1);
    loop {
        let delivery = tokio::select! {
            () = app.shutdown.cancelled() => return,
            delivery = subscription.next() => delivery,
        };
        app.publish_ticket.notify_one();
        if crash_point!("publish-ticket-before-acknowledge").is_err() {
            continue;
        }
        // The publisher of this node looks now; should it die before it has, the lease or the sweep finds the task.
        if let Err(error) = delivery.acknowledge().await {
            tracing::debug!(%error, "relay: a ticket was not acknowledged and comes again");
        }
    }
}

/// What other nodes made ready, and what they cancelled, is news here too: their events come through the catalogue.
pub(crate) async fn ring_by_events(app: Arc<App>) {
    let mut events = app.catalog.subscribe();
    loop {
        let event = tokio::select! {
            () = app.shutdown.cancelled() => return,
            event = events.recv() => event,
        };
        match event {
            Ok(event) if event.data.get("state").and_then(Value::as_str) == Some("ready") => {
                if event.data.get("kind").and_then(Value::as_str) == Some(TaskKind::Publish.as_str()) {
                    app.ring();
                } else {
                    app.ring_workers();
                }
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => app.ring(),
            Err(RecvError::Closed) => return,
        }
    }
}
