//! What the writers read: the renditions of a publication with their segments, in the order of time.

use reelyard_model::{
    Plan,
    media_info::FrameRate,
    output::{StillsOutput, SyncPoint, TrackFormat},
};

/// What no track output tells, from the plan and the stills task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Of the pictures; `None` leaves FRAME-RATE out.
    pub frame_rate: Option<FrameRate>,
    /// Of the sound, as the source says it: ISO 639-2 or BCP 47.
    pub language: Option<String>,
    /// Of the whole asset: the thumbnails' axis.
    pub thumbnails: Option<Thumbnails>,
}

impl Facts {
    /// `stills` is `None` when there are none (or they come later: the publication then has no thumbnails).
    pub fn from_plan(plan: &Plan, stills: Option<&StillsOutput>) -> Self {
        Self {
            frame_rate: plan.video.as_ref().map(|video| video.frame_rate),
            language: plan.audio.as_ref().and_then(|audio| audio.language.clone()),
            thumbnails: stills.and_then(|stills| Thumbnails::from_outputs(plan, stills)),
        }
    }
}

/// Sprite sheets as DASH sees them: an image track whose segments are JPEG files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnails {
    /// Number in the name of the first sheet, `sprite-NNN.jpg`.
    pub first_number: u32,
    pub sheet_byte_lens: Vec<u64>,
    pub interval_us: i64,
    pub tile_width: u32,
    pub tile_height: u32,
    pub columns: u32,
    pub rows: u32,
}

impl Thumbnails {
    /// `None` when the sheets are not named `sprite-NNN.jpg` with rising numbers, since DASH can only count.
    pub fn from_outputs(plan: &Plan, stills: &StillsOutput) -> Option<Self> {
        let stills_plan = plan.stills.as_ref()?;
        let number_of = |file: &str| -> Option<u32> {
            let digits = file.strip_prefix("sprite-")?.strip_suffix(".jpg")?;
            let number = digits.parse().ok()?;
            (digits == format!("{number:03}")).then_some(number)
        };
        let first_number = number_of(&stills.sprites.first()?.file)?;
        let in_order = stills
            .sprites
            .iter()
            .zip(first_number..)
            .all(|(sheet, number)| number_of(&sheet.file) == Some(number));
        in_order.then(|| Self {
            first_number,
            sheet_byte_lens: stills.sprites.iter().map(|sheet| sheet.byte_len).collect(),
            interval_us: stills_plan.interval_us,
            tile_width: stills_plan.tile_width,
            tile_height: stills_plan.tile_height,
            columns: stills_plan.columns,
            rows: stills_plan.rows,
        })
    }
}

/// One publication. Built by [`crate::assign`], which checks what the writers rely on.
#[derive(Clone, Debug, PartialEq)]
pub struct Presentation {
    /// Largest first.
    pub video: Vec<Rendition>,
    pub audio: Option<Rendition>,
    pub facts: Facts,
}

impl Presentation {
    pub fn renditions(&self) -> impl Iterator<Item = &Rendition> {
        self.video.iter().chain(&self.audio)
    }

    /// End of the longest track.
    pub fn duration_us(&self) -> u64 {
        self.renditions().map(Rendition::end_us).max().unwrap_or(0)
    }
}

/// One output track at one quality, over the whole asset.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendition {
    pub name: String,
    pub format: TrackFormat,
    /// RFC 6381.
    pub codecs: String,
    pub timescale: u32,
    /// At least one.
    pub segments: Vec<Segment>,
}

/// `{rendition}/NNNNN.m4s`: the number is its place in the list, from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    pub byte_len: u64,
    pub start_ticks: u64,
    /// To the start of the next segment.
    pub duration_ticks: u64,
    pub sync_points: Vec<SyncPoint>,
}

impl Segment {
    pub fn end_ticks(&self) -> u64 {
        self.start_ticks.saturating_add(self.duration_ticks)
    }
}

impl Rendition {
    pub fn init_path(&self) -> String {
        init_path(&self.name)
    }

    /// `index` counts from 0, the file names from 1.
    pub fn segment_path(&self, index: usize) -> String {
        segment_path(&self.name, index)
    }

    pub fn playlist_path(&self) -> String {
        format!("{}.m3u8", self.name)
    }

    pub fn i_frame_playlist_path(&self) -> String {
        format!("{}{I_FRAMES_SUFFIX}.m3u8", self.name)
    }

    pub fn has_sync_points(&self) -> bool {
        self.segments.iter().any(|segment| !segment.sync_points.is_empty())
    }

    pub fn end_us(&self) -> u64 {
        let end_ticks = self.segments.last().map_or(0, Segment::end_ticks);
        crate::time::ticks_to_us(end_ticks, self.timescale)
    }

    pub(crate) fn pixel_count(&self) -> u64 {
        match self.format {
            TrackFormat::Video { width, height } => u64::from(width) * u64::from(height),
            TrackFormat::Audio { .. } => 0,
        }
    }
}

/// Between a rendition's name and `.m3u8`.
pub(crate) const I_FRAMES_SUFFIX: &str = "-iframes";

pub(crate) fn init_path(rendition: &str) -> String {
    format!("{rendition}/init.mp4")
}

pub(crate) fn segment_path(rendition: &str, index: usize) -> String {
    format!("{rendition}/{:05}.m4s", index + 1)
}
