//! From which larger rung each rung is scaled.
//!
//! Scaling the source once for each rung is what costs; scaling the next larger rung is cheapest, but small steps one
//! after the other blur: with 1080 > 720 > 480 > 360 > 240 the two smallest lost 0.6 and 0.4 VMAF against scaling
//! each from the source (benches/README.md). A step of two or so costs almost as little and loses nothing that shows.

use reelyard_model::plan::Rung;

/// Smallest factor between a rung and the one it is scaled from, unless there is none so large. A little below 2, so
/// that rounded widths (854, 426) count as the halves that they are.
const SMALLEST_STEP: f64 = 1.9;

/// For each rung (largest first) the position of the rung it is scaled from; `None` for the first, which takes the
/// normalised source.
pub(super) fn sources(rungs: &[Rung]) -> Vec<Option<usize>> {
    (0..rungs.len())
        .map(|position| {
            let large_enough = |larger: &Rung| {
                let wanted = |side: u32| f64::from(side) * SMALLEST_STEP;
                f64::from(larger.width) >= wanted(rungs[position].width)
                    && f64::from(larger.height) >= wanted(rungs[position].height)
            };
            (position > 0).then(|| rungs[..position].iter().rposition(large_enough).unwrap_or(0))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::sources;
    use reelyard_model::plan::Rung;

    fn ladder(sizes: &[(u32, u32)]) -> Vec<Rung> {
        sizes
            .iter()
            .map(|&(width, height)| Rung {
                name: format!("{height}p"),
                width,
                height,
                crf: 23.0,
                max_bit_rate: 1,
                buffer_bits: 1,
            })
            .collect()
    }

    #[test]
    fn the_smallest_rung_that_is_twice_as_large() {
        let web = ladder(&[(1920, 1080), (1280, 720), (854, 480), (640, 360), (426, 240)]);
        assert_eq!(sources(&web), [None, Some(0), Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn the_first_where_none_is_twice_as_large() {
        assert_eq!(sources(&ladder(&[(1280, 720), (960, 540), (854, 480)])), [None, Some(0), Some(0)]);
        assert_eq!(sources(&ladder(&[(426, 240)])), [None]);
    }
}
