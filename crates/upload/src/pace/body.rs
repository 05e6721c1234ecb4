//! The least that the sender of one body has to keep up: not silent for too long, not slower than a floor, not for
//! ever.
//!
//! Made when a body begins. The reader tells it of every piece ([`Pace::received`]), puts it on hold while it does
//! something else than waiting for the sender ([`Pace::hold`], [`Pace::go_on`]: our own disk must not be held against
//! him), and asks [`Pace::check`] when [`Pace::look_again_ms`] has come. What arrived before a cut is kept; that is
//! the reader's matter.

/// Slots that the speed's window is made of: a stall is noticed at most a sixteenth of the window late.
const SLOTS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceLimits {
    /// Longest silence.
    pub idle_ms: u64,
    /// Fewest bytes a second, on average over `window_ms`; 0: any speed will do.
    pub min_bytes_per_second: u64,
    /// Longer than `idle_ms`: else a short silence of a fast sender would count as slowness.
    pub window_ms: u64,
    /// Longest that one body may take, our own work included.
    pub total_ms: u64,
}

/// Why a body is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooSlow {
    #[error("nothing came for {idle_ms} ms")]
    Silent { idle_ms: u64 },
    #[error(
        "{received} bytes came in the last {window_ms} ms, which is less than {min_bytes_per_second} bytes a second"
    )]
    Trickling { received: u64, window_ms: u64, min_bytes_per_second: u64 },
    #[error("one request may take {total_ms} ms")]
    TooLong { total_ms: u64 },
}

#[derive(Clone, Debug)]
pub struct Pace {
    limits: PaceLimits,
    began_ms: u64,
    /// On the sender's clock: time on hold is left out.
    last_byte_ms: u64,
    /// Bytes by slot, the newest at `slot % SLOTS`.
    slots: [u64; SLOTS],
    slot: u64,
    on_hold_since_ms: Option<u64>,
    held_ms: u64,
}

impl Pace {
    pub fn new(limits: PaceLimits, now_ms: u64) -> Self {
        Self {
            limits,
            began_ms: now_ms,
            last_byte_ms: 0,
            slots: [0; SLOTS],
            slot: 0,
            on_hold_since_ms: None,
            held_ms: 0,
        }
    }

    pub fn received(&mut self, byte_len: u64, now_ms: u64) {
        let at_ms = self.senders_ms(now_ms);
        self.move_window(at_ms);
        self.last_byte_ms = self.last_byte_ms.max(at_ms);
        let newest = index(self.slot);
        self.slots[newest] = self.slots[newest].saturating_add(byte_len);
    }

    /// From now on it is not the sender who is waited for. Safe to repeat.
    pub fn hold(&mut self, now_ms: u64) {
        self.on_hold_since_ms.get_or_insert(now_ms);
    }

    /// The sender is waited for again.
    pub fn go_on(&mut self, now_ms: u64) {
        if let Some(since_ms) = self.on_hold_since_ms.take() {
            self.held_ms = self.held_ms.saturating_add(now_ms.saturating_sub(since_ms));
        }
    }

    /// Is it to be cut now?
    pub fn check(&mut self, now_ms: u64) -> Result<(), TooSlow> {
        let PaceLimits { idle_ms, min_bytes_per_second, window_ms, total_ms } = self.limits;
        if now_ms.saturating_sub(self.began_ms) >= total_ms {
            return Err(TooSlow::TooLong { total_ms });
        }
        let at_ms = self.senders_ms(now_ms);
        if at_ms.saturating_sub(self.last_byte_ms) >= idle_ms {
            return Err(TooSlow::Silent { idle_ms });
        }
        self.move_window(at_ms);
        // Before one whole window there is nothing to judge: the beginning of every body is slow.
        if at_ms < window_ms {
            return Ok(());
        }
        let received = self.slots.iter().sum();
        // The newest slot is not over yet, so the window is a little shorter than its name; the floor is too.
        let covered_ms = (window_ms - self.slot_ms()).max(1);
        if u128::from(received) * 1000 < u128::from(min_bytes_per_second) * u128::from(covered_ms) {
            return Err(TooSlow::Trickling { received, window_ms, min_bytes_per_second });
        }
        Ok(())
    }

