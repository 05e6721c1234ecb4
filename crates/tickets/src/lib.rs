//! Tickets: wake-ups that say "there may be work of this class".
//!
//! The outbox's relay issues them, claims that wait for work subscribe to them. The database is the truth: a ticket
//! carries nothing that is not there, it decides nothing, and whoever takes one asks the database what to do. So a
//! ticket may come twice, late, or (when a broker lost its disk) never; then a sweep issues another one.
//!
//! Two backends, one suite that both pass (`tests/conformance`): [`Embedded`] in this process, and [`RabbitTickets`].
//! docs/decisions/0013-tickets.md says why they are as they are.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod embedded;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod ticket;
mod turns;

pub use embedded::Embedded;
#[cfg(feature = "rabbitmq")]
pub use rabbitmq::{RabbitSettings, RabbitTickets};
pub use ticket::{Ticket, Unreadable};

use async_trait::async_trait;
use reelyard_model::{Tier, work::TaskKind};
use std::fmt;

/// So many tickets of one class and tier wait at most; then the oldest goes for each new one. More of them say nothing
/// more, since no farm has more workers to wake. A ticket is some 300 bytes: 30 MB for each class and tier at worst.
pub const MAX_WAITING: u32 = 100_000;

/// Where tickets are issued and taken.
#[async_trait]
pub trait Tickets: Send + Sync + fmt::Debug {
    /// One result for each ticket, in their order. `Ok`: it lies where a subscriber will find it, and survives a
    /// restart where the backend does. An error: it may lie there or not; issue it again later. Ends in bounded time.
    async fn issue(&self, tickets: &[Ticket]) -> Vec<Result<(), TicketError>>;

    /// Tickets of these classes, of all tiers. `prefetch` is how many of one class and tier are handed out at the same
    /// time without being acknowledged; at least one. Comes back at once and waits for a backend that is away.
    fn subscribe(&self, classes: &[TaskKind], prefetch: u16) -> Subscription;

    /// Whether tickets could be issued now; when not, why.
    async fn ping(&self) -> Result<(), TicketError>;

    /// How many wait, for each class and tier whose queue can be used: for people and their graphs, and to see what is
    /// missing; never for decisions about a task.
    async fn depth(&self) -> Result<Vec<Depth>, TicketError>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    pub class: TaskKind,
    pub tier: Tier,
    /// Not yet handed to a subscriber.
    pub waiting: u64,
}

/// What can the caller do about it?
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Try again later.
    #[error("{0}")]
    Unavailable(String),
    /// Nothing changes until a person does what the text says.
    #[error("{0}")]
    Misconfigured(String),
}

/// Tickets as they come, urgent ones first; each tier gets its turn. Dropped, it ends, and what it had not handed out
/// goes to others.
pub struct Subscription(Box<dyn Source>);

impl Subscription {
    /// Waits for the next ticket. Safe to drop while it waits: no ticket is lost by it.
    pub async fn next(&mut self) -> Delivery {
        self.0.next().await
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Subscription")
    }
}

/// A ticket in hand. Acknowledge it as soon as the lease that came of it is committed, or when there was nothing to do;
/// dropped without that it goes back and comes again, perhaps at once, perhaps to somebody else.
pub struct Delivery {
    ticket: Ticket,
    receipt: Option<Box<dyn Receipt>>,
}

impl Delivery {
    fn new(ticket: Ticket, receipt: Box<dyn Receipt>) -> Self {
        Self { ticket, receipt: Some(receipt) }
    }

    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// It does not come again. An error means that it will; that is harmless, and no reason to undo anything.
    pub async fn acknowledge(mut self) -> Result<(), TicketError> {
        match self.receipt.take() {
            Some(receipt) => receipt.acknowledge().await,
            None => Ok(()),
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            receipt.give_back();
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Delivery").field(&self.ticket).finish()
    }
}

/// Where a subscription's tickets come from.
#[async_trait]
trait Source: Send {
    /// Cancelled while it waits, it has taken nothing.
    async fn next(&mut self) -> Delivery;
}

/// How a delivery is settled with its backend.
#[async_trait]
trait Receipt: Send + Sync {
    async fn acknowledge(self: Box<Self>) -> Result<(), TicketError>;
    fn give_back(self: Box<Self>);
}

/// All there are.
fn kinds() -> impl Iterator<Item = (TaskKind, Tier)> {
    TaskKind::ALL.into_iter().flat_map(|class| Tier::ALL.iter().map(move |tier| (class, *tier)))
}
