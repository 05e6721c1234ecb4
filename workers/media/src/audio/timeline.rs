//! Where a block of sound belongs: pure arithmetic on output samples, used by `audio` alone.
//!
//! Positions count samples at the output rate from output time zero; below zero lies what is cut.

use reelyard_model::Rational;

/// A timestamp may differ from where the samples before it end by so much before it is believed more than they are:
/// containers round to milliseconds, and recorders jitter by a frame or two. A viewer notices from about 45 ms on
/// (ITU-R BT.1359).
const TOLERANCE_MS: i64 = 40;
/// Beyond this, and within the tolerance, it is drift: the sound is stretched to follow. Above what rounding to
/// milliseconds and to video ticks explains.
const DRIFT_MS: i64 = 15;
/// Over so many seconds: 40 ms in four seconds is one per cent, a sixth of a semitone at worst.
pub(super) const CORRECTION_S: u32 = 4;
/// Without pictures that say how long the result is, a longer gap is taken for a broken clock, not for silence.
const MAX_GAP_S: i64 = 600;
/// Without pictures that would show it too, a step back of so much is a recording joined to another one, each with a
/// clock of its own: following the clock would lose all of the second one.
const MAX_STEP_BACK_S: i64 = 5;

/// Turns timestamps of the source into output positions.
pub(super) struct Clock {
    time_base: Rational,
    origin_us: i64,
    sample_rate: u32,
    /// Added to every position, in samples: grows where the source's clock was found to be broken.
    shift: i64,
}

impl Clock {
    pub(super) fn new(time_base: Rational, origin_us: i64, sample_rate: u32) -> Self {
        Self { time_base, origin_us, sample_rate, shift: 0 }
    }

    /// To the nearest sample.
    pub(super) fn position(&self, pts: Option<i64>) -> Option<i64> {
        const US: i128 = 1_000_000;
        let denominator = i128::from(self.time_base.denominator);
        // Ticks and numerators are below 2^63 and 2^31, so the product of three stays below 2^127 for every clock
        // that FFmpeg accepts; one that does not is no clock.
        let source = i128::from(pts?).checked_mul(i128::from(self.time_base.numerator))?.checked_mul(US)?;
        let ticks = source.checked_sub(i128::from(self.origin_us).checked_mul(denominator)?)?;
        let scaled = ticks.checked_mul(i128::from(self.sample_rate))?;
        let unit = denominator * US;
        let position = (scaled + unit / 2).div_euclid(unit);
        Some(i64::try_from(position).ok()?.saturating_add(self.shift))
    }

    pub(super) fn shift(&mut self, samples: i64) {
        self.shift = self.shift.saturating_add(samples);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Jump {
    /// Close enough: the sound goes on.
    None,
    /// The sound goes on, a little faster or slower.
    Drift,
    /// The sound really is elsewhere.
    Real,
    /// Nobody recorded that.
    Unbelievable,
}

/// What is to be written for one block: silence first, then `take` samples after `skip` of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(crate) silence: u64,
    pub(crate) skip: u32,
    pub(crate) take: u32,
}

pub(super) struct Timeline {
    sample_rate: u32,
    /// Samples written so far, and where the next one belongs.
    cursor: i64,
    end: Option<i64>,
}

impl Timeline {
    pub(super) fn new(sample_rate: u32, duration_us: Option<i64>) -> Self {
        let to_samples = |us: i64| {
            let samples = (i128::from(us.max(0)) * i128::from(sample_rate) + 500_000) / 1_000_000;
            i64::try_from(samples).unwrap_or(i64::MAX)
        };
        Self { sample_rate, cursor: 0, end: duration_us.map(to_samples) }
    }

    /// `expected`: where the sound goes on; `None` for the first frame.
    pub(super) fn judge(&self, position: i64, expected: Option<i64>) -> Jump {
        let rate = i64::from(self.sample_rate);
        let jump = position.saturating_sub(expected.unwrap_or(0));
        let sound_only = self.end.is_none();
        if jump.saturating_abs() <= rate * DRIFT_MS / 1000 {
            Jump::None
        } else if jump.saturating_abs() <= rate * TOLERANCE_MS / 1000 {
            Jump::Drift
        } else if sound_only
            && (jump > rate * MAX_GAP_S || (jump < -rate * MAX_STEP_BACK_S && expected.is_some()))
        {
            Jump::Unbelievable
        } else {
            Jump::Real
        }
    }

