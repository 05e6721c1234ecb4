//! The words of a decision: what a caller has to know of tenants, queues and free slots, and what it is told.
//!
//! Everything is a number that a database counts in one grouped query; no task is named. So a decision costs the same
//! whether ten or a million tasks wait in a queue.

use reelyard_model::{TenantId, Tier, work::TaskKind};

/// What a tenant may have and has now. One that has no entry has weight 1, no cap, and nothing running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantLoad {
    pub tenant: TenantId,
    /// Its share against the others': twice the weight, twice the slots while both have work waiting. 0 is read as 1.
    pub weight: u32,
    /// Most tasks of all kinds that it may have at work at a time.
    pub cap: Option<u32>,
    pub running: Running,
}

/// Tasks under a lease, by the tier that is stored with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    pub urgent: u32,
    pub normal: u32,
    pub bulk: u32,
}

impl Running {
    pub const fn total(self) -> u32 {
        self.urgent.saturating_add(self.normal).saturating_add(self.bulk)
    }

    pub const fn of(self, tier: Tier) -> u32 {
        match tier {
            Tier::Urgent => self.urgent,
            Tier::Normal => self.normal,
            Tier::Bulk => self.bulk,
        }
    }

    pub const fn of_mut(&mut self, tier: Tier) -> &mut u32 {
        match tier {
            Tier::Urgent => &mut self.urgent,
            Tier::Normal => &mut self.normal,
            Tier::Bulk => &mut self.bulk,
        }
    }
}

/// The ready tasks of one tenant, tier and kind. Paused ones are left out by the caller. An entry more for the same
/// three is read as another queue, which harms nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    pub tenant: TenantId,
    pub tier: Tier,
    pub kind: TaskKind,
    pub waiting: u32,
    /// When the oldest of them was made.
    pub oldest_ms: i64,
}

/// Free slots that take the same kinds: those of one worker, or of several alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    pub kinds: Vec<TaskKind>,
    pub free: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// In any order; each tenant once. All that have something running, for the lane counts over the whole farm.
    pub tenants: &'a [TenantLoad],
    /// In any order.
    pub queues: &'a [Queue],
    pub slots: &'a [Slots],
    pub now_ms: i64,
}

/// Take the `count` oldest tasks of this queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    pub tenant: TenantId,
    /// The stored tier, also where a task goes first because it waited too long.
    pub tier: Tier,
    pub kind: TaskKind,
    pub count: u32,
}
