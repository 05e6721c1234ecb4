//! Bit rates as measured on the segments, by the definitions of HLS.

/// A stretch of media: its bytes and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) byte_len: u64,
    pub(crate) us: u64,
}

/// Bits per second, rounded up; 0 for nothing.
fn bits_per_second(byte_len: u128, us: u128) -> u64 {
    if us == 0 {
        return 0;
    }
    u64::try_from((byte_len * 8 * 1_000_000).div_ceil(us)).unwrap_or(u64::MAX)
}

/// "Average segment bit rate" (RFC 8216 section 4.1).
pub(crate) fn average(stretches: &[Stretch]) -> u64 {
    let byte_len = stretches.iter().map(|stretch| u128::from(stretch.byte_len)).sum();
    let us = stretches.iter().map(|stretch| u128::from(stretch.us)).sum();
    bits_per_second(byte_len, us)
}

/// "Peak segment bit rate" (RFC 8216 section 4.1): the largest bit rate of any contiguous set of segments whose
/// total duration is between 0.5 and 1.5 times the target duration. The rule keeps a chunk's last segment of a few
/// pictures, nearly all keyframe, from being taken for the rate that a network must carry. Media too short for any
/// such set is taken as a whole.
pub(crate) fn peak(stretches: &[Stretch], target_seconds: u64) -> u64 {
    let shortest_us = u128::from(target_seconds) * 500_000;
    let longest_us = u128::from(target_seconds) * 1_500_000;
    let mut peak = 0;
    for first in 0..stretches.len() {
        let (mut byte_len, mut us) = (0_u128, 0_u128);
        for stretch in &stretches[first..] {
            byte_len += u128::from(stretch.byte_len);
            us += u128::from(stretch.us);
            if us > longest_us {
                break;
            }
            if us >= shortest_us {
                peak = peak.max(bits_per_second(byte_len, us));
            }
        }
    }
    if peak == 0 { average(stretches) } else { peak }
}

#[cfg(test)]
mod tests {
    use super::{Stretch, average, peak};

    fn stretches(list: &[(u64, u64)]) -> Vec<Stretch> {
        list.iter().map(|&(byte_len, ms)| Stretch { byte_len, us: ms * 1000 }).collect()
    }

    #[test]
    fn a_short_segment_counts_only_with_its_neighbours() {
        // 4 s at 1 Mbit/s, then 0.2 s at 8 Mbit/s, then 4 s at 1 Mbit/s.
        let list = stretches(&[(500_000, 4000), (200_000, 200), (500_000, 4000)]);
        assert_eq!(peak(&list, 4), 700_000 * 8 * 10 / 42 + 1);
        assert_eq!(average(&list), 1_170_732);
    }

    #[test]
    fn media_shorter_than_any_set_is_taken_whole() {
        assert_eq!(peak(&stretches(&[(1000, 100)]), 1), 80_000);
        assert_eq!(peak(&[], 1), 0);
    }
}
