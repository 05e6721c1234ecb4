//! Which encoder, and with which options: the plan's words in the encoder's.

use crate::{
    capabilities::{NVENC, X264},
    context::internal,
};
use reelyard_ffmpeg::{Encoder, FrameColour, PixelFormat, VideoEncoderOptions, check_encoder_opens};
use reelyard_model::{
    Failure, FailureCode,
    child::EncoderChoice,
    plan::{Rung, VideoEncoderSettings, VideoPlan},
};

/// Keyframes are placed by us, at exact times; the encoder shall not add its own by counting pictures.
/// x264's "infinite" (X264_KEYINT_MAX_INFINITE).
const NO_KEYFRAMES_OF_ITS_OWN: i32 = 1 << 30;

/// Two between references: more gain little while none of them is a reference itself. FFmpeg asks the card how many it
/// can and does not open with more.
const NVENC_B_PICTURES: &str = "2";

/// The encoder's name, after it was really opened where that is in doubt.
pub(crate) fn choose(choice: EncoderChoice, plan: &VideoPlan) -> Result<&'static str, Failure> {
    match choice {
        EncoderChoice::X264 => Ok(X264),
        // Its rungs open or say why not: another encoder would not do.
        EncoderChoice::Nvenc => opens(NVENC).map(|()| NVENC),
        EncoderChoice::Probe if opens(NVENC).is_ok() && whole_ladder_opens(NVENC, plan).is_ok() => Ok(NVENC),
        EncoderChoice::Probe => Ok(X264),
    }
}

fn opens(name: &str) -> Result<(), Failure> {
    check_encoder_opens(name)
        .map_err(|error| Failure::new(FailureCode::EncoderUnavailable, format!("{name}: {error}")))
}

/// All rungs of this plan at a time, with their sizes and options: a card may take the trial picture and refuse a
/// narrow rung of a tall film (NVENC has a least width), or its driver another session (consumer cards have a most).
/// Without this the task would fail, be tried again, and fail again.
fn whole_ladder_opens(name: &str, plan: &VideoPlan) -> Result<(), Failure> {
    let any_colour = FrameColour { primaries: 1, transfer: 1, matrix: 1, full_range: Some(false) };
    let encoders: Result<Vec<Encoder>, Failure> =
        plan.rungs.iter().map(|rung| open(name, plan, rung, any_colour, 1)).collect();
    encoders.map(drop)
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
        options: options(name, &plan.encoder, rung),
    })
    .map_err(|error| {
        let failure = internal(error);
        match failure.code {
            // NVENC says "out of memory" of the card's memory, and of one session too many.
            FailureCode::MemoryLimit if name != NVENC => failure,
            _ => Failure::new(
                FailureCode::EncoderUnavailable,
                format!("{name}, {}: {}", rung.name, failure.detail),
            ),
        }
    })
}

