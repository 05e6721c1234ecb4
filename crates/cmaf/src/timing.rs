//! From the presentation times of a closed GOP to what a `trun` stores: durations and composition offsets.
//!
//! A fragment stores decode times, and an encoder's start before the first picture is shown, differently for each
//! encoder and chunk. Here they are made anew: the n-th sample in decode order is decoded when the n-th picture is
//! shown, all composition offsets are a constant delay larger than that makes them, and an edit list in the
//! initialization segment takes the delay back. So a fragment's decode time is its presentation time, chunks join
//! without a seam, and no picture is shown before it is decoded.

use crate::CmafError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleTime {
    pub duration: u32,
    /// Includes the delay. Below zero only where the delay is too short, which `trun` version 1 stores all the same
    /// (FFmpeg's demuxer then moves all pictures by as much; browsers do not).
    pub composition_offset: i32,
}

/// `presentation_times` in decode order, all different; `end` is where the last picture stops being shown, and where
/// the next fragment starts. The smallest of them is the fragment's decode time.
///
/// `presentation_delay` is the same for a whole rendition and stands in its [`crate::AvcTrack`]: as many picture
/// durations as the encoder reorders (2 with B pictures that are references, 1 without, 0 without B pictures).
/// Where a gap between pictures is longer than that, pictures are decoded earlier instead.
pub fn sample_times(
    presentation_times: &[i64],
    end: i64,
    presentation_delay: u32,
) -> Result<Vec<SampleTime>, CmafError> {
    let mut decode_times = presentation_times.to_vec();
    decode_times.sort_unstable();
    decode_times.push(end);
    check_order(&decode_times)?;
    let delay = i64::from(presentation_delay);
    bring_forward(&mut decode_times, presentation_times, delay);

    let mut times = Vec::with_capacity(presentation_times.len());
    for (sample, &presentation_time) in presentation_times.iter().enumerate() {
        let decode_time = decode_times[sample];
        let ticks = decode_times[sample + 1].saturating_sub(decode_time);
        let duration =
            u32::try_from(ticks).map_err(|_| CmafError::TicksOverflow { sample, what: "duration", ticks })?;
        let ticks = presentation_time.saturating_sub(decode_time).saturating_add(delay);
        let composition_offset = i32::try_from(ticks).map_err(|_| CmafError::TicksOverflow {
            sample,
            what: "composition offset",
            ticks,
        })?;
        times.push(SampleTime { duration, composition_offset });
    }
    Ok(times)
}

/// `times` rise, and their last is the end.
fn check_order(times: &[i64]) -> Result<(), CmafError> {
    for (sample, pair) in times.windows(2).enumerate() {
        if pair[0] >= pair[1] {
            let is_last = sample + 2 == times.len();
            let reason = if is_last { "the end is not after the last picture" } else { "two are the same" };
            return Err(CmafError::BadTimes { sample, reason });
        }
    }
    Ok(())
}

/// Pictures of uneven length can be shown before they are decoded, however many pictures the delay counts. Those, and
/// what is decoded before them, are moved forward, at least a tick apart; the first one cannot move.
fn bring_forward(decode_times: &mut [i64], presentation_times: &[i64], delay: i64) {
    let Some(&first) = decode_times.first() else { return };
    let mut latest = i64::MAX;
    for sample in (1..presentation_times.len()).rev() {
        let shown = presentation_times[sample].saturating_add(delay);
        let earliest = first.saturating_add(sample as i64);
        latest = latest.saturating_sub(1).min(shown).min(decode_times[sample]).max(earliest);
        decode_times[sample] = latest;
    }
}

#[cfg(test)]
mod tests {
    use super::{SampleTime, sample_times};
    use crate::CmafError;

    fn time(duration: u32, composition_offset: i32) -> SampleTime {
        SampleTime { duration, composition_offset }
    }

    #[test]
    fn reordered_pictures_of_even_length() {
        // I P B b, shown as I b B P, one tick of 10 each: the delay of two pictures keeps all offsets from zero up.
        assert_eq!(
            sample_times(&[100, 130, 120, 110], 140, 20).unwrap(),
            [time(10, 20), time(10, 40), time(10, 20), time(10, 0)]
        );
    }

    #[test]
    fn reordered_pictures_of_uneven_length() {
        // I P B B, shown as I B B P at 100, 110, 130, 140, to 155.
        let times = [100, 140, 110, 130];
        assert_eq!(
            sample_times(&times, 155, 20).unwrap(),
            [time(10, 20), time(20, 50), time(10, 0), time(15, 10)]
        );
        // With a delay of 10 the third, shown at 110, must be decoded by 120.
        assert_eq!(
            sample_times(&times, 155, 10).unwrap(),
            [time(10, 10), time(10, 40), time(20, 0), time(15, 0)]
        );
    }

    #[test]
    fn a_long_gap_moves_no_picture_below_its_decode_time() {
        // A screen recording: two seconds without a change, then movement.
        let times = [0, 186_000, 180_000, 183_000];
        let made = sample_times(&times, 189_000, 6000).unwrap();
        assert!(made.iter().all(|time| time.composition_offset >= 0), "{made:?}");
        assert_eq!(made.iter().map(|time| i64::from(time.duration)).sum::<i64>(), 189_000);
    }

    #[test]
    fn times_that_cannot_be_are_refused() {
        assert_eq!(
            sample_times(&[0, 20, 20], 30, 0),
            Err(CmafError::BadTimes { sample: 1, reason: "two are the same" })
        );
        assert!(matches!(sample_times(&[0, 20], 20, 0), Err(CmafError::BadTimes { sample: 1, .. })));
        assert!(matches!(sample_times(&[0], 1 << 32, 0), Err(CmafError::TicksOverflow { sample: 0, .. })));
        assert!(matches!(
            sample_times(&[i64::MIN, i64::MAX - 1], i64::MAX, 0),
            Err(CmafError::TicksOverflow { .. })
        ));
        assert_eq!(sample_times(&[], 5, 0), Ok(vec![]));
    }
}
