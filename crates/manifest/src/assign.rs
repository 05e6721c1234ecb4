//! Merges what the tasks made into renditions, and says which file becomes which path of the publication.
//!
//! Every task that made tracks hands in its list: the encode tasks in the order of their chunks, and the audio task
//! at any place. Tracks of one name form one rendition. They must share one initialization segment and follow each
//! other without a gap, else nothing is published: a player would stop there, long after everyone looked away.

use crate::presentation::{
    Facts, I_FRAMES_SUFFIX, Presentation, Rendition, Segment, init_path, segment_path,
};
use reelyard_model::output::{FileOutput, SegmentOutput, TrackFormat, TrackOutput};

/// How far the end of one chunk and the start of the next may lie apart. Matroska's clock counts whole
/// milliseconds, so two tasks may round one boundary to either side; more than that is a missing picture.
pub const MAX_SEAM_US: u64 = 2_000;
/// Names that would take the place of a playlist of ours.
const RESERVED_NAMES: [&str; 2] = ["master", "manifest"];
/// Longer names are no folder names of ours.
const MAX_NAME_BYTES: usize = 64;

/// Of ticks and of bytes: far beyond any film, far below where sums of them overflow.
const LARGEST_VALUE: u64 = 1 << 56;

/// One file of one task and the path it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Index in the list that was given to [`assign`].
    pub from_task: usize,
    /// Below that task's output prefix.
    pub from_file: String,
    pub to_path: String,
    pub byte_len: u64,
    pub sha256: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    pub placements: Vec<Placement>,
    pub presentation: Presentation,
}

/// Why the outputs do not make one stream. Every one of them is a fault of ours (or a mixed-up attempt), never of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    #[error("the tasks made no track at all, so there is nothing to publish")]
    NoTracks,
    #[error(
        "rendition {rendition:?} cannot be published: its name is not safe as a folder beside the playlists"
    )]
    UnsafeName { rendition: String },
    #[error("rendition {rendition}: {codecs:?} is no codec string of RFC 6381")]
    UnsafeCodecs { rendition: String, codecs: String },
    #[error(
        "rendition {rendition}: segment {file} of task {task} names a keyframe outside of its own bytes or time"
    )]
    BadSyncPoint { rendition: String, task: usize, file: String },
    #[error("rendition {rendition}: segment {file} of task {task} claims a time or size that no film has")]
    TooLarge { rendition: String, task: usize, file: String },
    #[error("rendition {rendition} has no segments: every task that made it left it empty")]
    NoSegments { rendition: String },
    #[error("rendition {rendition} appears twice in the outputs of task {task}")]
    Twice { rendition: String, task: usize },
    #[error(
        "rendition {rendition}: tasks {first_task} and {task} disagree on the {what} ({first_value} and {value}), so \
         their segments do not play one after the other; encode the chunks again with one encoder"
    )]
    Disagree {
        rendition: String,
        what: &'static str,
        first_task: usize,
        first_value: String,
        task: usize,
        value: String,
    },
    #[error(
        "rendition {rendition}: segment {file} of task {task} starts at tick {found_ticks} but the one before it \
         ends at {expected_ticks} (of {timescale} a second): a chunk is missing or out of order"
    )]
    Seam {
        rendition: String,
        task: usize,
        file: String,
        expected_ticks: u64,
        found_ticks: u64,
        timescale: u32,
    },
    #[error("rendition {rendition}: segment {file} of task {task} lasts no time or holds no bytes")]
    EmptySegment { rendition: String, task: usize, file: String },
    #[error(
        "renditions {rendition} and {other} are not equally long ({us} and {other_us} us): the last chunk of one of them is missing"
    )]
    DifferentLength { rendition: String, us: u64, other: String, other_us: u64 },
    #[error("there are several sound tracks ({first} and {second}), this publication holds one")]
    SeveralSoundTracks { first: String, second: String },
}

