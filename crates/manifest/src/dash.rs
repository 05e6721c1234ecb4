//! The DASH manifest (ISO/IEC 23009-1), static, isoff-live profile, over the same segments as HLS.

use crate::{
    hls::{Rates, target_seconds},
    language,
    presentation::{Presentation, Rendition, Segment, Thumbnails},
    time::{ticks_to_us, xml_duration},
};
use reelyard_model::{Rational, output::TrackFormat};
use std::fmt::Write;

pub(crate) const MEDIA_TYPE: &str = "application/dash+xml";
const PROFILE: &str = "urn:mpeg:dash:profile:isoff-live:2011";
const ROLE: &str = "urn:mpeg:dash:role:2011";
const CHANNELS: &str = "urn:mpeg:dash:23003:3:audio_channel_configuration:2011";
const TILES: &str = "http://dashif.org/guidelines/thumbnail_tile";

/// `manifest.mpd`.
pub fn mpd(presentation: &Presentation) -> String {
    let target_seconds = target_seconds(presentation);
    let longest = xml_duration(longest_segment_us(presentation));
    let mut xml = Xml::default();
    xml.open(
        "MPD",
        &[
            ("xmlns", "urn:mpeg:dash:schema:mpd:2011"),
            ("profiles", PROFILE),
            ("type", "static"),
            ("mediaPresentationDuration", &xml_duration(presentation.duration_us())),
            ("maxSegmentDuration", &longest),
            // `bandwidth` is measured over stretches of about this length, so this is the buffer that it is good for.
            ("minBufferTime", &longest),
        ],
    );
    xml.open("Period", &[("id", "0"), ("start", "PT0S")]);
    push_video(&mut xml, presentation, target_seconds);
    push_audio(&mut xml, presentation, target_seconds);
    if let Some(thumbnails) = &presentation.facts.thumbnails {
        push_thumbnails(&mut xml, thumbnails);
    }
    xml.close("Period");
    xml.close("MPD");
    xml.text
}

fn push_video(xml: &mut Xml, presentation: &Presentation, target_seconds: u64) {
    if presentation.video.is_empty() {
        return;
    }
    let aligned = are_aligned(&presentation.video).to_string();
    xml.open(
        "AdaptationSet",
        &[
            ("id", "1"),
            ("contentType", "video"),
            ("mimeType", "video/mp4"),
            ("segmentAlignment", &aligned),
            ("startWithSAP", "1"),
        ],
    );
    xml.empty("Role", &[("schemeIdUri", ROLE), ("value", "main")]);
    let frame_rate = presentation.facts.frame_rate.and_then(|rate| frame_rate_text(rate.nominal()));
    for rendition in &presentation.video {
        let TrackFormat::Video { width, height } = rendition.format else { continue };
        let (width, height) = (width.to_string(), height.to_string());
        let bandwidth = bandwidth(rendition, target_seconds);
        let mut attributes = vec![
            ("id", rendition.name.as_str()),
            ("codecs", rendition.codecs.as_str()),
            ("bandwidth", bandwidth.as_str()),
            ("width", width.as_str()),
            ("height", height.as_str()),
            ("sar", "1:1"),
        ];
        if let Some(frame_rate) = &frame_rate {
            attributes.push(("frameRate", frame_rate));
        }
        xml.open("Representation", &attributes);
        push_template(xml, rendition);
        xml.close("Representation");
    }
    xml.close("AdaptationSet");
}

fn push_audio(xml: &mut Xml, presentation: &Presentation, target_seconds: u64) {
    let Some(rendition) = &presentation.audio else { return };
    let TrackFormat::Audio { sample_rate, channels } = rendition.format else { return };
    let tag = language::tag(presentation.facts.language.as_deref());
    let mut attributes = vec![
        ("id", "2"),
        ("contentType", "audio"),
        ("mimeType", "audio/mp4"),
        ("segmentAlignment", "true"),
        ("startWithSAP", "1"),
    ];
    if let Some(tag) = &tag {
        attributes.push(("lang", tag));
    }
    xml.open("AdaptationSet", &attributes);
    xml.empty("Role", &[("schemeIdUri", ROLE), ("value", "main")]);
    xml.open(
        "Representation",
        &[
            ("id", &rendition.name),
            ("codecs", &rendition.codecs),
            ("bandwidth", &bandwidth(rendition, target_seconds)),
            ("audioSamplingRate", &sample_rate.to_string()),
        ],
    );
    xml.empty("AudioChannelConfiguration", &[("schemeIdUri", CHANNELS), ("value", &channels.to_string())]);
    push_template(xml, rendition);
    xml.close("Representation");
    xml.close("AdaptationSet");
}

fn push_template(xml: &mut Xml, rendition: &Rendition) {
    xml.open(
        "SegmentTemplate",
        &[
            ("timescale", &rendition.timescale.to_string()),
            ("initialization", "$RepresentationID$/init.mp4"),
            ("media", "$RepresentationID$/$Number%05d$.m4s"),
            ("startNumber", "1"),
        ],
    );
    xml.open("SegmentTimeline", &[]);
    // Runs of equal length become one line. `assign` left no gaps, so only the first needs its time.
    let mut segments = rendition.segments.as_slice();
    let mut is_first = true;
    while let Some(first) = segments.first() {
        let run = segments.iter().take_while(|next| next.duration_ticks == first.duration_ticks).count();
        let start = first.start_ticks.to_string();
        let duration = first.duration_ticks.to_string();
        let repeats = (run - 1).to_string();
        let mut attributes = Vec::with_capacity(3);
        if is_first {
            attributes.push(("t", start.as_str()));
        }
        attributes.push(("d", duration.as_str()));
        if run > 1 {
            attributes.push(("r", repeats.as_str()));
        }
        xml.empty("S", &attributes);
        segments = &segments[run..];
        is_first = false;
    }
    xml.close("SegmentTimeline");
    xml.close("SegmentTemplate");
}

