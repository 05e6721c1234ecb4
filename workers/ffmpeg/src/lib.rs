//! Owned wrappers over FFmpeg objects: what the media child needs of libav*, and nothing else.
//!
//! Called by `reelyard-media` only. Every type owns what it wraps and frees it once; no pointer leaves the crate.
//! The crate opens no path and no address: a source is bytes that the caller already holds
//! ([`ByteSource`]). It decides nothing about media; it reports what FFmpeg says. Failures are [`Error`]: FFmpeg's
//! number and words, and what was being done.
//!
//! Works with FFmpeg 5.1 (Debian 12) to 6.1 (Ubuntu 24.04).
#![allow(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod channels;
mod codec_parameters;
mod decoder;
mod encoder;
mod error;
mod filter;
mod formats;
mod frame;
mod input;
mod log;
mod options;
mod packet;
mod resample;
mod scale;
mod source;

pub use codec_parameters::{CodecParameters, MediaKind};
pub use decoder::{Decoder, DecoderOptions};
pub use encoder::{
    AudioEncoderOptions, Encoder, VideoEncoderOptions, check_encoder_opens, check_encoder_option, has_encoder,
};
pub use error::{Error, Result};
pub use filter::FilterGraph;
pub use formats::{PixelFormat, SampleFormat};
pub use frame::{Frame, FrameColour};
pub use input::{Input, Length, Stream};
pub use log::{capture_log_to_stderr, take_last_error_line};
pub use packet::Packet;
pub use resample::Resampler;
pub use scale::{ScaleColour, Scaler};
pub use source::ByteSource;

use ffmpeg_next::ffi as sys;
use std::ffi::CStr;

/// FFmpeg's own version text, e.g. `5.1.9-0+deb12u1`.
pub fn version() -> String {
    // SAFETY: returns a static, NUL-terminated string.
    unsafe { CStr::from_ptr(sys::av_version_info()) }.to_string_lossy().into_owned()
}

/// The options FFmpeg was built with.
pub fn configuration() -> String {
    // SAFETY: returns a static, NUL-terminated string.
    unsafe { CStr::from_ptr(sys::avcodec_configuration()) }.to_string_lossy().into_owned()
}
