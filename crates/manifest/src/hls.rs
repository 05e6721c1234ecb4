//! HLS playlists (RFC 8216 and its successor draft), byte for byte the same for the same input.

use crate::{
    bit_rate::{self, Stretch},
    language,
    presentation::{Presentation, Rendition},
    time::{decimal_seconds, span_us},
};
use reelyard_model::{media_info::FrameRate, output::TrackFormat};
use std::fmt::Write;

pub(crate) const MEDIA_TYPE: &str = "application/vnd.apple.mpegurl";
/// EXT-X-MAP outside of I-frame playlists needs 6 (RFC 8216 section 7); nothing here needs more.
const VERSION: u32 = 6;
const AUDIO_GROUP: &str = "audio";
/// Some players begin with the first variant listed. Apple's HLS authoring specification asks for one near
/// 2 Mbit/s there on a fast link: sharp enough, and it starts at once.
const FIRST_VARIANT_BITS_PER_SECOND: u64 = 2_000_000;
/// A single short gap in a variable frame rate must not make a player believe that its decoder is too slow.
const MAX_DECLARED_FRAME_RATE: f64 = 60.0;

/// `master.m3u8`.
pub fn multivariant_playlist(presentation: &Presentation) -> String {
    let target_seconds = target_seconds(presentation);
    let mut text = header();
    text.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
    let Some(smallest) = presentation.video.last() else {
        if let Some(audio) = &presentation.audio {
            let rates = Rates::of(audio, target_seconds);
            push_line(&mut text, "\n", &format!("#EXT-X-STREAM-INF:{rates},CODECS=\"{}\"", audio.codecs));
            push_line(&mut text, "", &audio.playlist_path());
        }
        return text;
    };
    let audio = presentation.audio.as_ref().map(|audio| (audio, Rates::of(audio, target_seconds)));
    if let Some((audio, _)) = &audio {
        push_line(&mut text, "\n", &audio_media(presentation, audio));
    }

    let total_rates = |rendition: &Rendition| {
        let own = Rates::of(rendition, target_seconds);
        audio.as_ref().map_or(own, |(_, sound)| own.plus(*sound))
    };
    let first = presentation
        .video
        .iter()
        .find(|rendition| total_rates(rendition).average <= FIRST_VARIANT_BITS_PER_SECOND)
        .unwrap_or(smallest);
    let others = presentation.video.iter().filter(|rendition| rendition.name != first.name);
    text.push('\n');
    for rendition in std::iter::once(first).chain(others) {
        let (codecs, group) = match &audio {
            Some((sound, _)) => {
                (format!("{},{}", rendition.codecs, sound.codecs), format!(",AUDIO=\"{AUDIO_GROUP}\""))
            }
            None => (rendition.codecs.clone(), String::new()),
        };
        let rates = total_rates(rendition);
        let picture = picture_attributes(presentation, rendition);
        let info =
            format!("#EXT-X-STREAM-INF:{rates},CODECS=\"{codecs}\"{picture}{group},CLOSED-CAPTIONS=NONE");
        push_line(&mut text, "", &info);
        push_line(&mut text, "", &rendition.playlist_path());
    }
    push_i_frame_streams(&mut text, presentation);
    text
}

fn push_i_frame_streams(text: &mut String, presentation: &Presentation) {
    let mut before = "\n";
    for rendition in presentation.video.iter().filter(|rendition| rendition.has_sync_points()) {
        let TrackFormat::Video { width, height } = rendition.format else { continue };
        let stretches: Vec<Stretch> = i_frames(rendition).map(|frame| frame.stretch).collect();
        let rates = Rates::of_stretches(&stretches, target_of(&stretches));
        let info = format!(
            "#EXT-X-I-FRAME-STREAM-INF:{rates},CODECS=\"{}\",RESOLUTION={width}x{height},URI=\"{}\"",
            rendition.codecs,
            rendition.i_frame_playlist_path(),
        );
        push_line(text, before, &info);
        before = "";
    }
}

