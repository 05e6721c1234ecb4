//! When to try again, and when to give up.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A server that restarts is back within this; longer pauses would only make people wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A server may ask for more patience, up to this.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(60);
/// Without any progress for so long the command ends; the same command goes on from there later.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15 * 60);

/// Pauses grow from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`], each shortened by chance so that many clients of one server
/// do not come back at once.
#[derive(Default)]
pub(crate) struct Backoff {
    failures: u32,
    in_trouble_since: Option<Instant>,
}

impl Backoff {
    /// Something worked.
    pub(crate) fn progress(&mut self) {
        *self = Self::default();
    }

    /// How long to wait now; `None`: give up. `chance` is random.
    pub(crate) fn pause(&mut self, now: Instant, asked: Option<Duration>, chance: u32) -> Option<Duration> {
        let since = *self.in_trouble_since.get_or_insert(now);
        if now.duration_since(since) >= GIVE_UP_AFTER {
            return None;
        }
        let full = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures += 1;
        let pause = full.mul_f64(0.5 + 0.5 * f64::from(chance) / f64::from(u32::MAX));
        Some(pause.max(asked.unwrap_or_default().min(LONGEST_ASKED_PAUSE)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, GIVE_UP_AFTER, LONGEST_PAUSE};
    use std::time::{Duration, Instant};

    #[test]
    fn pauses_grow_and_end() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let pauses: Vec<_> = (0..8).map(|_| backoff.pause(now, None, u32::MAX).unwrap()).collect();
        assert_eq!(pauses[0], Duration::from_millis(500));
        assert!(pauses.is_sorted() && pauses[7] == LONGEST_PAUSE);
        assert_eq!(backoff.pause(now + GIVE_UP_AFTER, None, 0), None);
        backoff.progress();
        assert_eq!(backoff.pause(now + GIVE_UP_AFTER, None, 0), Some(Duration::from_millis(250)));
        assert_eq!(backoff.pause(now, Some(Duration::from_secs(7)), 0), Some(Duration::from_secs(7)));
    }
}
