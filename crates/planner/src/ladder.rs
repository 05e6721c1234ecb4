//! Which qualities are made.
//!
//! A rung of the preset is a box (see `geometry`). Rungs whose box is larger than the source's are left out, since
//! enlarging adds bytes and no detail. A source between two rungs gets one of its own size when that is worth it, a
//! source below all rungs gets that one only, and a source a little above a rung keeps its own size on it.

use crate::{
    geometry::Size,
    planning::Reasons,
    preset::{RungPreset, VideoPreset},
};
use reelyard_model::plan::Rung;

/// A rung of the source's own size is made when its box has at least this much more lines than the next rung's:
/// nobody sees less, and it would cost the most of all rungs.
const WORTHWHILE_STEP_PERCENT: u64 = 15;
/// Up to this much above a rung the source's own size takes its place: 1920x1088 as 1080p. Scaling by so little
/// blurs the picture and saves nothing.
const KEEP_OWN_SIZE_PERCENT: u64 = 3;
/// Below this a rung shows nothing; it happens to panoramas only.
const SMALLEST_USEFUL_SIDE: u32 = 16;
/// The preset's rates are meant for this many pictures a second.
const BASE_FRAMES_PER_SECOND: f64 = 30.0;
/// Twice the pictures take half as many bits again (they resemble each other), as in YouTube's upload advice of 8 and
/// 12 Mbit/s for 1080p at 30 and 60.
const GROWTH_AT_DOUBLE_RATE: f64 = 0.5;
/// From 120 pictures a second on the rate grows no more.
const MAX_RATE_FACTOR: f64 = 2.5;

pub(crate) fn ladder(
    source: Size,
    frames_per_second: f64,
    preset: &VideoPreset,
    reasons: &mut Reasons,
) -> Vec<Rung> {
    let own_box = source.box_sixteenths();
    let too_large = |rung: &&RungPreset| 16 * u64::from(rung.lines) > own_box;
    let above = preset.rungs.iter().rfind(too_large);
    let mut fitting: Vec<&RungPreset> = preset.rungs.iter().filter(|rung| !too_large(rung)).collect();
    let left_out: Vec<String> =
        preset.rungs.iter().filter(too_large).map(|rung| format!("{}p", rung.lines)).collect();
    if !left_out.is_empty() {
        let text = format!(
            "{} left out: the source ({source}) fits a box of {} lines, and pictures are never enlarged",
            left_out.join(", "),
            source.box_lines()
        );
        reasons.add("ladder", text);
    }

    if source.height > source.width {
        reasons.add("ladder", "portrait: the boxes are turned, so 1080p is 1080 wide and at most 1920 high");
    }
    let own_rung = own_size_rung(source, above, fitting.first().copied(), reasons);
    let mut made: Vec<(RungPreset, Size)> = Vec::new();
    if let Some(own) = own_rung {
        made.push((own, source.even()));
    } else if let Some(first) = fitting.first()
        && is_within_percent(own_box, 16 * u64::from(first.lines), KEEP_OWN_SIZE_PERCENT)
    {
        let first = fitting.remove(0);
        let size = source.even();
        reasons.add("ladder", format!("{}p made as {size}, {}", first.lines, own_size_words(source)));
        made.push((first.clone(), size));
    }
    for rung in fitting {
        let size = source.fitted(rung.lines);
        if !made.is_empty() && size.short_side() < SMALLEST_USEFUL_SIDE {
            let text =
                format!("{}p left out: the picture would be {size}, too thin to show anything", rung.lines);
            reasons.add("ladder", text);
        } else if made.iter().any(|(_, known)| *known == size) {
            reasons.add("ladder", format!("{}p left out: it would be {size} once more", rung.lines));
        } else {
            reasons.add("ladder", format!("{}p made as {size}, scaled down from {source}", rung.lines));
            made.push((rung.clone(), size));
        }
    }

    let factor = rate_factor(frames_per_second);
    if factor > 1.0 {
        let text = format!(
            "peak bit rates times {factor:.2}: the source has {frames_per_second:.2} pictures a second, the preset is made for \
             {BASE_FRAMES_PER_SECOND}"
        );
        reasons.add("bit rate", text);
    }
    made.into_iter().map(|(rung, size)| output_rung(&rung, size, factor)).collect()
}

/// A rung that the preset does not have: the source's own size, where the ladder would leave too much of it away.
fn own_size_rung(
    source: Size,
    above: Option<&RungPreset>,
    below: Option<&RungPreset>,
    reasons: &mut Reasons,
) -> Option<RungPreset> {
    let own_lines = source.box_lines();
    // Above all rungs: the preset's largest is what was asked for.
    let above = above?;
    let Some(below) = below else {
        let text = format!(
            "{own_lines}p made as {}: the source is smaller than the smallest rung ({}p), so this one has {}",
            source.even(),
            above.lines,
            own_size_words(source)
        );
        reasons.add("ladder", text);
        return Some(RungPreset { lines: own_lines, ..above.clone() });
    };
    let below_box = 16 * u64::from(below.lines);
    if source.box_sixteenths() * 100 < below_box * (100 + WORTHWHILE_STEP_PERCENT) {
        return None;
    }
    let text = format!(
        "{own_lines}p made as {}: the source lies between {}p and {}p, more than {WORTHWHILE_STEP_PERCENT} % above the smaller one",
        source.even(),
        above.lines,
        below.lines
    );
    reasons.add("ladder", text);
    Some(between(own_lines, below, above))
}

/// Rates between two rungs, by the number of pixels.
fn between(lines: u32, below: &RungPreset, above: &RungPreset) -> RungPreset {
    let pixels = |lines: u32| u64::from(lines) * u64::from(lines);
    let span = (pixels(above.lines) - pixels(below.lines)).max(1);
    let share = pixels(lines).saturating_sub(pixels(below.lines)).min(span);
    let mix = |low: u32, high: u32| {
        let (low, high) = (u64::from(low), u64::from(high.max(low)));
        u32::try_from(low + (high - low) * share / span).unwrap_or(u32::MAX)
    };
    RungPreset {
        lines,
        crf: above.crf,
        max_bit_rate_kbps: mix(below.max_bit_rate_kbps, above.max_bit_rate_kbps),
        buffer_kbits: mix(below.buffer_kbits, above.buffer_kbits),
    }
}

fn is_within_percent(value: u64, base: u64, percent: u64) -> bool {
    value * 100 <= base * (100 + percent)
}

fn own_size_words(source: Size) -> String {
    let even = source.even();
    if even == source {
        "the source's own size".to_owned()
    } else if even.width > source.width || even.height > source.height {
        format!("the source's own size ({source}), filled up to the smallest that H.264 has")
    } else {
        format!("the source's own size ({source}) without its odd line or column")
    }
}

fn rate_factor(frames_per_second: f64) -> f64 {
    let doublings = (frames_per_second / BASE_FRAMES_PER_SECOND - 1.0).max(0.0);
    (1.0 + GROWTH_AT_DOUBLE_RATE * doublings).min(MAX_RATE_FACTOR)
}

fn output_rung(rung: &RungPreset, size: Size, factor: f64) -> Rung {
    let bits = |kilobits: u32| (f64::from(kilobits) * 1000.0 * factor).round() as u64;
    Rung {
        name: format!("{}p", rung.lines),
        width: size.width,
        height: size.height,
        crf: rung.crf,
        max_bit_rate: bits(rung.max_bit_rate_kbps),
        buffer_bits: bits(rung.buffer_kbits),
    }
}
