//! An asset as the API shows it: pure functions from rows to JSON forms.
//!
//! Called by `assets` and `watch`. Public text and operator text stay apart: `failure.message` is for creators,
//! `failure.detail` for whoever holds an API key.

use super::links::{self, PlaybackLinks};
use reelyard_catalog::{AssetRow, RenditionRow, TaskRow};
use reelyard_model::{
    AssetState, Failure, MediaInfo, PlaybackId, TaskState,
    media_info::{AudioTrack, Hdr, VideoTrack},
    work::TaskKind,
};
use serde::Serialize;
use utoipa::ToSchema;

/// One video: its source and all that was made of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Asset {
    #[schema(example = "019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01")]
    pub(super) id: String,
    #[schema(example = "holiday.mp4")]
    pub(super) title: String,
    /// `waiting`, `processing`, `ready`, `failed`, `cancelled` or `deleted`.
    #[schema(example = "ready")]
    pub(super) state: &'static str,
    #[schema(example = "web-h264")]
    pub(super) preset: String,
    pub(super) byte_len: u64,
    /// Of the source, lower-case hexadecimal.
    pub(super) sha256: String,
    pub(super) created_at: String,
    pub(super) updated_at: String,
    pub(super) ready_at: Option<String>,
    pub(super) progress: Progress,
    /// Facts about the source; null until it was probed.
    pub(super) media: Option<Media>,
    /// Largest picture first, sound last; empty until the plan is made.
    pub(super) renditions: Vec<Rendition>,
    /// What is odd about the source but did no harm: sentences for the creator.
    pub(super) warnings: Vec<String>,
    /// Why it failed; null unless `state` is `failed`.
    pub(super) failure: Option<FailureView>,
    /// Null until the plan is made.
    pub(super) playback: Option<Playback>,
    /// W3C trace id, the same in every log line about this asset.
    pub(super) trace_id: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Progress {
    /// From 0 to 1, over all stages.
    #[schema(example = 0.42)]
    pub(super) fraction: f64,
    pub(super) stages: Vec<Stage>,
}