/// `{rendition}.m3u8`.
pub fn media_playlist(presentation: &Presentation, rendition: &Rendition) -> String {
    let mut text = header();
    push_line(&mut text, "", &format!("#EXT-X-TARGETDURATION:{}", target_seconds(presentation)));
    push_line(&mut text, "", "#EXT-X-PLAYLIST-TYPE:VOD");
    push_line(&mut text, "", &format!("#EXT-X-MAP:URI=\"{}\"", rendition.init_path()));
    for (index, stretch) in stretches_of(rendition).iter().enumerate() {
        push_line(&mut text, "", &format!("#EXTINF:{},", decimal_seconds(stretch.us)));
        push_line(&mut text, "", &rendition.segment_path(index));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

/// `{rendition}-iframes.m3u8`: the keyframes alone, for scrubbing (RFC 8216 section 4.3.3.6).
pub fn i_frame_playlist(rendition: &Rendition) -> String {
    let frames: Vec<IFrame> = i_frames(rendition).collect();
    let stretches: Vec<Stretch> = frames.iter().map(|frame| frame.stretch).collect();
    let mut text = header();
    push_line(&mut text, "", &format!("#EXT-X-TARGETDURATION:{}", target_of(&stretches)));
    push_line(&mut text, "", "#EXT-X-PLAYLIST-TYPE:VOD");
    push_line(&mut text, "", "#EXT-X-I-FRAMES-ONLY");
    push_line(&mut text, "", &format!("#EXT-X-MAP:URI=\"{}\"", rendition.init_path()));
    for frame in frames {
        push_line(&mut text, "", &format!("#EXTINF:{},", decimal_seconds(frame.stretch.us)));
        let range = format!("#EXT-X-BYTERANGE:{}@{}", frame.stretch.byte_len, frame.offset);
        push_line(&mut text, "", &range);
        push_line(&mut text, "", &rendition.segment_path(frame.segment_index));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

fn header() -> String {
    format!("#EXTM3U\n#EXT-X-VERSION:{VERSION}\n")
}

fn push_line(text: &mut String, before: &str, line: &str) {
    text.push_str(before);
    text.push_str(line);
    text.push('\n');
}

fn audio_media(presentation: &Presentation, audio: &Rendition) -> String {
    let tag = language::tag(presentation.facts.language.as_deref());
    let name = language::display_name(tag.as_deref());
    let mut line = format!("#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{AUDIO_GROUP}\",NAME=\"{name}\"");
    // Writing into a String cannot fail.
    if let Some(tag) = tag {
        let _ = write!(line, ",LANGUAGE=\"{tag}\"");
    }
    line.push_str(",DEFAULT=YES,AUTOSELECT=YES");
    if let TrackFormat::Audio { channels, .. } = audio.format {
        let _ = write!(line, ",CHANNELS=\"{channels}\"");
    }
    let _ = write!(line, ",URI=\"{}\"", audio.playlist_path());
    line
}

fn picture_attributes(presentation: &Presentation, rendition: &Rendition) -> String {
    let TrackFormat::Video { width, height } = rendition.format else { return String::new() };
    let mut attributes = format!(",RESOLUTION={width}x{height}");
    if let Some(frame_rate) = presentation.facts.frame_rate {
        // "The maximum frame rate for all the video in the Variant Stream" (RFC 8216 section 4.3.4.2).
        let highest = match frame_rate {
            FrameRate::Constant { rate } => rate.as_f64(),
            FrameRate::Variable { average, highest } => {
                highest.as_f64().min(MAX_DECLARED_FRAME_RATE).max(average.as_f64())
            }
        };
        if highest.is_finite() && highest > 0.0 {
            let _ = write!(attributes, ",FRAME-RATE={highest:.3}");
        }
    }
    attributes
}

fn stretches_of(rendition: &Rendition) -> Vec<Stretch> {
    rendition
        .segments
        .iter()
        .map(|segment| Stretch {
            byte_len: segment.byte_len,
            us: span_us(segment.start_ticks, segment.duration_ticks, rendition.timescale),
        })
        .collect()
}

struct IFrame {
    segment_index: usize,
    offset: u64,
    stretch: Stretch,
}

fn i_frames(rendition: &Rendition) -> impl Iterator<Item = IFrame> {
    rendition.segments.iter().enumerate().flat_map(move |(segment_index, segment)| {
        segment.sync_points.iter().map(move |point| IFrame {
            segment_index,
            offset: point.offset,
            stretch: Stretch {
                byte_len: point.byte_len,
                us: span_us(point.start_ticks, point.duration_ticks, rendition.timescale),
            },
        })
    })
}

/// EXT-X-TARGETDURATION is the same in every media playlist of a presentation (RFC 8216 section 6.2.4); I-frame
/// playlists are excepted.
pub(crate) fn target_seconds(presentation: &Presentation) -> u64 {
    presentation.renditions().map(|rendition| target_of(&stretches_of(rendition))).max().unwrap_or(1)
}

/// "The EXTINF duration of each Media Segment, when rounded to the nearest integer, MUST be less than or equal to
/// the target duration" (RFC 8216 section 4.3.3.1). Zero is no useful target.
fn target_of(stretches: &[Stretch]) -> u64 {
    stretches.iter().map(|stretch| (stretch.us + 500_000) / 1_000_000).max().unwrap_or(1).max(1)
}

#[derive(Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) peak: u64,
    pub(crate) average: u64,
}

impl Rates {
    pub(crate) fn of(rendition: &Rendition, target_seconds: u64) -> Self {
        Self::of_stretches(&stretches_of(rendition), target_seconds)
    }

    fn of_stretches(stretches: &[Stretch], target_seconds: u64) -> Self {
        Self { peak: bit_rate::peak(stretches, target_seconds), average: bit_rate::average(stretches) }
    }

    /// "The largest sum of peak segment bit rates that is produced by any playable combination of Renditions".
    fn plus(self, other: Self) -> Self {
        Self {
            peak: self.peak.saturating_add(other.peak),
            average: self.average.saturating_add(other.average),
        }
    }
}

impl std::fmt::Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The peak counts only sets near the target duration, so a stream of odd segments could average above it.
        write!(f, "BANDWIDTH={},AVERAGE-BANDWIDTH={}", self.peak.max(self.average), self.average)
    }
}
