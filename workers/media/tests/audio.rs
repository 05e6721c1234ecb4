//! The audio job, run for real: every sample lands where it was, whatever the source looks like.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod child;

use child::{Said, complaints, corpus, ffmpeg, probe, run};
use reelyard_model::{
    FailureCode,
    child::{Job, Message},
    output::TrackOutput,
    plan::AudioPlan,
};
use std::{f32::consts::TAU, fs, path::Path};
use tempfile::TempDir;

const RATE: u32 = 48_000;

fn plan() -> AudioPlan {
    AudioPlan {
        source_track: 0,
        origin_us: 0,
        duration_us: None,
        sample_rate: RATE,
        channels: 2,
        bit_rate: 128_000,
        segment_us: 4_000_000,
        language: None,
    }
}

struct Result {
    folder: TempDir,
    said: Said,
    track: TrackOutput,
}

fn make(source: &Path, plan: AudioPlan) -> Result {
    let folder = tempfile::tempdir().unwrap();
    let said = run(Job::Audio { audio: plan }, source, folder.path());
    let track = said.0.iter().find_map(|message| match message {
        Message::Encoded { tracks, .. } => tracks.first().cloned(),
        _ => None,
    });
    let track = track.unwrap_or_else(|| panic!("{:?}", said.0.last()));
    assert!(said.is_done());
    let result = Result { folder, said, track };
    result.check();
    result
}

impl Result {
    /// What holds for every result.
    fn check(&self) {
        let folder = self.folder.path();
        let mut reported = self.said.files(folder);
        let mut whole = fs::read(folder.join(&self.track.init.file)).unwrap();
        let mut next_start = 0;
        for segment in &self.track.segments {
            assert_eq!(segment.start_ticks, next_start, "no gaps");
            next_start += segment.duration_ticks;
            let bytes = fs::read(folder.join(&segment.file.file)).unwrap();
            assert_eq!(bytes.len() as u64, segment.file.byte_len);
            whole.extend(bytes);
        }
        reported.sort();
        let mut files: Vec<_> = self.track.segments.iter().map(|segment| segment.file.file.clone()).collect();
        files.push(self.track.init.file.clone());
        assert_eq!(reported, files);
        fs::write(folder.join("whole.mp4"), whole).unwrap();
        assert_eq!(complaints(folder, "whole.mp4"), "");
        let rate = self.track.timescale;
        assert!(
            probe(folder, "whole.mp4", "stream=sample_rate,start_time")
                .ends_with(&format!("{rate},0.000000"))
        );
    }

    fn samples(&self) -> u64 {
        self.track.segments.iter().map(|segment| segment.duration_ticks).sum()
    }