/// All jobs of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Stage {
    /// `probe`, `encode`, `audio`, `stills` or `publish`.
    #[schema(example = "encode")]
    pub(super) kind: &'static str,
    /// `waiting`, `running`, `retrying`, `done`, `failed` or `cancelled`.
    #[schema(example = "running")]
    pub(super) state: &'static str,
    /// From 0 to 1.
    pub(super) progress: f64,
    pub(super) jobs: u32,
    pub(super) jobs_done: u32,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Media {
    /// FFmpeg's demuxer name.
    #[schema(example = "mov,mp4,m4a,3gp,3g2,mj2")]
    pub(super) container: String,
    pub(super) duration_seconds: f64,
    pub(super) video: Option<Video>,
    pub(super) audio: Option<Audio>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Video {
    #[schema(example = "h264")]
    pub(super) codec: String,
    /// As shown: upright, with square pixels.
    pub(super) width: u32,
    pub(super) height: u32,
    /// Pictures per second; the average where it varies.
    #[schema(example = 29.97)]
    pub(super) frame_rate: f64,
    pub(super) variable_frame_rate: bool,
    /// Clockwise quarter turns that were needed to turn it upright.
    pub(super) quarter_turns_clockwise: u8,
    pub(super) interlaced: bool,
    pub(super) bit_depth: u8,
    pub(super) hdr: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Audio {
    #[schema(example = "aac")]
    pub(super) codec: String,
    pub(super) sample_rate: u32,
    pub(super) channels: u32,
    pub(super) language: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rendition {
    #[schema(example = "720p")]
    pub(super) name: String,
    /// `video` or `audio`.
    pub(super) kind: String,
    pub(super) width: Option<u32>,
    pub(super) height: Option<u32>,
    /// Bits per second.
    pub(super) max_bit_rate: u64,
    /// RFC 6381; null until published.
    #[schema(example = "avc1.64001f")]
    pub(super) codecs: Option<String>,
    pub(super) byte_len: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FailureView {
    /// Stable name.
    #[schema(example = "not_media")]
    pub(super) code: String,
    /// `bad_input`, `capacity`, `infrastructure` or `internal`.
    #[schema(example = "bad_input")]
    pub(super) class: String,
    /// For the person who uploaded the file.
    pub(super) message: String,
    /// For the operator: never show it to creators.
    pub(super) detail: String,
    /// The end of the media program's standard error, where it ran.
    pub(super) stderr_tail: String,
}

/// Where it plays. The signed addresses are null until the asset is ready, and stop working at `expires_at`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Playback {
    /// Not the asset's id: viewers see this one.
    id: String,
    /// The page where it plays. It can be handed out before the video is ready: it shows the progress until then.
    watch: String,
    /// HLS, for hls.js, Safari and most players.
    #[schema(
        example = "http://127.0.0.1:8080/p/v1.k1.1800000000.qB9X/019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01/master.m3u8"
    )]
    hls: Option<String>,
    /// DASH over the same segments.
    dash: Option<String>,
    /// A JPEG; null for sound alone.
    poster: Option<String>,
    /// WebVTT index of the preview pictures; null for sound alone.
    sprites: Option<String>,
    /// RFC 3339.
    #[schema(example = "2026-11-21T06:00:00.000Z")]
    expires_at: Option<String>,
}

impl Playback {
    /// `links`: once it plays.
    pub(super) fn new(id: PlaybackId, watch: String, links: Option<PlaybackLinks>) -> Self {
        let id = id.to_string();
        match links {
            None => Self { id, watch, hls: None, dash: None, poster: None, sprites: None, expires_at: None },
            Some(PlaybackLinks { hls, dash, poster, sprites, expires_at }) => Self {
                id,
                watch,
                hls: Some(hls),
                dash: Some(dash),
                poster,
                sprites,
                expires_at: Some(expires_at),
            },
        }
    }
}

/// What an asset is shown from.
pub(super) struct Parts {
    pub(super) row: AssetRow,
    pub(super) tasks: Vec<TaskRow>,
    pub(super) renditions: Vec<RenditionRow>,
    pub(super) playback: Option<Playback>,
}

impl From<Parts> for Asset {
    fn from(parts: Parts) -> Self {
        let Parts { row, tasks, renditions, playback } = parts;
        Self {
            id: row.id.to_string(),
            state: row.state.as_str(),
            progress: progress(row.state, &tasks),
            media: row.media_info.as_ref().map(media),
            title: row.title,
            preset: row.preset,
            byte_len: row.byte_len,
            sha256: row.sha256,
            created_at: links::rfc3339(row.created_ms),
            updated_at: links::rfc3339(row.updated_ms),
            ready_at: row.ready_ms.map(links::rfc3339),
            renditions: renditions.into_iter().map(rendition).collect(),
            warnings: row.warnings,
            failure: row.failure.as_ref().map(final_failure),
            playback,
            trace_id: trace_id(&row.traceparent),
        }
    }
}

pub(super) fn failure(failure: &Failure) -> FailureView {
    FailureView {
        code: json_name(&failure.code),
        class: json_name(&failure.class()),
        message: failure.code.for_creator().to_owned(),
        detail: failure.detail.clone(),
        stderr_tail: failure.stderr_tail.clone(),
    }
}

/// Of what was given up: no text may promise another try.
pub(super) fn final_failure(cause: &Failure) -> FailureView {
    FailureView { message: cause.code.for_creator_at_last(), ..failure(cause) }
}

/// The name that serde gives to a variant without fields.
fn json_name(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The trace id of a `traceparent`.
pub(super) fn trace_id(traceparent: &str) -> String {
    traceparent.split('-').nth(1).unwrap_or_default().to_owned()
}

fn rendition(row: RenditionRow) -> Rendition {
    Rendition {
        name: row.name,
        kind: row.kind,
        width: row.width,
        height: row.height,
        max_bit_rate: row.max_bit_rate,
        codecs: row.codecs,
        byte_len: row.byte_len,
    }
}

fn media(info: &MediaInfo) -> Media {
    Media {
        container: info.container.clone(),
        duration_seconds: info.duration_us as f64 / 1e6,
        video: info.video.first().map(video),
        audio: info.audio.first().map(audio),
    }
}

fn video(track: &VideoTrack) -> Video {
    let aspect = track.sample_aspect_ratio.as_f64();
    // Files lie about the shape of pixels: what is not a sane ratio counts as square.
    let aspect = if aspect.is_finite() && (0.01..=100.0).contains(&aspect) { aspect } else { 1.0 };
    let width = (f64::from(track.width) * aspect).round() as u32;
    let lies_down = track.orientation.quarter_turns_clockwise % 2 == 1;
    let (width, height) = if lies_down { (track.height, width) } else { (width, track.height) };
    let frame_rate = track.frame_rate.nominal().as_f64();
    Video {
        codec: track.codec.clone(),
        width,
        height,
        frame_rate: if frame_rate.is_finite() { (frame_rate * 1000.0).round() / 1000.0 } else { 0.0 },
        variable_frame_rate: matches!(
            track.frame_rate,
            reelyard_model::media_info::FrameRate::Variable { .. }
        ),
        quarter_turns_clockwise: track.orientation.quarter_turns_clockwise,
        interlaced: track.interlaced,
        bit_depth: track.bit_depth,
        hdr: track.colour.hdr != Hdr::None,
    }
}

fn audio(track: &AudioTrack) -> Audio {
    Audio {
        codec: track.codec.clone(),
        sample_rate: track.sample_rate,
        channels: track.channels,
        language: track.language.clone(),
    }
}

/// Share of the whole that a stage usually takes: encoding dwarfs the rest.
fn weight(kind: TaskKind) -> f64 {
    match kind {
        TaskKind::Probe => 2.0,
        TaskKind::Encode => 80.0,
        TaskKind::Audio => 8.0,
        TaskKind::Stills => 6.0,
        TaskKind::Publish => 4.0,
    }
}

pub(super) fn progress(state: AssetState, tasks: &[TaskRow]) -> Progress {
    let stages: Vec<(TaskKind, Stage)> =
        TaskKind::ALL.into_iter().filter_map(|kind| Some((kind, stage(kind, tasks)?))).collect();
    // Before there is a plan the other stages are unknown but sure to come.
    let planned = stages.iter().any(|(kind, _)| *kind != TaskKind::Probe);
    let whole: f64 = TaskKind::ALL
        .into_iter()
        .filter(|kind| !planned || stages.iter().any(|(known, _)| known == kind))
        .map(weight)
        .sum();
    let done: f64 = stages.iter().map(|(kind, stage)| weight(*kind) * stage.progress).sum();
    let fraction = if state == AssetState::Ready { 1.0 } else { (done / whole.max(1.0)).clamp(0.0, 1.0) };
    Progress { fraction: round(fraction), stages: stages.into_iter().map(|(_, stage)| stage).collect() }
}

fn stage(kind: TaskKind, tasks: &[TaskRow]) -> Option<Stage> {
    let tasks: Vec<&TaskRow> = tasks.iter().filter(|task| task.kind == kind).collect();
    if tasks.is_empty() {
        return None;
    }
    let has = |state: TaskState| tasks.iter().any(|task| task.state == state);
    let jobs_done = tasks.iter().filter(|task| task.state == TaskState::Done).count();
    let state = if jobs_done == tasks.len() {
        "done"
    } else if has(TaskState::Dead) {
        "failed"
    } else if has(TaskState::Cancelled) {
        "cancelled"
    } else if has(TaskState::Leased) {
        "running"
    } else if has(TaskState::RetryWait) {
        "retrying"
    } else {
        "waiting"
    };
    let progress = tasks.iter().map(|task| task_fraction(task)).sum::<f64>() / tasks.len() as f64;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Some(Stage {
        kind: kind.as_str(),
        state,
        progress: round(progress),
        jobs: count(tasks.len()),
        jobs_done: count(jobs_done),
    })
}

/// From 0 to 1; what is finished counts whole, whatever was last reported.
pub(super) fn task_fraction(task: &TaskRow) -> f64 {
    match task.state {
        TaskState::Done => 1.0,
        TaskState::Leased if task.total_us > 0 => {
            (task.done_us as f64 / task.total_us as f64).clamp(0.0, 1.0)
        }
        _ => 0.0,
    }
}

/// Three digits: more would change with every heartbeat without telling anything.
fn round(fraction: f64) -> f64 {
    (fraction * 1000.0).floor() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::{progress, trace_id};
    use reelyard_catalog::TaskRow;
    use reelyard_model::{AssetId, AssetState, TaskId, TaskState, TenantId, work::TaskKind};
    use uuid::Uuid;

    fn task(kind: TaskKind, state: TaskState, done_us: i64, total_us: i64) -> TaskRow {
        TaskRow {
            id: TaskId::from_uuid(Uuid::from_u128(1)),
            asset: AssetId::from_uuid(Uuid::from_u128(2)),
            tenant: TenantId::DEFAULT,
            kind,
            ordinal: 0,
            required: true,
            state,
            priority: 0,
            tier: reelyard_model::Tier::Normal,
            ready_ms: 0,
            attempt: 1,
            worker: None,
            lease_until_ms: None,
            not_before_ms: 0,
            failed_count: 0,
            lost_count: 0,
            restart_count: 0,
            failure: None,
            done_us,
            total_us,
            result: None,
            done_attempt: None,
            traceparent: String::new(),
            created_ms: 0,
            updated_ms: 0,
            started_ms: None,
            finished_ms: None,
        }
    }

    #[test]
    fn progress_rises_from_probe_to_ready() {
        let probing = [task(TaskKind::Probe, TaskState::Leased, 50, 100)];
        assert_eq!(progress(AssetState::Waiting, &probing).fraction, 0.01);

        let encoding = [
            task(TaskKind::Probe, TaskState::Done, 0, 0),
            task(TaskKind::Encode, TaskState::Done, 0, 0),
            task(TaskKind::Encode, TaskState::Leased, 50, 100),
            task(TaskKind::Publish, TaskState::Blocked, 0, 0),
        ];
        let seen = progress(AssetState::Processing, &encoding);
        // (2 * 1 + 80 * 0.75 + 4 * 0) of 86: this asset has neither sound nor stills.
        assert_eq!(seen.fraction, 0.72);
        let stages: Vec<_> =
            seen.stages.iter().map(|stage| (stage.kind, stage.state, stage.progress)).collect();
        assert_eq!(
            stages,
            [("probe", "done", 1.0), ("encode", "running", 0.75), ("publish", "waiting", 0.0)]
        );
        assert_eq!(progress(AssetState::Ready, &encoding).fraction, 1.0);
    }

    #[test]
    fn a_retry_counts_its_attempt_from_zero() {
        let waiting = [task(TaskKind::Encode, TaskState::RetryWait, 90, 100)];
        let seen = progress(AssetState::Processing, &waiting);
        assert_eq!((seen.stages[0].state, seen.stages[0].progress), ("retrying", 0.0));
    }

    #[test]
    fn the_trace_id_is_the_second_field() {
        assert_eq!(
            trace_id("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(trace_id(""), "");
    }
}