    /// When to [`Pace::check`] next, if nothing comes until then. Later than `now_ms`.
    pub fn look_again_ms(&self, now_ms: u64) -> u64 {
        let silent_at = now_ms + self.limits.idle_ms.saturating_sub(self.silence_ms(now_ms));
        let over_at = self.began_ms.saturating_add(self.limits.total_ms);
        let next = silent_at.min(over_at);
        let next = if self.limits.min_bytes_per_second == 0 {
            next
        } else {
            let at_ms = self.senders_ms(now_ms);
            let next_slot_ms = (at_ms / self.slot_ms() + 1) * self.slot_ms();
            next.min(now_ms + (next_slot_ms.max(self.limits.window_ms) - at_ms))
        };
        next.max(now_ms + 1)
    }

    fn silence_ms(&self, now_ms: u64) -> u64 {
        self.senders_ms(now_ms).saturating_sub(self.last_byte_ms)
    }

    /// Time since the body began in which the sender was waited for.
    fn senders_ms(&self, now_ms: u64) -> u64 {
        let now_ms = self.on_hold_since_ms.map_or(now_ms, |since_ms| since_ms.min(now_ms));
        now_ms.saturating_sub(self.began_ms).saturating_sub(self.held_ms)
    }

    fn slot_ms(&self) -> u64 {
        (self.limits.window_ms / SLOTS as u64).max(1)
    }

    fn move_window(&mut self, at_ms: u64) {
        let wanted = at_ms / self.slot_ms();
        let steps = wanted.saturating_sub(self.slot).min(SLOTS as u64);
        for step in 1..=steps {
            self.slots[index(wanted - steps + step)] = 0;
        }
        self.slot = self.slot.max(wanted);
    }
}

