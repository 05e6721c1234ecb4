//! Fuzz targets: what is fed with arbitrary bytes, and what has to hold whatever they are.
//!
//! The bytes come from strangers: headers and bodies of the three upload dialects. No input may panic, and what a target
//! claims beside that is asserted in it. `runner/` lets libFuzzer loose on these functions (`make fuzz`); the inputs that
//! it found worth keeping lie in `corpus/{target}.hex` and are fed again by every `make test`.

#![allow(clippy::expect_used, reason = "a broken promise of the engine is a finding")]

mod engine;
mod ietf;
mod message;
mod parts;
mod tus;

/// Fed with arbitrary bytes; panics when a promise is broken.
pub type Target = fn(&[u8]);

/// Name and function of every target; the name is that of its corpus.
pub const TARGETS: [(&str, Target); 4] = [
    ("tus_headers", tus::headers),
    ("ietf_headers", ietf::headers),
    ("parts_message", parts::message),
    ("engine_bodies", engine::bodies),
];

/// Runs the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    if let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) {
        target(bytes);
    }
}

/// The inputs of a corpus: one in hexadecimal on each line. Lines that are none are left out.
pub fn corpus(text: &str) -> Vec<Vec<u8>> {
    text.lines().filter_map(from_hex).collect()
}

fn from_hex(line: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        line.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
