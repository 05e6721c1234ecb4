//! How good a poster a picture would make: pure, on the luma of its tile.

/// Higher is better.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Score(f64);

/// Luma of video range runs from 16 to 235.
const BLACK: f64 = 16.0;
const WHITE: f64 = 235.0;
/// Mean luma below and above which a picture is taken for a fade or a flash.
const DARK: f64 = 40.0;
const BRIGHT: f64 = 215.0;
/// What a picture keeps of its score: one that is too dark or too bright, one from titles or credits, a damaged one.
const TOO_DARK_OR_BRIGHT: f64 = 0.4;
const NEAR_AN_END: f64 = 0.8;
const DAMAGED: f64 = 0.3;
/// Standard deviation of luma from which up more contrast is no better.
const ENOUGH_CONTRAST: f64 = 60.0;
/// Levels of the histogram, and hence the most bits of entropy (5).
const LEVELS: usize = 32;

impl Score {
    /// Contrast (standard deviation) and variety (entropy of the histogram) count alike: text on black has contrast, a
    /// gradient has variety, a film has both. Among flat pictures the brighter one wins, so that white beats black.
    pub(super) fn of(luma: &[u8], row_bytes: usize, width: u32, height: u32) -> Self {
        let mut histogram = [0_u64; 256];
        for row in luma.chunks(row_bytes.max(1)).take(height as usize) {
            for value in row.iter().take(width as usize) {
                histogram[usize::from(*value)] += 1;
            }
        }
        let count = histogram.iter().sum::<u64>().max(1) as f64;
        let levels = || histogram.iter().enumerate().map(|(value, seen)| (value as f64, *seen as f64));
        let mean = levels().map(|(value, seen)| value * seen).sum::<f64>() / count;
        let variance = levels().map(|(value, seen)| (value - mean).powi(2) * seen).sum::<f64>() / count;
        let entropy: f64 = histogram
            .chunks(histogram.len() / LEVELS)
            .map(|chunk| chunk.iter().sum::<u64>() as f64 / count)
            .filter(|share| *share > 0.0)
            .map(|share| -share * share.log2())
            .sum();
        let contrast = (variance.sqrt() / ENOUGH_CONTRAST).min(1.0);
        let variety = entropy / (LEVELS as f64).log2();
        let brightness = ((mean - BLACK) / (WHITE - BLACK)).clamp(0.0, 1.0);
        let exposure = if (DARK..=BRIGHT).contains(&mean) { 1.0 } else { TOO_DARK_OR_BRIGHT };
        Self((contrast + variety) * exposure + brightness * 0.01)
    }

    pub(super) fn weighted(self, is_near_an_end: bool, is_damaged: bool) -> Self {
        let weight = |applies: bool, factor: f64| if applies { factor } else { 1.0 };
        Self(self.0 * weight(is_near_an_end, NEAR_AN_END) * weight(is_damaged, DAMAGED))
    }
}

#[cfg(test)]
mod tests {
    use super::Score;

    fn score(luma: impl Fn(usize, usize) -> u8) -> Score {
        // Rows are longer than the picture is wide, as FFmpeg's are.
        let picture: Vec<u8> =
            (0..90 * 192).map(|i| if i % 192 < 160 { luma(i % 192, i / 192) } else { 255 }).collect();
        Score::of(&picture, 192, 160, 90)
    }

    #[test]
    fn a_film_beats_titles_beats_flat_beats_black() {
        let film = score(|x, y| (30 + (x * 7 + y * 13) % 180) as u8);
        let titles = score(|x, y| if (20..30).contains(&y) && x % 3 == 0 { 235 } else { 16 });
        let fade = score(|x, y| (18 + (x + y) % 12) as u8);
        let white = score(|_, _| 235);
        let black = score(|_, _| 16);
        assert!(film > titles && titles > fade && fade > white && white > black);
        assert!(film > film.weighted(true, false) && film.weighted(true, false) > film.weighted(false, true));
    }

    #[test]
    fn no_picture_at_all_has_a_score_too() {
        assert!(Score::of(&[], 0, 0, 0) >= Score::of(&[], 0, 160, 90));
    }
}
