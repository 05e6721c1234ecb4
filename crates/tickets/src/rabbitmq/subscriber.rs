//! Takes tickets: one task per subscription that connects, consumes, and begins again whenever that ends.
//!
//! The task puts what comes into an inbox with a pile for each tier; whoever waits takes from it, urgent ones first.
//! What is in hand or in the inbox when a connection ends comes again from the broker, to us or to another one.

use super::link::{Broker, pause_after};
use crate::{Delivery, Receipt, Source, Subscription, Ticket, TicketError, turns::Turns};
use async_trait::async_trait;
use futures::{
    StreamExt as _,
    stream::{BoxStream, SelectAll},
};
use lapin::{
    Acker, Channel,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use reelyard_model::{Tier, work::TaskKind};
use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
    time::Instant,
};

/// Writing one frame; only a connection that hangs takes longer, and its end gives the ticket back anyway.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that lived so long was a good one: the next failure is the first again.
const GOOD_CONNECTION: Duration = Duration::from_secs(30);

pub(super) fn subscribe(broker: Arc<Broker>, classes: &[TaskKind], prefetch: u16) -> Subscription {
    let inbox = Arc::new(Inbox::default());
    let worker = Consumer { broker, classes: classes.to_vec(), prefetch, inbox: inbox.clone() };
    let task = tokio::spawn(worker.run()).abort_handle();
    Subscription(Box::new(Taker { inbox, task }))
}

#[derive(Default)]
struct Inbox {
    content: Mutex<Content>,
    arrived: Notify,
}

#[derive(Default)]
struct Content {
    /// By rank of the tier. Bounded by the prefetch of each queue.
    piles: [VecDeque<Delivery>; 3],
    turns: Turns,
}

impl Inbox {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, tier: Tier, delivery: Delivery) {
        self.content().piles[tier.rank()].push_back(delivery);
        self.arrived.notify_one();
    }

    fn take(&self) -> Option<Delivery> {
        let mut content = self.content();
        let ready = [0, 1, 2].map(|rank: usize| !content.piles[rank].is_empty());
        let tier = content.turns.next(ready)?;
        content.piles[tier.rank()].pop_front()
    }

    fn empty(&self) {
        let old = std::mem::take(&mut self.content().piles);
        drop(old);
    }
}

struct Taker {
    inbox: Arc<Inbox>,
    task: AbortHandle,
}

#[async_trait]
impl Source for Taker {
    async fn next(&mut self) -> Delivery {
        loop {
            // Told of what comes from here on, so nothing comes between the look and the wait.
            let mut arrived = pin!(self.inbox.arrived.notified());
            arrived.as_mut().enable();
            if let Some(delivery) = self.inbox.take() {
                return delivery;
            }
            arrived.await;
        }
    }
}