    /// The first channel, as a player hears it.
    fn heard(&self) -> Vec<f32> {
        floats(&ffmpeg(self.folder.path(), "-i whole.mp4 -af pan=mono|c0=c0 -f f32le -"))
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// 16-bit WAV by hand: silence with clicks at these samples.
fn write_clicks(path: &Path, rate: u32, channels: u16, samples: usize, clicks: &[usize]) {
    let mut pcm = vec![0_i16; samples * usize::from(channels)];
    for click in clicks {
        for channel in 0..usize::from(channels) {
            pcm[click * usize::from(channels) + channel] = 30_000;
        }
    }
    write_wav(
        path,
        rate,
        channels,
        &pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Vec<_>>(),
        1,
        16,
    );
}

fn write_wav(path: &Path, rate: u32, channels: u16, data: &[u8], format: u16, bits: u16) {
    let block = channels * bits / 8;
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend((36 + data.len() as u32).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend(format.to_le_bytes());
    wav.extend(channels.to_le_bytes());
    wav.extend(rate.to_le_bytes());
    wav.extend((rate * u32::from(block)).to_le_bytes());
    wav.extend(block.to_le_bytes());
    wav.extend(bits.to_le_bytes());
    wav.extend(b"data");
    wav.extend((data.len() as u32).to_le_bytes());
    wav.extend(data);
    fs::write(path, wav).unwrap();
}

/// Where it clicks: local peaks well above everything near them.
fn clicks(heard: &[f32]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut index = 0;
    while index < heard.len() {
        if heard[index].abs() > 0.15 {
            let near = index..(index + 2000).min(heard.len());
            let peak = near.clone().max_by(|a, b| heard[*a].abs().total_cmp(&heard[*b].abs())).unwrap();
            found.push(peak);
            index = near.end;
        } else {
            index += 1;
        }
    }
    found
}

#[test]
fn a_click_stays_at_its_sample() {
    let sources = tempfile::tempdir().unwrap();
    let source = sources.path().join("clicks.wav");
    write_clicks(&source, RATE, 2, 5 * 48_000 + 7, &[24_000, 100_001, 239_000]);
    let result = make(&source, plan());
    assert_eq!(result.samples(), 5 * 48_000 + 7);
    assert_eq!(clicks(&result.heard()), [24_000, 100_001, 239_000]);
    assert_eq!(result.track.codecs, "mp4a.40.2");

    // Time zero in the middle of the source: what lies before is cut to the sample.
    let result = make(&source, AudioPlan { origin_us: 500_000 + 250_000, ..plan() });
    assert_eq!(clicks(&result.heard()), [100_001 - 36_000, 239_000 - 36_000]);
    assert_eq!(result.samples(), 5 * 48_000 + 7 - 36_000);

    // Time zero before the source: silence.
    let result = make(&source, AudioPlan { origin_us: -1_000_000, duration_us: Some(3_000_000), ..plan() });
    assert_eq!(clicks(&result.heard()), [72_000]);
    assert_eq!(result.samples(), 144_000);
}

#[test]
fn a_click_keeps_its_time_at_another_rate() {
    let sources = tempfile::tempdir().unwrap();
    let source = sources.path().join("clicks.wav");
    write_clicks(&source, 44_100, 1, 2 * 44_100, &[22_050, 66_150]);
    let result = make(&source, AudioPlan { channels: 1, ..plan() });
    assert_eq!(result.samples(), 96_000);
    // The resampler spreads a click over neighbours; its middle stays.
    assert_eq!(clicks(&result.heard()), [24_000, 72_000]);
    assert_eq!(probe(result.folder.path(), "whole.mp4", "stream=channels"), "1");
}

#[test]
fn segments_end_at_the_first_frame_at_or_after_each_boundary() {
    let sources = tempfile::tempdir().unwrap();
    let source = sources.path().join("silence.wav");
    write_clicks(&source, RATE, 1, 10 * 48_000, &[100]);
    let result = make(&source, AudioPlan { segment_us: 2_000_000, language: Some("deu".into()), ..plan() });
    let starts: Vec<u64> = result.track.segments.iter().map(|segment| segment.start_ticks).collect();
    let expected: Vec<u64> = (0..5).map(|index| (index * 96_000_u64).div_ceil(1024) * 1024).collect();
    assert_eq!(starts, expected);
    assert_eq!(result.samples(), 480_000);
    assert_eq!(probe(result.folder.path(), "whole.mp4", "stream_tags=language"), "deu");
}

#[test]
fn a_late_start_and_a_gap_become_silence() {
    let sources = tempfile::tempdir().unwrap();
    write_clicks(&sources.path().join("clicks.wav"), RATE, 2, 4 * 48_000, &[9_600, 150_000]);
    // Half a second late, and the second second is missing.
    let arguments =
        "-i clicks.wav -af aselect='not(between(t,1,2))',asetpts=PTS+24000 -c:a pcm_s16le gap.mkv";
    ffmpeg(sources.path(), arguments);
    let result = make(&sources.path().join("gap.mkv"), plan());
    // Matroska counts milliseconds: 48 samples.
    let heard = clicks(&result.heard());
    assert_eq!(heard.len(), 2);
    assert!(heard[0].abs_diff(33_600) <= 48 && heard[1].abs_diff(174_000) <= 48, "{heard:?}");
    assert!(result.samples().abs_diff(4 * 48_000 + 24_000) <= 1024, "{}", result.samples());

    // Pictures decide how long it is.
    for (duration_us, samples) in [(6_000_000, 288_000), (1_000_000, 48_000), (33_333, 1600)] {
        let result =
            make(&sources.path().join("gap.mkv"), AudioPlan { duration_us: Some(duration_us), ..plan() });
        assert_eq!(result.samples(), samples);
    }
}

#[test]
fn sound_that_drifts_from_its_clock_follows_it_without_a_seam() {
    let sources = tempfile::tempdir().unwrap();
    write_clicks(&sources.path().join("clicks.wav"), RATE, 1, 60 * 48_000, &[480_000, 2_400_000]);
    for drift in [1.005, 0.9995, 1.0001] {
        // At 0.5 % the clock is 0.25 s off at the last click.
        ffmpeg(sources.path(), &format!("-i clicks.wav -af asetpts=PTS*{drift} -c:a pcm_s16le drift.mkv"));
        let result = make(&sources.path().join("drift.mkv"), plan());
        let heard = clicks(&result.heard());
        let off = |index: usize, wanted: f64| heard[index].abs_diff((wanted * drift) as usize);
        let tolerance = 30 * 48;
        assert!(off(0, 480_000.0) <= tolerance && off(1, 2_400_000.0) <= tolerance, "{drift}: {heard:?}");
    }
    // A tone stays a tone: nowhere a gap, nowhere a jump steeper than the tone itself.
    let tone = "-f lavfi -i sine=frequency=200:sample_rate=48000:duration=30 -af asetpts=PTS*1.003";
    ffmpeg(sources.path(), &format!("{tone} -c:a pcm_s16le tone.mkv"));
    let heard = make(&sources.path().join("tone.mkv"), plan()).heard();
    let loudest = heard.iter().fold(0.0_f32, |loudest, sample| loudest.max(sample.abs()));
    let steepest =
        heard[4800..28 * 48_000].windows(2).fold(0.0_f32, |steep, pair| steep.max((pair[1] - pair[0]).abs()));
    assert!(steepest < loudest * TAU * 200.0 / 48_000.0 * 2.0, "{steepest} of {loudest}");
    let quietest =
        heard[4800..28 * 48_000].chunks(480).map(|part| part.iter().fold(0.0_f32, |a, b| a.max(b.abs())));
    assert!(quietest.fold(1.0_f32, f32::min) > loudest * 0.8);
}

#[test]
fn recordings_joined_in_one_file_follow_each_other() {
    let sources = tempfile::tempdir().unwrap();
    write_clicks(&sources.path().join("clicks.wav"), RATE, 1, 10 * 48_000, &[96_000]);
    ffmpeg(sources.path(), "-i clicks.wav -c:a mp2 one.ts");
    let one = fs::read(sources.path().join("one.ts")).unwrap();
    let source = sources.path().join("two.ts");
    fs::write(&source, [&one[..], &one[..]].concat()).unwrap();
    let start: f64 = probe(sources.path(), "one.ts", "format=start_time").parse().unwrap();
    let result = make(&source, AudioPlan { origin_us: (start * 1e6).round() as i64, ..plan() });
    let heard = clicks(&result.heard());
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[1].abs_diff(heard[0] + 480_000) <= 2 * 1152, "{heard:?}");
    assert_eq!(result.said.warnings(), ["The sound track's clock jumps; the sound was joined there."]);
}

#[test]
fn all_kinds_of_sources() {
    let sources = tempfile::tempdir().unwrap();
    let folder = sources.path();
    let tone = "-f lavfi -i sine=frequency=440:sample_rate=44100:duration=3";
    for (arguments, rate) in [
        ("-c:a libmp3lame a.mp3", RATE),
        ("-c:a pcm_u8 a.wav", RATE),
        ("-c:a pcm_f64be a.mov", RATE),
        ("-ac 6 -c:a aac a.mp4", 44_100),
        ("-ac 8 -c:a flac a.mkv", RATE),
        ("-ar 8000 -c:a pcm_mulaw a.wav", RATE),
        ("-ar 48000 -c:a libopus a.webm", RATE),
        ("-ar 48000 -c:a ac3 -ac 6 a.ts", RATE),
        ("-ar 96000 -c:a flac a.flac", RATE),
        ("-c:a libvorbis -ac 2 a.ogg", RATE),
    ] {
        ffmpeg(folder, &format!("{tone} {arguments}"));
        let file = folder.join(arguments.rsplit(' ').next().unwrap());
        // Like the planner: time zero is where the sound starts.
        let start: f64 = probe(folder, file.to_str().unwrap(), "stream=start_time")
            .lines()
            .next()
            .unwrap()
            .trim_end_matches(',')
            .parse()
            .unwrap_or(0.0);
        let plan = AudioPlan { sample_rate: rate, origin_us: (start * 1e6).round() as i64, ..plan() };
        let result = make(&file, plan);
        let seconds = result.samples() as f64 / f64::from(rate);
        assert!((2.9..3.1).contains(&seconds), "{arguments}: {seconds} s");
        let heard = result.heard();
        assert!(
            tone_share(&heard[heard.len() / 4..heard.len() * 3 / 4], 440.0, rate as f32) > 0.9,
            "{arguments}"
        );
        assert_eq!(result.said.warnings(), Vec::<&str>::new(), "{arguments}");
    }
}

/// How much of the signal's power is a sine of this frequency, 0 to 1.
fn tone_share(heard: &[f32], frequency: f32, rate: f32) -> f32 {
    let (mut re, mut im, mut power) = (0_f64, 0_f64, 0_f64);
    for (index, sample) in heard.iter().enumerate() {
        let angle = f64::from(TAU * frequency / rate) * index as f64;
        re += f64::from(*sample) * angle.cos();
        im += f64::from(*sample) * angle.sin();
        power += f64::from(*sample).powi(2);
    }
    (2.0 * (re * re + im * im) / (heard.len() as f64 * power)) as f32
}

#[test]
fn many_channels_without_a_layout_survive() {
    let sources = tempfile::tempdir().unwrap();
    for channels in [3, 5, 9, 22] {
        let source = sources.path().join("many.wav");
        write_clicks(&source, RATE, channels, 48_000, &[20_000]);
        for wanted in [1, 2] {
            let result = make(&source, AudioPlan { channels: wanted, ..plan() });
            assert_eq!(clicks(&result.heard()), [20_000], "{channels} channels to {wanted}");
            assert_eq!(result.samples(), 48_000);
        }
    }
}

#[test]
fn samples_that_are_no_numbers_become_silence() {
    let sources = tempfile::tempdir().unwrap();
    let source = sources.path().join("nan.wav");
    let mut samples = vec![0.25_f32; 48_000];
    for (index, strange) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30].into_iter().enumerate() {
        samples[1000 * (index + 1)] = strange;
    }
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    write_wav(&source, RATE, 1, &data, 3, 32);
    let result = make(&source, AudioPlan { channels: 1, ..plan() });
    assert_eq!(result.samples(), 48_000);
    assert!(result.heard().iter().all(|sample| sample.abs() < 1.0));
}

#[test]
fn damage_in_the_middle_is_a_warning_and_leaves_the_rest_in_place() {
    let sources = tempfile::tempdir().unwrap();
    write_clicks(&sources.path().join("clicks.wav"), RATE, 2, 6 * 48_000, &[48_000, 240_000]);
    ffmpeg(sources.path(), "-i clicks.wav -c:a flac clicks.mkv");
    let source = sources.path().join("clicks.mkv");
    let mut bytes = fs::read(&source).unwrap();
    // Silence in FLAC is small: damage a few frames near the middle of the file.
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 40] {
        *byte ^= 0x5A;
    }
    fs::write(&source, bytes).unwrap();
    let result = make(&source, plan());
    let heard = clicks(&result.heard());
    assert!(heard.contains(&48_000) && heard.contains(&240_000), "{heard:?}");
}

