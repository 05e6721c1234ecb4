//! Initialization segments: `ftyp` and a `moov` without samples, one track each (CMAF header, ISO/IEC 23000-19
//! section 7.3.1). What a player reads once for each rendition.
//!
//! The bytes depend on the arguments alone, so that chunks of one rendition, encoded on different machines with the
//! same settings, can share one initialization segment; whoever joins them compares the bytes.

use crate::{
    AacConfig, CmafError, ParameterSets,
    boxes::{BoxWriter, FourCc},
};

/// The only track of the file, in `tkhd`, `trex` and every `tfhd`.
pub(crate) const TRACK_ID: u32 = 1;
/// Sample flags, ISO/IEC 14496-12 section 8.8.3.1: depends on no other sample.
pub(crate) const SYNC_SAMPLE: u32 = 0x0200_0000;
/// Depends on other samples, and is not a sync sample.
pub(crate) const NON_SYNC_SAMPLE: u32 = 0x0101_0000;

#[derive(Clone, Debug)]
pub struct AvcTrack<'a> {
    /// Ticks per second of every time in the track.
    pub timescale: u32,
    pub parameter_sets: &'a ParameterSets,
    /// In pixels, upright; pixels are square.
    pub width: u32,
    pub height: u32,
    pub colour: Colour,
    /// What [`crate::sample_times`] was given: composition offsets are that much larger, and an edit list takes it
    /// back, so that decode time and presentation time of a keyframe are the same number.
    pub presentation_delay: u32,
    /// Left out, the `btrt` box is too.
    pub bit_rate: Option<BitRate>,
}

/// Decode time is presentation time: the caller leaves the encoder's priming out (docs/decisions/0006).
#[derive(Clone, Debug)]
pub struct AacTrack<'a> {
    pub config: &'a AacConfig,
    /// BCP 47 or ISO 639-2.
    pub language: Option<&'a str>,
    pub bit_rate: BitRate,
}

/// Code points of ITU-T H.273, for `colr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    pub primaries: u8,
    pub transfer: u8,
    pub matrix: u8,
    pub full_range: bool,
}

impl Colour {
    /// What every SDR rendition is encoded in.
    pub const BT709: Self = Self { primaries: 1, transfer: 1, matrix: 1, full_range: false };
}

/// In bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRate {
    pub average: u32,
    pub max: u32,
    /// Size of the decoder's buffer, in bytes.
    pub buffer_bytes: u32,
}

pub fn init_segment_avc(track: &AvcTrack<'_>) -> Result<Vec<u8>, CmafError> {
    let size = CmafError::PictureSize { width: track.width, height: track.height };
    let (Ok(width), Ok(height)) = (u16::try_from(track.width), u16::try_from(track.height)) else {
        return Err(size);
    };
    if width == 0 || height == 0 {
        return Err(size);
    }
    let avcc = track.parameter_sets.avcc()?;
    let header = TrackHeader {
        timescale: track.timescale,
        handler: *b"vide",
        handler_name: "Reelyard video",
        width,
        height,
        volume: 0,
        language: None,
        presentation_offset: track.presentation_delay,
        default_sample_flags: NON_SYNC_SAMPLE,
    };
    header.write(
        // 14496-12 section 12.1.2: flags are 1, mode and colour are 0.
        |w| w.full_box(*b"vmhd", 0, 1, |w| w.zeros(8)),
        |w| write_avc1(w, track, width, height, &avcc),
    )
}

pub fn init_segment_aac(track: &AacTrack<'_>) -> Result<Vec<u8>, CmafError> {
    let header = TrackHeader {
        timescale: track.config.sample_rate,
        handler: *b"soun",
        handler_name: "Reelyard sound",
        width: 0,
        height: 0,
        volume: 0x0100,
        language: track.language,
        presentation_offset: 0,
        default_sample_flags: SYNC_SAMPLE,
    };
    header.write(|w| w.full_box(*b"smhd", 0, 0, |w| w.zeros(4)), |w| write_mp4a(w, track))
}

struct TrackHeader<'a> {
    timescale: u32,
    handler: FourCc,
    handler_name: &'a str,
    width: u16,
    height: u16,
    /// 8.8 fixed point: 1 for sound, 0 for pictures.
    volume: u16,
    language: Option<&'a str>,
    /// Ticks to skip at the start of the media: becomes an edit list.
    presentation_offset: u32,
    default_sample_flags: u32,
}

