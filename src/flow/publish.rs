//! **publish**: finished outputs become something that plays.
//!
//! The control plane does this work itself, under a lease like any other, so that a crash in the middle is taken up.
//! The files of the winning attempts get a second name under `publications/{asset}/a{attempt}/` (on a disk a hard link,
//! in S3 a copy that S3 makes), the playlists are written beside them, everything is durable, and then one conditional
//! row update makes that directory the one that plays. Before that update nobody sees a thing; after it, the rest is
//! sweeping.

use super::{FlowError, collect, dispatch, receive};
use crate::app::{App, panic_text};
use futures::FutureExt as _;
use reelyard_catalog::{
    ClaimWish, Claimed, CompletedPublish, HeartbeatAnswer, PublishedRendition, Settled, TaskRow,
};
use reelyard_crash_points::crash_point;
use reelyard_manifest::{Assignment, Facts, Presentation};
use reelyard_model::{
    AssetId, Failure, FailureCode, Plan, TaskState,
    output::{StillsOutput, TrackFormat, TrackOutput},
    work::{Progress, TaskKind, TaskResult},
};
use reelyard_storage::StoreError;
use serde_json::json;
use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

/// Publishing writes no media, only names, or asks S3 for copies: even thousands of them take seconds.
const LEASE_MS: u64 = 60_000;
/// A third of the lease.
const BEAT: Duration = Duration::from_millis(LEASE_MS / 3);
const POLL: Duration = Duration::from_secs(1);

/// Publishes whatever is ready to be, until the server stops.
pub(crate) async fn run(app: Arc<App>) {
    while !app.shutdown.is_cancelled() {
        match publish_next(&app).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "publish: trying again"),
        }
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            _ = tokio::time::timeout(POLL, app.publish_ticket.notified()) => {}
        }
    }
}

/// Claims one publish task and does it. False: there was none.
pub(crate) async fn publish_next(app: &App) -> Result<bool, FlowError> {
    let wish =
        ClaimWish { worker: app.control_worker, kinds: vec![TaskKind::Publish], slots: 1, claim: None };
    let claimed = app.desk.claim(vec![wish], LEASE_MS, app.now_ms()).await?;
    let Some(claimed) = claimed.into_iter().flatten().next() else {
        return Ok(false);
    };
    let (task, attempt) = (claimed.task.id, claimed.task.attempt);
    let outcome = tokio::select! {
        outcome = unbroken(publish(app, &claimed)) => outcome,
        () = hold_lease(app, &claimed.task) => {
            tracing::warn!(asset = %claimed.task.asset, %task, "publish: broken off, the lease is over");
            return Ok(true);
        }
    };
    match outcome {
        Ok(Settled::Now) => {
            tracing::info!(asset = %claimed.task.asset, trace_id = receive::trace_id(&claimed.task.traceparent), attempt, "publish: asset ready");
            app.swept_ticket.notify_one();
        }
        Ok(settled) => tracing::warn!(%task, ?settled, "publish: came too late"),
        Err(PublishError::Failed(failure)) => {
            collect::failed(app, task, attempt, failure).await?;
        }
        Err(PublishError::Flow(error)) => {
            let failure = Failure::new(FailureCode::StorageFailed, error.to_string());
            collect::failed(app, task, attempt, failure).await?;
        }
    }
    Ok(true)
}

/// Returns when the lease is over.
async fn hold_lease(app: &App, task: &TaskRow) {
    loop {
        tokio::time::sleep(BEAT).await;
        let progress = Progress { done_us: 0, total_us: 0 };
        match app.catalog.heartbeat(task.id, task.attempt, progress, LEASE_MS, app.now_ms()).await {
            Ok(HeartbeatAnswer::Continue) => {}
            Ok(HeartbeatAnswer::Cancelled | HeartbeatAnswer::Lost) => return,
            Err(error) => tracing::warn!(%error, "publish: a heartbeat was not stored"),
        }
    }
}

/// A panic is a failure of this one task: the publisher goes on, and in the end the task is given up.
async fn unbroken<T>(work: impl Future<Output = Result<T, PublishError>>) -> Result<T, PublishError> {
    // Nothing that the work changed in memory is looked at again.
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        let detail = format!("publishing panicked: {}", panic_text(&*panic));
        Err(PublishError::Failed(Failure::new(FailureCode::Internal, detail)))
    })
}

#[derive(Debug)]
enum PublishError {
    /// The outputs do not make a publication.
    Failed(Failure),
    Flow(FlowError),
}

impl<E: Into<FlowError>> From<E> for PublishError {
    fn from(error: E) -> Self {
        Self::Flow(error.into())
    }
}

