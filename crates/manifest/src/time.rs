//! Ticks as people and playlists write them.

const US_PER_SECOND: u64 = 1_000_000;

/// To the nearest microsecond. A timescale of zero is refused by `assign`, so it is read as one here.
pub(crate) fn ticks_to_us(ticks: u64, timescale: u32) -> u64 {
    let timescale = u128::from(timescale.max(1));
    let us = (u128::from(ticks) * u128::from(US_PER_SECOND) + timescale / 2) / timescale;
    u64::try_from(us).unwrap_or(u64::MAX)
}

/// Seconds with six decimals: `4.004000`.
pub(crate) fn decimal_seconds(us: u64) -> String {
    format!("{}.{:06}", us / US_PER_SECOND, us % US_PER_SECOND)
}

/// A span of ticks in microseconds, rounded at its two ends and not by itself: so the spans of a playlist add up
/// to its length, and a position computed from them is never off by more than half a microsecond.
pub(crate) fn span_us(start_ticks: u64, duration_ticks: u64, timescale: u32) -> u64 {
    ticks_to_us(start_ticks.saturating_add(duration_ticks), timescale) - ticks_to_us(start_ticks, timescale)
}

/// ISO 8601 as XML Schema's `duration` has it: `PT634.566667S`.
pub(crate) fn xml_duration(us: u64) -> String {
    format!("PT{}S", decimal_seconds(us))
}

#[cfg(test)]
mod tests {
    use super::{decimal_seconds, span_us, ticks_to_us, xml_duration};

    #[test]
    fn rounds_to_the_nearest_and_adds_up() {
        assert_eq!(decimal_seconds(ticks_to_us(120_120, 30_000)), "4.004000");
        assert_eq!(xml_duration(ticks_to_us(1, 3)), "PT0.333333S");
        let spans: u64 = (0..3).map(|index| span_us(index, 1, 3)).sum();
        assert_eq!(spans, 1_000_000);
        assert_eq!(ticks_to_us(u64::MAX, 1), u64::MAX);
    }
}