    /// Cuts what lies before the cursor (time zero, or sound that is there already) and beyond the end.
    pub(super) fn place(&mut self, position: i64, samples: u32) -> Placement {
        let limit = self.end.unwrap_or(i64::MAX);
        let block_end = position.saturating_add(i64::from(samples)).min(limit);
        let start = position.max(self.cursor);
        if start >= block_end {
            return Placement { silence: 0, skip: 0, take: 0 };
        }
        let placement = Placement {
            silence: (start - self.cursor) as u64,
            // Both lie within the block, hence within 32 bits.
            skip: (start - position) as u32,
            take: (block_end - start) as u32,
        };
        self.cursor = block_end;
        placement
    }

    pub(super) fn is_beyond_end(&self, position: i64) -> bool {
        self.end.is_some_and(|end| position >= end)
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_beyond_end(self.cursor)
    }

    /// Silence that is missing at the end.
    pub(super) fn rest(&self) -> u64 {
        self.end.map_or(0, |end| (end - self.cursor).max(0) as u64)
    }

    pub(super) fn position_us(&self) -> i64 {
        (i128::from(self.cursor) * 1_000_000 / i128::from(self.sample_rate.max(1))) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, Jump, Placement, Timeline};
    use reelyard_model::Rational;

    fn placement(silence: u64, skip: u32, take: u32) -> Placement {
        Placement { silence, skip, take }
    }

    #[test]
    fn early_late_overlapping_and_missing_sound() {
        let mut timeline = Timeline::new(48_000, Some(1_000_000));
        assert_eq!(timeline.place(-1500, 1000), placement(0, 0, 0), "wholly before zero");
        assert_eq!(timeline.place(-500, 1000), placement(0, 500, 500), "cut to the sample");
        assert_eq!(timeline.place(2500, 1000), placement(2000, 0, 1000), "a gap");
        assert_eq!(timeline.place(3000, 1000), placement(0, 500, 500), "an overlap");
        assert_eq!(timeline.place(3000, 900), placement(0, 0, 0), "heard before");
        assert_eq!(timeline.place(47_500, 1000), placement(43_500, 0, 500), "the end");
        assert!(timeline.is_full());
        assert_eq!((timeline.rest(), timeline.position_us()), (0, 1_000_000));
    }

    #[test]
    fn silence_to_the_end_is_counted() {
        let mut timeline = Timeline::new(44_100, Some(2_000_000));
        timeline.place(0, 44_100);
        assert_eq!(timeline.rest(), 44_100);
        assert_eq!(Timeline::new(44_100, None).rest(), 0);
    }

    #[test]
    fn positions_are_exact() {
        let milliseconds = Clock::new(Rational::new(1, 1000).unwrap(), 1_000_000, 48_000);
        assert_eq!(milliseconds.position(Some(1001)), Some(48));
        assert_eq!(milliseconds.position(Some(0)), Some(-48_000));
        assert_eq!(milliseconds.position(None), None);
        // One tick of 1/90000 is 0.49 samples of 44.1 kHz.
        let transport_stream = Clock::new(Rational::new(1, 90_000).unwrap(), 0, 44_100);
        assert_eq!(
            (transport_stream.position(Some(1)), transport_stream.position(Some(2))),
            (Some(0), Some(1))
        );
        assert_eq!(transport_stream.position(Some(-2)), Some(-1));
        let mut broken = Clock::new(Rational::new(i64::MAX, 1).unwrap(), i64::MIN, 48_000);
        assert_eq!(broken.position(Some(i64::MAX)), None);
        broken.shift(i64::MIN);
    }

    #[test]
    fn jitter_is_not_a_jump_and_a_broken_clock_is_not_silence() {
        let with_pictures = Timeline::new(48_000, Some(10_000_000_000));
        assert_eq!(with_pictures.judge(-720, Some(0)), Jump::None);
        assert_eq!(with_pictures.judge(-721, Some(0)), Jump::Drift);
        assert_eq!(with_pictures.judge(1920, Some(0)), Jump::Drift);
        assert_eq!(with_pictures.judge(1921, Some(0)), Jump::Real);
        assert_eq!(with_pictures.judge(0, Some(1921)), Jump::Real);
        assert_eq!(with_pictures.judge(i64::MAX, Some(i64::MIN)), Jump::Real);
        let sound_only = Timeline::new(48_000, None);
        assert_eq!(sound_only.judge(600 * 48_000, None), Jump::Real);
        assert_eq!(sound_only.judge(600 * 48_000 + 1, None), Jump::Unbelievable);
        assert_eq!(sound_only.judge(48_000, Some(7 * 48_000)), Jump::Unbelievable);
        assert_eq!(sound_only.judge(-6 * 48_000, None), Jump::Real);
    }
}
