//! The probe job: what a source really is, or why it is no film.
//!
//! Reads every packet and decodes the beginning of every track that could be shown or heard. The container's claims
//! are kept only where nothing was measured. What decodes is used, what does not is listed with a warning.

mod decode_check;
mod orientation;
mod scan;
mod timing;
mod tracks;

use crate::context::{Context, internal};
use reelyard_ffmpeg::{Input, Length, MediaKind};
use reelyard_model::{
    Failure, FailureCode, MediaInfo,
    media_info::{AudioTrack, MEDIA_INFO_VERSION, OtherTrack, VideoTrack},
    rational::rescale_ticks,
};
use scan::Scan;

/// Demuxers of single pictures.
const PICTURE_CONTAINER_SUFFIX: &str = "_pipe";
/// Containers of pictures that may move: with one picture in them they are pictures all the same.
const ANIMATION_CONTAINERS: [&str; 2] = ["gif", "apng"];

pub(crate) fn run(context: &Context) -> Result<MediaInfo, Failure> {
    let mut input = context.open_source(Length::Wanted)?;
    check_claims(context, &input)?;
    let scan = scan::scan(context, &mut input)?;
    let mut found = Found::default();
    for index in 0..input.stream_count().min(scan.tracks.len() as u32) {
        found.look_at(context, &input, &scan, index)?;
    }
    found.refuse_if_unusable(&input, &scan)?;
    found.order();
    let info = found.into_media_info(&input);
    check_duration(context, &info)?;
    Ok(info)
}

/// What can be refused before anything is decoded.
fn check_claims(context: &Context, input: &Input) -> Result<(), Failure> {
    for stream in input.streams() {
        let parameters = stream.parameters().map_err(internal)?;
        if parameters.kind() == MediaKind::Video {
            decode_check::check_size(context, parameters.width(), parameters.height())?;
        }
    }
    if input.container().ends_with(PICTURE_CONTAINER_SUFFIX) {
        // FFmpeg 5.1 does not decode the pictures of an animated WebP; it shows itself by having no size.
        let animated_webp = input.container() == "webp_pipe"
            && input.stream(0).and_then(|s| s.parameters().ok()).is_some_and(|p| p.width() == 0);
        return Err(if animated_webp {
            Failure::new(FailureCode::UnsupportedCodec, "an animated WebP")
        } else {
            Failure::new(FailureCode::StillImage, input.container())
        });
    }
    Ok(())
}

