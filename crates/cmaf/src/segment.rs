//! Media segments: `styp`, then one `moof` and `mdat` for each fragment (ISO/IEC 14496-12 section 8.8,
//! 23000-19 section 7.3.2).
//!
//! A fragment is any run of samples (what CMAF calls a chunk): a keyframe alone, the pictures after it up to the next,
//! or sound. No index box is written: playlists carry the places that [`media_segment`] returns.

use crate::{
    CmafError,
    boxes::BoxWriter,
    init::{NON_SYNC_SAMPLE, SYNC_SAMPLE, TRACK_ID},
};

/// A `trun` entry takes up to 16 bytes; this keeps a `moof` below 16 MiB. A fragment of sound with a million samples
/// would last six hours.
const MAX_SAMPLES_PER_FRAGMENT: usize = 1 << 20;
/// Size and type of `mdat`.
const BOX_HEADER_BYTES: u64 = 8;

#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub data: &'a [u8],
    /// In ticks of the track; zero is allowed, though players differ in what they make of it.
    pub duration: u32,
    /// Presentation time minus decode time.
    pub composition_offset: i32,
    /// Decoding can start here.
    pub sync: bool,
}

#[derive(Clone, Debug)]
pub struct Fragment<'a> {
    /// Of the first sample, on the timeline of the whole track.
    pub decode_time: u64,
    /// In decode order.
    pub samples: Vec<Sample<'a>>,
}

impl Fragment<'_> {
    /// The first sample as a fragment of its own, and the rest, if there is any. For a keyframe: its bytes are then a
    /// whole `moof` and `mdat`, which is what an I-frame playlist can point at. Costs about 110 bytes.
    pub fn first_sample_apart(mut self) -> (Self, Option<Self>) {
        if self.samples.len() < 2 {
            return (self, None);
        }
        let samples = self.samples.split_off(1);
        let lasts = self.samples.iter().map(|sample| u64::from(sample.duration)).sum();
        let rest = Self { decode_time: self.decode_time.saturating_add(lasts), samples };
        (self, Some(rest))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaSegment {
    pub bytes: Vec<u8>,
    /// One for each fragment, in order.
    pub fragments: Vec<FragmentPlace>,
}

/// Where a fragment lies in its segment, in bytes from the start of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentPlace {
    /// Of the `moof`.
    pub offset: u64,
    /// From the start of the `moof` to the end of the `mdat`.
    pub byte_len: u64,
}

