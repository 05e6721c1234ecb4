//! When to try again, what to say meanwhile, and when to give up. Pure: the time and chance come in.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A server that restarts is back within this; longer pauses would only make people wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A server may ask for more patience, up to this.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(60);
/// Nothing has answered yet: it may be starting, but more likely the address is wrong or nobody started it.
const FIRST_ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// It answered before, so it restarts or the network is away. Without any progress for so long the command ends; the
/// same command goes on from there later.
const NO_PROGRESS_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Between two lines that say that it is still trying.
const NOTICE_INTERVAL: Duration = Duration::from_secs(30);
/// On a slow line no part may get through for a long time. So many bytes that left are progress too.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Pauses grow from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`], each shortened by chance so that many clients of one server
/// do not come back at once.
#[derive(Default)]
pub(crate) struct Backoff {
    failures: u32,
    in_trouble_since: Option<Instant>,
    noticed_at: Option<Instant>,
    has_answered: bool,
    /// Bytes that left since something worked.
    unanswered_bytes: u64,
    /// Those of them that were progress already.
    counted_bytes: u64,
    /// More bytes than this without anything that works are no progress.
    most_unanswered_bytes: u64,
}

/// What to do about a failure that may pass.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait so long and try again; `notice`: what to tell people first, now and then.
    Wait { pause: Duration, notice: Option<String> },
    GiveUp {
        /// "within 10 s", "for 5 min".
        after: String,
    },
}

impl Backoff {
    /// Something worked.
    pub(crate) fn progress(&mut self) {
        let most_unanswered_bytes = self.most_unanswered_bytes;
        *self = Self { has_answered: true, most_unanswered_bytes, ..Self::default() };
    }

    /// What leaves is progress until it is so much that it should have been enough for something to work.
    pub(crate) fn allow_unanswered(&mut self, bytes: u64) {
        self.most_unanswered_bytes = bytes;
    }

