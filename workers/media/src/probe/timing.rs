//! Frame rates out of presentation times. Pure.

use reelyard_model::{Rational, media_info::FrameRate};

/// What people film and export at; a measured rate within the container's rounding of one of them is that one.
const COMMON_RATES: [(i64, i64); 18] = [
    (24_000, 1001),
    (24, 1),
    (25, 1),
    (30_000, 1001),
    (30, 1),
    (48, 1),
    (50, 1),
    (60_000, 1001),
    (60, 1),
    (12, 1),
    (15, 1),
    (10, 1),
    (15_000, 1001),
    (100, 1),
    (120_000, 1001),
    (120, 1),
    (5, 1),
    (1, 1),
];
/// Without two pictures there is nothing to measure.
const FALLBACK: Rational = Rational { numerator: 25, denominator: 1 };
/// Gaps below this part of the usual one come from rounding or from a muxer's hiccup.
const SHORTEST_REAL_GAP: i64 = 4;
/// Fractions with larger parts say no more and overflow encoders' fields.
const MAX_DENOMINATOR: i64 = 100_000;

/// `times`: sorted, each once, in ticks. `end`: where the last picture stops being shown.
pub(crate) fn frame_rate(
    times: &[i64],
    end: i64,
    time_base: Rational,
    declared: Option<Rational>,
) -> FrameRate {
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        return FrameRate::Constant { rate: FALLBACK };
    };
    let span = last - first;
    if times.len() < 2 || span <= 0 {
        return FrameRate::Constant { rate: single_picture_rate(end - first, time_base, declared) };
    }
    let gaps = (times.len() - 1) as i64;
    if is_even(times, span, gaps) {
        return FrameRate::Constant { rate: name_rate(span, gaps, time_base, declared) };
    }
    let shown = (end - first).max(span);
    let average = rate_of(times.len() as i64, shown, time_base);
    let highest = rate_of(1, shortest_gap(times), time_base);
    FrameRate::Variable {
        average,
        highest: if highest.as_f64() < average.as_f64() { average } else { highest },
    }
}

/// Every picture lies within a tick of an even spread between the first and the last.
fn is_even(times: &[i64], span: i64, gaps: i64) -> bool {
    times.iter().enumerate().all(|(position, time)| {
        let expected = i128::from(span) * position as i128;
        let actual = i128::from(time - times[0]) * i128::from(gaps);
        (expected - actual).abs() <= i128::from(gaps)
    })
}

fn name_rate(span: i64, gaps: i64, time_base: Rational, declared: Option<Rational>) -> Rational {
    let seconds = span as f64 * time_base.as_f64();
    let measured = gaps as f64 / seconds;
    // Either end may be off by half a tick.
    let tolerance = measured / span as f64 + measured * 1e-6;
    let fits = |rate: &Rational| (rate.as_f64() - measured).abs() <= tolerance;
    let distance = |rate: &Rational| (rate.as_f64() - measured).abs();
    COMMON_RATES
        .iter()
        .filter_map(|(numerator, denominator)| Rational::new(*numerator, *denominator))
        .filter(fits)
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
        .or(declared.filter(fits))
        .unwrap_or_else(|| rate_of(gaps, span, time_base))
}

fn single_picture_rate(duration: i64, time_base: Rational, declared: Option<Rational>) -> Rational {
    let plausible = |rate: &Rational| (1.0..=240.0).contains(&rate.as_f64());
    declared
        .filter(plausible)
        .or_else(|| (duration > 0).then(|| rate_of(1, duration, time_base)).filter(plausible))
        .unwrap_or(FALLBACK)
}

/// How long a picture without a duration, alone in its track, is shown.
pub(crate) fn single_picture_ticks(time_base: Rational, declared: Option<Rational>) -> i64 {
    let rate = single_picture_rate(0, time_base, declared);
    ((1.0 / (rate.as_f64() * time_base.as_f64())).round() as i64).max(1)
}

fn shortest_gap(times: &[i64]) -> i64 {
    let mut gaps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable();
    let usual = gaps[gaps.len() / 2];
    gaps.into_iter().find(|gap| *gap >= usual / SHORTEST_REAL_GAP && *gap > 0).unwrap_or(1)
}

/// `count` pictures in so many ticks.
fn rate_of(count: i64, ticks: i64, time_base: Rational) -> Rational {
    let numerator = i128::from(count) * i128::from(time_base.denominator);
    let denominator = i128::from(ticks.max(1)) * i128::from(time_base.numerator.max(1));
    let exact = |value: i128| i64::try_from(value).ok();
    match (exact(numerator), exact(denominator)) {
        (Some(numerator), Some(denominator)) => {
            Rational::new(numerator, denominator).filter(|rate| rate.denominator <= MAX_DENOMINATOR)
        }
        _ => None,
    }
    .or_else(|| Rational::new((numerator as f64 / denominator as f64 * 1000.0).round().max(1.0) as i64, 1000))
    .unwrap_or(FALLBACK)
}

#[cfg(test)]
mod tests {
    use super::frame_rate;
    use reelyard_model::{Rational, media_info::FrameRate};

    fn rational(numerator: i64, denominator: i64) -> Rational {
        Rational::new(numerator, denominator).unwrap()
    }

    #[test]
    fn milliseconds_do_not_hide_ntsc() {
        let times: Vec<i64> = (0..300).map(|n| (n * 1001 + 15) / 30).collect();
        assert_eq!(
            frame_rate(&times, 10_010, rational(1, 1000), None),
            FrameRate::Constant { rate: rational(30_000, 1001) }
        );
    }

    #[test]
    fn a_screen_recording_is_variable() {
        let times = [0, 600, 1200, 9000, 9600, 30_000];
        let rate = frame_rate(&times, 36_000, rational(1, 600), None);
        assert_eq!(rate, FrameRate::Variable { average: rational(1, 10), highest: rational(1, 1) });
    }

    #[test]
    fn one_picture_has_the_declared_rate_or_its_own_duration() {
        assert_eq!(frame_rate(&[5], 8, rational(1, 90), None), FrameRate::Constant { rate: rational(30, 1) });
        assert_eq!(
            frame_rate(&[5], 5, rational(1, 90), Some(rational(57_600, 1))),
            FrameRate::Constant { rate: rational(25, 1) }
        );
    }
}