/// Fragments must follow each other without a gap in decode time. `first_sequence_number` counts fragments of the
/// track from 1 (`mfhd`); players only want it to rise.
pub fn media_segment(
    first_sequence_number: u32,
    fragments: &[Fragment<'_>],
) -> Result<MediaSegment, CmafError> {
    if fragments.is_empty() {
        return Err(CmafError::NoFragments);
    }
    let mut w = BoxWriter::new();
    // `msdh` says media segment; `cmfs` says CMAF segment. `msix` would promise a `sidx`, which is not written.
    w.boxed(*b"styp", |w| {
        w.bytes(b"msdh");
        w.u32(0);
        w.bytes(b"msdhcmfs");
    });
    let mut places = Vec::with_capacity(fragments.len());
    let mut expected_start = None;
    for (index, fragment) in fragments.iter().enumerate() {
        let (end, data_len) = check(index, fragment, expected_start)?;
        expected_start = Some(end);
        let sequence_number = first_sequence_number.wrapping_add(index as u32);
        places.push(write_fragment(&mut w, sequence_number, fragment, data_len));
    }
    Ok(MediaSegment { bytes: w.into_bytes(), fragments: places })
}

/// The fragment's end in decode time and the bytes of its samples, once it is known that it can be written.
fn check(index: usize, fragment: &Fragment<'_>, expected: Option<u64>) -> Result<(u64, u32), CmafError> {
    let samples = &fragment.samples;
    if samples.is_empty() {
        return Err(CmafError::EmptyFragment { fragment: index });
    }
    if samples.len() > MAX_SAMPLES_PER_FRAGMENT {
        return Err(CmafError::TooManySamples {
            fragment: index,
            samples: samples.len(),
            limit: MAX_SAMPLES_PER_FRAGMENT,
        });
    }
    if let Some(sample) = samples.iter().position(|sample| sample.data.is_empty()) {
        return Err(CmafError::EmptySample { fragment: index, sample });
    }
    let start = fragment.decode_time;
    if let Some(expected) = expected.filter(|&expected| expected != start) {
        return Err(CmafError::Discontinuous { fragment: index, start, expected });
    }
    let end = samples
        .iter()
        .try_fold(start, |time, sample| time.checked_add(u64::from(sample.duration)))
        .ok_or(CmafError::DecodeTimeOverflow { fragment: index })?;
    let data_len: u64 = samples.iter().map(|sample| sample.data.len() as u64).sum();
    u32::try_from(data_len + BOX_HEADER_BYTES)
        .map(|_| (end, data_len as u32))
        .map_err(|_| CmafError::FragmentTooLarge { fragment: index })
}

fn write_fragment(
    w: &mut BoxWriter,
    sequence_number: u32,
    fragment: &Fragment<'_>,
    data_len: u32,
) -> FragmentPlace {
    let moof = w.len();
    let run = RunLayout::of(&fragment.samples);
    let mut data_offset_at = 0;
    w.boxed(*b"moof", |w| {
        w.full_box(*b"mfhd", 0, 0, |w| w.u32(sequence_number));
        w.boxed(*b"traf", |w| {
            run.write_tfhd(w);
            w.full_box(*b"tfdt", 1, 0, |w| w.u64(fragment.decode_time));
            data_offset_at = run.write_trun(w, &fragment.samples);
        });
    });
    let mdat = w.len();
    // `data_offset` counts from the start of the `moof` (default-base-is-moof) to the first byte of the first sample.
    // A moof is far below 2 GiB: its samples are counted in `check`.
    w.patch_u32(data_offset_at, (mdat - moof) as u32 + BOX_HEADER_BYTES as u32);
    w.reserve(data_len as usize + BOX_HEADER_BYTES as usize);
    w.u32(data_len + BOX_HEADER_BYTES as u32);
    w.bytes(b"mdat");
    for sample in &fragment.samples {
        w.bytes(sample.data);
    }
    FragmentPlace { offset: moof as u64, byte_len: (w.len() - moof) as u64 }
}

fn sample_flags(sample: &Sample<'_>) -> u32 {
    if sample.sync { SYNC_SAMPLE } else { NON_SYNC_SAMPLE }
}

/// What all samples share is said once in `tfhd`, the rest in each entry of `trun`.
struct RunLayout {
    common_duration: Option<u32>,
    /// The flags of all samples but perhaps the first.
    default_flags: u32,
    flags: FlagsLayout,
    has_composition_offsets: bool,
}

#[derive(PartialEq, Eq)]
enum FlagsLayout {
    AllDefault,
    FirstDiffers(u32),
    PerSample,
}

impl RunLayout {
    fn of(samples: &[Sample<'_>]) -> Self {
        let first = &samples[0];
        let rest = &samples[1..];
        let default_flags = rest.first().map_or_else(|| sample_flags(first), sample_flags);
        let flags = if rest.iter().any(|sample| sample_flags(sample) != default_flags) {
            FlagsLayout::PerSample
        } else if sample_flags(first) == default_flags {
            FlagsLayout::AllDefault
        } else {
            FlagsLayout::FirstDiffers(sample_flags(first))
        };
        Self {
            common_duration: rest
                .iter()
                .all(|sample| sample.duration == first.duration)
                .then_some(first.duration),
            default_flags,
            flags,
            has_composition_offsets: samples.iter().any(|sample| sample.composition_offset != 0),
        }
    }

    /// 14496-12 section 8.8.7.
    fn write_tfhd(&self, w: &mut BoxWriter) {
        const DEFAULT_DURATION: u32 = 0x08;
        const DEFAULT_FLAGS: u32 = 0x20;
        const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
        let mut flags = DEFAULT_BASE_IS_MOOF | DEFAULT_FLAGS;
        if self.common_duration.is_some() {
            flags |= DEFAULT_DURATION;
        }
        w.full_box(*b"tfhd", 0, flags, |w| {
            w.u32(TRACK_ID);
            if let Some(duration) = self.common_duration {
                w.u32(duration);
            }
            w.u32(self.default_flags);
        });
    }

    /// 14496-12 section 8.8.8. Returns where the data offset stands, to be filled in when it is known.
    fn write_trun(&self, w: &mut BoxWriter, samples: &[Sample<'_>]) -> usize {
        const DATA_OFFSET: u32 = 0x001;
        const FIRST_SAMPLE_FLAGS: u32 = 0x004;
        const DURATION: u32 = 0x100;
        const SIZE: u32 = 0x200;
        const FLAGS: u32 = 0x400;
        const COMPOSITION_OFFSET: u32 = 0x800;
        /// Composition offsets are signed.
        const VERSION: u8 = 1;
        let mut flags = DATA_OFFSET | SIZE;
        if self.common_duration.is_none() {
            flags |= DURATION;
        }
        if self.has_composition_offsets {
            flags |= COMPOSITION_OFFSET;
        }
        flags |= match self.flags {
            FlagsLayout::AllDefault => 0,
            FlagsLayout::FirstDiffers(_) => FIRST_SAMPLE_FLAGS,
            FlagsLayout::PerSample => FLAGS,
        };
        let mut data_offset_at = 0;
        w.full_box(*b"trun", VERSION, flags, |w| {
            w.u32(samples.len() as u32);
            data_offset_at = w.len();
            w.u32(0);
            if let FlagsLayout::FirstDiffers(first) = self.flags {
                w.u32(first);
            }
            for sample in samples {
                if self.common_duration.is_none() {
                    w.u32(sample.duration);
                }
                w.u32(sample.data.len() as u32);
                if self.flags == FlagsLayout::PerSample {
                    w.u32(sample_flags(sample));
                }
                if self.has_composition_offsets {
                    w.i32(sample.composition_offset);
                }
            }
        });
        data_offset_at
    }
}