async fn publish(app: &App, claimed: &Claimed) -> Result<Settled, PublishError> {
    let asset = claimed.asset.id;
    let internal = |detail: String| PublishError::Failed(Failure::new(FailureCode::Internal, detail));
    let plan = claimed.plan.as_ref().ok_or_else(|| internal(format!("asset {asset} has no plan")))?;
    let outputs = Outputs::of(app.catalog.tasks_of_asset(asset).await?);
    let facts = Facts::from_plan(plan, outputs.stills.as_ref().map(|(_, stills)| stills));
    let tracks: Vec<Vec<TrackOutput>> = outputs.tracks.iter().map(|(_, tracks)| tracks.clone()).collect();
    let Assignment { placements, presentation } =
        reelyard_manifest::assign(&tracks, facts).map_err(|error| internal(error.to_string()))?;

    let prefix = format!("{}/a{}", publication_folder(asset), claimed.task.attempt);
    let mut copies: Vec<(String, String)> = placements
        .iter()
        .map(|placement| {
            let (from, _) = &outputs.tracks[placement.from_task];
            (format!("{from}/{}", placement.from_file), format!("{prefix}/{}", placement.to_path))
        })
        .collect();
    if let Some((from, stills)) = &outputs.stills {
        let files = std::iter::once(&stills.poster).chain(&stills.sprites).chain([&stills.sprite_index]);
        copies.extend(files.map(|file| (format!("{from}/{}", file.file), format!("{prefix}/{}", file.file))));
    }
    match app.store.copy_all(copies).await {
        Ok(()) => {}
        // An output that was reported as durable is gone: trying again cannot bring it back.
        Err(StoreError::NotFound { what }) => {
            return Err(internal(format!("an output of asset {asset} is missing in storage: {what}")));
        }
        Err(error) => return Err(error.into()),
    }
    for file in reelyard_manifest::text_files(&presentation) {
        app.store.put_bytes(&format!("{prefix}/{}", file.path), file.text.into()).await?;
    }
    crash_point!("publish-before-commit").map_err(StoreError::from)?;
    let done = CompletedPublish {
        task: claimed.task.id,
        attempt: claimed.task.attempt,
        prefix,
        summary: summary(plan, &presentation, outputs.stills.is_some()),
        renditions: renditions(&presentation),
        now_ms: app.now_ms(),
    };
    Ok(app.catalog.complete_publish(done).await?)
}

/// Storage prefix of all publishing attempts of an asset.
pub(crate) fn publication_folder(asset: AssetId) -> String {
    format!("publications/{asset}")
}

/// The winning outputs of an asset, each with the storage prefix that it lies under.
struct Outputs {
    /// By chunk, then the sound.
    tracks: Vec<(String, Vec<TrackOutput>)>,
    stills: Option<(String, StillsOutput)>,
}

impl Outputs {
    fn of(tasks: Vec<TaskRow>) -> Self {
        let mut tracks = BTreeMap::new();
        let mut stills_output = None;
        for task in tasks {
            let (TaskState::Done, Some(attempt)) = (task.state, task.done_attempt) else {
                continue;
            };
            let prefix = dispatch::output_prefix(task.asset, task.id, attempt);
            match task.result {
                Some(TaskResult::Encoded { tracks: made, .. }) => {
                    tracks.insert((task.kind == TaskKind::Audio, task.ordinal), (prefix, made));
                }
                Some(TaskResult::Stills { stills }) => stills_output = Some((prefix, stills)),
                Some(TaskResult::Probed { .. } | TaskResult::Published) | None => {}
            }
        }
        Self { tracks: tracks.into_values().collect(), stills: stills_output }
    }
}

fn renditions(presentation: &Presentation) -> Vec<PublishedRendition> {
    presentation
        .renditions()
        .map(|rendition| PublishedRendition {
            name: rendition.name.clone(),
            codecs: rendition.codecs.clone(),
            byte_len: rendition.segments.iter().map(|segment| segment.byte_len).sum(),
        })
        .collect()
}

/// What there is to play, for pages and the API; version 1.
fn summary(plan: &Plan, presentation: &Presentation, has_stills: bool) -> serde_json::Value {
    let renditions: Vec<_> = presentation
        .renditions()
        .map(|rendition| match rendition.format {
            TrackFormat::Video { width, height } => {
                json!({ "name": rendition.name, "codecs": rendition.codecs, "width": width, "height": height })
            }
            TrackFormat::Audio { sample_rate, channels } => {
                json!({ "name": rendition.name, "codecs": rendition.codecs, "sample_rate": sample_rate, "channels": channels })
            }
        })
        .collect();
    json!({
        "version": 1,
        "duration_us": presentation.duration_us(),
        "has_video": plan.video.is_some(),
        "has_sound": presentation.audio.is_some(),
        "has_stills": has_stills,
        "renditions": renditions,
    })
}

#[cfg(test)]
mod tests {
    use super::{PublishError, unbroken};
    use reelyard_model::FailureCode;

    #[tokio::test]
    async fn a_panic_is_a_failure_of_the_task_with_its_text() {
        let broken = unbroken(async {
            assert!(std::hint::black_box(false), "outputs that fit");
            Ok(())
        });
        let Err(PublishError::Failed(failure)) = broken.await else { panic!("not a failure") };
        assert_eq!(failure.code, FailureCode::Internal);
        assert!(failure.detail.contains("outputs that fit"), "{}", failure.detail);
    }
}
