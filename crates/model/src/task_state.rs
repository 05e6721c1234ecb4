//! The life of a task, as one total function. Called by the catalogue, inside the transaction that stores the
//! answer. Whether a failure is tried again is `retry_policy`'s decision; it comes in as the event.
//!
//! ```text
//!  blocked ──unblock──▶ ready ──claim──▶ leased ──complete──▶ done
//!                         ▲                │ fail_for_now, lose_for_now
//!                         └── back_off_over ── retry_wait ◀┘
//!                         ▲                │ fail_for_good, lose_for_good
//!                         └───── retry ─── dead ◀┘        cancelled
//! ```

use crate::state::{Refused, state_names};

state_names! {
    /// Where a task stands.
    TaskState {
        /// Waits for other tasks.
        Blocked = "blocked",
        /// Waits for a worker.
        Ready = "ready",
        /// A worker has it, until its lease ends.
        Leased = "leased",
        /// Waits for its next try.
        RetryWait = "retry_wait",
        Done = "done",
        /// Given up, with the evidence: a dead letter.
        Dead = "dead",
        Cancelled = "cancelled",
    }
}

state_names! {
    TaskEvent {
        /// What it waited for is there.
        Unblock = "unblock",
        Claim = "claim",
        Heartbeat = "heartbeat",
        Complete = "complete",
        FailForNow = "fail_for_now",
        FailForGood = "fail_for_good",
        /// The lease ran out.
        LoseForNow = "lose_for_now",
        LoseForGood = "lose_for_good",
        /// The worker gave it back unharmed, or ended with the server: at once for another, no failure and no loss.
        Release = "release",
        BackOffOver = "back_off_over",
        Cancel = "cancel",
        /// Somebody wants another try: counters start again.
        Retry = "retry",
        /// As `Retry`, where what it waits for has to be done again too.
        RetryBlocked = "retry_blocked",
    }
}

impl TaskState {
    /// Nothing happens any more unless somebody asks for it.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Done | Self::Dead | Self::Cancelled)
    }
}

pub fn next(state: TaskState, event: TaskEvent) -> Result<TaskState, Refused> {
    use TaskEvent as E;
    use TaskState as S;
    match event {
        E::Unblock => match state {
            S::Blocked | S::Ready => Ok(S::Ready),
            S::Leased | S::RetryWait | S::Done | S::Dead | S::Cancelled => Err(Refused::new(state, event)),
        },
        E::Claim => match state {
            S::Ready => Ok(S::Leased),
            S::Blocked | S::Leased | S::RetryWait | S::Done | S::Dead | S::Cancelled => {
                Err(Refused::new(state, event))
            }
        },
        E::Heartbeat => only_leased(state, event, S::Leased),
        E::Complete => only_leased(state, event, S::Done),
        E::FailForNow | E::LoseForNow => only_leased(state, event, S::RetryWait),
        E::FailForGood | E::LoseForGood => only_leased(state, event, S::Dead),
        E::Release => only_leased(state, event, S::Ready),
        E::BackOffOver => match state {
            S::RetryWait => Ok(S::Ready),
            S::Blocked | S::Ready | S::Leased | S::Done | S::Dead | S::Cancelled => {
                Err(Refused::new(state, event))
            }
        },
        E::Cancel => match state {
            S::Blocked | S::Ready | S::Leased | S::RetryWait | S::Cancelled => Ok(S::Cancelled),
            S::Done | S::Dead => Err(Refused::new(state, event)),
        },
        E::Retry => match state {
            // From `RetryWait`: somebody does not want to wait for the back-off.
            S::Dead | S::Cancelled | S::RetryWait => Ok(S::Ready),
            S::Blocked | S::Ready | S::Leased | S::Done => Err(Refused::new(state, event)),
        },
        E::RetryBlocked => match state {
            S::Dead | S::Cancelled => Ok(S::Blocked),
            S::Blocked | S::Ready | S::Leased | S::RetryWait | S::Done => Err(Refused::new(state, event)),
        },
    }
}

fn only_leased(state: TaskState, event: TaskEvent, then: TaskState) -> Result<TaskState, Refused> {
    match state {
        TaskState::Leased => Ok(then),
        TaskState::Blocked
        | TaskState::Ready
        | TaskState::RetryWait
        | TaskState::Done
        | TaskState::Dead
        | TaskState::Cancelled => Err(Refused::new(state, event)),
    }
}
