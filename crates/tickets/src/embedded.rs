//! Tickets inside one process: queues in memory, for one machine that runs everything.
//!
//! They are gone with the process, which is no loss: at start the ready tasks are in the database.

use crate::{
    Delivery, Depth, MAX_WAITING, Receipt, Source, Subscription, Ticket, TicketError, Tickets, turns::Turns,
};
use async_trait::async_trait;
use reelyard_model::{Tier, work::TaskKind};
use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Cloned, it is the same.
#[derive(Clone, Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queues: Mutex<HashMap<(TaskKind, Tier), VecDeque<Ticket>>>,
    /// Something was put into a queue, or given back, or acknowledged.
    changed: Notify,
    max_waiting: usize,
}

impl Default for Embedded {
    fn default() -> Self {
        Self::with_max_waiting(MAX_WAITING)
    }
}

impl Embedded {
    /// With another bound than [`MAX_WAITING`].
    pub fn with_max_waiting(max_waiting: u32) -> Self {
        let max_waiting = usize::try_from(max_waiting).unwrap_or(usize::MAX);
        Self { shared: Arc::new(Shared { queues: Mutex::default(), changed: Notify::new(), max_waiting }) }
    }
}

#[async_trait]
impl Tickets for Embedded {
    async fn issue(&self, tickets: &[Ticket]) -> Vec<Result<(), TicketError>> {
        let mut queues = self.shared.queues();
        for ticket in tickets {
            let queue = queues.entry((ticket.class, ticket.tier)).or_default();
            if queue.len() >= self.shared.max_waiting {
                queue.pop_front();
            }
            queue.push_back(ticket.clone());
        }
        drop(queues);
        self.shared.changed.notify_waiters();
        vec![Ok(()); tickets.len()]
    }

    fn subscribe(&self, classes: &[TaskKind], prefetch: u16) -> Subscription {
        Subscription(Box::new(Taker {
            shared: self.shared.clone(),
            classes: classes.to_vec(),
            prefetch: prefetch.max(1),
            in_hand: Arc::default(),
            turns: Turns::default(),
        }))
    }

    async fn ping(&self) -> Result<(), TicketError> {
        Ok(())
    }

    async fn depth(&self) -> Result<Vec<Depth>, TicketError> {
        let queues = self.shared.queues();
        let of = |class, tier| queues.get(&(class, tier)).map_or(0, |queue| queue.len() as u64);
        Ok(crate::kinds().map(|(class, tier)| Depth { class, tier, waiting: of(class, tier) }).collect())
    }
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, HashMap<(TaskKind, Tier), VecDeque<Ticket>>> {
        // Nothing panics while it is held, and each change is whole by itself.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type InHand = Arc<Mutex<HashMap<(TaskKind, Tier), u16>>>;

struct Taker {
    shared: Arc<Shared>,
    /// In the order of their turns: who was served goes to the end.
    classes: Vec<TaskKind>,
    prefetch: u16,
    in_hand: InHand,
    turns: Turns,
}

impl Taker {
    fn take(&mut self) -> Option<Delivery> {
        let mut queues = self.shared.queues();
        let mut in_hand = self.in_hand.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = |class: TaskKind, tier: Tier| {
            in_hand.get(&(class, tier)).is_none_or(|count| *count < self.prefetch)
                && queues.get(&(class, tier)).is_some_and(|queue| !queue.is_empty())
        };
        let mut tiers = [false; 3];
        for tier in Tier::ALL {
            tiers[tier.rank()] = self.classes.iter().any(|class| ready(*class, *tier));
        }
        let tier = self.turns.next(tiers)?;
        let turn = self.classes.iter().position(|class| ready(*class, tier))?;
        let class = self.classes.remove(turn);
        self.classes.push(class);
        let ticket = queues.get_mut(&(class, tier))?.pop_front()?;
        *in_hand.entry((class, tier)).or_default() += 1;
        let receipt =
            InMemory { shared: self.shared.clone(), in_hand: self.in_hand.clone(), ticket: ticket.clone() };
        Some(Delivery::new(ticket, Box::new(receipt)))
    }
}

#[async_trait]
impl Source for Taker {
    async fn next(&mut self) -> Delivery {
        let shared = self.shared.clone();
        loop {
            // Told of what comes from here on, so nothing comes between the look and the wait.
            let mut changed = pin!(shared.changed.notified());
            changed.as_mut().enable();
            if let Some(delivery) = self.take() {
                return delivery;
            }
            changed.await;
        }
    }
}

struct InMemory {
    shared: Arc<Shared>,
    in_hand: InHand,
    ticket: Ticket,
}

impl InMemory {
    fn settle(&self) {
        let mut in_hand = self.in_hand.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = in_hand.get_mut(&(self.ticket.class, self.ticket.tier)) {
            *count = count.saturating_sub(1);
        }
        drop(in_hand);
        self.shared.changed.notify_waiters();
    }
}

#[async_trait]
impl Receipt for InMemory {
    async fn acknowledge(self: Box<Self>) -> Result<(), TicketError> {
        self.settle();
        Ok(())
    }

    fn give_back(self: Box<Self>) {
        let ticket = self.ticket.clone();
        self.shared.queues().entry((ticket.class, ticket.tier)).or_default().push_front(ticket);
        self.settle();
    }
}
