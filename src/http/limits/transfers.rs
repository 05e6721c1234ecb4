//! A seat for each body that is received: waiting for one, in order and not for ever.

use super::seats::{Asked, Seats, Ticket};
use crate::http::problem::Problem;
use reelyard_model::TenantId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Those who wait hold a connection and no memory to speak of; beyond this they are told to come back at once.
const MOST_WAITING: usize = 1000;
/// When to come back after having waited in vain.
const RETRY_AFTER_SECONDS: u64 = 5;

/// Three quarters: one tenant alone uses most of a server, and the others still get in.
const fn share_of_one(most: u32) -> u32 {
    let share = most - most / 4;
    if share == 0 { 1 } else { share }
}

pub(crate) struct Transfers {
    room: Arc<Room>,
    /// For tenants without a limit of their own.
    most_of_tenant: u32,
    wait: Duration,
}

#[derive(Debug)]
struct Room {
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    seats: Seats,
    calls: HashMap<Ticket, oneshot::Sender<()>>,
}

/// The right to receive one body, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    room: Arc<Room>,
    tenant: TenantId,
}

/// A place in the line, until it is dropped.
struct Place {
    room: Arc<Room>,
    tenant: TenantId,
    ticket: Ticket,
    done: bool,
}

impl Transfers {
    pub(super) fn new(most: u32, most_of_tenant: Option<u32>, wait: Duration) -> Self {
        let inside = Inside { seats: Seats::new(most, MOST_WAITING), calls: HashMap::new() };
        Self {
            room: Arc::new(Room { inside: Mutex::new(inside) }),
            most_of_tenant: most_of_tenant.unwrap_or_else(|| share_of_one(most)),
            wait,
        }
    }

    /// A seat at once, or after some waiting. `most_of_tenant`: the tenant's own limit, where it has one. `stop` ends the
    /// waiting: somebody newer has taken the upload over, say.
    pub(crate) async fn sit(
        &self,
        tenant: TenantId,
        most_of_tenant: Option<u32>,
        stop: &CancellationToken,
    ) -> Result<Seat, Problem> {
        let asked = self.room.ask(tenant, most_of_tenant.unwrap_or(self.most_of_tenant));
        let (mut place, called) = match asked {
            Waited::Seated => return Ok(Seat { room: self.room.clone(), tenant }),
            Waited::TurnedAway => return Err(busy("has too many uploads in hand, and as many are waiting")),
            Waited::Waiting(ticket, called) => {
                (Place { room: self.room.clone(), tenant, ticket, done: false }, called)
            }
        };
        metrics::counter!("reelyard_upload_waits_total").increment(1);
        tokio::select! {
            // The sender is dropped only after it has called.
            _ = called => {}
            () = tokio::time::sleep(self.wait) => {}
            () = stop.cancelled() => {}
        }
        if place.give_up() {
            return Err(busy("is receiving as many uploads at a time as it takes"));
        }
        Ok(Seat { room: self.room.clone(), tenant })
    }
}

fn busy(why: &str) -> Problem {
    metrics::counter!("reelyard_upload_turned_away_total").increment(1);
    Problem::unavailable(
        format!("The server {why}. Nothing of this request was taken; try again in a moment."),
        RETRY_AFTER_SECONDS,
    )
}

enum Waited {
    Seated,
    Waiting(Ticket, oneshot::Receiver<()>),
    TurnedAway,
}

impl Room {
    fn ask(&self, tenant: TenantId, most_of_tenant: u32) -> Waited {
        let mut inside = self.inside();
        match inside.seats.ask(tenant, most_of_tenant) {
            Asked::Seated => {
                gauge(&inside);
                Waited::Seated
            }
            Asked::TurnedAway => Waited::TurnedAway,
            Asked::Waiting(ticket) => {
                let (call, called) = oneshot::channel();
                inside.calls.insert(ticket, call);
                Waited::Waiting(ticket, called)
            }
        }
    }