#[test]
fn nothing_that_decodes_is_a_failure_with_a_reason() {
    let sources = tempfile::tempdir().unwrap();
    ffmpeg(sources.path(), "-f lavfi -i sine=duration=2 -c:a aac -f adts tone.aac");
    ffmpeg(sources.path(), "-i tone.aac -c copy tone.mp4");
    let source = sources.path().join("tone.mp4");
    let mut bytes = fs::read(&source).unwrap();
    let media = bytes.windows(4).position(|window| window == b"mdat").unwrap() + 4;
    let end = bytes.windows(4).position(|window| window == b"moov").unwrap() - 4;
    bytes[media..end].fill(0xFF);
    fs::write(&source, bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let said = run(Job::Audio { audio: plan() }, &source, folder.path());
    assert_eq!(said.failure().unwrap().code, FailureCode::NothingDecodes);

    // Sound, but none within the time of the pictures.
    let source = sources.path().join("tone.aac");
    let late = AudioPlan { origin_us: 60_000_000, duration_us: Some(1_000_000), ..plan() };
    let result = make(&source, late);
    assert_eq!((result.samples(), result.said.warnings().len()), (48_000, 1));
}

#[test]
fn corpus_files_with_odd_sound() {
    for (file, track, origin_us, seconds) in [
        ("vfr/bipbop-lateaudio.mp4", 1, 0, 3.098),
        ("tracks/bigbuckbunny_720p_5.1.mp4", 1, 0, 5.312),
        ("tracks/trailer_bbb_720p_55s.mp4", 1, 0, 52.167),
        ("tracks/pcm_s16be_in_mp4.mp4", 1, 0, 1.089),
        ("vfr/shorter_audio_than_video_3s.webm", 1, 0, 3.0),
    ] {
        let Some(source) = corpus(file) else { return };
        let result = make(&source, AudioPlan { source_track: track, origin_us, ..plan() });
        let made = result.samples() as f64 / f64::from(RATE);
        assert!((made - seconds).abs() < 0.03, "{file}: {made} s");
    }
    let Some(source) = corpus("mp4struct/gizmo-frag_aac_22ch.mp4") else { return };
    let folder = tempfile::tempdir().unwrap();
    let said = run(Job::Audio { audio: AudioPlan { source_track: 1, ..plan() } }, &source, folder.path());
    assert_eq!(said.failure().unwrap().code, FailureCode::NothingDecodes);
}
