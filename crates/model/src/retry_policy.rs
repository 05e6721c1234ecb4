//! Whether and when a task is tried again: a pure function of what went wrong and how often. Randomness comes in as
//! an argument. Failures (an answer that says no) and losses (no answer at all) are counted apart, because they
//! accuse different parties: a failure the task, a loss most likely the machine.

use crate::FailureClass;

/// Failed attempts after which a task is given up, by class.
/// Too small or too busy a machine: it may be a passing load, but each try costs a whole attempt.
const CAPACITY_ATTEMPTS: u32 = 4;
/// Disk, network, killed processes: these pass, so patience pays; 10 tries with back-off span about ten minutes.
const INFRASTRUCTURE_ATTEMPTS: u32 = 10;
/// Our own fault seldom goes away by itself.
const INTERNAL_ATTEMPTS: u32 = 3;
/// Leases that ran out after which a task is suspected of bringing its workers down, and quarantined.
const LOSSES: u32 = 3;
/// Ends of the server's own process, with the task at work in it, that are not held against the task: restarts are the
/// operator's doing. A task that is there every time is more likely what ends the server, and each further end counts
/// as a loss.
const RESTARTS_FORGIVEN: u32 = 5;

const CAPACITY_FIRST_WAIT_MS: u64 = 5_000;
const INFRASTRUCTURE_FIRST_WAIT_MS: u64 = 1_000;
const INTERNAL_FIRST_WAIT_MS: u64 = 2_000;
const LOSS_FIRST_WAIT_MS: u64 = 1_000;
/// Longest wait between two tries.
const LONGEST_WAIT_MS: u64 = 120_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhatNext {
    RetryAfter { wait_ms: u64 },
    GiveUp,
}

/// After a failure of `class`; `failed_count` includes this one. `random` is uniform over all of u32.
pub fn after_failure(class: FailureClass, failed_count: u32, random: u32) -> WhatNext {
    let (attempts, first_wait_ms) = match class {
        FailureClass::BadInput => return WhatNext::GiveUp,
        FailureClass::Capacity => (CAPACITY_ATTEMPTS, CAPACITY_FIRST_WAIT_MS),
        FailureClass::Infrastructure => (INFRASTRUCTURE_ATTEMPTS, INFRASTRUCTURE_FIRST_WAIT_MS),
        FailureClass::Internal => (INTERNAL_ATTEMPTS, INTERNAL_FIRST_WAIT_MS),
    };
    retry_or_give_up(failed_count, attempts, first_wait_ms, random)
}

/// After a lease that ran out; `lost_count` includes this one.
pub fn after_loss(lost_count: u32, random: u32) -> WhatNext {
    retry_or_give_up(lost_count, LOSSES, LOSS_FIRST_WAIT_MS, random)
}

/// Whether the end of the server's process counts as a loss; `restart_count` includes this one.
pub const fn restart_is_a_loss(restart_count: u32) -> bool {
    restart_count > RESTARTS_FORGIVEN
}

fn retry_or_give_up(count: u32, limit: u32, first_wait_ms: u64, random: u32) -> WhatNext {
    if count >= limit {
        return WhatNext::GiveUp;
    }
    let doublings = count.saturating_sub(1).min(20);
    let longest_ms = (first_wait_ms << doublings).min(LONGEST_WAIT_MS);
    // Half of it fixed, half of it random: tasks that failed together do not come back together.
    let jitter_ms = longest_ms / 2 * u64::from(random) / u64::from(u32::MAX);
    WhatNext::RetryAfter { wait_ms: longest_ms / 2 + jitter_ms }
}

#[cfg(test)]
mod tests {
    use super::{WhatNext, after_failure, after_loss, restart_is_a_loss};
    use crate::FailureClass;

    #[test]
    fn bad_input_is_never_tried_again() {
        for count in 1..20 {
            assert_eq!(after_failure(FailureClass::BadInput, count, 7), WhatNext::GiveUp);
        }
    }

    #[test]
    fn waits_double_with_jitter_and_end() {
        let retry = |wait_ms| WhatNext::RetryAfter { wait_ms };
        let infrastructure = FailureClass::Infrastructure;
        assert_eq!(after_failure(infrastructure, 1, 0), retry(500));
        assert_eq!(after_failure(infrastructure, 1, u32::MAX), retry(1_000));
        assert_eq!(after_failure(infrastructure, 2, u32::MAX), retry(2_000));
        assert_eq!(after_failure(infrastructure, 9, u32::MAX), retry(120_000));
        assert_eq!(after_failure(infrastructure, 10, 0), WhatNext::GiveUp);
        assert_eq!(after_failure(FailureClass::Internal, 3, 0), WhatNext::GiveUp);
        assert_eq!(after_failure(FailureClass::Capacity, 3, 0), retry(10_000));
        assert_eq!(after_failure(FailureClass::Capacity, u32::MAX, 0), WhatNext::GiveUp);
    }

    #[test]
    fn the_third_loss_is_the_last() {
        assert_eq!(after_loss(2, 0), WhatNext::RetryAfter { wait_ms: 1_000 });
        assert_eq!(after_loss(3, 0), WhatNext::GiveUp);
    }

    #[test]
    fn five_restarts_are_forgiven() {
        assert!(!restart_is_a_loss(5));
        assert!(restart_is_a_loss(6));
    }
}