    fn give_back(&self, tenant: TenantId) {
        let mut inside = self.inside();
        if let Some(ticket) = inside.seats.give_back(tenant)
            && let Some(call) = inside.calls.remove(&ticket)
        {
            // He may be gone this instant; then his place gives the seat back in turn.
            let _ = call.send(());
        }
        gauge(&inside);
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Nothing in here can panic half-way, so a poisoned room is a good room.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gauge(inside: &Inside) {
    metrics::gauge!("reelyard_upload_transfers").set(inside.seats.taken());
    metrics::gauge!("reelyard_upload_transfers_waiting").set(inside.seats.waiting() as f64);
}

impl Place {
    /// True: no seat. False: there was one already, and it is the caller's now.
    fn give_up(&mut self) -> bool {
        self.done = true;
        let mut inside = self.room.inside();
        inside.calls.remove(&self.ticket);
        inside.seats.give_up(self.ticket)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The request was dropped while it waited. Was it seated this instant, nobody sits there.
        if !self.done && !self.give_up() {
            self.room.give_back(self.tenant);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.give_back(self.tenant);
    }
}

#[cfg(test)]
mod tests {
    use super::Transfers;
    use crate::http::problem::Kind;
    use reelyard_model::TenantId;
    use std::{sync::Arc, time::Duration};
    use tokio_util::sync::CancellationToken;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    fn transfers(wait: Duration) -> Arc<Transfers> {
        Arc::new(Transfers::new(1, None, wait))
    }

    /// Until somebody stands in the line.
    async fn somebody_waits(transfers: &Transfers) {
        while transfers.room.inside().seats.waiting() == 0 {
            tokio::task::yield_now().await;
        }
    }

    async fn sit(transfers: &Transfers) -> Result<super::Seat, Kind> {
        transfers
            .sit(TenantId::DEFAULT, None, &CancellationToken::new())
            .await
            .map_err(|problem| problem.kind())
    }

    #[tokio::test]
    async fn a_seat_is_handed_on_to_whoever_waits() {
        let transfers = transfers(LONG);
        let first = sit(&transfers).await.unwrap();
        let second = tokio::spawn({
            let transfers = transfers.clone();
            async move { sit(&transfers).await }
        });
        somebody_waits(&transfers).await;
        drop(first);
        let _seat = second.await.unwrap().unwrap();
        assert_eq!(transfers.room.inside().seats.taken(), 1);
    }

    #[tokio::test]
    async fn one_tenant_leaves_a_quarter_of_the_seats_to_the_others() {
        let transfers = Transfers::new(4, None, SHORT);
        let mut seats = Vec::new();
        for _ in 0..3 {
            seats.push(sit(&transfers).await.unwrap());
        }
        assert_eq!(sit(&transfers).await.unwrap_err(), Kind::Unavailable);
        let other = TenantId::from_uuid(uuid::Uuid::from_u128(7));
        assert!(transfers.sit(other, None, &CancellationToken::new()).await.is_ok());
        assert_eq!([1, 2, 3, 2000].map(super::share_of_one), [1, 2, 3, 1500]);
    }

    #[tokio::test]
    async fn the_waiting_has_an_end() {
        let transfers = transfers(SHORT);
        let first = sit(&transfers).await.unwrap();
        assert_eq!(sit(&transfers).await.unwrap_err(), Kind::Unavailable);
        drop(first);
        assert!(sit(&transfers).await.is_ok());
    }

    #[tokio::test]
    async fn who_goes_away_while_waiting_leaves_no_hole() {
        let transfers = transfers(LONG);
        let first = sit(&transfers).await.unwrap();
        for _ in 0..3 {
            let waiting = tokio::spawn({
                let transfers = transfers.clone();
                async move { sit(&transfers).await }
            });
            somebody_waits(&transfers).await;
            waiting.abort();
            assert!(waiting.await.unwrap_err().is_cancelled());
        }
        drop(first);
        let _seat = sit(&transfers).await.unwrap();
        assert_eq!(transfers.room.inside().seats.taken(), 1);
        assert!(transfers.room.inside().calls.is_empty());
    }

    #[tokio::test]
    async fn who_is_told_to_stop_waits_no_longer() {
        let transfers = transfers(LONG);
        let _first = sit(&transfers).await.unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        let refused = transfers.sit(TenantId::DEFAULT, None, &stop).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Unavailable);
        assert_eq!(transfers.room.inside().seats.waiting(), 0);
    }
}
