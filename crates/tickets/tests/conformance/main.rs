//! What tickets promise, on every backend, and what RabbitMQ promises when its broker or its network fails.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod faults;
mod promises;

use reelyard_model::{TaskId, Tier, work::TaskKind};
use reelyard_tickets::{Delivery, Embedded, RabbitSettings, RabbitTickets, Subscription, Ticket, Tickets};
use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// For what must happen; a broker that was wiped takes some seconds.
const SOON: Duration = Duration::from_secs(60);
/// For what must not happen.
const A_WHILE: Duration = Duration::from_millis(300);
/// In tests that fill a queue.
const MAX_WAITING: u32 = 20;

fn ticket(class: TaskKind, tier: Tier) -> Ticket {
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned();
    static TASKS: AtomicU64 = AtomicU64::new(1);
    let task = format!("01900000-0000-7000-8000-{:012x}", TASKS.fetch_add(1, Ordering::Relaxed));
    Ticket { task: Some(task.parse().unwrap()), class, tier, traceparent }
}

fn some(count: usize) -> Vec<Ticket> {
    (0..count).map(|_| ticket(TaskKind::Encode, Tier::Normal)).collect()
}

async fn issued(tickets: &dyn Tickets, some: &[Ticket]) {
    for outcome in tickets.issue(some).await {
        outcome.unwrap();
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it happens soon")
}

async fn next(subscription: &mut Subscription) -> Delivery {
    soon(subscription.next()).await
}

async fn nothing_comes(subscription: &mut Subscription) {
    let come = tokio::time::timeout(A_WHILE, subscription.next()).await;
    assert!(come.is_err(), "nothing should come, but: {come:?}");
}

/// Acknowledged; their tasks, sorted.
async fn take(subscription: &mut Subscription, count: usize) -> Vec<TaskId> {
    let mut tasks = Vec::new();
    for _ in 0..count {
        let delivery = next(subscription).await;
        tasks.push(delivery.ticket().task.unwrap());
        delivery.acknowledge().await.unwrap();
    }
    tasks.sort();
    tasks
}

fn tasks(tickets: &[Ticket]) -> Vec<TaskId> {
    let mut tasks: Vec<TaskId> = tickets.iter().filter_map(|ticket| ticket.task).collect();
    tasks.sort();
    tasks
}

/// For a broker at `url` that answers in the end, however slow the machine is.
fn settings(url: String, prefix: &str) -> RabbitSettings {
    tell();
    RabbitSettings {
        prefix: prefix.to_owned(),
        max_waiting: MAX_WAITING,
        connect_timeout: SOON / 2,
        confirm_timeout: SOON / 2,
        renew_after: Duration::from_secs(1),
        ..RabbitSettings::new(url)
    }
}

/// For a broker that will not answer. On a busy machine it may seem so before, too: a ticket that must be issued is
/// tried again then.
fn impatient(url: String, prefix: &str) -> RabbitSettings {
    RabbitSettings {
        connect_timeout: Duration::from_secs(5),
        confirm_timeout: Duration::from_secs(3),
        ..settings(url, prefix)
    }
}

/// What the backend tells people stands beside a test that fails; `RUST_LOG` says how much of it.
fn tell() {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,lapin=off".into());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

fn rabbit(url: String, prefix: &str) -> RabbitTickets {
    RabbitTickets::new(settings(url, prefix)).unwrap()
}

fn embedded() -> Embedded {
    Embedded::with_max_waiting(MAX_WAITING)
}