impl TrackHeader<'_> {
    fn write(
        &self,
        media_header: impl FnOnce(&mut BoxWriter),
        sample_entry: impl FnOnce(&mut BoxWriter),
    ) -> Result<Vec<u8>, CmafError> {
        if self.timescale == 0 {
            return Err(CmafError::ZeroTimescale);
        }
        let mut w = BoxWriter::new();
        w.boxed(*b"ftyp", |w| {
            w.bytes(b"iso6");
            w.u32(0);
            w.bytes(b"iso6cmfc");
        });
        w.boxed(*b"moov", |w| {
            self.write_mvhd(w);
            w.boxed(*b"trak", |w| {
                self.write_tkhd(w);
                self.write_edit_list(w);
                w.boxed(*b"mdia", |w| {
                    self.write_mdhd(w);
                    w.boxed(*b"minf", |w| {
                        media_header(w);
                        write_data_information(w);
                        write_sample_table(w, sample_entry);
                    });
                });
            });
            w.boxed(*b"mvex", |w| {
                w.full_box(*b"trex", 0, 0, |w| {
                    w.u32(TRACK_ID);
                    w.u32(1); // default_sample_description_index
                    w.u32(0); // default_sample_duration
                    w.u32(0); // default_sample_size
                    w.u32(self.default_sample_flags);
                });
            });
        });
        Ok(w.into_bytes())
    }

    /// Times of creation are left zero: the same input shall give the same bytes. Durations are zero because the
    /// fragments hold all samples (23000-19 section 7.5.1).
    fn write_mvhd(&self, w: &mut BoxWriter) {
        w.full_box(*b"mvhd", 0, 0, |w| {
            w.zeros(8);
            w.u32(self.timescale);
            w.u32(0);
            w.u32(0x0001_0000); // rate 1
            w.u16(0x0100); // volume 1
            w.zeros(10);
            write_unity_matrix(w);
            w.zeros(24);
            w.u32(TRACK_ID + 1);
        });
    }

    fn write_tkhd(&self, w: &mut BoxWriter) {
        const ENABLED_AND_IN_MOVIE: u32 = 3;
        w.full_box(*b"tkhd", 0, ENABLED_AND_IN_MOVIE, |w| {
            w.zeros(8);
            w.u32(TRACK_ID);
            w.zeros(4);
            w.u32(0); // duration
            w.zeros(8);
            w.u16(0); // layer
            w.u16(0); // alternate group
            w.u16(self.volume);
            w.zeros(2);
            write_unity_matrix(w);
            w.u32(u32::from(self.width) << 16);
            w.u32(u32::from(self.height) << 16);
        });
    }

    /// One edit that starts `presentation_offset` ticks into the media. A duration of zero means "to the end, also of
    /// fragments to come" (14496-12 section 8.6.6.1).
    fn write_edit_list(&self, w: &mut BoxWriter) {
        if self.presentation_offset == 0 {
            return;
        }
        w.boxed(*b"edts", |w| {
            w.full_box(*b"elst", 1, 0, |w| {
                w.u32(1);
                w.u64(0);
                w.u64(u64::from(self.presentation_offset));
                w.u32(0x0001_0000); // rate 1
            });
        });
    }

    fn write_mdhd(&self, w: &mut BoxWriter) {
        let language = Language::of(self.language);
        w.full_box(*b"mdhd", 0, 0, |w| {
            w.zeros(8);
            w.u32(self.timescale);
            w.u32(0);
            w.u16(language.packed);
            w.zeros(2);
        });
        w.full_box(*b"hdlr", 0, 0, |w| {
            w.zeros(4);
            w.bytes(&self.handler);
            w.zeros(12);
            w.bytes(self.handler_name.as_bytes());
            w.u8(0);
        });
        if let Some(tag) = language.extended {
            w.full_box(*b"elng", 0, 0, |w| {
                w.bytes(tag.as_bytes());
                w.u8(0);
            });
        }
    }
}

/// `mdhd` holds three letters of ISO 639-2; whatever else a source says goes, if it looks like BCP 47, into `elng`
/// (14496-12 section 8.4.6). Anything stranger is "undetermined".
struct Language<'a> {
    packed: u16,
    extended: Option<&'a str>,
}

