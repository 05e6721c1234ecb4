//! Where the source is cut into chunks.
//!
//! A chunk starts at a source keyframe, so that a task decodes nothing that it does not encode. The cuts aim at
//! equal lengths near the preset's, moved to whole segments where keyframes allow, because each cut that is not at a
//! segment's end makes one short segment. No chunk is shorter than half the aim: its fixed costs would outweigh it.

use crate::{planning::Reasons, timing::Timing};
use reelyard_model::{Rational, media_info::VideoTrack, plan::Chunk};

/// Demuxers that cannot jump to a time, or whose times are made up by the demuxer.
const UNSEEKABLE_CONTAINERS: [&str; 12] = [
    "h264",
    "hevc",
    "m4v",
    "mpegvideo",
    "mjpeg",
    "vc1",
    "obu",
    "gif",
    "apng",
    "image2",
    "webp_pipe",
    "rawvideo",
];
const US_PER_SECOND: i128 = 1_000_000;

pub(crate) struct ChunkPolicy {
    pub(crate) chunk_us: i64,
    pub(crate) max_chunks: u32,
}

pub(crate) fn chunks(
    track: &VideoTrack,
    container: &str,
    timing: &Timing,
    policy: &ChunkPolicy,
    reasons: &mut Reasons,
) -> Vec<Chunk> {
    let whole = vec![Chunk::whole(track.start_pts)];
    if let Some(why) = unreliable_index(track, container) {
        reasons.add("chunks", format!("one chunk: {why}"));
        return whole;
    }
    let Some(length_ticks) = track.end_pts.checked_sub(track.start_pts).filter(|ticks| *ticks > 0) else {
        reasons.add("chunks", "one chunk: the track has no length to divide");
        return whole;
    };
    let aimed_ticks = us_to_ticks(policy.chunk_us, track.time_base).max(1);
    let segment_ticks = us_to_ticks(timing.segment_us(), track.time_base).max(1);
    let wanted = (length_ticks.saturating_add(aimed_ticks / 2) / aimed_ticks).max(1);
    let count = wanted.min(i64::from(policy.max_chunks.max(1)));
    if count < wanted {
        let text = format!(
            "longer chunks than the preset's: {wanted} would be more than {} tasks",
            policy.max_chunks
        );
        reasons.add("chunks", text);
    }
    if wanted == 1 {
        let aim = policy.chunk_us as f64 / 1e6;
        reasons
            .add("chunks", format!("one chunk: the source is too short for two of the preset's {aim:.0} s"));
        return whole;
    }
    let starts = cut(track, length_ticks, count, segment_ticks);
    add_reason(track, &starts, policy, reasons);
    let ends = starts.iter().skip(1).map(|start| Some(*start)).chain([None]);
    let indexes = 0_u32..;
    starts
        .iter()
        .zip(ends)
        .zip(indexes)
        .map(|((start_pts, end_pts), index)| Chunk {
            index,
            start_pts: *start_pts,
            end_pts,
            start_byte: byte_of(track, *start_pts),
            end_byte: end_pts.and_then(|pts| byte_of(track, pts)),
        })
        .collect()
}

/// Starts of the chunks, the first one being the start of the track.
fn cut(track: &VideoTrack, length_ticks: i64, count: i64, segment_ticks: i64) -> Vec<i64> {
    let shortest_ticks = length_ticks / count / 2;
    let mut starts = vec![track.start_pts];
    let mut last = track.start_pts;
    for nth in 1..count {
        let even = track.start_pts + share(length_ticks, nth, count);
        // Counted from the last cut, because a chunk counts its segments from its own start.
        let ideal = last + (even - last + segment_ticks / 2) / segment_ticks * segment_ticks;
        let earliest = last + shortest_ticks.max(1);
        let latest = track.end_pts - shortest_ticks.max(1);
        let nearest = nearest_keyframe(track, ideal, earliest, latest);
        if let Some(start) = nearest {
            starts.push(start);
            last = start;
        }
    }
    starts
}