/// What is said to the encoder by name; sizes, rates and the flags for global parameter sets and closed GOPs are the
/// context's own fields. Not said because FFmpeg's default is what we want, from 5.1 to 7.1: `tune hq`; `aud 0` (ISO
/// 14496-15 has no use for delimiters); `gpu any`, the first that opens; `strict_gop 0`, which is about bits for each
/// GOP and not about references: a forced IDR picture closes the GOP.
fn options(name: &str, settings: &VideoEncoderSettings, rung: &Rung) -> Vec<(String, String)> {
    let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    // Captions hidden in the source's pictures would reach the rungs that are not scaled, and only those.
    let mut options =
        vec![option("profile", &settings.profile), option("forced-idr", "1"), option("a53cc", "0")];
    if name == NVENC {
        // Left alone, the number of B pictures is the preset's, which is the driver's: chunks from two machines of a
        // farm could differ in it, and so in the delay that their common initialization segment tells. Baseline has
        // none; x264 knows that by itself, NVENC refuses to open.
        let b_pictures = if settings.profile == "baseline" { "0" } else { NVENC_B_PICTURES };
        options.extend([
            option("preset", &settings.nvenc_preset),
            // With `cq`: constant quality below the peak rate. FFmpeg 5.1 to 7.1 sets the buffer's size to nothing
            // here (nvenc.c: "CQ mode shall discard avg bitrate/vbv buffer size"), so that the peak is held over
            // the driver's own buffer and not over the rung's.
            option("rc", "vbr"),
            option("cq", &rung.crf.to_string()),
            // Counts where the preset looks ahead: p6 and p7 may.
            option("no-scenecut", "1"),
            option("bf", b_pictures),
            // Cards before Turing cannot; from 6.1 on the default is the preset's.
            option("b_ref_mode", "disabled"),
        ]);
    } else {
        options.extend([
            option("preset", &settings.x264_preset),
            option("crf", &rung.crf.to_string()),
            option("sc_threshold", "0"),
        ]);
    }
    options
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
    use super::{NO_KEYFRAMES_OF_ITS_OWN, choose, options, threads_per_rung, whole_ladder_opens};
    use crate::{
        capabilities::{NVENC, X264},
        encode::timeline::tests::plan,
    };
    use reelyard_ffmpeg::{
        Encoder, FrameColour, PixelFormat, VideoEncoderOptions, check_encoder_opens, check_encoder_option,
        has_encoder,
    };
    use reelyard_model::{
        FailureCode,
        child::EncoderChoice,
        plan::{Rung, VideoEncoderSettings, VideoPlan},
    };

    const PROFILES: [&str; 3] = ["baseline", "main", "high"];

    fn rung(width: u32, height: u32, crf: f32) -> Rung {
        Rung { name: format!("{height}p"), width, height, crf, max_bit_rate: 1, buffer_bits: 1 }
    }

    fn settings(profile: &str, x264_preset: &str, nvenc_preset: &str) -> VideoEncoderSettings {
        VideoEncoderSettings {
            x264_preset: x264_preset.to_owned(),
            nvenc_preset: nvenc_preset.to_owned(),
            profile: profile.to_owned(),
            scaler: "bicubic".to_owned(),
        }
    }

    #[test]
    fn the_largest_rung_gets_the_threads() {
        let rung = |width, height| rung(width, height, 23.0);
        let ladder = [rung(1920, 1080), rung(1280, 720), rung(854, 480), rung(640, 360), rung(426, 240)];
        assert_eq!(threads_per_rung(&ladder, 2), [2, 1, 1, 1, 1]);
        assert_eq!(threads_per_rung(&ladder, 8), [5, 2, 1, 1, 1]);
        assert_eq!(threads_per_rung(&ladder[4..], 2), [2]);
    }

    /// No GPU is needed: FFmpeg checks names, words and ranges before it looks for one.
    #[test]
    fn ffmpeg_knows_all_that_nvenc_is_told() {
        if !has_encoder(NVENC) {
            eprintln!("SKIPPED: this FFmpeg was built without {NVENC}");
            return;
        }
        for profile in PROFILES {
            for preset in ["p1", "p2", "p3", "p4", "p5", "p6", "p7"] {
                for crf in [1.0, 22.0, 23.5, 51.0] {
                    for (key, value) in options(NVENC, &settings(profile, "", preset), &rung(256, 144, crf)) {
                        check_encoder_option(NVENC, &key, &value).unwrap();
                    }
                }
            }
        }
    }

    /// The context's fields, by the names of their options: NVENC takes them from there, x264 too.
    #[test]
    fn ffmpeg_takes_the_fields_that_the_context_gets() {
        for encoder in [NVENC, X264].into_iter().filter(|name| has_encoder(name)) {
            for (key, value) in [
                ("g", NO_KEYFRAMES_OF_ITS_OWN.to_string()),
                ("maxrate", "5600000".to_owned()),
                ("bufsize", "8400000".to_owned()),
                ("flags", "+global_header+cgop".to_owned()),
            ] {
                check_encoder_option(encoder, key, &value).unwrap();
            }
        }
    }

    /// Or the tests above prove nothing.
    #[test]
    fn the_check_of_options_refuses() {
        for (key, value, said) in [
            ("no_scenecut", "1", "Option not found"),
            ("preset", "veryfast", "Invalid argument"),
            ("rc", "crf", "Invalid argument"),
            ("cq", "52", "Numerical result out of range"),
            ("b_ref_mode", "half", "Invalid argument"),
            ("profile", "high10", "Invalid argument"),
        ] {
            if has_encoder(NVENC) {
                let refusal = check_encoder_option(NVENC, key, value).unwrap_err().to_string();
                assert!(refusal.contains(said) && refusal.contains(key), "{key}={value}: {refusal}");
            }
        }
        assert!(check_encoder_option("h264_frobnicate", "preset", "p4").is_err());
    }

    /// x264 reads its presets and profiles only when it opens; so it is opened with each.
    #[test]
    fn x264_opens_with_all_that_it_is_told() {
        let presets =
            ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];
        for profile in PROFILES {
            for preset in presets {
                let options = options(X264, &settings(profile, preset, ""), &rung(256, 144, 23.5));
                for (key, value) in &options {
                    check_encoder_option(X264, key, value).unwrap();
                }
                Encoder::video(&VideoEncoderOptions {
                    encoder: X264.to_owned(),
                    width: 256,
                    height: 144,
                    format: PixelFormat::YUV420P,
                    time_base: (1, 90_000),
                    frame_rate: (25, 1),
                    threads: 1,
                    colour: FrameColour { primaries: 1, transfer: 1, matrix: 1, full_range: Some(false) },
                    gop_pictures: NO_KEYFRAMES_OF_ITS_OWN,
                    max_bit_rate: 420_000,
                    buffer_bits: 630_000,
                    options,
                })
                .unwrap();
            }
        }
    }

    fn ladder(rungs: Vec<Rung>) -> VideoPlan {
        VideoPlan { rungs, encoder: settings("high", "veryfast", "p4"), ..plan((1, 25), 0) }
    }

    /// With x264, which refuses odd sizes as NVENC refuses small ones.
    #[test]
    fn one_rung_that_does_not_open_decides() {
        let good = || rung(640, 360, 23.0);
        whole_ladder_opens(X264, &ladder(vec![good(), rung(426, 240, 23.0)])).unwrap();
        let failure = whole_ladder_opens(X264, &ladder(vec![good(), rung(135, 240, 23.0)])).unwrap_err();
        assert_eq!(failure.code, FailureCode::EncoderUnavailable);
        assert!(failure.detail.contains("libx264, 240p"), "{}", failure.detail);
    }

    #[test]
    fn without_a_card_x264_is_chosen_and_nvenc_is_unavailable() {
        let plan = ladder(vec![rung(640, 360, 23.0)]);
        assert_eq!(choose(EncoderChoice::X264, &plan).unwrap(), X264);
        if check_encoder_opens(NVENC).is_ok() {
            eprintln!("SKIPPED in part: {NVENC} opens here");
            assert_eq!(choose(EncoderChoice::Probe, &plan).unwrap(), NVENC);
            return;
        }
        assert_eq!(choose(EncoderChoice::Probe, &plan).unwrap(), X264);
        let failure = choose(EncoderChoice::Nvenc, &plan).unwrap_err();
        assert_eq!(failure.code, FailureCode::EncoderUnavailable);
    }

    #[test]
    fn baseline_has_no_b_pictures() {
        let b_pictures = |profile| {
            options(NVENC, &settings(profile, "", "p4"), &rung(256, 144, 23.0))
                .into_iter()
                .find_map(|(key, value)| (key == "bf").then_some(value))
        };
        assert_eq!(b_pictures("baseline").as_deref(), Some("0"));
        assert_eq!(b_pictures("high").as_deref(), Some("2"));
    }
}