/// See the head of this file.
pub fn assign(outputs_by_task: &[Vec<TrackOutput>], facts: Facts) -> Result<Assignment, AssignError> {
    let mut merging: Vec<Merging> = Vec::new();
    let mut placements = Vec::new();
    for (task, tracks) in outputs_by_task.iter().enumerate() {
        for track in tracks {
            let position = merging.iter().position(|known| known.rendition.name == track.rendition);
            let merged = match position {
                Some(position) => &mut merging[position],
                None => {
                    check_name(&track.rendition)?;
                    check_codecs(track)?;
                    merging.push(Merging::begin(track, task));
                    placements.push(place(task, &track.init, init_path(&track.rendition)));
                    let last = merging.len() - 1;
                    &mut merging[last]
                }
            };
            merged.append(track, task, &mut placements)?;
        }
    }
    let presentation = into_presentation(merging, facts)?;
    Ok(Assignment { placements, presentation })
}

fn place(from_task: usize, file: &FileOutput, to_path: String) -> Placement {
    Placement {
        from_task,
        from_file: file.file.clone(),
        to_path,
        byte_len: file.byte_len,
        sha256: file.sha256.clone(),
    }
}

fn check_name(name: &str) -> Result<(), AssignError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let free = !RESERVED_NAMES.contains(&name) && !name.ends_with(I_FRAMES_SUFFIX);
    if plain && free && !name.is_empty() && name.len() <= MAX_NAME_BYTES {
        Ok(())
    } else {
        Err(AssignError::UnsafeName { rendition: name.to_owned() })
    }
}

/// The child that wrote this text parses strangers' files: it must not be able to write playlist lines.
fn check_codecs(track: &TrackOutput) -> Result<(), AssignError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    if !track.codecs.is_empty() && track.codecs.len() <= MAX_NAME_BYTES && track.codecs.bytes().all(plain) {
        Ok(())
    } else {
        Err(AssignError::UnsafeCodecs { rendition: track.rendition.clone(), codecs: track.codecs.clone() })
    }
}

/// The numbers come from a child that may be in a stranger's hands: none of them may break a playlist or a sum.
fn check_segment(rendition: &str, task: usize, segment: &SegmentOutput) -> Result<(), AssignError> {
    let (rendition, file) = (rendition.to_owned(), segment.file.file.clone());
    let fits = |value: u64| value <= LARGEST_VALUE;
    if segment.duration_ticks == 0 || segment.file.byte_len == 0 {
        Err(AssignError::EmptySegment { rendition, task, file })
    } else if !(fits(segment.start_ticks) && fits(segment.duration_ticks) && fits(segment.file.byte_len)) {
        Err(AssignError::TooLarge { rendition, task, file })
    } else if !sync_points_fit(segment) {
        Err(AssignError::BadSyncPoint { rendition, task, file })
    } else {
        Ok(())
    }
}

fn sync_points_fit(segment: &SegmentOutput) -> bool {
    let end_ticks = segment.start_ticks.saturating_add(segment.duration_ticks);
    let mut not_before = segment.start_ticks;
    segment.sync_points.iter().all(|point| {
        let fits = point.byte_len > 0
            && point.offset.checked_add(point.byte_len).is_some_and(|end| end <= segment.file.byte_len)
            && point.start_ticks >= not_before
            && point.duration_ticks > 0
            && point.start_ticks.checked_add(point.duration_ticks).is_some_and(|end| end <= end_ticks);
        not_before = point.start_ticks.saturating_add(point.duration_ticks);
        fits
    })
}

/// A rendition while the tasks are gone through, with what the first of them said.
struct Merging {
    rendition: Rendition,
    init_sha256: String,
    first_task: usize,
    last_task: Option<usize>,
}

impl Merging {
    fn begin(track: &TrackOutput, task: usize) -> Self {
        Self {
            rendition: Rendition {
                name: track.rendition.clone(),
                format: track.format.clone(),
                codecs: track.codecs.clone(),
                timescale: track.timescale,
                segments: Vec::new(),
            },
            init_sha256: track.init.sha256.clone(),
            first_task: task,
            last_task: None,
        }
    }

