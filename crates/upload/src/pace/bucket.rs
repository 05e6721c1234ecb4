//! One token bucket: so many at once, so many a second afterwards.
//!
//! Counts in thousandths of a token, so that whole milliseconds refill it exactly at every rate.

/// Thousandths of a token in a token.
const MILLI: u64 = 1000;

/// How much a bucket holds and how fast it fills. Neither is ever zero: a limit that lets nothing through is a switch,
/// not a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

impl Rate {
    pub const fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: if per_second == 0 { 1 } else { per_second },
            burst: if burst == 0 { 1 } else { burst },
        }
    }

    pub const fn per_second(self) -> u32 {
        self.per_second
    }

    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// How long an empty bucket takes to be full, in whole seconds, rounded up: the window in which `burst` is the most
    /// that a steady caller gets at once.
    pub const fn fill_seconds(self) -> u32 {
        self.burst.div_ceil(self.per_second)
    }
}

/// The bucket is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refill {
    /// Until one token is in it. Above zero.
    pub wait_ms: u64,
}

impl Refill {
    /// For `Retry-After`: whole seconds, rounded up.
    pub const fn wait_seconds(self) -> u64 {
        self.wait_ms.div_ceil(1000)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    milli_tokens: u64,
    seen_ms: u64,
}

impl Bucket {
    pub const fn full(rate: Rate, now_ms: u64) -> Self {
        Self { milli_tokens: rate.burst as u64 * MILLI, seen_ms: now_ms }
    }

    /// Takes one token. Gives how many whole ones are left.
    pub fn take(&mut self, rate: Rate, now_ms: u64) -> Result<u32, Refill> {
        self.refill(rate, now_ms);
        match self.milli_tokens.checked_sub(MILLI) {
            Some(left) => {
                self.milli_tokens = left;
                Ok(u32::try_from(left / MILLI).unwrap_or(u32::MAX))
            }
            None => Err(Refill {
                // One millisecond brings `per_second` thousandths.
                wait_ms: (MILLI - self.milli_tokens).div_ceil(u64::from(rate.per_second)),
            }),
        }
    }

    /// A full bucket knows nothing: forgetting it changes no answer.
    pub fn is_full(&mut self, rate: Rate, now_ms: u64) -> bool {
        self.refill(rate, now_ms);
        self.milli_tokens == u64::from(rate.burst) * MILLI
    }

    fn refill(&mut self, rate: Rate, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.seen_ms);
        self.seen_ms = self.seen_ms.max(now_ms);
        let most = u64::from(rate.burst) * MILLI;
        // Also after the operator lowered the rate: what is too much is cut off.
        self.milli_tokens =
            self.milli_tokens.saturating_add(elapsed_ms.saturating_mul(u64::from(rate.per_second))).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::{Bucket, Rate, Refill};
    use proptest::prelude::{prop_assert, proptest};

    #[test]
    fn a_burst_passes_at_once_and_then_one_at_a_time() {
        let rate = Rate::new(2, 3);
        let mut bucket = Bucket::full(rate, 1_000);
        assert_eq!(bucket.take(rate, 1_000), Ok(2));
        assert_eq!(bucket.take(rate, 1_000), Ok(1));
        assert_eq!(bucket.take(rate, 1_000), Ok(0));
        assert_eq!(bucket.take(rate, 1_000), Err(Refill { wait_ms: 500 }));
        assert_eq!(bucket.take(rate, 1_499), Err(Refill { wait_ms: 1 }));
        assert_eq!(bucket.take(rate, 1_500), Ok(0));
        assert_eq!(bucket.take(rate, 1_500), Err(Refill { wait_ms: 500 }));
    }

    #[test]
    fn a_caller_that_was_away_finds_a_full_bucket_and_no_more() {
        let rate = Rate::new(2, 3);
        let mut bucket = Bucket::full(rate, 0);
        let _ = bucket.take(rate, 0);
        assert!(!bucket.is_full(rate, 499));
        assert!(bucket.is_full(rate, 500));
        assert_eq!(bucket.take(rate, 1 << 40), Ok(2));
    }

    #[test]
    fn a_clock_that_goes_back_neither_gives_nor_takes() {
        let rate = Rate::new(1, 1);
        let mut bucket = Bucket::full(rate, 5_000);
        assert_eq!(bucket.take(rate, 4_000), Ok(0));
        assert_eq!(bucket.take(rate, 5_500), Err(Refill { wait_ms: 500 }));
    }

    #[test]
    fn the_wait_in_whole_seconds_is_never_too_short() {
        assert_eq!(Refill { wait_ms: 1 }.wait_seconds(), 1);
        assert_eq!(Refill { wait_ms: 1_000 }.wait_seconds(), 1);
        assert_eq!(Refill { wait_ms: 1_001 }.wait_seconds(), 2);
        assert_eq!(Rate::new(20, 50).fill_seconds(), 3);
    }

    proptest! {
        #[test]
        fn nobody_ever_gets_more_than_the_burst_and_the_rate(
            per_second in 1_u32..1_000, burst in 1_u32..1_000,
            steps in proptest::collection::vec(0_u64..400, 1..200)
        ) {
            let rate = Rate::new(per_second, burst);
            let mut bucket = Bucket::full(rate, 0);
            let (mut now_ms, mut taken) = (0_u64, 0_u64);
            for step_ms in steps {
                now_ms += step_ms;
                match bucket.take(rate, now_ms) {
                    Ok(_) => taken += 1,
                    Err(Refill { wait_ms }) => {
                        prop_assert!(wait_ms > 0 && wait_ms <= 1000);
                        let mut later = bucket;
                        prop_assert!(later.take(rate, now_ms + wait_ms).is_ok());
                    }
                }
                prop_assert!(taken * 1000 <= u64::from(burst) * 1000 + now_ms * u64::from(per_second));
            }
        }
    }
}
