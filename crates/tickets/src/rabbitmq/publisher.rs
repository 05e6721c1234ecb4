//! Issues tickets: many in one breath, each confirmed by itself.
//!
//! One connection for the process, made when it is needed. What is not confirmed in time is a failure, and the
//! connection is given up with it, for nobody knows what it still holds.

use super::link::{Broker, pause_after};
use crate::{Ticket, TicketError};
use futures::future::join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use reelyard_model::{Tier, work::TaskKind};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Tickets on their way at the same time: 300 KB of frames in memory.
const MAX_IN_FLIGHT: usize = 1000;
/// AMQP 0-9-1, basic.properties: kept on disk. Quorum queues do so anyway; this is for who reads the message.
const PERSISTENT: u8 = 2;

type Kind = (TaskKind, Tier);
type Outcome = Result<(), TicketError>;

#[derive(Debug)]
pub(super) struct Publisher {
    broker: Arc<Broker>,
    state: tokio::sync::Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Arc<Link>>,
    failures: u32,
    /// Before this time the broker is left alone, and this is why.
    left_alone: Option<(Instant, TicketError)>,
}

struct Link {
    connection: Connection,
    channel: Channel,
    /// One batch at a time, up to its confirmations. The client numbers what it publishes before it hands it over, and
    /// gives what was returned to whatever is confirmed next: two batches at a time would mix both up.
    publishing: tokio::sync::Mutex<()>,
    /// A confirmation did not come: whatever still comes here is of yesterday.
    abandoned: AtomicBool,
    /// One declaration at a time: who finds a queue that another one is just making is told that it is there, and has
    /// his tickets refused until it is.
    declaring: tokio::sync::Mutex<()>,
    declared: Mutex<HashSet<Kind>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client's own form is long and may name the user.
        formatter.write_str("Link")
    }
}