    /// So many bytes more left.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.unanswered_bytes = self.unanswered_bytes.saturating_add(bytes);
    }

    /// The server said something: it is there.
    pub(crate) fn answered(&mut self) {
        self.has_answered = true;
    }

    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// After a failure. `asked`: the pause that the server asked for. `chance` is random.
    pub(crate) fn next(&mut self, now: Instant, asked: Option<Duration>, chance: u32) -> Next {
        self.failures += 1;
        self.next_of(self.failures, now, asked, chance)
    }

    /// As [`Self::next`] where several requests are under way: after so many failures in a row of one of them. What any
    /// of them gets through is progress for all.
    pub(crate) fn next_of(
        &mut self,
        failures: u32,
        now: Instant,
        asked: Option<Duration>,
        chance: u32,
    ) -> Next {
        let is_moving = self.unanswered_bytes - self.counted_bytes >= PROGRESS_BYTES
            && self.unanswered_bytes <= self.most_unanswered_bytes;
        if is_moving {
            self.counted_bytes = self.unanswered_bytes;
            self.in_trouble_since = Some(now);
        }
        let since = *self.in_trouble_since.get_or_insert(now);
        let limit = if self.has_answered { NO_PROGRESS_LIMIT } else { FIRST_ANSWER_LIMIT };
        let left = limit.saturating_sub(now.duration_since(since));
        if left.is_zero() {
            return Next::GiveUp { after: in_words(limit) };
        }
        let full = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
        let pause = full.mul_f64(0.5 + 0.5 * f64::from(chance) / f64::from(u32::MAX));
        let pause = pause.max(asked.unwrap_or_default().min(LONGEST_ASKED_PAUSE));
        let due = self.noticed_at.is_none_or(|at| now.duration_since(at) >= NOTICE_INTERVAL);
        let notice = due.then(|| {
            let again = if self.noticed_at.is_none() { "trying again" } else { "still trying" };
            format!("{again}, for {} at most", in_words(left))
        });
        if due {
            self.noticed_at = Some(now);
        }
        Next::Wait { pause: pause.min(left), notice }
    }
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=90 => format!("{} s", seconds.max(1)),
        seconds => format!("{} min", (seconds + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Backoff, FIRST_ANSWER_LIMIT, LONGEST_PAUSE, NO_PROGRESS_LIMIT, NOTICE_INTERVAL, Next, PROGRESS_BYTES,
    };
    use std::time::{Duration, Instant};

    fn pause(next: Next) -> Duration {
        match next {
            Next::Wait { pause, .. } => pause,
            Next::GiveUp { .. } => panic!("given up"),
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.answered();
        let pauses: Vec<_> = (0..8).map(|_| pause(backoff.next(now, None, u32::MAX))).collect();
        assert_eq!(pauses[0], Duration::from_millis(500));
        assert!(pauses.is_sorted() && pauses[7] == LONGEST_PAUSE);
        let late = now + NO_PROGRESS_LIMIT;
        assert_eq!(backoff.next(late, None, 0), Next::GiveUp { after: "5 min".into() });
        backoff.progress();
        assert_eq!(pause(backoff.next(late, None, 0)), Duration::from_millis(250));
        assert_eq!(pause(backoff.next(late, Some(Duration::from_secs(7)), 0)), Duration::from_secs(7));
    }

    #[test]
    fn bytes_that_leave_between_two_cuts_are_progress() {
        let (mut backoff, began) = (Backoff::default(), Instant::now());
        backoff.allow_unanswered(100 * PROGRESS_BYTES);
        backoff.progress();
        // 1 Mbit/s, four parts of 16 MiB: the first one is through after nine minutes. A cut every six.
        for cut in 0..2 {
            backoff.sent(45 * PROGRESS_BYTES);
            let now = began + Duration::from_secs(6 * 60) * cut;
            assert!(matches!(backoff.next(now, None, 0), Next::Wait { .. }), "cut {cut}");
        }
        // Ten more in all, in pieces that are each too small.
        let mut now = began + Duration::from_secs(6 * 60);
        for _ in 0..20 {
            backoff.sent(PROGRESS_BYTES / 2);
            now += NO_PROGRESS_LIMIT / 3;
            assert!(matches!(backoff.next(now, None, 0), Next::Wait { .. }));
        }
        let late = now + NO_PROGRESS_LIMIT;
        assert_eq!(backoff.next(late, None, 0), Next::GiveUp { after: "5 min".into() }, "nothing left");
    }

    #[test]
    fn bytes_that_leave_without_end_and_get_nothing_through_are_none() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        backoff.allow_unanswered(10 * PROGRESS_BYTES);
        backoff.progress();
        for _ in 0..10 {
            backoff.sent(PROGRESS_BYTES);
            assert!(matches!(backoff.next(now, None, 0), Next::Wait { .. }));
            now += NO_PROGRESS_LIMIT;
        }
        backoff.sent(PROGRESS_BYTES);
        assert!(matches!(backoff.next(now, None, 0), Next::GiveUp { .. }));
        backoff.progress();
        backoff.sent(PROGRESS_BYTES);
        assert!(matches!(backoff.next(now, None, 0), Next::Wait { .. }));
    }

    #[test]
    fn a_server_that_never_answered_is_given_up_soon() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        assert!(matches!(backoff.next(now, None, 0), Next::Wait { .. }));
        let late = now + FIRST_ANSWER_LIMIT;
        assert_eq!(backoff.next(late, None, 0), Next::GiveUp { after: "10 s".into() });
    }

    #[test]
    fn people_are_told_at_once_and_then_now_and_again() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.answered();
        let mut said = |after: Duration| match backoff.next(now + after, None, 0) {
            Next::Wait { notice, .. } => notice,
            Next::GiveUp { .. } => panic!("given up"),
        };
        assert_eq!(said(Duration::ZERO).as_deref(), Some("trying again, for 5 min at most"));
        assert_eq!(said(Duration::from_secs(1)), None);
        assert_eq!(said(NOTICE_INTERVAL * 2).as_deref(), Some("still trying, for 4 min at most"));
    }
}
