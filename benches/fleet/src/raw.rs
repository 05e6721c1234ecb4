//! The broker alone: tickets issued with confirmation, taken and acknowledged at the same time, and nothing else done.
//! As `crates/tickets/examples/raw_rate.rs` does, with as many subscribers as there are workers.

use anyhow::{Result, anyhow};
use reelyard_model::{Tier, work::TaskKind};
use reelyard_tickets::{RabbitSettings, RabbitTickets, Ticket, Tickets as _};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// As the relay takes them out of the outbox.
const BATCH: usize = 500;
/// A broker on a busy machine; then something is wrong.
const LIMIT: Duration = Duration::from_secs(300);

/// Tickets a second, through a queue of its own.
pub(crate) async fn rate(url: &str, total: usize, subscribers: usize, prefetch: u16) -> Result<f64> {
    let settings =
        RabbitSettings { prefix: format!("raw-{}", uuid::Uuid::now_v7()), ..RabbitSettings::new(url) };
    let issuing = RabbitTickets::new(settings.clone())?;
    issuing.ping().await?;
    let left = Arc::new(AtomicUsize::new(total));
    let done = Arc::new(tokio::sync::Notify::new());
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..subscribers {
        let tickets = RabbitTickets::new(settings.clone())?;
        let (left, done) = (left.clone(), done.clone());
        takers.spawn(async move {
            let mut subscription = tickets.subscribe(&[TaskKind::Encode], prefetch);
            loop {
                let taken = subscription.next().await.acknowledge().await;
                if taken.is_ok() && left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    done.notify_one();
                }
            }
        });
    }
    // Connections are made before, as a farm has them before there is work: warmed up with one ticket each.
    let ticket = Ticket {
        task: Some(uuid::Uuid::now_v7().to_string().parse()?),
        class: TaskKind::Encode,
        tier: Tier::Normal,
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    };
    left.fetch_add(subscribers, Ordering::Relaxed);
    issue(&issuing, &vec![ticket.clone(); subscribers]).await?;
    tokio::time::timeout(LIMIT, async {
        while left.load(Ordering::Relaxed) > total {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await?;
    let begin = Instant::now();
    let mut unissued = total;
    while unissued > 0 {
        let some = vec![ticket.clone(); BATCH.min(unissued)];
        unissued -= some.len();
        issue(&issuing, &some).await?;
    }
    tokio::time::timeout(LIMIT, done.notified()).await?;
    let took = begin.elapsed();
    takers.shutdown().await;
    Ok(total as f64 / took.as_secs_f64())
}

async fn issue(tickets: &RabbitTickets, some: &[Ticket]) -> Result<()> {
    let results = tickets.issue(some).await;
    results.into_iter().collect::<Result<Vec<()>, _>>().map_err(|error| anyhow!("{error}"))?;
    Ok(())
}