fn check_duration(context: &Context, info: &MediaInfo) -> Result<(), Failure> {
    let limit_us =
        i64::try_from(context.limits.max_duration_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    if info.duration_us > limit_us {
        let detail =
            format!("{} s; at most {}", info.duration_us / 1_000_000, context.limits.max_duration_seconds);
        return Err(Failure::new(FailureCode::TooLong, detail));
    }
    Ok(())
}

#[derive(Default)]
pub(crate) struct Found {
    video: Vec<VideoTrack>,
    audio: Vec<AudioTrack>,
    other: Vec<OtherTrack>,
    warnings: Vec<String>,
    /// Why tracks were not usable, to choose the one reason when none is.
    refusals: Vec<Failure>,
    default_tracks: Vec<u32>,
}

impl Found {
    fn look_at(&mut self, context: &Context, input: &Input, scan: &Scan, index: u32) -> Result<(), Failure> {
        let (Some(stream), Some(packets)) = (input.stream(index), scan.tracks.get(index as usize)) else {
            return Ok(());
        };
        let parameters = stream.parameters().map_err(internal)?;
        if stream.is_default() {
            self.default_tracks.push(index);
        }
        let kind = match parameters.kind() {
            MediaKind::Video if stream.is_attached_picture() => "cover",
            MediaKind::Video => {
                let outcome = tracks::video(context, &stream, &parameters, packets, &mut self.warnings);
                return self
                    .sort_in(outcome, &stream, "unreadable_video", |this, track| this.video.push(track));
            }
            MediaKind::Audio => {
                let outcome = tracks::audio(context, &stream, &parameters, packets);
                return self
                    .sort_in(outcome, &stream, "unreadable_audio", |this, track| this.audio.push(track));
            }
            MediaKind::Subtitle => "subtitle",
            MediaKind::Attachment => "attachment",
            MediaKind::Data | MediaKind::Unknown => "data",
        };
        self.other.push(tracks::other(&stream, &parameters, kind));
        Ok(())
    }

    /// A usable track into its list, an unusable one into `other` with its reason kept; our own faults go up.
    fn sort_in<T>(
        &mut self,
        outcome: Result<T, Failure>,
        stream: &reelyard_ffmpeg::Stream<'_>,
        kind: &str,
        put: impl FnOnce(&mut Self, T),
    ) -> Result<(), Failure> {
        match outcome {
            Ok(track) => put(self, track),
            Err(failure) => match failure.code {
                FailureCode::UnsupportedCodec
                | FailureCode::NothingDecodes
                | FailureCode::MediaDataMissing
                | FailureCode::Encrypted => {
                    let parameters = stream.parameters().map_err(internal)?;
                    self.other.push(tracks::other(stream, &parameters, kind));
                    self.refusals.push(failure);
                }
                _ => return Err(failure),
            },
        }
        Ok(())
    }

    fn refuse_if_unusable(&mut self, input: &Input, scan: &Scan) -> Result<(), Failure> {
        let has = |code: FailureCode| self.refusals.iter().find(|failure| failure.code == code).cloned();
        if let Some(encrypted) = has(FailureCode::Encrypted) {
            return Err(encrypted);
        }
        let pictures: u64 = self.video.iter().map(|track| track.frame_count).sum();
        if ANIMATION_CONTAINERS.contains(&input.container().as_str()) && pictures == 1 {
            return Err(Failure::new(
                FailureCode::StillImage,
                format!("{} with one picture", input.container()),
            ));
        }
        if self.is_a_scrap_of_sound(input) {
            return Err(Failure::new(FailureCode::NothingDecodes, "next to nothing of the sound is there"));
        }
        if !self.video.is_empty() || !self.audio.is_empty() {
            self.warn_of_refusals(scan);
            return Ok(());
        }
        for code in
            [FailureCode::UnsupportedCodec, FailureCode::NothingDecodes, FailureCode::MediaDataMissing]
        {
            if let Some(failure) = has(code) {
                return Err(failure);
            }
        }
        Err(Failure::new(
            FailureCode::NoPlayableTracks,
            format!("{} tracks, none to show or hear", self.other.len()),
        ))
    }

    /// No picture, and less than a fiftieth of the sound that the file announces.
    fn is_a_scrap_of_sound(&self, input: &Input) -> bool {
        let longest_us = self.audio.iter().map(|track| track.duration_us).max().unwrap_or(0);
        let only_sound = self.video.is_empty() && !self.audio.is_empty();
        only_sound && input.declared_duration_us().is_some_and(|declared| longest_us < declared / 50)
    }

    fn warn_of_refusals(&mut self, scan: &Scan) {
        let unreadable = |kind: &str| self.other.iter().any(|track| track.kind == kind);
        if unreadable("unreadable_video") {
            let text = if self.video.is_empty() {
                "The picture in the file cannot be read; only the sound is used."
            } else {
                "One of the picture tracks cannot be read; another one is used."
            };
            self.warnings.push(text.to_owned());
        }
        if unreadable("unreadable_audio") {
            let text = if self.audio.is_empty() {
                "The sound in the file cannot be read; only the picture is used."
            } else {
                "One of the sound tracks cannot be read; another one is used."
            };
            self.warnings.push(text.to_owned());
        }
        if scan.cut_short {
            self.warnings.push("The file is damaged or cut short; what can be read is used.".to_owned());
        }
    }

    /// The track to use comes first: no slide show beside a film, what the file marks as default, the largest.
    fn order(&mut self) {
        let most = self.video.iter().map(|track| track.frame_count).max().unwrap_or(0);
        let is_default = |index: u32| self.default_tracks.contains(&index);
        self.video.sort_by_key(|track| {
            let pixels = u64::from(track.width) * u64::from(track.height);
            (track.frame_count < most / 4, !is_default(track.index), std::cmp::Reverse(pixels), track.index)
        });
        self.audio.sort_by_key(|track| (!is_default(track.index), track.index));
    }

    fn into_media_info(self, input: &Input) -> MediaInfo {
        let duration_us = match (self.video.first(), self.audio.first()) {
            (Some(video), _) => rescale_ticks(video.end_pts - video.start_pts, video.time_base, 1_000_000),
            (None, Some(audio)) => audio.duration_us,
            (None, None) => 0,
        };
        let mut warnings = self.warnings;
        let declared = input.declared_duration_us();
        if let Some(declared) = declared.filter(|declared| falls_short(*declared, duration_us)) {
            warnings.push(format!(
                "The file says that it lasts {} s, but only {} s of it are there.",
                declared / 1_000_000,
                duration_us / 1_000_000
            ));
        }
        MediaInfo {
            version: MEDIA_INFO_VERSION,
            container: input.container(),
            byte_len: input.byte_len(),
            duration_us,
            declared_duration_us: declared,
            video: self.video,
            audio: self.audio,
            other: self.other,
            warnings,
        }
    }
}

/// By more than a tenth and more than two seconds: beyond what sound and picture of unequal length explain.
fn falls_short(declared_us: i64, measured_us: i64) -> bool {
    let missing = declared_us.saturating_sub(measured_us);
    missing > 2_000_000 && missing > declared_us / 10
}
