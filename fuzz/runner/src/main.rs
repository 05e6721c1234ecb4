//! libFuzzer around the targets; which one is in the environment variable REELYARD_FUZZ_TARGET.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TARGET: LazyLock<String> =
    LazyLock::new(|| std::env::var("REELYARD_FUZZ_TARGET").unwrap_or_default());

fuzz_target!(|bytes: &[u8]| reelyard_fuzz::run(&TARGET, bytes));