impl Publisher {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self { broker, state: tokio::sync::Mutex::default() }
    }

    pub(super) async fn issue(&self, tickets: &[Ticket]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(tickets.len());
        for batch in tickets.chunks(MAX_IN_FLIGHT) {
            match self.link().await {
                Ok(link) => outcomes.extend(self.issue_batch(&link, batch).await),
                Err(error) => outcomes.extend(batch.iter().map(|_| Err(error.clone()))),
            }
        }
        outcomes
    }

    /// Declares these queues, and fails when one of them is wrong.
    pub(super) async fn check(&self, kinds: &[Kind]) -> Result<(), TicketError> {
        let link = self.link().await?;
        self.declare(&link, kinds).await.map(drop)
    }

    /// Tickets in each queue, without queues that are wrong.
    pub(super) async fn waiting(&self, kinds: &[Kind]) -> Result<Vec<(Kind, u64)>, TicketError> {
        let link = self.link().await?;
        match self.declare(&link, kinds).await {
            Err(TicketError::Misconfigured(_)) => {}
            declared => return declared.map(|waiting| kinds.iter().copied().zip(waiting).collect()),
        }
        let mut waiting = Vec::with_capacity(kinds.len());
        for kind in kinds {
            match self.declare(&link, &[*kind]).await {
                Ok(of_this) => waiting.extend(of_this.first().map(|waiting| (*kind, *waiting))),
                Err(error @ TicketError::Misconfigured(_)) => {
                    tracing::warn!(%error, "a queue of tickets cannot be used");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(waiting)
    }

    async fn issue_batch(&self, link: &Link, tickets: &[Ticket]) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = vec![Ok(()); tickets.len()];
        let new: HashSet<Kind> = tickets.iter().map(kind).filter(|kind| !link.has(*kind)).collect();
        for new_kind in new {
            match self.declare(link, &[new_kind]).await {
                Ok(_) => {}
                // One queue that is wrong keeps no other ticket back.
                Err(error @ TicketError::Misconfigured(_)) => {
                    tracing::warn!(%error, "tickets cannot be issued");
                    for index in (0..tickets.len()).filter(|index| kind(&tickets[*index]) == new_kind) {
                        outcomes[index] = Err(error.clone());
                    }
                }
                Err(error) => return vec![Err(error); tickets.len()],
            }
        }
        self.publish(link, tickets, &mut outcomes).await;
        outcomes
    }

    /// Those that are `Ok` so far: all in one breath, then all confirmations.
    async fn publish(&self, link: &Link, tickets: &[Ticket], outcomes: &mut [Outcome]) {
        let limit = self.broker.settings.confirm_timeout;
        let indices: Vec<usize> = (0..tickets.len()).filter(|index| outcomes[*index].is_ok()).collect();
        let Ok(_alone) = tokio::time::timeout(limit, link.publishing.lock()).await else {
            return fail_all(
                outcomes,
                &self.broker.unavailable("other tickets are before these for too long"),
            );
        };
        if !link.works() {
            return fail_all(outcomes, &self.broker.unavailable("the connection was given up"));
        }
        // Nobody waits for the rest when this is dropped in the middle, and the next batch must not meet it.
        let in_the_middle = AbandonWhenDropped(link);
        let deadline = Instant::now() + limit;
        let sending = join_all(indices.iter().map(|index| self.send(link, &tickets[*index], *index)));
        let late = self.broker.unavailable(&format!("it did not confirm them within {limit:?}"));
        let Ok(sent) = tokio::time::timeout_at(deadline.into(), sending).await else {
            return fail_all(outcomes, &late);
        };
        let confirming = sent.into_iter().map(|sent| async { sent?.await });
        let confirmed =
            join_all(confirming.map(|confirmation| tokio::time::timeout_at(deadline.into(), confirmation)));
        let confirmed = confirmed.await;
        if confirmed.iter().all(Result::is_ok) {
            std::mem::forget(in_the_middle);
        }
        let mut returned = Vec::new();
        for (index, confirmation) in indices.into_iter().zip(confirmed) {
            outcomes[index] = match confirmation {
                Ok(Ok(confirmation)) => self.settled(confirmation, &mut returned),
                Ok(Err(error)) => Err(self.broker.failure(&error)),
                Err(_) => Err(late.clone()),
            };
        }
        for message in returned {
            self.unroutable(link, tickets, &message, outcomes);
        }
    }

    /// A ticket that reached no queue. The client hands it out with any confirmation, so its own id tells which it was.
    fn unroutable(
        &self,
        link: &Link,
        tickets: &[Ticket],
        message: &BasicReturnMessage,
        outcomes: &mut [Outcome],
    ) {
        let id = message.properties.message_id().as_ref().and_then(|id| id.as_str().parse::<usize>().ok());
        let error = self.broker.unavailable(&format!("the queue {} is gone", message.routing_key));
        match id.filter(|index| *index < tickets.len()) {
            Some(index) => {
                link.forget(kind(&tickets[index]));
                outcomes[index] = Err(error);
            }
            None => fail_all(outcomes, &error),
        }
    }

    async fn send(
        &self,
        link: &Link,
        ticket: &Ticket,
        index: usize,
    ) -> lapin::Result<lapin::PublisherConfirm> {
        let mut headers = FieldTable::default();
        if !ticket.traceparent.is_empty() {
            headers.insert("traceparent".into(), AMQPValue::LongString(ticket.traceparent.as_str().into()));
        }
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_message_id(index.to_string().as_str().into())
            .with_headers(headers);
        let queue = ShortString::from(self.broker.queue(ticket.class, ticket.tier));
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        link.channel.basic_publish("".into(), queue, options, &ticket.to_json(), properties).await
    }

    fn settled(&self, confirmation: Confirmation, returned: &mut Vec<BasicReturnMessage>) -> Outcome {
        let taken = confirmation.is_ack();
        returned.extend(confirmation.take_message());
        if taken { Ok(()) } else { Err(self.broker.unavailable("it refused a ticket")) }
    }

    /// On a channel of its own, as a wrong queue closes it.
    async fn declare(&self, link: &Link, kinds: &[Kind]) -> Result<Vec<u64>, TicketError> {
        let limit = self.broker.settings.confirm_timeout;
        let Ok(_alone) = tokio::time::timeout(limit, link.declaring.lock()).await else {
            return Err(self.broker.unavailable("declaring other queues takes too long"));
        };
        let channel = self.broker.within(limit, "open a channel", link.connection.create_channel()).await?;
        let mut waiting = Vec::with_capacity(kinds.len());
        for (class, tier) in kinds {
            waiting.push(self.broker.declare(&channel, *class, *tier).await?);
            link.remember((*class, *tier));
        }
        let _ = tokio::time::timeout(limit, channel.close(200, "done".into())).await;
        Ok(waiting)
    }

    /// The one there is, or a new one, unless the broker failed a moment ago.
    async fn link(&self) -> Result<Arc<Link>, TicketError> {
        let mut state = self.state.lock().await;
        match &state.link {
            // A new connection would be stopped as well, and this one cannot even be closed until the broker reads on.
            Some(link) if link.is_blocked() => {
                return Err(self.broker.unavailable("it is short of memory or disk"));
            }
            Some(link) if link.works() => return Ok(link.clone()),
            _ => {}
        }
        state.link = None;
        if let Some((until, why)) = &state.left_alone
            && Instant::now() < *until
        {
            return Err(why.clone());
        }
        match self.connect().await {
            Ok(link) => {
                if state.failures > 0 {
                    tracing::info!(broker = ?self.broker, "RabbitMQ takes tickets again");
                }
                *state = State { link: Some(Arc::new(link)), ..State::default() };
                state.link.clone().ok_or_else(|| self.broker.unavailable("the connection is gone"))
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                state.left_alone = Some((Instant::now() + pause_after(state.failures), error.clone()));
                tracing::warn!(failures = state.failures, %error, "no tickets can be issued");
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<Link, TicketError> {
        let connection = self.broker.connect("issues tickets").await?;
        let limit = self.broker.settings.connect_timeout;
        let channel = self.broker.within(limit, "open a channel", connection.create_channel()).await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        self.broker.within(limit, "confirm", confirms).await?;
        Ok(Link {
            connection,
            channel,
            publishing: tokio::sync::Mutex::default(),
            abandoned: AtomicBool::new(false),
            declaring: tokio::sync::Mutex::default(),
            declared: Mutex::default(),
        })
    }
}

struct AbandonWhenDropped<'a>(&'a Link);

impl Drop for AbandonWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Relaxed);
    }
}

impl Link {
    fn works(&self) -> bool {
        !self.abandoned.load(Ordering::Relaxed)
            && self.connection.status().connected()
            && self.channel.status().connected()
    }

    fn is_blocked(&self) -> bool {
        self.connection.status().connected() && self.connection.status().blocked()
    }

    fn declared(&self) -> std::sync::MutexGuard<'_, HashSet<Kind>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, kind: Kind) -> bool {
        self.declared().contains(&kind)
    }

    fn remember(&self, kind: Kind) {
        self.declared().insert(kind);
    }

    fn forget(&self, kind: Kind) {
        self.declared().remove(&kind);
    }
}

fn kind(ticket: &Ticket) -> Kind {
    (ticket.class, ticket.tier)
}

fn fail_all(outcomes: &mut [Outcome], error: &TicketError) {
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
        *outcome = Err(error.clone());
    }
}
