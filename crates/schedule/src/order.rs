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
use reelyard_model::{Tier, work::TaskKind};
use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap},
    hash::{BuildHasherDefault, Hasher},
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
    tenant: u128,
    weight: u32,
    /// With what this decision gave it.
    running: u64,
    /// How many more its cap allows.
    room: u64,
    /// How many queues it has that a slot may go to.
    lines: usize,
}

/// A queue during one decision.
#[derive(Clone, Copy)]
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

/// Its oldest task's making; what makes the order the same for any order of the input; its index.
type OverdueLine = (i64, usize, u128, TaskKind, usize);

struct Round {
    shares: Vec<Share>,
    /// A tenant's are together, by tier and then in the order in which they are served.
    lines: Vec<Line>,
    places: Places,
    /// Over the whole farm, with what this decision gave.
    running: Running,
    /// Lines with an overdue head, each once. Gathered when the lane opens for the first time.
    overdue: Option<BinaryHeap<Reverse<OverdueLine>>>,
    now_ms: i64,
    /// Lines in the order in which they were first served.
    served: Vec<usize>,
}

/// A tenant that waits for the next slot of a tier. The least is served next.
struct Candidate {
    running: u64,
    weight: u32,
    in_line_since_ms: i64,
    tenant: u128,
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
            .then(self.tenant.cmp(&other.tenant))
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
        Self { shares, lines, places, running, overdue: None, now_ms: situation.now_ms, served: Vec::new() }
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
                    tenant: share.tenant,
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
        let mut overdue = self.overdue.take().unwrap_or_else(|| self.all_overdue());
        let found = loop {
            let Some(Reverse((.., at))) = overdue.pop() else { break None };
            // Those of this tier itself need no lane any more, nor do those that cannot be served in this decision.
            if self.lines[at].queue.tier.rank() > tier.rank() && self.can_take(at) {
                break Some(at);
            }
        };
        self.overdue = Some(overdue);
        found
    }

    fn all_overdue(&self) -> BinaryHeap<Reverse<OverdueLine>> {
        let lines = self.lines.iter().enumerate();
        let overdue =
            lines.filter(|(_, Line { queue, .. })| is_overdue(queue.tier, queue.oldest_ms, self.now_ms));
        let found: Vec<_> = overdue
            .map(|(at, Line { queue, share, .. })| {
                Reverse((queue.oldest_ms, queue.tier.rank(), self.shares[*share].tenant, queue.kind, at))
            })
            .collect();
        BinaryHeap::from(found)
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

/// The queues that a slot may go to, tenant by tenant, each with its tenant's share. Tenants are found by hashing and
/// gathered by counting: with ten thousand of them, sorting would cost more than the whole rest of the decision.
fn stand_in_line(situation: &Situation, places: &Places) -> (Vec<Share>, Vec<Line>) {
    let can_be_served = |queue: &&Queue| queue.waiting > 0 && places.fits(queue.kind);
    let tenants = situation.tenants.len().min(situation.queues.len());
    let mut shares: Vec<Share> = Vec::with_capacity(tenants);
    let mut share_of: HashMap<u128, usize, BuildHasherDefault<IdHasher>> =
        HashMap::with_capacity_and_hasher(tenants, BuildHasherDefault::default());
    let mut lines: Vec<Line> = Vec::with_capacity(situation.queues.len());
    for queue in situation.queues.iter().filter(can_be_served) {
        let tenant = queue.tenant.as_uuid().as_u128();
        let share = *share_of.entry(tenant).or_insert_with(|| {
            shares.push(Share { tenant, weight: 1, running: 0, room: u64::MAX, lines: 0 });
            shares.len() - 1
        });
        shares[share].lines += 1;
        let in_line_since_ms = in_line_since_ms(queue.kind, queue.oldest_ms);
        lines.push(Line { queue: *queue, share, in_line_since_ms, taken: 0 });
    }
    for load in situation.tenants {
        let Some(&share) = share_of.get(&load.tenant.as_uuid().as_u128()) else { continue };
        let share = &mut shares[share];
        share.weight = load.weight.max(1);
        share.running = u64::from(load.running.total());
        share.room = load.cap.map_or(u64::MAX, |cap| u64::from(cap).saturating_sub(share.running));
    }
    let lines = gather(&lines, &shares);
    (shares, lines)
}

/// A counting sort by share, and then each tenant's few lines by tier and by their turn.
fn gather(lines: &[Line], shares: &[Share]) -> Vec<Line> {
    let mut next: Vec<usize> = shares
        .iter()
        .scan(0, |sum, share| {
            let first = *sum;
            *sum += share.lines;
            Some(first)
        })
        .collect();
    let mut order = vec![0; lines.len()];
    for (at, line) in lines.iter().enumerate() {
        order[next[line.share]] = at;
        next[line.share] += 1;
    }
    let mut gathered: Vec<Line> = order.into_iter().map(|at| lines[at]).collect();
    for of_one_tenant in gathered.chunk_by_mut(|one, other| one.share == other.share) {
        of_one_tenant.sort_unstable_by_key(|line| {
            (line.queue.tier.rank(), line.in_line_since_ms, among_twins(line.queue.kind))
        });
    }
    gathered
}

/// Ids of tenants are random in their low bits already, and ours: nobody can choose them to collide.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Fibonacci hashing: the golden ratio of 2^64.
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_u128(&mut self, value: u128) {
        self.write_u64((value >> 64) as u64);
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(32)
    }
}
