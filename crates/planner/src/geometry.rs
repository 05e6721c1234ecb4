//! Sizes: how large a source is when it stands upright with square pixels, and how it fits into a rung.

use reelyard_model::{Rational, media_info::VideoTrack};

/// Upright, with square pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// A pixel eight times as wide as high (or the reverse) is a wrong field in a file, not a lens.
const MAX_PIXEL_ASPECT: i64 = 8;
/// H.264 with 4:2:0 colour has no smaller picture.
pub(crate) const SMALLEST_SIDE: u32 = 2;

impl Size {
    pub(crate) fn long_side(self) -> u32 {
        self.width.max(self.height)
    }

    pub(crate) fn short_side(self) -> u32 {
        self.width.min(self.height)
    }

    /// The largest even size that is not larger, though never below 2x2.
    pub(crate) fn even(self) -> Self {
        let even = |side: u32| (side - side % 2).max(SMALLEST_SIDE);
        Self { width: even(self.width), height: even(self.height) }
    }

    /// Sixteenths of the lines of the smallest 16:9 box (turned for portrait) that holds it: 1920x800 needs the box of
    /// 1080 lines. This is how the large platforms name qualities, so a film in 2.4:1 keeps its full width.
    pub(crate) fn box_sixteenths(self) -> u64 {
        (16 * u64::from(self.short_side())).max(9 * u64::from(self.long_side()))
    }

    /// The same in lines, to the nearest.
    pub(crate) fn box_lines(self) -> u32 {
        u32::try_from((self.box_sixteenths() + 8) / 16).unwrap_or(u32::MAX)
    }

    /// Scaled down to fit the box of `lines`; even sides, each to the nearest; never larger than it was.
    pub(crate) fn fitted(self, lines: u32) -> Self {
        let own_box = self.box_sixteenths().max(1);
        let wanted_box = 16 * u64::from(lines);
        if own_box <= wanted_box {
            return self.even();
        }
        let largest = self.even();
        let scaled = |side: u32, limit: u32| {
            // 2 * round(side * wanted / own / 2)
            let halves = (u64::from(side) * wanted_box + own_box) / (2 * own_box);
            u32::try_from(2 * halves).unwrap_or(limit).clamp(SMALLEST_SIDE, limit)
        };
        Self { width: scaled(self.width, largest.width), height: scaled(self.height, largest.height) }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// The sample aspect ratio to go by: 1:1 when the file's is missing or makes no sense.
pub(crate) fn believable_pixel_aspect(track: &VideoTrack) -> Option<Rational> {
    let Rational { numerator, denominator } = track.sample_aspect_ratio;
    let is_positive = numerator > 0 && denominator > 0;
    let is_mild = numerator.saturating_mul(MAX_PIXEL_ASPECT) >= denominator
        && denominator.saturating_mul(MAX_PIXEL_ASPECT) >= numerator;
    (is_positive && is_mild).then_some(track.sample_aspect_ratio)
}

/// The picture as it is meant to be seen: pixels made square by changing the width (lines are kept), then turned.
pub(crate) fn upright_size(track: &VideoTrack) -> Size {
    let aspect = believable_pixel_aspect(track).unwrap_or(Rational::ONE);
    let width = u32::try_from(aspect.scale(i64::from(track.width))).unwrap_or(u32::MAX).max(1);
    if track.orientation.quarter_turns_clockwise % 2 == 1 {
        Size { width: track.height, height: width }
    } else {
        Size { width, height: track.height }
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn boxes_and_fits() {
        let table = [
            // source, box lines, fitted into 480
            ((1920, 1080), 1080, (854, 480)),
            ((1080, 1920), 1080, (480, 854)),
            ((1920, 800), 1080, (854, 356)),
            ((2560, 1080), 1440, (854, 360)),
            ((1440, 1080), 1080, (640, 480)),
            ((1080, 1080), 1080, (480, 480)),
            ((321, 241), 241, (320, 240)),
            ((1, 1), 1, (2, 2)),
        ];
        for ((width, height), lines, (fitted_width, fitted_height)) in table {
            let size = Size { width, height };
            assert_eq!(size.box_lines(), lines, "{size}");
            assert_eq!(size.fitted(480), Size { width: fitted_width, height: fitted_height }, "{size}");
        }
    }
}