fn push_thumbnails(xml: &mut Xml, thumbnails: &Thumbnails) {
    let Thumbnails { tile_width, tile_height, columns, rows, .. } = thumbnails;
    let (columns, rows) = (u64::from(*columns), u64::from(*rows));
    let sheet_us = u64::try_from(thumbnails.interval_us).unwrap_or(0) * columns * rows;
    if sheet_us == 0 {
        return;
    }
    let last_index = u32::try_from(thumbnails.sheet_byte_lens.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let last_number = thumbnails.first_number.saturating_add(last_index);
    let largest = thumbnails.sheet_byte_lens.iter().max().copied().unwrap_or(0);
    let bandwidth = (u128::from(largest) * 8 * 1_000_000).div_ceil(u128::from(sheet_us)).max(1);
    xml.open("AdaptationSet", &[("id", "3"), ("contentType", "image"), ("mimeType", "image/jpeg")]);
    xml.empty(
        "SegmentTemplate",
        &[
            ("timescale", "1000000"),
            ("duration", &sheet_us.to_string()),
            ("media", "sprite-$Number%03d$.jpg"),
            ("startNumber", &thumbnails.first_number.to_string()),
            // Sound may go on after the last picture: without an end, players would ask for sheets of that time.
            ("endNumber", &last_number.to_string()),
        ],
    );
    xml.open(
        "Representation",
        &[
            ("id", "thumbnails"),
            ("bandwidth", &bandwidth.to_string()),
            ("width", &(u64::from(*tile_width) * columns).to_string()),
            ("height", &(u64::from(*tile_height) * rows).to_string()),
        ],
    );
    xml.empty("EssentialProperty", &[("schemeIdUri", TILES), ("value", &format!("{columns}x{rows}"))]);
    xml.close("Representation");
    xml.close("AdaptationSet");
}

fn longest_segment_us(presentation: &Presentation) -> u64 {
    let of_rendition = |rendition: &Rendition| {
        let longest = rendition.segments.iter().map(|segment| segment.duration_ticks).max().unwrap_or(0);
        ticks_to_us(longest, rendition.timescale)
    };
    presentation.renditions().map(of_rendition).max().unwrap_or(0)
}

fn bandwidth(rendition: &Rendition, target_seconds: u64) -> String {
    let rates = Rates::of(rendition, target_seconds);
    rates.peak.max(rates.average).to_string()
}

/// Whether every rendition's segments begin at the same times.
fn are_aligned(video: &[Rendition]) -> bool {
    let starts = |rendition: &Rendition| -> Vec<u128> {
        let ticks = |segment: &Segment| u128::from(segment.start_ticks) * 1_000_000_000;
        let timescale = u128::from(rendition.timescale.max(1));
        rendition.segments.iter().map(|segment| ticks(segment) / timescale).collect()
    };
    video.windows(2).all(|pair| starts(&pair[0]) == starts(&pair[1]))
}

/// DASH's FrameRateType: `24`, `30000/1001`. Averages of variable rates have unwieldy terms, so those are given in
/// thousandths.
fn frame_rate_text(rate: Rational) -> Option<String> {
    const LARGEST_TERM: i64 = 1_000_000;
    let Rational { numerator, denominator } = match rate {
        Rational { numerator, denominator } if numerator > LARGEST_TERM || denominator > LARGEST_TERM => {
            Rational::new((rate.as_f64() * 1000.0).round() as i64, 1000)?
        }
        simple => simple,
    };
    match (numerator, denominator) {
        (1.., 1) => Some(numerator.to_string()),
        (1.., 2..) => Some(format!("{numerator}/{denominator}")),
        _ => None,
    }
}

/// Indented XML with every attribute escaped.
struct Xml {
    text: String,
    depth: usize,
}

impl Default for Xml {
    fn default() -> Self {
        Self { text: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(), depth: 0 }
    }
}

impl Xml {
    fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.tag(name, attributes, ">");
        self.depth += 1;
    }

    fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.tag(name, attributes, "/>");
    }

    fn tag(&mut self, name: &str, attributes: &[(&str, &str)], end: &str) {
        self.indent();
        let _ = write!(self.text, "<{name}");
        for (key, value) in attributes {
            let _ = write!(self.text, " {key}=\"{}\"", escape(value));
        }
        self.text.push_str(end);
        self.text.push('\n');
    }

    fn close(&mut self, name: &str) {
        self.depth -= 1;
        self.indent();
        let _ = writeln!(self.text, "</{name}>");
    }

    fn indent(&mut self) {
        self.text.push_str(&"  ".repeat(self.depth));
    }
}

fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML 1.0 section 2.2 has no way to write other control characters.
            '\t' | '\n' | '\r' => escaped.push(' '),
            control if control.is_control() => {}
            plain => escaped.push(plain),
        }
    }
    escaped
}