impl<'a> Language<'a> {
    fn of(tag: Option<&'a str>) -> Self {
        // RFC 5646 section 4.4.1: tags of registered languages stay below 35 characters.
        const MAX_TAG_BYTES: usize = 35;
        let pack =
            |letters: &[u8]| letters.iter().fold(0_u16, |sum, letter| sum << 5 | u16::from(letter - 0x60));
        let undetermined = pack(b"und");
        match tag.map(|tag| (tag, tag.as_bytes())) {
            Some((_, letters)) if letters.len() == 3 && letters.iter().all(u8::is_ascii_lowercase) => {
                Self { packed: pack(letters), extended: None }
            }
            Some((tag, letters))
                if (2..=MAX_TAG_BYTES).contains(&letters.len())
                    && letters[0].is_ascii_alphabetic()
                    && letters.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') =>
            {
                Self { packed: undetermined, extended: Some(tag) }
            }
            _ => Self { packed: undetermined, extended: None },
        }
    }
}

fn write_unity_matrix(w: &mut BoxWriter) {
    for value in [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000] {
        w.u32(value);
    }
}

fn write_data_information(w: &mut BoxWriter) {
    const IN_THIS_FILE: u32 = 1;
    w.boxed(*b"dinf", |w| {
        w.full_box(*b"dref", 0, 0, |w| {
            w.u32(1);
            w.full_box(*b"url ", 0, IN_THIS_FILE, |_| {});
        });
    });
}

fn write_sample_table(w: &mut BoxWriter, sample_entry: impl FnOnce(&mut BoxWriter)) {
    w.boxed(*b"stbl", |w| {
        w.full_box(*b"stsd", 0, 0, |w| {
            w.u32(1);
            sample_entry(w);
        });
        w.full_box(*b"stts", 0, 0, |w| w.u32(0));
        w.full_box(*b"stsc", 0, 0, |w| w.u32(0));
        w.full_box(*b"stsz", 0, 0, |w| w.zeros(8));
        w.full_box(*b"stco", 0, 0, |w| w.u32(0));
    });
}

fn write_avc1(w: &mut BoxWriter, track: &AvcTrack<'_>, width: u16, height: u16, avcc: &[u8]) {
    w.boxed(*b"avc1", |w| {
        w.zeros(6);
        w.u16(1); // data_reference_index
        w.zeros(16);
        w.u16(width);
        w.u16(height);
        w.u32(0x0048_0000); // 72 dpi, as the specification wants
        w.u32(0x0048_0000);
        w.zeros(4);
        w.u16(1); // frame_count
        w.zeros(32); // compressorname
        w.u16(0x0018); // depth
        w.u16(0xFFFF); // pre_defined -1
        w.boxed(*b"avcC", |w| w.bytes(avcc));
        w.boxed(*b"colr", |w| {
            w.bytes(b"nclx");
            w.u16(u16::from(track.colour.primaries));
            w.u16(u16::from(track.colour.transfer));
            w.u16(u16::from(track.colour.matrix));
            w.u8(u8::from(track.colour.full_range) << 7);
        });
        w.boxed(*b"pasp", |w| {
            w.u32(1);
            w.u32(1);
        });
        if let Some(bit_rate) = track.bit_rate {
            write_btrt(w, bit_rate);
        }
    });
}

fn write_mp4a(w: &mut BoxWriter, track: &AacTrack<'_>) {
    w.boxed(*b"mp4a", |w| {
        w.zeros(6);
        w.u16(1); // data_reference_index
        w.zeros(8);
        w.u16(track.config.channels as u16);
        w.u16(16); // samplesize
        w.zeros(4);
        // 16.16 fixed point; rates that do not fit are left to the AudioSpecificConfig.
        let rate = u16::try_from(track.config.sample_rate).unwrap_or(0);
        w.u32(u32::from(rate) << 16);
        w.full_box(*b"esds", 0, 0, |w| {
            track.config.write_es_descriptor(w, track.bit_rate.average, track.bit_rate.max);
        });
        write_btrt(w, track.bit_rate);
    });
}

fn write_btrt(w: &mut BoxWriter, bit_rate: BitRate) {
    w.boxed(*b"btrt", |w| {
        w.u32(bit_rate.buffer_bytes);
        w.u32(bit_rate.max);
        w.u32(bit_rate.average);
    });
}
