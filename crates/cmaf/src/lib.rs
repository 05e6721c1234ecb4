//! Writes CMAF: initialization segments and media segments, as bytes in memory.
//!
//! Called by the media child, which has encoded samples and wants files that HLS and DASH players read. Pure: no file,
//! no clock, no FFmpeg. It never reads media and never decides where a segment ends; it writes what it is given, or
//! says in [`CmafError`] why that cannot be written.
//!
//! Specifications: ISO/IEC 14496-12 (boxes), 14496-15 (AVC in boxes), 14496-1 and 14496-14 (`esds`),
//! 23000-19 (CMAF), RFC 6381 (codec strings). Section numbers in comments name the specification they come from.
//!
//! Read in this order: [`avc`] and [`aac`] describe the two codecs, [`init`] writes what a player reads first,
//! [`timing`] turns presentation times into what a fragment stores, [`segment`] writes the fragments.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod aac;
pub mod avc;
mod boxes;
pub mod error;
pub mod init;
pub mod segment;
pub mod timing;

pub use aac::AacConfig;
pub use avc::ParameterSets;
pub use error::CmafError;
pub use init::{AacTrack, AvcTrack, BitRate, Colour, init_segment_aac, init_segment_avc};
pub use segment::{Fragment, FragmentPlace, MediaSegment, Sample, media_segment};
pub use timing::{SampleTime, sample_times};