impl Drop for Taker {
    /// The connection goes with the task, and the broker gives what was not acknowledged to others.
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Consumer {
    broker: Arc<Broker>,
    classes: Vec<TaskKind>,
    prefetch: u16,
    inbox: Arc<Inbox>,
}

impl Consumer {
    async fn run(self) {
        let mut failures: u32 = 0;
        loop {
            let begin = Instant::now();
            let error = match self.consume(failures > 0).await {
                Err(error) => error,
                Ok(never) => match never {},
            };
            self.inbox.empty();
            failures = if begin.elapsed() > GOOD_CONNECTION { 1 } else { failures.saturating_add(1) };
            let pause = pause_after(failures);
            tracing::warn!(failures, %error, ?pause, "no tickets come in; this is tried again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Until something fails.
    async fn consume(&self, again: bool) -> Result<Infallible, TicketError> {
        let connection = self.broker.connect("takes tickets").await?;
        let limit = self.broker.settings.confirm_timeout;
        let channel = self.broker.within(limit, "open a channel", connection.create_channel()).await?;
        // For each consumer that follows, not for all together: other brokers refuse that for quorum queues.
        let each = BasicQosOptions { global: false };
        self.broker.within(limit, "prefetch", channel.basic_qos(self.prefetch, each)).await?;
        let mut taps = Taps { broker: &self.broker, channel, taps: Vec::new(), deliveries: SelectAll::new() };
        for class in &self.classes {
            for tier in Tier::ALL {
                taps.open(*class, *tier).await?;
            }
        }
        if again {
            tracing::info!(broker = ?self.broker, "tickets come in again");
        }
        let (give_back, mut given_back) = mpsc::unbounded_channel::<Acker>();
        let every = self.broker.settings.renew_after;
        let mut renewal = tokio::time::interval_at(Instant::now() + every, every);
        loop {
            tokio::select! {
                Some(acker) = given_back.recv() => {
                    let options = BasicNackOptions { multiple: false, requeue: true };
                    self.broker.within(limit, "give a ticket back", acker.nack(options)).await?;
                }
                (class, tier, unsettled, delivery) = taps.next() => {
                    let delivery = delivery?;
                    let ticket = read(class, tier, &delivery);
                    let (give_back, broker) = (give_back.clone(), self.broker.clone());
                    let receipt = Tagged { acker: delivery.acker, give_back, broker, _unsettled: unsettled };
                    self.inbox.put(tier, Delivery::new(ticket, Box::new(receipt)));
                }
                _ = renewal.tick() => taps.renew_idle().await?,
            }
        }
    }
}

/// The consumers of one channel, one for each queue.
struct Taps<'a> {
    broker: &'a Broker,
    channel: Channel,
    taps: Vec<Tap>,
    deliveries: SelectAll<BoxStream<'static, Item>>,
}

/// Where it came from (which tap, and at which of its openings), and what; nothing is the end.
type Item = (usize, u32, Option<lapin::Result<lapin::message::Delivery>>);

struct Tap {
    class: TaskKind,
    tier: Tier,
    tag: ShortString,
    opening: u32,
    /// Gave nothing since the last renewal.
    is_idle: bool,
    /// Each delivery that is not settled holds one of these.
    unsettled: Arc<()>,
}

impl Taps<'_> {
    async fn open(&mut self, class: TaskKind, tier: Tier) -> Result<(), TicketError> {
        let tag = self.consume(class, tier, self.taps.len(), 0).await?;
        self.taps.push(Tap { class, tier, tag, opening: 0, is_idle: false, unsettled: Arc::default() });
        Ok(())
    }

    async fn consume(
        &mut self,
        class: TaskKind,
        tier: Tier,
        tap: usize,
        opening: u32,
    ) -> Result<ShortString, TicketError> {
        self.broker.declare(&self.channel, class, tier).await?;
        let queue = self.broker.queue(class, tier).as_str().into();
        let options = BasicConsumeOptions::default();
        let consuming = self.channel.basic_consume(queue, "".into(), options, FieldTable::default());
        let consumer = self.broker.within(self.broker.settings.confirm_timeout, "consume", consuming).await?;
        let tag = consumer.tag();
        let ends = futures::stream::once(std::future::ready(None));
        self.deliveries.push(consumer.map(Some).chain(ends).map(move |item| (tap, opening, item)).boxed());
        Ok(tag)
    }

    /// Safe to drop while it waits.
    async fn next(&mut self) -> (TaskKind, Tier, Arc<()>, Result<lapin::message::Delivery, TicketError>) {
        loop {
            let Some((number, opening, item)) = self.deliveries.next().await else {
                // No class was wanted: nothing will ever come.
                std::future::pending::<()>().await;
                continue;
            };
            let Some(tap) = self.taps.get_mut(number) else { continue };
            let what = match item {
                Some(item) => item.map_err(|error| self.broker.failure(&error)),
                // We closed it ourselves.
                None if opening != tap.opening => continue,
                // A consumer that was cancelled: its queue was deleted, or moved.
                None => {
                    let queue = self.broker.queue(tap.class, tap.tier);
                    Err(self.broker.unavailable(&format!("it stopped giving tickets of {queue}")))
                }
            };
            tap.is_idle = false;
            return (tap.class, tap.tier, tap.unsettled.clone(), what);
        }
    }

    /// A broker does not always tell that a queue was deleted when it is declared again at once: RabbitMQ 3.10 left
    /// consumers waiting at queues that were no more. So who gets nothing asks anew now and then.
    async fn renew_idle(&mut self) -> Result<(), TicketError> {
        let limit = self.broker.settings.confirm_timeout;
        for number in 0..self.taps.len() {
            let Some(tap) = self.taps.get_mut(number) else { continue };
            // A new consumer would have its prefetch beside what is in hand.
            let settled = Arc::strong_count(&tap.unsettled) == 1;
            if !std::mem::replace(&mut tap.is_idle, true) || !settled {
                continue;
            }
            tap.opening = tap.opening.wrapping_add(1);
            let (class, tier, opening, old) = (tap.class, tap.tier, tap.opening, tap.tag.clone());
            let cancelling = self.channel.basic_cancel(old, BasicCancelOptions::default());
            self.broker.within(limit, "cancel", cancelling).await?;
            let tag = self.consume(class, tier, number, opening).await?;
            if let Some(tap) = self.taps.get_mut(number) {
                tap.tag = tag;
            }
        }
        Ok(())
    }
}

/// What cannot be read woke us up all the same, and its queue tells what for.
fn read(class: TaskKind, tier: Tier, delivery: &lapin::message::Delivery) -> Ticket {
    let header =
        delivery.properties.headers().as_ref().and_then(|headers| headers.inner().get("traceparent"));
    let traceparent = match header {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        _ => String::new(),
    };
    Ticket::from_json(&delivery.data, traceparent).unwrap_or_else(|error| {
        tracing::warn!(queue = %delivery.routing_key, %error, "it counts as a wake-up of its queue");
        Ticket { task: None, class, tier, traceparent: String::new() }
    })
}

struct Tagged {
    acker: Acker,
    give_back: mpsc::UnboundedSender<Acker>,
    broker: Arc<Broker>,
    _unsettled: Arc<()>,
}

#[async_trait]
impl Receipt for Tagged {
    async fn acknowledge(self: Box<Self>) -> Result<(), TicketError> {
        let acknowledging = self.acker.ack(BasicAckOptions::default());
        if self.broker.within(ACKNOWLEDGE_TIMEOUT, "acknowledge a ticket", acknowledging).await? {
            return Ok(());
        }
        Err(self.broker.unavailable("the connection that gave the ticket is gone, so it comes again"))
    }

    fn give_back(self: Box<Self>) {
        // Nobody listens any more: the connection is gone, and the ticket with it back at the broker.
        let _ = self.give_back.send(self.acker);
    }
}
