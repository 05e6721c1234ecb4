//! Which objects become which parts of a multipart upload. Pure numbers and names.
//!
//! S3 copies parts by itself, but all except the last need 5 MiB; shorter objects are gathered, with bytes of their
//! neighbours, into parts that pass through our memory.

use crate::ledger::Extent;
use std::ops::Range;

/// S3's least for a part that is not the last.
pub(super) const LEAST_PART_BYTES: u64 = 5 << 20;
/// S3's most for a part that it copies.
pub(super) const LARGEST_COPY_BYTES: u64 = 5 << 30;

/// A range of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) key: String,
    pub(super) range: Range<u64>,
}

impl Slice {
    pub(super) fn byte_len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// One part of what is being put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// S3 copies it.
    Copied(Slice),
    /// We read and send it: less than three times [`LEAST_PART_BYTES`].
    Gathered(Vec<Slice>),
}

/// Parts that make up the bytes of all the extents, in order.
pub(super) fn parts_of(extents: &[Extent]) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut gathered, mut gathered_len) = (Vec::new(), 0);
    for extent in extents {
        let byte_len = extent.end - extent.start;
        let mut from = 0;
        if gathered_len > 0 || byte_len < LEAST_PART_BYTES {
            // As much as is missing, unless that would leave a rest that is too short to be copied.
            let missing = LEAST_PART_BYTES.saturating_sub(gathered_len).min(byte_len);
            from = if byte_len - missing < LEAST_PART_BYTES { byte_len } else { missing };
            gathered.push(Slice { key: extent.key.clone(), range: 0..from });
            gathered_len += from;
            if gathered_len >= LEAST_PART_BYTES {
                parts.push(Part::Gathered(std::mem::take(&mut gathered)));
                gathered_len = 0;
            }
        }
        // Of equal size, so that none is too short.
        let copies = (byte_len - from).div_ceil(LARGEST_COPY_BYTES);
        for copy in 0..copies {
            let at = |copy| from + (byte_len - from) * copy / copies;
            parts.push(Part::Copied(Slice { key: extent.key.clone(), range: at(copy)..at(copy + 1) }));
        }
    }
    if !gathered.is_empty() {
        parts.push(Part::Gathered(gathered));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::{LARGEST_COPY_BYTES, LEAST_PART_BYTES, Part, Slice, parts_of};
    use crate::ledger::Extent;
    use proptest::prelude::{prop, prop_oneof, proptest};

    fn extents(lengths: &[u64]) -> Vec<Extent> {
        let mut start = 0;
        let extent = |(index, length): (usize, &u64)| {
            start += length;
            Extent { start: start - length, end: start, key: index.to_string() }
        };
        lengths.iter().enumerate().map(extent).collect()
    }

    fn slices(part: &Part) -> Vec<Slice> {
        match part {
            Part::Copied(slice) => vec![slice.clone()],
            Part::Gathered(slices) => slices.clone(),
        }
    }

    #[test]
    fn full_parts_are_copied_and_a_short_end_is_sent() {
        let parts = parts_of(&extents(&[8 << 20, 8 << 20, 1]));
        assert!(matches!(parts[..], [Part::Copied(_), Part::Copied(_), Part::Gathered(_)]), "{parts:?}");
    }

    proptest! {
        #[test]
        fn every_byte_comes_once_in_order_and_s3_takes_every_part(
            lengths in prop::collection::vec(
                prop_oneof![1_u64..100, 1_u64..12 << 20, (4_u64 << 30)..12 << 30], 1..30,
            ),
        ) {
            let parts = parts_of(&extents(&lengths));
            let (mut object, mut position) = (0, 0);
            for slice in parts.iter().flat_map(slices) {
                assert_eq!((slice.key.as_str(), slice.range.start), (object.to_string().as_str(), position));
                position = slice.range.end;
                if position == lengths[object] {
                    (object, position) = (object + 1, 0);
                }
            }
            assert_eq!((object, position), (lengths.len(), 0), "nothing is left out");
            for (index, part) in parts.iter().enumerate() {
                let byte_len: u64 = slices(part).iter().map(Slice::byte_len).sum();
                assert!(byte_len >= LEAST_PART_BYTES || index + 1 == parts.len());
                match part {
                    Part::Copied(_) => assert!(byte_len <= LARGEST_COPY_BYTES),
                    Part::Gathered(_) => assert!(byte_len < 3 * LEAST_PART_BYTES),
                }
            }
        }
    }
}
