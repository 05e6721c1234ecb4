//! How large objects are, and when small ones at the end of an upload become one. Pure numbers.
//!
//! A fast sender fills parts of [`PART_BYTES`]. A slow or a cut one leaves short objects behind; those are merged with
//! what comes next as a binary counter carries: an object is taken up only when at least as many bytes join it. So a
//! byte is written at most 1 + log2(part / checkpoint) times however slowly it comes, and an upload needs no memory
//! for bytes that are durable.

/// Size of the first parts: above S3's least for multipart copies (5 MiB), and small enough that an upload at full
/// speed holds 16 MiB.
pub(crate) const PART_BYTES: u64 = 8 << 20;
/// After so many parts their size doubles, so that the number of objects stays in the thousands: S3 joins at most
/// 10,000 in one go.
const PARTS_OF_ONE_SIZE: u64 = 1_000;
/// No part is larger. Doubling on to 10,000 parts would end with parts of 4 GiB, and two of an upload are in memory at
/// a time. So the doubling stops here (at 55 GiB); an upload of 512 GiB has 10,300 parts, and one of S3's largest
/// objects (5 TiB) 84,000, which are joined in two steps.
const LARGEST_PART_BYTES: u64 = 64 << 20;
/// One upload may hold two parts; with this share for one, it takes half of the memory of all uploads at most.
const SHARE_OF_BUDGET: u64 = 4;

/// Size of a part that begins at `start`, when all uploads together may hold `budget` bytes.
pub(crate) fn part_bytes(start: u64, budget: u64) -> u64 {
    let (mut size, mut reached) = (PART_BYTES, PART_BYTES * PARTS_OF_ONE_SIZE);
    while start >= reached && size < LARGEST_PART_BYTES {
        size *= 2;
        reached += size * PARTS_OF_ONE_SIZE;
    }
    size.min(budget / SHARE_OF_BUDGET).max(1)
}

/// How many of the objects before it (`lengths`, the last one last) an object of `gathered` new bytes takes up.
pub(crate) fn taken_up(
    lengths: impl DoubleEndedIterator<Item = u64>,
    gathered: u64,
    part: u64,
) -> (usize, u64) {
    let (mut count, mut bytes) = (0, 0);
    for length in lengths.rev() {
        // One that is more than half a part is good as it is.
        if length > gathered + bytes || bytes + length > part / 2 {
            break;
        }
        count += 1;
        bytes += length;
    }
    (count, bytes)
}

#[cfg(test)]
mod tests {
    use super::{LARGEST_PART_BYTES, PART_BYTES, part_bytes, taken_up};
    use proptest::prelude::{prop, proptest};

    const MIB: u64 = 1 << 20;
    const BUDGET: u64 = 256 * MIB;

    /// Parts of an upload that comes at full speed.
    fn parts_of(byte_len: u64) -> u64 {
        let (mut start, mut parts) = (0, 0);
        while start < byte_len {
            start += part_bytes(start, BUDGET);
            parts += 1;
        }
        parts
    }

    #[test]
    fn parts_grow_until_an_upload_would_hold_too_much() {
        assert_eq!(part_bytes(0, BUDGET), PART_BYTES);
        assert_eq!(part_bytes(1_000 * PART_BYTES - 1, BUDGET), PART_BYTES);
        assert_eq!(part_bytes(1_000 * PART_BYTES, BUDGET), 2 * PART_BYTES);
        assert_eq!(part_bytes(5 << 40, BUDGET), LARGEST_PART_BYTES);
        assert_eq!(part_bytes(5 << 40, 16 * MIB), 4 * MIB, "two parts take half of a small budget");
    }

    #[test]
    fn the_numbers_of_parts_are_the_ones_told_above() {
        assert_eq!(parts_of(1 << 30), 128);
        assert_eq!(parts_of(512 << 30), 10_317);
        assert_eq!(parts_of(5 << 40), 84_045);
    }

    #[test]
    fn short_objects_are_taken_up_as_a_binary_counter_carries() {
        let part = 8 * MIB;
        let taken = |lengths: &[u64], gathered| taken_up(lengths.iter().copied(), gathered, part).0;
        assert_eq!(taken(&[2 * MIB, MIB], MIB / 2), 0, "half as many bytes are not worth it");
        assert_eq!(taken(&[2 * MIB, MIB], MIB), 2, "1 + 1 and then 2 + 2");
        assert_eq!(taken(&[3 * MIB, MIB], MIB), 1);
        assert_eq!(taken(&[5 * MIB], 8 * MIB), 0, "more than half a part is good as it is");
        assert_eq!(taken(&[8 * MIB, 8 * MIB], 8 * MIB), 0);
    }

    proptest! {
        /// However the bytes come, a byte is written a logarithmic number of times and few short objects stay.
        #[test]
        fn slow_senders_cost_little(steps in prop::collection::vec(MIB / 16..2 * MIB, 1..400)) {
            let part = 8 * MIB;
            let (mut lengths, mut written, mut sent) = (Vec::<u64>::new(), 0, 0);
            for step in steps {
                sent += step;
                let (count, bytes) = taken_up(lengths.iter().copied(), step, part);
                lengths.truncate(lengths.len() - count);
                lengths.push(bytes + step);
                written += bytes + step;
            }
            assert_eq!(lengths.iter().sum::<u64>(), sent);
            assert!(written <= sent * 8, "{written} of {sent}");
            assert!(lengths.len() as u64 <= 20 + sent / MIB, "{} objects", lengths.len());
        }
    }
}
