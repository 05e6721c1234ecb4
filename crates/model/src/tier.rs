//! The tier of a task: how urgent somebody said its asset is. Said by the asset's `priority`, stored with each of its
//! tasks, carried by tickets (a queue for each kind and tier), and read by the dispatch order (`reelyard_schedule`).

use crate::state::state_names;

state_names! {
    /// From the first served to the last, in this order.
    Tier {
        /// Before everything else: somebody waits in front of a screen.
        Urgent = "urgent",
        /// What nobody said anything about.
        Normal = "normal",
        /// Whenever there is room: imports and other heaps.
        Bulk = "bulk",
    }
}

/// From this priority of an asset on its tasks are urgent. A step of 100 leaves room for finer orders within a tier.
pub const URGENT_FROM_PRIORITY: i32 = 100;
/// Below this priority the tasks of an asset are bulk.
pub const NORMAL_FROM_PRIORITY: i32 = 0;

impl Tier {
    /// Of an asset's priority. 0, which an asset has when nobody says otherwise, is normal.
    pub const fn of_priority(priority: i32) -> Self {
        if priority >= URGENT_FROM_PRIORITY {
            Self::Urgent
        } else if priority >= NORMAL_FROM_PRIORITY {
            Self::Normal
        } else {
            Self::Bulk
        }
    }

    /// The priority that says this tier and nothing finer.
    pub const fn priority(self) -> i32 {
        match self {
            Self::Urgent => URGENT_FROM_PRIORITY,
            Self::Normal => NORMAL_FROM_PRIORITY,
            Self::Bulk => -100,
        }
    }

    /// 0 is served first. The number to sort by in SQL, where the names do not sort.
    pub const fn rank(self) -> usize {
        match self {
            Self::Urgent => 0,
            Self::Normal => 1,
            Self::Bulk => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tier;

    #[test]
    fn an_assets_priority_says_the_tier_of_its_tasks() {
        let of = |priority| Tier::of_priority(priority);
        assert_eq!([of(i32::MAX), of(100)], [Tier::Urgent; 2]);
        assert_eq!([of(99), of(30), of(0)], [Tier::Normal; 3], "what is stored today stays normal");
        assert_eq!([of(-1), of(i32::MIN)], [Tier::Bulk; 2]);
    }

    #[test]
    fn names_are_read_back_and_ranks_follow_their_order() {
        for (rank, tier) in Tier::ALL.iter().enumerate() {
            assert_eq!(tier.as_str().parse(), Ok(*tier));
            assert_eq!(tier.rank(), rank);
            assert_eq!(Tier::of_priority(tier.priority()), *tier);
        }
    }
}
