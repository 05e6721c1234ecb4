//! A farm in one thread: workers, tasks and time are numbers, and the same seed gives the same day. Whenever a task
//! arrives or ends, the farm asks `picks` and `deal` and starts what they say, as the catalogue does. After each
//! decision it checks what must hold at every moment; a test then looks at what started when.

#![allow(dead_code, reason = "each test file uses a part")]

use reelyard_model::{TenantId, Tier, work::TaskKind};
use reelyard_schedule::{Queue, Running, Situation, Slots, TenantLoad, deal, picks};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
};
use uuid::Uuid;

pub(crate) const SECOND_MS: i64 = 1_000;
pub(crate) const MINUTE_MS: i64 = 60 * SECOND_MS;
pub(crate) const HOUR_MS: i64 = 60 * MINUTE_MS;

pub(crate) fn tenant(number: u128) -> TenantId {
    TenantId::from_uuid(Uuid::from_u128(number))
}

/// SplitMix64 (Steele, Lea and Flood, 2014): all the chance there is.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub(crate) fn between_ms(&mut self, from_ms: i64, to_ms: i64) -> i64 {
        from_ms + i64::try_from(self.below(u64::try_from(to_ms - from_ms).unwrap())).unwrap()
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) tenant: TenantId,
    pub(crate) tier: Tier,
    pub(crate) kind: TaskKind,
    pub(crate) arrives_ms: i64,
    pub(crate) takes_ms: i64,
}

/// A task that was started, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    pub(crate) task: Task,
    pub(crate) at_ms: i64,
}

impl Started {
    pub(crate) fn waited_ms(&self) -> i64 {
        self.at_ms - self.task.arrives_ms
    }
}

pub(crate) struct Farm {
    slots: Vec<Slots>,
    shares: BTreeMap<TenantId, (u32, Option<u32>)>,
    running: BTreeMap<TenantId, Running>,
    waiting: BTreeMap<(TenantId, usize, TaskKind), VecDeque<Task>>,
    arrivals: BinaryHeap<Reverse<(i64, usize)>>,
    tasks: Vec<Task>,
    ends: BinaryHeap<Reverse<(i64, usize, usize)>>,
    pub(crate) started: Vec<Started>,
    pub(crate) now_ms: i64,
}

impl Farm {
    pub(crate) fn new(slots: &[(&[TaskKind], u32)]) -> Self {
        Self {
            slots: slots.iter().map(|&(kinds, free)| Slots { kinds: kinds.to_vec(), free }).collect(),
            shares: BTreeMap::new(),
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            arrivals: BinaryHeap::new(),
            tasks: Vec::new(),
            ends: BinaryHeap::new(),
            started: Vec::new(),
            now_ms: 0,
        }
    }

    pub(crate) fn tenant(&mut self, tenant: TenantId, weight: u32, cap: Option<u32>) {
        self.shares.insert(tenant, (weight, cap));
    }

    pub(crate) fn arrive(&mut self, task: Task) {
        self.arrivals.push(Reverse((task.arrives_ms, self.tasks.len())));
        self.tasks.push(task);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    pub(crate) fn running_of(&self, tenant: TenantId) -> Running {
        self.running.get(&tenant).copied().unwrap_or_default()
    }

    pub(crate) fn running(&self, tier: Tier) -> u32 {
        self.running.values().map(|running| running.of(tier)).sum()
    }

    /// Lets the farm live until then; `look` sees it after each decision.
    pub(crate) fn run_until(&mut self, until_ms: i64, mut look: impl FnMut(&Self)) {
        loop {
            let next_arrival = self.arrivals.peek().map(|Reverse((at, _))| *at);
            let next_end = self.ends.peek().map(|Reverse((at, ..))| *at);
            let Some(next) = [next_arrival, next_end].into_iter().flatten().min() else { break };
            if next > until_ms {
                break;
            }
            self.now_ms = next;
            while let Some(&Reverse((at, slot, task))) = self.ends.peek() {
                if at > next {
                    break;
                }
                self.ends.pop();
                self.slots[slot].free += 1;
                let task = self.tasks[task];
                *self.running.get_mut(&task.tenant).unwrap().of_mut(task.tier) -= 1;
            }
            while let Some(&Reverse((at, task))) = self.arrivals.peek() {
                if at > next {
                    break;
                }
                self.arrivals.pop();
                let task = self.tasks[task];
                self.waiting.entry((task.tenant, task.tier.rank(), task.kind)).or_default().push_back(task);
            }
            self.decide();
            self.check();
            look(self);
        }
        self.now_ms = until_ms;
    }

    fn decide(&mut self) {
        let known = self.shares.keys().chain(self.running.keys()).copied();
        let tenants: Vec<TenantLoad> = known
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .map(|tenant| {
                let (weight, cap) = self.shares.get(&tenant).copied().unwrap_or((1, None));
                TenantLoad { tenant, weight, cap, running: self.running_of(tenant) }
            })
            .collect();
        let queues: Vec<Queue> = self
            .waiting
            .iter()
            .filter(|(_, tasks)| !tasks.is_empty())
            .map(|(&(tenant, tier, kind), tasks)| Queue {
                tenant,
                tier: Tier::ALL[tier],
                kind,
                waiting: u32::try_from(tasks.len()).unwrap(),
                oldest_ms: tasks[0].arrives_ms,
            })
            .collect();
        let situation =
            Situation { tenants: &tenants, queues: &queues, slots: &self.slots, now_ms: self.now_ms };
        let mut claimed = Vec::new();
        for pick in picks(&situation) {
            let queue = self.waiting.get_mut(&(pick.tenant, pick.tier.rank(), pick.kind)).expect("a queue");
            claimed.extend(queue.drain(..pick.count as usize));
        }
        let kinds: Vec<TaskKind> = claimed.iter().map(|task| task.kind).collect();
        for (task, slot) in claimed.into_iter().zip(deal(&kinds, &self.slots)) {
            let slot = slot.expect("a slot for every picked task");
            assert!(self.slots[slot].kinds.contains(&task.kind), "a slot that takes {:?}", task.kind);
            self.slots[slot].free = self.slots[slot].free.checked_sub(1).expect("a free slot");
            *self.running.entry(task.tenant).or_default().of_mut(task.tier) += 1;
            let number = self.tasks.len();
            self.tasks.push(task);
            self.ends.push(Reverse((self.now_ms + task.takes_ms, slot, number)));
            self.started.push(Started { task, at_ms: self.now_ms });
        }
    }

    /// What must hold at every moment.
    fn check(&self) {
        for (&tenant, &(_, cap)) in &self.shares {
            let running = self.running_of(tenant).total();
            assert!(cap.is_none_or(|cap| running <= cap), "{tenant} runs {running} of {cap:?}");
        }
        for ((tenant, tier, kind), tasks) in &self.waiting {
            let (_, cap) = self.shares.get(tenant).copied().unwrap_or((1, None));
            let may_run = cap.is_none_or(|cap| self.running_of(*tenant).total() < cap);
            let idle = self.slots.iter().any(|slots| slots.free > 0 && slots.kinds.contains(kind));
            assert!(
                tasks.is_empty() || !may_run || !idle,
                "a slot is idle while {} {kind:?} tasks of {tenant} wait in tier {tier}",
                tasks.len()
            );
        }
    }
}
