//! When each decoded picture is shown: times that only rise. Pure.
//!
//! Decoders give pictures in the order in which they are shown. A time that does not rise is the container's mistake
//! (two pictures on one tick, MPEG program streams, clocks that were reset), and the picture follows the one before at
//! the usual distance. What that pushes behind the source's clock is made up for as soon as the clock goes on.

/// Largest time believed, in ticks: 36 000 years of microseconds. Sums and differences of two of them do not overflow.
const LARGEST_TIME: u64 = 1 << 60;
/// A picture so many usual gaps behind the one before is late because others were moved, not because a clock was reset.
const MOST_GAPS_TO_MAKE_UP: i64 = 8;

/// `None` for times that no film has.
pub(crate) fn believable(time: Option<i64>) -> Option<i64> {
    time.filter(|time| time.unsigned_abs() <= LARGEST_TIME)
}

#[derive(Default)]
pub(crate) struct PictureTimes {
    /// Of the picture before: as given, and as its container said.
    last: Option<i64>,
    last_said: Option<i64>,
    /// Between pictures, as measured where both were as said. A pause counts as little more than the gap before it.
    usual_gap: i64,
}

impl PictureTimes {
    /// `said`: what decoder and container say. `duration`: of the picture, 0 when not known.
    pub(crate) fn next(&mut self, said: Option<i64>, duration: i64) -> i64 {
        let said = believable(said);
        let time = match (said, self.last) {
            (said, None) => said.unwrap_or(0),
            (Some(said), Some(last)) if said > last => {
                self.measure(said, last);
                said
            }
            (said, Some(last)) => last.saturating_add(self.gap_to_late(said, last, duration)),
        };
        self.last = Some(time);
        self.last_said = said.or(self.last_said);
        time
    }

    fn measure(&mut self, said: i64, last: i64) {
        if self.last_said == Some(last) {
            let gap = said - last;
            let little_more = self.usual_gap.saturating_add(self.usual_gap / 4 + 1);
            self.usual_gap = if self.usual_gap == 0 { gap } else { gap.min(little_more) };
        }
    }

    fn gap_to_late(&self, said: Option<i64>, last: i64, duration: i64) -> i64 {
        let usual = if self.usual_gap > 0 { self.usual_gap } else { believable(Some(duration)).unwrap_or(0) };
        let clock_goes_on = said > self.last_said
            && said.is_some_and(|said| last - said <= usual.saturating_mul(MOST_GAPS_TO_MAKE_UP));
        if clock_goes_on { (usual / 2).max(1) } else { usual.max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::PictureTimes;

    fn times(said: &[i64]) -> Vec<i64> {
        let mut times = PictureTimes::default();
        said.iter().map(|said| times.next(Some(*said), 0)).collect()
    }

    #[test]
    fn two_pictures_on_one_tick_do_not_delay_the_rest() {
        assert_eq!(times(&[0, 10, 10, 20, 30, 40]), [0, 10, 20, 25, 30, 40]);
        assert_eq!(times(&[0, 10, 10, 10, 20, 30, 40, 50, 60]), [0, 10, 20, 30, 35, 40, 45, 50, 60]);
    }

    #[test]
    fn a_pause_is_not_the_usual_distance() {
        // A screen recorder writes the picture after a pause twice.
        assert_eq!(
            times(&[0, 16, 2000, 2000, 2016, 2032, 2048, 2064]),
            [0, 16, 2000, 2021, 2031, 2032, 2048, 2064]
        );
    }

    #[test]
    fn a_program_stream_that_gives_decode_times_for_some_stays_even() {
        assert_eq!(times(&[0, 1, 2, 1, 4, 5, 4, 7]), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_clock_that_was_reset_goes_on_at_its_own_pace() {
        assert_eq!(times(&[1000, 1010, 1020, 0, 10, 20]), [1000, 1010, 1020, 1030, 1040, 1050]);
        let mut times = PictureTimes::default();
        assert_eq!((times.next(None, 40), times.next(None, 40), times.next(None, 40)), (0, 40, 80));
    }

    #[test]
    fn absurd_times_are_no_times() {
        let mut times = PictureTimes::default();
        let given =
            [Some(i64::MIN + 1), Some(i64::MAX), Some(5), None].map(|said| times.next(said, i64::MAX));
        assert!(given.windows(2).all(|pair| pair[0] < pair[1]), "{given:?}");
        assert!(given[3] < 1 << 20, "{given:?}");
    }
}
