//! What a grant is made of, from the rows: the job out of the plan, the source's whereabouts, the folder for outputs;
//! and the rules about that folder.

use crate::{app::App, flow::FlowError};
use reelyard_catalog::{CatalogError, Claimed, TaskRow};
use reelyard_model::{
    AssetId, Failure, FailureCode, Plan, TaskId, TaskState,
    child::{EncoderChoice, Job, Limits},
    output::FileOutput,
    work::SourceLayout,
    work::{Grant, Report, TaskKind, TaskResult},
    worker_protocol::Held,
};
use reelyard_storage::StoreError;

/// A rung's name and a file's fit many times.
const MAX_OUTPUT_NAME_BYTES: usize = 200;

/// A source in more pieces is one that was just uploaded in thousands of parts, and will be one piece soon. Its layout in
/// each of 64 grants would be most of their answer; a worker that misses a piece asks for the layout.
const MAX_PIECES: usize = 500;

/// Why a claimed task is not granted.
pub(super) enum NoGrant {
    /// The catalogue or the store does not answer: it goes back in line.
    NotNow(FlowError),
    Never(Failure),
}

impl From<Failure> for NoGrant {
    fn from(failure: Failure) -> Self {
        Self::Never(failure)
    }
}

pub(super) async fn grant(app: &App, claimed: Claimed, lease_ms: u64) -> Result<Grant, NoGrant> {
    let Claimed { task, asset, plan } = claimed;
    let source = match app.layouts.of(&*app.uploads, &asset.source_key).await {
        Ok(layout) if layout.pieces.len() > MAX_PIECES => SourceLayout { pieces: Vec::new(), ..layout },
        Ok(layout) => layout,
        Err(StoreError::NotFound { .. }) => {
            let detail = format!("the source {} is not there", asset.source_key);
            return Err(Failure::new(FailureCode::SourceMissing, detail).into());
        }
        Err(error) => return Err(NoGrant::NotNow(error.into())),
    };
    let encoder = encoder_of(asset.encoder.as_deref());
    let job = job(asset.id, task.kind, task.ordinal, plan.as_deref(), encoder)?;
    Ok(Grant {
        task: task.id,
        asset: asset.id,
        kind: task.kind,
        attempt: task.attempt,
        job,
        limits: Limits::default(),
        source_key: asset.source_key,
        source,
        output_prefix: output_prefix(asset.id, task.id, task.attempt),
        lease_ms,
        traceparent: task.traceparent,
    })
}

/// Where an attempt's files go.
pub(crate) fn output_prefix(asset: AssetId, task: TaskId, attempt: u32) -> String {
    format!("renditions/{asset}/{task}/a{attempt}")
}

fn job(
    asset: AssetId,
    kind: TaskKind,
    ordinal: u32,
    plan: Option<&Plan>,
    encoder: EncoderChoice,
) -> Result<Job, Failure> {
    let missing = |what: &str| {
        Failure::new(
            FailureCode::Internal,
            format!("asset {asset} has a task of kind {} but {what}", kind.as_str()),
        )
    };
    if kind == TaskKind::Probe {
        return Ok(Job::Probe);
    }
    let plan = plan.ok_or_else(|| missing("no plan"))?;
    match kind {
        TaskKind::Encode => {
            let mut video = plan.video.clone().ok_or_else(|| missing("no pictures in its plan"))?;
            let chunk = video.chunks.iter().find(|chunk| chunk.index == ordinal).copied();
            let chunk = chunk.ok_or_else(|| missing("no such chunk in its plan"))?;
            // The child has its own beside, and of the others it wants to know whether there are any: all of them
            // would be most of a grant, hundreds of times over for a long film.
            video.chunks.truncate(2);
            Ok(Job::Encode { video, chunk, encoder })
        }
        TaskKind::Audio => {
            Ok(Job::Audio { audio: plan.audio.clone().ok_or_else(|| missing("no sound in its plan"))? })
        }
        TaskKind::Stills => {
            Ok(Job::Stills { stills: plan.stills.clone().ok_or_else(|| missing("no stills in its plan"))? })
        }
        TaskKind::Probe | TaskKind::Publish => Err(missing("that is no work for a media child")),
    }
}

/// A rendition keeps one encoder family over all its chunks: the one that made the first that is done.
fn encoder_of(used: Option<&str>) -> EncoderChoice {
    match used {
        Some(encoder) if encoder.contains("nvenc") => EncoderChoice::Nvenc,
        Some(_) => EncoderChoice::X264,
        None => EncoderChoice::Probe,
    }
}

/// The row of a task whose attempt this is and that is at work; `None`: it is over.
pub(crate) async fn attempt_is_at_work(app: &App, held: Held) -> Result<Option<TaskRow>, CatalogError> {
    let row = app.catalog.task(held.task).await?;
    Ok(row.filter(|row| row.attempt == held.attempt && row.state == TaskState::Leased))
}

/// The first file of a result that does not lie inside the folder of its attempt.
pub(super) fn outside_its_folder(report: &Report) -> Option<&str> {
    let Report::Completed { result } = report else { return None };
    let files: Vec<&FileOutput> = match result {
        TaskResult::Probed { .. } | TaskResult::Published => Vec::new(),
        TaskResult::Encoded { tracks, .. } => tracks
            .iter()
            .flat_map(|track| std::iter::once(&track.init).chain(track.segments.iter().map(|one| &one.file)))
            .collect(),
        TaskResult::Stills { stills } => {
            [&stills.poster, &stills.sprite_index].into_iter().chain(&stills.sprites).collect()
        }
    };
    files.into_iter().map(|file| file.file.as_str()).find(|file| !is_output_name(file))
}

/// `1080p/00001.m4s`: plain names, at most one folder deep, no way up, nothing hidden. As the store's keys are.
pub(crate) fn is_output_name(file: &str) -> bool {
    let is_name = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    file.len() <= MAX_OUTPUT_NAME_BYTES && file.split('/').count() <= 2 && file.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::is_output_name;

    #[test]
    fn outputs_lie_inside_the_folder_of_their_attempt() {
        for yes in ["poster.jpg", "1080p/00001.m4s", "audio/init.mp4"] {
            assert!(is_output_name(yes), "{yes}");
        }
        for no in [
            "",
            "/etc/passwd",
            "../a2/init.mp4",
            "a/../../b",
            "a/b/c",
            ".hidden",
            "a//b",
            "a b",
            "a/",
            "a\\b",
        ] {
            assert!(!is_output_name(no), "{no:?}");
        }
    }
}
