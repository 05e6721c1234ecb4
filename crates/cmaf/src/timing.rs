//! From the presentation times of a closed GOP to what a `trun` stores: durations and composition offsets.
//!
//! A fragment stores decode times, and those of an encoder start before the first picture is shown. Here decode times
//! are made anew: the n-th sample in decode order is decoded when the n-th picture in presentation order is shown.
//! That keeps the order, makes the first sample's decode and presentation time equal (no edit list is needed, and
//! fragments join without a seam), and gives composition offsets below zero, which `trun` version 1 stores.

use crate::CmafError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleTime {
    pub duration: u32,
    pub composition_offset: i32,
}

/// `presentation_times` in decode order, all different; `end` is where the last picture stops being shown, and where
/// the next fragment starts. The smallest of them is the fragment's decode time.
pub fn sample_times(presentation_times: &[i64], end: i64) -> Result<Vec<SampleTime>, CmafError> {
    let mut shown: Vec<i64> = presentation_times.to_vec();
    shown.sort_unstable();
    shown.push(end);
    let mut times = Vec::with_capacity(presentation_times.len());
    for (sample, &presentation_time) in presentation_times.iter().enumerate() {
        let decode_time = shown[sample];
        let ticks = shown[sample + 1].saturating_sub(decode_time);
        if ticks <= 0 {
            let is_last = sample + 1 == presentation_times.len();
            let reason = if is_last { "the end is not after the last picture" } else { "two are the same" };
            return Err(CmafError::BadTimes { sample, reason });
        }
        let duration =
            u32::try_from(ticks).map_err(|_| CmafError::TicksOverflow { sample, what: "duration", ticks })?;
        let ticks = presentation_time.saturating_sub(decode_time);
        let composition_offset = i32::try_from(ticks).map_err(|_| CmafError::TicksOverflow {
            sample,
            what: "composition offset",
            ticks,
        })?;
        times.push(SampleTime { duration, composition_offset });
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::{SampleTime, sample_times};
    use crate::CmafError;

    fn time(duration: u32, composition_offset: i32) -> SampleTime {
        SampleTime { duration, composition_offset }
    }

    #[test]
    fn reordered_pictures_of_uneven_length() {
        // I P B B, shown as I B B P at 100, 110, 130, 140, to 155.
        assert_eq!(
            sample_times(&[100, 140, 110, 130], 155).unwrap(),
            [time(10, 0), time(20, 30), time(10, -20), time(15, -10)]
        );
    }

    #[test]
    fn times_that_cannot_be_are_refused() {
        assert_eq!(
            sample_times(&[0, 20, 20], 30),
            Err(CmafError::BadTimes { sample: 1, reason: "two are the same" })
        );
        assert!(matches!(sample_times(&[0, 20], 20), Err(CmafError::BadTimes { sample: 1, .. })));
        assert!(matches!(sample_times(&[0], 1 << 32), Err(CmafError::TicksOverflow { sample: 0, .. })));
        assert!(matches!(
            sample_times(&[i64::MIN, i64::MAX], i64::MAX),
            Err(CmafError::TicksOverflow { .. })
        ));
        assert_eq!(sample_times(&[], 5), Ok(vec![]));
    }
}
