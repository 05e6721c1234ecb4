//! Tickets on RabbitMQ 3.10 and later: one quorum queue for each class and tier, `{prefix}.{class}.{tier}`.
//!
//! Nothing here is cleverer than it must be to run on every broker: no redelivery counts, no priorities, no delays, no
//! exchanges. A wiped broker is a new broker: queues are declared again when they are needed. Two kinds of connections,
//! since a broker that is short of memory or disk stops the one that publishes: it must not stop acknowledgements.

mod link;
mod pause;
mod publisher;
mod subscriber;

use crate::{Depth, MAX_WAITING, Subscription, Ticket, TicketError, Tickets, kinds};
use async_trait::async_trait;
use link::Broker;
use publisher::Publisher;
use reelyard_model::work::TaskKind;
use std::{fmt, sync::Arc, time::Duration};

/// Where the broker is, and what may differ from farm to farm.
#[derive(Clone)]
pub struct RabbitSettings {
    /// `amqp://user:password@host:port/vhost`, or `amqps://` for TLS. Never shown with its password.
    pub url: String,
    /// Of the queues' names, so that several farms can share a broker.
    pub prefix: String,
    /// Certificates to trust besides the system's, as PEM.
    pub certificates: Option<String>,
    /// See [`MAX_WAITING`]. Part of a queue's declaration: changed, the queues must be deleted once.
    pub max_waiting: u32,
    /// For TCP, TLS and the handshake together.
    pub connect_timeout: Duration,
    /// For declaring a queue, and for confirming all tickets of a batch.
    pub confirm_timeout: Duration,
    /// A subscriber of a queue that gave nothing for so long asks for it anew.
    pub renew_after: Duration,
}

impl RabbitSettings {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "reelyard".to_owned(),
            certificates: None,
            max_waiting: MAX_WAITING,
            // A broker across an ocean needs one second; a name server that is away, five.
            connect_timeout: Duration::from_secs(10),
            // A quorum queue syncs to disk on most of its nodes; a busy disk takes seconds.
            confirm_timeout: Duration::from_secs(10),
            // As long as a sweep takes to see what lies too long; costs a broker two small commands for each queue.
            renew_after: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for RabbitSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RabbitSettings").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Connects when it is first used, and again whenever it must. Needs a tokio runtime.
#[derive(Debug)]
pub struct RabbitTickets {
    broker: Arc<Broker>,
    publisher: Publisher,
}

impl RabbitTickets {
    /// Reads the settings, touches no network. An error is always [`TicketError::Misconfigured`].
    pub fn new(settings: RabbitSettings) -> Result<Self, TicketError> {
        let broker = Arc::new(Broker::new(settings)?);
        Ok(Self { publisher: Publisher::new(broker.clone()), broker })
    }
}

#[async_trait]
impl Tickets for RabbitTickets {
    async fn issue(&self, tickets: &[Ticket]) -> Vec<Result<(), TicketError>> {
        self.publisher.issue(tickets).await
    }

    fn subscribe(&self, classes: &[TaskKind], prefetch: u16) -> Subscription {
        subscriber::subscribe(self.broker.clone(), classes, prefetch.max(1))
    }

    /// Declares all queues, so that a wrong one is found out before its first ticket.
    async fn ping(&self) -> Result<(), TicketError> {
        self.publisher.check(&kinds().collect::<Vec<_>>()).await
    }

    async fn depth(&self) -> Result<Vec<Depth>, TicketError> {
        let waiting = self.publisher.waiting(&kinds().collect::<Vec<_>>()).await?;
        Ok(waiting.into_iter().map(|((class, tier), waiting)| Depth { class, tier, waiting }).collect())
    }
}
