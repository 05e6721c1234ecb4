//! Exact fractions for frame rates, aspect ratios and time bases.

use serde::{Deserialize, Serialize};
use std::fmt;

/// `numerator / denominator`; the denominator is above zero once it went through [`Rational::new`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rational {
    pub numerator: i64,
    pub denominator: i64,
}

impl Rational {
    pub const ONE: Self = Self { numerator: 1, denominator: 1 };

    /// The fraction in lowest terms, or `None` when the denominator is zero: files lie about both.
    pub fn new(numerator: i64, denominator: i64) -> Option<Self> {
        if denominator == 0 || numerator == i64::MIN || denominator == i64::MIN {
            return None;
        }
        let divisor =
            greatest_common_divisor(numerator.unsigned_abs(), denominator.unsigned_abs()).max(1) as i64;
        let sign = denominator.signum();
        Some(Self { numerator: sign * numerator / divisor, denominator: sign * denominator / divisor })
    }

    pub fn as_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// `value * self` to the nearest integer, halves away from zero, in 128 bits; saturates at the ends of i64.
    pub fn scale(self, value: i64) -> i64 {
        let product = i128::from(value) * i128::from(self.numerator);
        let denominator = i128::from(self.denominator);
        let half = denominator / 2 * product.signum();
        ((product + half) / denominator).clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }
}

/// Ticks of time base `from` as ticks of `1 / to_timescale` seconds, to the nearest.
pub fn rescale_ticks(ticks: i64, from: Rational, to_timescale: u32) -> i64 {
    let product = i128::from(ticks) * i128::from(from.numerator) * i128::from(to_timescale);
    let denominator = i128::from(from.denominator);
    let half = denominator / 2 * product.signum();
    ((product + half) / denominator).clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numerator, self.denominator)
    }
}
impl fmt::Debug for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::{Rational, rescale_ticks};

    #[test]
    fn lowest_terms_and_a_positive_denominator() {
        assert_eq!(Rational::new(60000, -2002), Rational::new(-30000, 1001));
        assert_eq!(Rational::new(1, 0), None);
    }

    #[test]
    fn rescaling_rounds_to_nearest_without_overflow() {
        let time_base = Rational::new(1001, 30000).unwrap();
        assert_eq!(rescale_ticks(1, time_base, 90_000), 3003);
        assert_eq!(rescale_ticks(i64::MAX, time_base, 90_000), i64::MAX);
        assert_eq!(Rational::new(1, 2).unwrap().scale(-3), -2);
    }
}
