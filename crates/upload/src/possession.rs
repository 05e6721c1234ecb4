//! Proof of possession: has a client the bytes that it knows the digest of?
//!
//! A digest alone must open nothing: digests travel in logs, links and lists. So the server asks for bytes at places
//! that nobody could know before, and the client answers with one SHA-256 over a nonce and those bytes. The server,
//! which has the content, computes the same. Called by `src/flow/same_content`; knows no file and no randomness: the
//! nonce comes in, and the places follow from it.
//!
//! The odds. A content of more than [`RANGES`] times [`RANGE_BYTES`] is cut into [`RANGES`] stretches of one length, and
//! one range is asked of each. Whoever has the share `f` of the bytes passes with about the product of the shares that
//! he has of the stretches, which is at most `f` to the power of 64 (the geometric mean is never above the arithmetic
//! one): half of the file 5e-20, nine tenths 0.1 %, 99 % about one half. He who lacks one piece as long as two stretches
//! (3 %) has some stretch not at all and never passes. Whoever lacks a few bytes passes most of the time: what he
//! wins then is what he has. A smaller content is asked for whole, and there is no passing without all of it.

use sha2::{Digest as _, Sha256};
use std::ops::Range;

/// Many short ranges tell more than few long ones of the same sum; more of them would be as many reads from S3.
pub const RANGES: u64 = 64;
/// A range is one read from a disk, and long enough that nobody keeps a list of answers.
pub const RANGE_BYTES: u64 = 16 << 10;
pub const NONCE_BYTES: usize = 32;
/// So that this hash is never one of another protocol over the same nonce.
const PLACES: &[u8] = b"reelyard possession, places, 1";

/// The ranges to ask for, in order and apart: they follow from the nonce, which is to be random.
pub fn ranges(byte_len: u64, nonce: &[u8; NONCE_BYTES]) -> Vec<Range<u64>> {
    if byte_len <= RANGES * RANGE_BYTES {
        return std::iter::once(0..byte_len).collect();
    }
    // Above 64 * 16 KiB every stretch has room for its range.
    let start_of = |stretch: u64| (u128::from(byte_len) * u128::from(stretch) / u128::from(RANGES)) as u64;
    (0..RANGES)
        .map(|stretch| {
            let (start, end) = (start_of(stretch), start_of(stretch + 1));
            let places = end - start - RANGE_BYTES + 1;
            // The remainder of 64 random bits: stretches are far shorter, so no place is much likelier than another.
            let at = start + random(nonce, stretch) % places;
            at..at + RANGE_BYTES
        })
        .collect()
}

fn random(nonce: &[u8; NONCE_BYTES], stretch: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(PLACES);
    hash.update(nonce);
    hash.update(stretch.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    digest.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// SHA-256 over the nonce and the bytes of the ranges, in their order. That such a hash can be continued is no use to
/// anybody: how long all of it is stands in the question.
#[derive(Clone, Debug)]
pub struct Proof(Sha256);

impl Proof {
    pub fn begin(nonce: &[u8; NONCE_BYTES]) -> Self {
        Self(Sha256::new_with_prefix(nonce))
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::{NONCE_BYTES, Proof, RANGE_BYTES, RANGES, ranges};
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    const ALL_AT_ONCE: u64 = RANGES * RANGE_BYTES;

    #[test]
    fn a_small_content_is_asked_for_whole() {
        for byte_len in [1, 1000, ALL_AT_ONCE] {
            assert_eq!(ranges(byte_len, &[7; NONCE_BYTES]).as_slice(), std::slice::from_ref(&(0..byte_len)));
        }
        assert_eq!(ranges(ALL_AT_ONCE + 1, &[7; NONCE_BYTES]).len() as u64, RANGES);
    }

    #[test]
    fn another_nonce_asks_for_other_places_and_wants_another_proof() {
        let byte_len = 1 << 30;
        assert_eq!(ranges(byte_len, &[1; 32]), ranges(byte_len, &[1; 32]));
        assert_ne!(ranges(byte_len, &[1; 32]), ranges(byte_len, &[2; 32]));
        let proof = |nonce| {
            let mut proof = Proof::begin(&nonce);
            proof.add(b"the same ");
            proof.add(b"bytes");
            proof.finish()
        };
        assert_ne!(proof([1; 32]), proof([2; 32]));
    }

    /// `printf 'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnabc' | sha256sum`: what a client computes is no secret of this crate.
    #[test]
    fn a_proof_is_the_hash_of_the_nonce_and_the_bytes() {
        let mut proof = Proof::begin(&[b'n'; 32]);
        proof.add(b"a");
        proof.add(b"bc");
        assert_eq!(
            hex::encode(proof.finish()),
            "32bc45d49e58a74b9dd19a3f866607ad73c847d8d1206562f58e7cf25cb95dae"
        );
    }

    /// With nine tenths of the file, missing one stretch in ten of its own length here and there.
    #[test]
    fn whoever_lacks_a_tenth_is_found_out_nearly_always() {
        let byte_len = 1 << 30;
        let hole = byte_len / 640;
        let passes = (0..2_000_u64)
            .filter(|&number| {
                let mut nonce = [0; NONCE_BYTES];
                nonce[..8].copy_from_slice(&number.to_be_bytes());
                ranges(byte_len, &nonce)
                    .iter()
                    .all(|range| range.start % (byte_len / 64) >= hole && range.end <= byte_len)
            })
            .count();
        // 0.9 to the power of 64 is 0.0012: two or three of 2000.
        assert!(passes <= 12, "{passes}");
    }

    #[test]
    fn whoever_lacks_a_piece_of_two_stretches_is_always_found_out() {
        let byte_len: u64 = 10 << 30;
        let stretch = byte_len / RANGES;
        let hole = 3 * stretch + 17..5 * stretch + 17;
        for number in 0..200_u8 {
            let hit = ranges(byte_len, &[number; NONCE_BYTES])
                .iter()
                .any(|range| range.start < hole.end && hole.start < range.end);
            assert!(hit, "{number}");
        }
    }

    proptest! {
        #[test]
        fn ranges_lie_inside_in_order_and_apart(byte_len in 1_u64..=i64::MAX as u64, nonce: [u8; 32]) {
            let ranges = ranges(byte_len, &nonce);
            let mut end = 0;
            for range in &ranges {
                prop_assert!(range.start >= end && range.end > range.start && range.end <= byte_len);
                end = range.end;
            }
            let asked: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            prop_assert_eq!(asked, byte_len.min(RANGES * RANGE_BYTES));
        }

        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(bytes: Vec<u8>, cut in any::<proptest::sample::Index>()) {
            let at = cut.index(bytes.len() + 1);
            let (mut whole, mut cut) = (Proof::begin(&[3; 32]), Proof::begin(&[3; 32]));
            whole.add(&bytes);
            cut.add(&bytes[..at]);
            cut.add(&bytes[at..]);
            prop_assert_eq!(whole.finish(), cut.finish());
        }
    }
}
