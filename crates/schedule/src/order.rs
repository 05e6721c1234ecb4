//! The decision: which queues the free slots go to, and in which order.
//!
//! 1. A higher tier goes first.
//! 2. Within a tier the next slot goes to the tenant with the least running work for its weight (max-min fairness over
//!    everything it runs, in all tiers); of equals, to the one whose task is older.
//! 3. Within a tenant and tier, the oldest task; probes and publishing have a head start.
//! 4. A task of a lower tier that has waited too long may go before all of that, but only while lower tiers have less
//!    than their part of the running work: the lane of the overdue, served by age alone. So nothing starves, and a heap
//!    of overdue bulk work cannot push urgent work aside.
//! 5. No tenant goes past its cap, and no slot stays free that a waiting task could have.
//!
//! Only the oldest task of a queue is known by its age, so a queue has one task overdue in one decision; the next
//! decision sees the next. A decision costs O((queues + picks) log queues).

use crate::{Pick, Queue, Running, Situation, places::Places};
use reelyard_model::{TenantId, Tier, work::TaskKind};
use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// A normal task is overdue after half an hour: its creator looks at a page that should have ended long ago, so whatever
/// urgent work keeps it out is no exception any more.
pub const OVERDUE_NORMAL_MS: i64 = 30 * MINUTE_MS;
/// A bulk task is overdue after four hours: waiting for a quiet hour is what it is for, but it should move every day.
pub const OVERDUE_BULK_MS: i64 = 4 * HOUR_MS;
/// One part in so many of the running work is the most that overdue tasks of lower tiers take from a higher one. A
/// quarter still empties a heap, and a higher tier never loses more than a quarter of its speed by it.
pub const LANE_PART: u32 = 4;
/// Probing costs a second, and without it nobody knows what else is to do; so it goes before all other work of its tenant
/// that is not itself older than a day.
const PROBE_HEAD_START_MS: i64 = 24 * HOUR_MS;
/// Publishing costs a second too, and is what everything before was made for: before probes.
const PUBLISH_HEAD_START_MS: i64 = 2 * PROBE_HEAD_START_MS;

/// The queues that the free slots go to, first come first; each queue once, with how many of its oldest tasks.
pub fn picks(situation: &Situation) -> Vec<Pick> {
    let places = Places::of(situation.slots);
    if !places.any_left() {
        return Vec::new();
    }
    let mut round = Round::of(situation, places);
    for &tier in Tier::ALL {
        if !round.serve(tier) {
            break;
        }
    }
    round.picks()
}

/// Since when a task counts as waiting in its tenant's line.
const fn in_line_since_ms(kind: TaskKind, created_ms: i64) -> i64 {
    created_ms.saturating_sub(match kind {
        TaskKind::Publish => PUBLISH_HEAD_START_MS,
        TaskKind::Probe => PROBE_HEAD_START_MS,
        TaskKind::Encode | TaskKind::Audio | TaskKind::Stills => 0,
    })
}

/// All tasks of a plan are made in one instant. Sound and stills are short and would otherwise come in last and late.
const fn among_twins(kind: TaskKind) -> u8 {
    match kind {
        TaskKind::Publish => 0,
        TaskKind::Probe => 1,
        TaskKind::Audio => 2,
        TaskKind::Stills => 3,
        TaskKind::Encode => 4,
    }
}

const fn is_overdue(tier: Tier, created_ms: i64, now_ms: i64) -> bool {
    let waited_ms = now_ms.saturating_sub(created_ms);
    match tier {
        // Above it there is nothing to be kept out by.
        Tier::Urgent => false,
        Tier::Normal => waited_ms >= OVERDUE_NORMAL_MS,
        Tier::Bulk => waited_ms >= OVERDUE_BULK_MS,
    }
}

/// A tenant during one decision.
struct Share {
    weight: u32,
    /// With what this decision gave it.
    running: u64,
    /// How many more its cap allows.
    room: u64,
}

/// A queue during one decision.
struct Line {
    queue: Queue,
    /// Index of its tenant's share.
    share: usize,
    in_line_since_ms: i64,
    taken: u32,
}

impl Line {
    const fn is_empty(&self) -> bool {
        self.taken >= self.queue.waiting
    }
}

struct Round {
    shares: Vec<Share>,
    /// By tenant, tier, and then the order in which the tenant's line is served.
    lines: Vec<Line>,
    places: Places,
    /// Over the whole farm, with what this decision gave.
    running: Running,
    /// Lines with an overdue head, the oldest last; each is there once.
    overdue: Vec<usize>,
    /// Lines in the order in which they were first served.
    served: Vec<usize>,
}

/// A tenant that waits for the next slot of a tier. The least is served next.
struct Candidate {
    running: u64,
    weight: u32,
    in_line_since_ms: i64,
    share: usize,
    /// Its lines in this tier: `first..end`.
    first: usize,
    end: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        // running / weight, without dividing.
        let mine = u128::from(self.running) * u128::from(other.weight);
        let its = u128::from(other.running) * u128::from(self.weight);
        mine.cmp(&its)
            .then(self.in_line_since_ms.cmp(&other.in_line_since_ms))
            .then(self.share.cmp(&other.share))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

impl Round {
    fn of(situation: &Situation, places: Places) -> Self {
        let mut running = Running::default();
        for load in situation.tenants {
            for &tier in Tier::ALL {
                let sum = running.of_mut(tier);
                *sum = sum.saturating_add(load.running.of(tier));
            }
        }
        let (shares, lines) = stand_in_line(situation, &places);
        let mut overdue: Vec<usize> = (0..lines.len())
            .filter(|&at| is_overdue(lines[at].queue.tier, lines[at].queue.oldest_ms, situation.now_ms))
            .collect();
        overdue.sort_unstable_by_key(|&at| Reverse((lines[at].queue.oldest_ms, at)));
        Self { shares, lines, places, running, overdue, served: Vec::new() }
    }

