//! Which encoder, and with which options: the plan's words in the encoder's.

use crate::{
    capabilities::{NVENC, X264},
    context::internal,
};
use reelyard_ffmpeg::{Encoder, FrameColour, PixelFormat, VideoEncoderOptions, check_encoder_opens};
use reelyard_model::{
    Failure, FailureCode,
    child::EncoderChoice,
    plan::{Rung, VideoPlan},
};

/// Keyframes are placed by us, at exact times; the encoder shall not add its own by counting pictures.
/// x264's "infinite" (X264_KEYINT_MAX_INFINITE).
const NO_KEYFRAMES_OF_ITS_OWN: i32 = 1 << 30;

/// The encoder's name, after it was really opened where that is in doubt.
pub(crate) fn choose(choice: EncoderChoice) -> Result<&'static str, Failure> {
    let must_open = |name: &'static str| {
        check_encoder_opens(name)
            .map(|()| name)
            .map_err(|error| Failure::new(FailureCode::EncoderUnavailable, format!("{name}: {error}")))
    };
    match choice {
        EncoderChoice::X264 => Ok(X264),
        EncoderChoice::Nvenc => must_open(NVENC),
        EncoderChoice::Probe => Ok(must_open(NVENC).unwrap_or(X264)),
    }
}

/// `threads` is the encoder's own; the output depends on it, so it comes from the limits, never from the machine.
pub(crate) fn open(
    name: &str,
    plan: &VideoPlan,
    rung: &Rung,
    colour: FrameColour,
    threads: u32,
) -> Result<Encoder, Failure> {
    let nominal = plan.frame_rate.nominal();
    let rate_part = |value: i64| i32::try_from(value.max(1)).unwrap_or(i32::MAX);
    let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let settings = &plan.encoder;
    // Captions hidden in the source's pictures would reach the rungs that are not scaled, and only those.
    let mut options =
        vec![option("profile", &settings.profile), option("forced-idr", "1"), option("a53cc", "0")];
    if name == NVENC {
        options.extend([
            option("preset", &settings.nvenc_preset),
            option("rc", "vbr"),
            option("cq", &rung.crf.to_string()),
            option("no-scenecut", "1"),
            option("b_ref_mode", "disabled"),
        ]);
    } else {
        options.extend([
            option("preset", &settings.x264_preset),
            option("crf", &rung.crf.to_string()),
            option("sc_threshold", "0"),
        ]);
    }
    Encoder::video(&VideoEncoderOptions {
        encoder: name.to_owned(),
        width: rung.width,
        height: rung.height,
        format: PixelFormat::YUV420P,
        time_base: (1, i32::try_from(plan.timescale.max(1)).unwrap_or(i32::MAX)),
        frame_rate: (rate_part(nominal.numerator), rate_part(nominal.denominator)),
        threads,
        colour,
        gop_pictures: NO_KEYFRAMES_OF_ITS_OWN,
        max_bit_rate: i64::try_from(rung.max_bit_rate).unwrap_or(i64::MAX),
        buffer_bits: i32::try_from(rung.buffer_bits).unwrap_or(i32::MAX),
        options,
    })
    .map_err(|error| {
        let failure = internal(error);
        match failure.code {
            FailureCode::MemoryLimit => failure,
            _ => Failure::new(
                FailureCode::EncoderUnavailable,
                format!("{name}, {}: {}", rung.name, failure.detail),
            ),
        }
    })
}

/// Threads for each rung, largest first: by its share of the pixels, rounded up. One x264 thread costs least; the
/// largest rung alone is more than half of the work and must not be the last to end.
pub(crate) fn threads_per_rung(rungs: &[Rung], threads: u32) -> Vec<u32> {
    let pixels = |rung: &Rung| u64::from(rung.width) * u64::from(rung.height);
    let total: u64 = rungs.iter().map(pixels).sum::<u64>().max(1);
    rungs.iter().map(|rung| (pixels(rung) * u64::from(threads)).div_ceil(total).clamp(1, 64) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::threads_per_rung;
    use reelyard_model::plan::Rung;

    #[test]
    fn the_largest_rung_gets_the_threads() {
        let rung = |width, height| Rung {
            name: format!("{height}p"),
            width,
            height,
            crf: 23.0,
            max_bit_rate: 1,
            buffer_bits: 1,
        };
        let ladder = [rung(1920, 1080), rung(1280, 720), rung(854, 480), rung(640, 360), rung(426, 240)];
        assert_eq!(threads_per_rung(&ladder, 2), [2, 1, 1, 1, 1]);
        assert_eq!(threads_per_rung(&ladder, 8), [5, 2, 1, 1, 1]);
        assert_eq!(threads_per_rung(&ladder[4..], 2), [2]);
    }
}
