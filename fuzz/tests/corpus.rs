//! Every input that a fuzzer ever kept is fed again, and some mutations of it: no campaign is needed to see a relapse.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use reelyard_fuzz::{TARGETS, corpus};
use std::{fs, path::Path};

/// Of each kept input; the campaign itself is `make fuzz`.
const MUTATIONS: u64 = 20;

fn inputs_of(target: &str) -> Vec<Vec<u8>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(format!("{target}.hex"));
    corpus(&fs::read_to_string(file).unwrap())
}

/// Flips, doubles and drops bytes; the same on every run (xorshift64*).
fn mutated(input: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |end: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end.max(1)
    };
    let mut bytes = input.to_vec();
    for _ in 0..1 + below(4) {
        let at = below(bytes.len());
        match below(3) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << below(8),
            1 => bytes.insert(at, below(256) as u8),
            _ if !bytes.is_empty() => drop(bytes.remove(at)),
            _ => {}
        }
    }
    bytes
}

#[test]
fn nothing_that_was_ever_found_is_found_again() {
    for (name, target) in TARGETS {
        let inputs = inputs_of(name);
        assert!(!inputs.is_empty(), "{name} has a corpus");
        for (index, input) in inputs.iter().enumerate() {
            target(input);
            (0..MUTATIONS).for_each(|round| target(&mutated(input, index as u64 * MUTATIONS + round + 1)));
        }
    }
}
