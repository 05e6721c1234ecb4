//! How many tickets a second a broker carries: issued with confirmation, taken, acknowledged; nothing else done.
//!
//!     cargo run --release -p reelyard-tickets --features rabbitmq --example raw_rate -- [amqp://...] [tickets] [batch]
//!
//! Without a URL (or with `-`) it starts a broker of its own. Prints one line of JSON. The benchmark of dispatch
//! compares itself with this.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a measurement: what fails is no number")]

use reelyard_model::{Tier, work::TaskKind};
use reelyard_tickets::{RabbitSettings, RabbitTickets, Ticket, Tickets as _};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Unacknowledged at a time.
const PREFETCH: u16 = 200;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().filter(|url| url != "-");
    let total: usize = arguments.next().map_or(20_000, |text| text.parse().unwrap());
    let batch: usize = arguments.next().map_or(500, |text| text.parse().unwrap());
    let own = if url.is_none() { reelyard_testkit::RabbitServer::start() } else { None };
    let Some(url) = url.or_else(|| own.as_ref().map(reelyard_testkit::RabbitServer::url)) else { return };

    let prefix = format!("raw-rate-{}", std::process::id());
    let tickets =
        Arc::new(RabbitTickets::new(RabbitSettings { prefix, ..RabbitSettings::new(url) }).unwrap());
    tickets.ping().await.unwrap();

    // First one after the other, then both at the same time, as in a farm.
    let issue = issue_all(&tickets, total, batch).await;
    let take = take_all(&tickets, total).await;
    let begin = Instant::now();
    let taker = tokio::spawn({
        let tickets = tickets.clone();
        async move { take_all(&tickets, total).await }
    });
    issue_all(&tickets, total, batch).await;
    taker.await.unwrap();
    let both = begin.elapsed();
    let rate = |time: Duration| (total as f64 / time.as_secs_f64()).round();
    println!(
        "{{\"tickets\":{total},\"batch\":{batch},\"issued_per_s\":{},\"taken_per_s\":{},\"through_per_s\":{}}}",
        rate(issue),
        rate(take),
        rate(both)
    );
}

async fn issue_all(tickets: &RabbitTickets, total: usize, batch: usize) -> Duration {
    let ticket = Ticket {
        task: None,
        class: TaskKind::Encode,
        tier: Tier::Normal,
        traceparent: "00-0-0-01".to_owned(),
    };
    let begin = Instant::now();
    let mut left = total;
    while left > 0 {
        let some = vec![ticket.clone(); batch.min(left)];
        left -= some.len();
        for outcome in tickets.issue(&some).await {
            outcome.unwrap();
        }
    }
    begin.elapsed()
}

async fn take_all(tickets: &RabbitTickets, total: usize) -> Duration {
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], PREFETCH);
    let begin = Instant::now();
    for _ in 0..total {
        subscription.next().await.acknowledge().await.unwrap();
    }
    begin.elapsed()
}