    fn append(
        &mut self,
        track: &TrackOutput,
        task: usize,
        placements: &mut Vec<Placement>,
    ) -> Result<(), AssignError> {
        if self.last_task == Some(task) {
            return Err(AssignError::Twice { rendition: self.rendition.name.clone(), task });
        }
        self.last_task = Some(task);
        self.check_same(track, task)?;
        for segment in &track.segments {
            let file = &segment.file;
            check_segment(&self.rendition.name, task, segment)?;
            self.check_seam(segment.start_ticks, task, &file.file)?;
            placements.push(place(
                task,
                file,
                segment_path(&self.rendition.name, self.rendition.segments.len()),
            ));
            self.rendition.segments.push(Segment {
                byte_len: file.byte_len,
                start_ticks: segment.start_ticks,
                duration_ticks: segment.duration_ticks,
                sync_points: segment.sync_points.clone(),
            });
        }
        Ok(())
    }

    fn check_same(&self, track: &TrackOutput, task: usize) -> Result<(), AssignError> {
        let first = &self.rendition;
        let facts = [
            ("codec", first.codecs.clone(), track.codecs.clone()),
            ("format", format!("{:?}", first.format), format!("{:?}", track.format)),
            ("timescale", first.timescale.to_string(), track.timescale.to_string()),
            ("initialization segment (SHA-256)", self.init_sha256.clone(), track.init.sha256.clone()),
        ];
        match facts.into_iter().find(|(_, first_value, value)| first_value != value) {
            None if track.timescale > 0 => Ok(()),
            None => Err(self.disagree("timescale", "1 or more".to_owned(), task, "0".to_owned())),
            Some((what, first_value, value)) => Err(self.disagree(what, first_value, task, value)),
        }
    }

    fn disagree(&self, what: &'static str, first_value: String, task: usize, value: String) -> AssignError {
        let rendition = self.rendition.name.clone();
        AssignError::Disagree { rendition, what, first_task: self.first_task, first_value, task, value }
    }

    /// A seam within the tolerance is closed by stretching the segment before it, so that positions never drift.
    fn check_seam(&mut self, start_ticks: u64, task: usize, file: &str) -> Result<(), AssignError> {
        let timescale = self.rendition.timescale;
        let Some(before) = self.rendition.segments.last_mut() else { return Ok(()) };
        let apart_ticks = before.end_ticks().abs_diff(start_ticks);
        let too_far = u128::from(apart_ticks) * 1_000_000 > u128::from(MAX_SEAM_US) * u128::from(timescale);
        if too_far || start_ticks <= before.start_ticks {
            return Err(AssignError::Seam {
                rendition: self.rendition.name.clone(),
                task,
                file: file.to_owned(),
                expected_ticks: before.end_ticks(),
                found_ticks: start_ticks,
                timescale,
            });
        }
        before.duration_ticks = start_ticks - before.start_ticks;
        Ok(())
    }
}

fn into_presentation(merging: Vec<Merging>, facts: Facts) -> Result<Presentation, AssignError> {
    let mut video: Vec<Rendition> = Vec::new();
    let mut audio: Option<Rendition> = None;
    for Merging { rendition, .. } in merging {
        if rendition.segments.is_empty() {
            return Err(AssignError::NoSegments { rendition: rendition.name });
        }
        match (&rendition.format, &audio) {
            (TrackFormat::Video { .. }, _) => video.push(rendition),
            (TrackFormat::Audio { .. }, None) => audio = Some(rendition),
            (TrackFormat::Audio { .. }, Some(first)) => {
                return Err(AssignError::SeveralSoundTracks {
                    first: first.name.clone(),
                    second: rendition.name,
                });
            }
        }
    }
    if video.is_empty() && audio.is_none() {
        return Err(AssignError::NoTracks);
    }
    // Stable, so that equal sizes keep the order of the plan.
    video.sort_by_key(|rendition| std::cmp::Reverse(rendition.pixel_count()));
    if let Some((first, others)) = video.split_first() {
        let us = first.end_us();
        if let Some(other) = others.iter().find(|other| other.end_us().abs_diff(us) > MAX_SEAM_US) {
            return Err(AssignError::DifferentLength {
                rendition: first.name.clone(),
                us,
                other: other.name.clone(),
                other_us: other.end_us(),
            });
        }
    }
    Ok(Presentation { video, audio, facts })
}
