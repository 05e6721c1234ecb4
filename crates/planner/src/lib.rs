//! From media info and a preset to a plan, with the reasons.
//!
//! Called by the flow's plan step and by `reelyard plan`. Everything is a pure function: the same source, preset and
//! policy give the same plan, on any machine, so a plan can be made again and compared. A source that cannot be
//! published is refused with a [`reelyard_model::Failure`] that says why in the creator's words.
//!
//! Read: `preset` (the recipe), `planning` (the order of decisions), then one file for each decision.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod chunks;
mod colour;
mod explain;
mod geometry;
mod ladder;
mod planning;
mod preset;
mod sound;
mod stills;
mod timing;

pub use explain::explain;
pub use planning::{Policy, plan};
pub use preset::{
    AudioPreset, DEFAULT_PRESET, MAX_PRESETS, PRESET_VERSION, Preset, PresetError, Presets, RungPreset,
    StillsPreset, VideoPreset,
};
