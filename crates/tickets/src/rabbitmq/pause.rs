//! How long to leave a broker alone after it failed. Pure but for the chance, which comes in.

use std::time::Duration;

/// A restart of a connection, after the first failure.
const SHORTEST: Duration = Duration::from_millis(100);
/// A broker that comes back is found within this time.
const LONGEST: Duration = Duration::from_secs(5);

/// Doubled with every failure; `chance` (any number) spreads it from the half of it to the whole, so that a farm does
/// not come back in one instant.
pub(crate) fn pause(failures: u32, chance: u32) -> Duration {
    let whole = SHORTEST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    let half = whole / 2;
    half + half.mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_a_bound_and_is_spread() {
        let between = |failures| [0, u32::MAX].map(|chance| pause(failures, chance).as_millis());
        assert_eq!(between(1), [50, 100]);
        assert_eq!(between(2), [100, 200]);
        assert_eq!(between(5), [800, 1600]);
        assert_eq!(between(7), [2500, 5000]);
        assert_eq!(between(u32::MAX), [2500, 5000]);
    }
}