fn index(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Pace, PaceLimits, TooSlow};
    use proptest::prelude::{prop_assert, proptest};

    const LIMITS: PaceLimits =
        PaceLimits { idle_ms: 10_000, min_bytes_per_second: 1_000, window_ms: 16_000, total_ms: 1_000_000 };

    /// A sender of `byte_len` every `every_ms`; when and why it is cut, if it is before `until_ms`.
    fn cut_of(limits: PaceLimits, byte_len: u64, every_ms: u64, until_ms: u64) -> Option<(u64, TooSlow)> {
        let mut pace = Pace::new(limits, 0);
        for now_ms in 1..until_ms {
            if now_ms % every_ms == 0 {
                pace.received(byte_len, now_ms);
            }
            if let Err(why) = pace.check(now_ms) {
                return Some((now_ms, why));
            }
        }
        None
    }

    #[test]
    fn a_silent_sender_is_cut_when_the_silence_is_over_its_limit() {
        let mut pace = Pace::new(LIMITS, 100);
        pace.received(1 << 20, 5_000);
        assert_eq!(pace.look_again_ms(5_000), 15_000);
        assert_eq!(pace.check(14_999), Ok(()));
        assert_eq!(pace.check(15_000), Err(TooSlow::Silent { idle_ms: 10_000 }));
    }

    #[test]
    fn a_sender_who_never_began_is_silent_too() {
        let mut pace = Pace::new(LIMITS, 100);
        assert_eq!(pace.check(10_099), Ok(()));
        assert!(matches!(pace.check(10_100), Err(TooSlow::Silent { .. })));
    }

    #[test]
    fn a_trickle_is_cut_after_one_window_and_not_before() {
        let (at_ms, why) = cut_of(LIMITS, 1, 1_000, 60_000).unwrap();
        assert!((16_000..17_100).contains(&at_ms), "{at_ms}");
        assert!(matches!(why, TooSlow::Trickling { received: 15..=17, .. }), "{why}");
    }

    #[test]
    fn a_sender_at_the_floor_goes_on_and_one_at_nine_tenths_of_it_does_not() {
        assert_eq!(cut_of(LIMITS, 1_000, 1_000, 200_000), None);
        assert!(cut_of(LIMITS, 900, 1_000, 200_000).is_some());
    }

    #[test]
    fn a_fast_sender_may_pause_for_less_than_the_idle_limit() {
        assert_eq!(cut_of(LIMITS, 1 << 20, 9_900, 200_000), None);
    }

    #[test]
    fn a_sender_who_was_fast_and_becomes_a_trickle_is_cut_within_two_windows() {
        let mut pace = Pace::new(LIMITS, 0);
        pace.received(1 << 30, 1_000);
        let cut = (1_001..40_000).find(|&now_ms| {
            if now_ms % 1_000 == 0 {
                pace.received(1, now_ms);
            }
            pace.check(now_ms).is_err()
        });
        assert!(cut.is_some_and(|at_ms| at_ms < 33_000), "{cut:?}");
    }

    #[test]
    fn our_own_disk_is_not_held_against_the_sender() {
        let mut pace = Pace::new(LIMITS, 0);
        pace.received(64_000, 1_000);
        pace.hold(1_000);
        assert_eq!(pace.check(500_000), Ok(()));
        pace.go_on(500_000);
        assert_eq!(pace.check(500_000), Ok(()));
        assert_eq!(pace.look_again_ms(500_000), 510_000);
        assert!(matches!(pace.check(510_000), Err(TooSlow::Silent { .. })));
    }

    #[test]
    fn the_longest_request_ends_whatever_its_speed() {
        let mut pace = Pace::new(LIMITS, 0);
        for now_ms in (1_000..1_000_000).step_by(1_000) {
            pace.received(1 << 20, now_ms);
            assert_eq!(pace.check(now_ms), Ok(()));
        }
        assert_eq!(pace.look_again_ms(999_999), 1_000_000);
        assert_eq!(pace.check(1_000_000), Err(TooSlow::TooLong { total_ms: 1_000_000 }));
    }

    #[test]
    fn without_a_floor_only_silence_counts() {
        let limits = PaceLimits { min_bytes_per_second: 0, ..LIMITS };
        assert_eq!(cut_of(limits, 1, 9_000, 500_000), None);
    }

    proptest! {
        /// Who looks only when told to cuts nobody whom the rule spares, and everybody who fell silent.
        #[test]
        fn looking_when_told_to_is_enough(gaps in proptest::collection::vec(1_u64..3_000, 1..60), byte_len in 0_u64..4_000) {
            let mut always = Pace::new(LIMITS, 0);
            let mut lazy = Pace::new(LIMITS, 0);
            let mut arrivals = Vec::new();
            let mut at_ms = 0;
            for gap in gaps { at_ms += gap; arrivals.push(at_ms); }
            let (mut cut_always, mut cut_lazy) = (None, None);
            let mut due_ms = lazy.look_again_ms(0);
            for now_ms in 1..at_ms + 40_000 {
                if arrivals.binary_search(&now_ms).is_ok() {
                    always.received(byte_len, now_ms);
                    lazy.received(byte_len, now_ms);
                }
                if cut_always.is_none() && always.check(now_ms).is_err() { cut_always = Some(now_ms); }
                if cut_lazy.is_none() && now_ms >= due_ms {
                    if lazy.check(now_ms).is_err() { cut_lazy = Some(now_ms); }
                    due_ms = lazy.look_again_ms(now_ms);
                }
            }
            // Both end in silence at the latest.
            let (Some(cut_always), Some(cut_lazy)) = (cut_always, cut_lazy) else { panic!("nobody was cut") };
            prop_assert!(cut_lazy >= cut_always);
            prop_assert!(cut_lazy <= at_ms + LIMITS.idle_ms + 1, "{cut_lazy} {cut_always}");
        }
    }
}