fn share(length_ticks: i64, nth: i64, count: i64) -> i64 {
    (i128::from(length_ticks) * i128::from(nth) / i128::from(count)) as i64
}

/// The keyframe nearest to `ideal` within `earliest ..= latest`; of two, the earlier one.
fn nearest_keyframe(track: &VideoTrack, ideal: i64, earliest: i64, latest: i64) -> Option<i64> {
    let after = track.keyframes.partition_point(|keyframe| keyframe.pts < ideal);
    let before = track.keyframes[..after].iter().rev().map(|keyframe| keyframe.pts);
    let from = track.keyframes[after..].iter().map(|keyframe| keyframe.pts);
    let allowed = earliest..=latest;
    [
        before.skip_while(|pts| *pts > latest).take_while(|pts| *pts >= earliest).next(),
        from.skip_while(|pts| *pts < earliest).take_while(|pts| *pts <= latest).next(),
    ]
    .into_iter()
    .flatten()
    .filter(|pts| allowed.contains(pts))
    .min_by_key(|pts| pts.abs_diff(ideal))
}

/// Where the keyframe that is shown at this time lies in the file.
fn byte_of(track: &VideoTrack, pts: i64) -> Option<u64> {
    let found = track.keyframes.binary_search_by_key(&pts, |keyframe| keyframe.pts).ok()?;
    track.keyframes.get(found)?.byte_offset
}

/// Why the index cannot be trusted for cuts, if so.
fn unreliable_index(track: &VideoTrack, container: &str) -> Option<String> {
    if UNSEEKABLE_CONTAINERS.contains(&container) {
        return Some(format!("a file of kind {container} cannot be entered in the middle"));
    }
    if track.keyframes.is_empty() {
        return Some("the file names no keyframes, so there is no safe place to cut".to_owned());
    }
    let pairs = || track.keyframes.windows(2);
    if pairs().any(|pair| pair[0].pts >= pair[1].pts) {
        return Some("the times of the keyframes do not rise, so they cannot be trusted".to_owned());
    }
    // Times that run against the bytes come from clocks that were reset (joined recordings): seeking would land in
    // the wrong part.
    if pairs().any(|pair| matches!((pair[0].byte_offset, pair[1].byte_offset), (Some(a), Some(b)) if a > b)) {
        return Some("the keyframes lie in the file in another order than in time".to_owned());
    }
    None
}

fn add_reason(track: &VideoTrack, starts: &[i64], policy: &ChunkPolicy, reasons: &mut Reasons) {
    let aim = policy.chunk_us as f64 / 1e6;
    if let [_] = starts {
        let text = match track.keyframes.len() {
            1 => "one chunk: there is one keyframe only".to_owned(),
            _ => format!("one chunk: no keyframe divides the source into parts near {aim:.0} s"),
        };
        return reasons.add("chunks", text);
    }
    let ends = starts.iter().skip(1).chain([&track.end_pts]);
    let seconds: Vec<f64> =
        starts.iter().zip(ends).map(|(start, end)| (end - start) as f64 * track.time_base.as_f64()).collect();
    let shortest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let longest = seconds.iter().copied().fold(0.0, f64::max);
    let text = format!(
        "{} chunks of {shortest:.2} to {longest:.2} s, cut at {} of {} keyframes (preset: {aim:.0} s)",
        starts.len(),
        starts.len() - 1,
        track.keyframes.len()
    );
    reasons.add("chunks", text);
}

fn us_to_ticks(us: i64, time_base: Rational) -> i64 {
    let numerator = i128::from(us) * i128::from(time_base.denominator);
    let denominator = (i128::from(time_base.numerator) * US_PER_SECOND).max(1);
    i64::try_from((numerator + denominator / 2) / denominator).unwrap_or(i64::MAX)
}
