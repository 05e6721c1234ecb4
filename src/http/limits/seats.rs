//! Who may send a body now and who waits: so many seats, so many of one tenant, and one line in order of arrival.
//!
//! Decides only; `transfers` waits. Whoever cannot be seated because of his own tenant's limit does not hold up those
//! behind him.

use reelyard_model::TenantId;
use std::collections::{HashMap, VecDeque};

/// Names one who waits.
pub(super) type Ticket = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Seated,
    Waiting(Ticket),
    /// The line is full, too.
    TurnedAway,
}

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    tenant: TenantId,
    tenant_most: u32,
}

#[derive(Debug)]
pub(super) struct Seats {
    most: u32,
    most_waiting: usize,
    taken: u32,
    /// Of tenants that have any.
    by_tenant: HashMap<TenantId, u32>,
    line: VecDeque<Waiter>,
    next_ticket: Ticket,
}

impl Seats {
    pub(super) fn new(most: u32, most_waiting: usize) -> Self {
        Self {
            most: most.max(1),
            most_waiting,
            taken: 0,
            by_tenant: HashMap::new(),
            line: VecDeque::new(),
            next_ticket: 0,
        }
    }

    pub(super) fn ask(&mut self, tenant: TenantId, tenant_most: u32) -> Asked {
        // A limit of no seat at all would let its tenant wait for ever.
        let tenant_most = tenant_most.max(1);
        if self.has_room(tenant, tenant_most) {
            self.seat(tenant);
            return Asked::Seated;
        }
        if self.line.len() >= self.most_waiting {
            return Asked::TurnedAway;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.line.push_back(Waiter { ticket, tenant, tenant_most });
        Asked::Waiting(ticket)
    }

    /// One gets up. Gives who is seated in turn: at most one, because after each change nobody is left waiting who could
    /// be seated.
    pub(super) fn give_back(&mut self, tenant: TenantId) -> Option<Ticket> {
        self.taken = self.taken.saturating_sub(1);
        if let Some(count) = self.by_tenant.get_mut(&tenant) {
            *count -= 1;
            if *count == 0 {
                self.by_tenant.remove(&tenant);
            }
        }
        let at = self.line.iter().position(|waiter| self.has_room(waiter.tenant, waiter.tenant_most))?;
        let waiter = self.line.remove(at)?;
        self.seat(waiter.tenant);
        Some(waiter.ticket)
    }

    /// True: he waits no longer. False: he was seated already.
    pub(super) fn give_up(&mut self, ticket: Ticket) -> bool {
        let before = self.line.len();
        self.line.retain(|waiter| waiter.ticket != ticket);
        self.line.len() < before
    }

    pub(super) fn taken(&self) -> u32 {
        self.taken
    }

    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }

    fn has_room(&self, tenant: TenantId, tenant_most: u32) -> bool {
        self.taken < self.most && self.by_tenant.get(&tenant).copied().unwrap_or(0) < tenant_most
    }

    fn seat(&mut self, tenant: TenantId) {
        self.taken += 1;
        *self.by_tenant.entry(tenant).or_insert(0) += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Seats};
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use reelyard_model::TenantId;
    use std::collections::HashMap;
    use uuid::Uuid;

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn those_who_wait_are_seated_in_order() {
        let mut seats = Seats::new(1, 2);
        assert_eq!(seats.ask(tenant(1), 9), Asked::Seated);
        let Asked::Waiting(second) = seats.ask(tenant(2), 9) else { panic!() };
        let Asked::Waiting(third) = seats.ask(tenant(1), 9) else { panic!() };
        assert_eq!(seats.ask(tenant(3), 9), Asked::TurnedAway);
        assert_eq!(seats.give_back(tenant(1)), Some(second));
        assert_eq!(seats.give_back(tenant(2)), Some(third));
        assert_eq!(seats.give_back(tenant(1)), None);
        assert_eq!((seats.taken(), seats.waiting()), (0, 0));
    }

    #[test]
    fn a_tenant_at_its_limit_does_not_hold_up_the_others() {
        let mut seats = Seats::new(3, 9);
        assert_eq!(seats.ask(tenant(1), 1), Asked::Seated);
        let Asked::Waiting(own) = seats.ask(tenant(1), 1) else { panic!() };
        assert_eq!(seats.ask(tenant(2), 1), Asked::Seated);
        assert_eq!(seats.ask(tenant(3), 1), Asked::Seated);
        let Asked::Waiting(other) = seats.ask(tenant(4), 1) else { panic!() };
        assert_eq!(seats.give_back(tenant(2)), Some(other), "the first in the line still may not");
        assert_eq!(seats.give_back(tenant(1)), Some(own));
    }

    #[test]
    fn who_gave_up_is_not_seated_and_who_is_seated_cannot_give_up() {
        let mut seats = Seats::new(1, 9);
        assert_eq!(seats.ask(tenant(1), 9), Asked::Seated);
        let Asked::Waiting(first) = seats.ask(tenant(1), 9) else { panic!() };
        let Asked::Waiting(second) = seats.ask(tenant(1), 9) else { panic!() };
        assert!(seats.give_up(first));
        assert_eq!(seats.give_back(tenant(1)), Some(second));
        assert!(!seats.give_up(second));
        assert_eq!(seats.taken(), 1);
    }

    proptest! {
        #[test]
        fn no_seat_is_lost_and_nobody_waits_who_could_sit(steps in proptest::collection::vec((0_u8..3, 0_u128..4), 1..300)) {
            let mut seats = Seats::new(3, 5);
            let mut seated: Vec<u128> = Vec::new();
            let mut waiting: HashMap<u64, u128> = HashMap::new();
            for (what, who) in steps {
                match what {
                    0 => match seats.ask(tenant(who), 2) {
                        Asked::Seated => seated.push(who),
                        Asked::Waiting(ticket) => { waiting.insert(ticket, who); }
                        Asked::TurnedAway => prop_assert_eq!(waiting.len(), 5),
                    },
                    1 => if let Some(at) = seated.iter().position(|&one| one == who) {
                        seated.remove(at);
                        if let Some(ticket) = seats.give_back(tenant(who)) {
                            seated.push(waiting.remove(&ticket).unwrap());
                        }
                    },
                    _ => if let Some(&ticket) = waiting.keys().min() {
                        prop_assert!(seats.give_up(ticket));
                        waiting.remove(&ticket);
                    },
                }
                prop_assert_eq!(seats.taken() as usize, seated.len());
                prop_assert_eq!(seats.waiting(), waiting.len());
                prop_assert!(seated.len() <= 3);
                for one in waiting.values() {
                    let own = seated.iter().filter(|&other| other == one).count();
                    prop_assert!(seated.len() == 3 || own >= 2);
                }
            }
        }
    }
}
