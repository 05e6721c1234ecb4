//! Tickets from the broker: what wakes a worker that has free slots.
//!
//! A ticket says only that there may be something. It is acknowledged as soon as the claim that it led to was answered,
//! whether that brought a lease or nothing; a claim that failed leaves it in hand, and a worker that dies gives it back.
//! A worker without a free slot takes no tickets, so that none lies with somebody who cannot use it.

use reelyard_model::work::{Offer, TaskKind};
use reelyard_tickets::{Delivery, RabbitTickets, Subscription, Tickets as _};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Mutex as AsyncMutex, time::timeout};

/// Of each class and tier: one, since one claimer asks for all slots.
const PREFETCH: u16 = 1;

pub(super) struct Waiting {
    tickets: RabbitTickets,
    subscribed: AsyncMutex<Option<(Vec<TaskKind>, Subscription)>>,
    in_hand: Mutex<Vec<Delivery>>,
}

impl Waiting {
    pub(super) fn new(tickets: RabbitTickets) -> Self {
        Self { tickets, subscribed: AsyncMutex::new(None), in_hand: Mutex::default() }
    }

    /// Until a ticket for these offers is in hand, or the time is over. Safe to drop.
    pub(super) async fn wait(&self, offers: &[Offer], limit: Duration) {
        let mut kinds: Vec<TaskKind> = offers.iter().flat_map(|offer| offer.kinds.iter().copied()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut subscribed = self.subscribed.lock().await;
        if subscribed.as_ref().is_none_or(|(of, _)| *of != kinds) {
            let subscription = self.tickets.subscribe(&kinds, PREFETCH);
            *subscribed = Some((kinds, subscription));
        }
        let Some((_, subscription)) = subscribed.as_mut() else { return };
        if let Ok(delivery) = timeout(limit, subscription.next()).await {
            self.in_hand().push(delivery);
        }
    }

    /// A claim was answered. What had woken it is used up; `all_filled`: and no slot is free for more.
    pub(super) async fn claimed(&self, all_filled: bool) {
        if all_filled {
            *self.subscribed.lock().await = None;
        }
        let used = std::mem::take(&mut *self.in_hand());
        for delivery in used {
            if let Err(error) = delivery.acknowledge().await {
                tracing::debug!(%error, "a ticket was not acknowledged and comes again");
            }
        }
    }

    fn in_hand(&self) -> std::sync::MutexGuard<'_, Vec<Delivery>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
