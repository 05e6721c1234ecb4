//! What FFmpeg on this machine can do: each encoder is really opened.

use reelyard_ffmpeg::{check_encoder_opens, take_last_error_line};
use reelyard_model::child::{Capabilities, EncoderReport};

pub(crate) const NVENC: &str = "h264_nvenc";
pub(crate) const X264: &str = "libx264";

pub(crate) fn measure(sandbox: Vec<String>) -> Capabilities {
    Capabilities {
        ffmpeg_version: reelyard_ffmpeg::version(),
        configuration: reelyard_ffmpeg::configuration(),
        encoders: [NVENC, X264].map(report).into(),
        sandbox,
    }
}

fn report(name: &str) -> EncoderReport {
    // Of an earlier encoder.
    let _ = take_last_error_line();
    let outcome = check_encoder_opens(name);
    // The log says what is missing, the error only that something is.
    let reason = |error: reelyard_ffmpeg::Error| match take_last_error_line() {
        Some(line) => format!("{line} ({error})"),
        None => error.to_string(),
    };
    EncoderReport { name: name.to_owned(), opens: outcome.is_ok(), reason: outcome.err().map(reason) }
}