    /// Gives slots to a tier, and to the overdue below it, until it has nobody left who can be served. False: no slot
    /// is left either.
    fn serve(&mut self, tier: Tier) -> bool {
        let mut waiting = self.candidates(tier);
        while let Some(Reverse(mut candidate)) = waiting.pop() {
            let share = &self.shares[candidate.share];
            if share.running != candidate.running {
                // The lane gave it something meanwhile.
                candidate.running = share.running;
                waiting.push(Reverse(candidate));
                continue;
            }
            let Some(line) = (candidate.first..candidate.end).find(|&at| self.can_take(at)) else { continue };
            let overdue = if self.lane_is_open(tier) { self.next_overdue_below(tier) } else { None };
            self.take(overdue.unwrap_or(line));
            if !self.places.any_left() {
                return false;
            }
            candidate.running = self.shares[candidate.share].running;
            waiting.push(Reverse(candidate));
        }
        true
    }

    fn candidates(&self, tier: Tier) -> BinaryHeap<Reverse<Candidate>> {
        let mut found = Vec::new();
        let mut first = 0;
        for group in
            self.lines.chunk_by(|one, next| one.share == next.share && one.queue.tier == next.queue.tier)
        {
            let end = first + group.len();
            let share = &self.shares[group[0].share];
            if group[0].queue.tier == tier && share.room > 0 {
                found.push(Reverse(Candidate {
                    running: share.running,
                    weight: share.weight,
                    in_line_since_ms: group[0].in_line_since_ms,
                    share: group[0].share,
                    first,
                    end,
                }));
            }
            first = end;
        }
        BinaryHeap::from(found)
    }

    /// Once false for a line it stays false: rooms and places only shrink within a decision.
    fn can_take(&self, at: usize) -> bool {
        let line = &self.lines[at];
        !line.is_empty() && self.shares[line.share].room > 0 && self.places.fits(line.queue.kind)
    }

    /// Whether the tiers below `tier` have less than their part. With nothing running they do: on a farm of one slot
    /// the overdue go first.
    const fn lane_is_open(&self, tier: Tier) -> bool {
        let below = match tier {
            Tier::Urgent => self.running.normal.saturating_add(self.running.bulk),
            Tier::Normal => self.running.bulk,
            Tier::Bulk => return false,
        };
        below as u64 * LANE_PART as u64 <= self.running.total() as u64
    }

    fn next_overdue_below(&mut self, tier: Tier) -> Option<usize> {
        while let Some(at) = self.overdue.pop() {
            // Those of this tier itself need no lane any more, nor do those that cannot be served in this decision.
            if self.lines[at].queue.tier.rank() > tier.rank() && self.can_take(at) {
                return Some(at);
            }
        }
        None
    }

    fn take(&mut self, at: usize) {
        let line = &mut self.lines[at];
        if line.taken == 0 {
            self.served.push(at);
        }
        line.taken += 1;
        self.places.promise(line.queue.kind);
        let sum = self.running.of_mut(line.queue.tier);
        *sum = sum.saturating_add(1);
        let share = &mut self.shares[line.share];
        share.running += 1;
        share.room -= 1;
    }

    fn picks(self) -> Vec<Pick> {
        let pick = |at: &usize| {
            let Line { queue, taken, .. } = &self.lines[*at];
            Pick { tenant: queue.tenant, tier: queue.tier, kind: queue.kind, count: *taken }
        };
        self.served.iter().map(pick).collect()
    }
}

/// The queues that a slot may go to, sorted, each with its tenant's share.
fn stand_in_line(situation: &Situation, places: &Places) -> (Vec<Share>, Vec<Line>) {
    let line_of = |queue: &Queue| Line {
        queue: *queue,
        share: 0,
        in_line_since_ms: in_line_since_ms(queue.kind, queue.oldest_ms),
        taken: 0,
    };
    let can_be_served = |queue: &&Queue| queue.waiting > 0 && places.fits(queue.kind);
    let mut lines: Vec<Line> = situation.queues.iter().filter(can_be_served).map(line_of).collect();
    lines.sort_unstable_by_key(|line| {
        let Queue { tenant, tier, kind, .. } = line.queue;
        (tenant, tier.rank(), line.in_line_since_ms, among_twins(kind))
    });
    let mut loads: Vec<_> = situation.tenants.iter().collect();
    loads.sort_unstable_by_key(|load| load.tenant);

    let mut loads = loads.into_iter().peekable();
    let mut shares: Vec<Share> = Vec::new();
    let mut last: Option<TenantId> = None;
    for line in &mut lines {
        let tenant = line.queue.tenant;
        if last != Some(tenant) {
            last = Some(tenant);
            while loads.next_if(|load| load.tenant < tenant).is_some() {}
            let load = loads.next_if(|load| load.tenant == tenant);
            let running = load.map_or(0, |load| u64::from(load.running.total()));
            let cap = load.and_then(|load| load.cap).map_or(u64::MAX, u64::from);
            let weight = load.map_or(1, |load| load.weight.max(1));
            shares.push(Share { weight, running, room: cap.saturating_sub(running) });
        }
        line.share = shares.len() - 1;
    }
    (shares, lines)
}
