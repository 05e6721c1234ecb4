//! **dispatch**: the control plane as a worker meets it: claim, heartbeat, report, and a ticket that says "look again".
//!
//! The in-process agent calls it through the agent's own trait; the catalogue is the truth, and everything here is a
//! conversion: a claimed row with its plan becomes a grant, a verdict comes from the row's state. Failing to reach the
//! catalogue is told to the agent, which asks again.

use super::{FlowError, collect};
use crate::app::App;
use reelyard_agent::{
    control::{ControlPlane, ControlUnavailable, Depot},
    source::SourceBytes,
};
use reelyard_catalog::{CatalogError, ClaimRequest, Claimed, EventKind, EventRow, HeartbeatAnswer};
use reelyard_model::{
    AssetId, Failure, FailureCode, Plan, TaskId,
    child::{EncoderChoice, Job, Limits},
    work::{Grant, Offer, Progress, Report, TaskKind, Verdict},
};
use serde_json::json;
use std::{io, path::Path, sync::Arc, time::Duration};

/// What the worker is told: it sends a heartbeat at a third of it, which is also how fresh its progress shows.
const GRANTED_LEASE_MS: u64 = 9_000;
/// What the row says. Longer, so that a heartbeat that waits behind a slow disk costs nobody his work.
pub(crate) const STORED_LEASE_MS: u64 = 30_000;
/// An idle worker looks without a ticket too: back-offs end silently, and tickets may be missed.
const POLL: Duration = Duration::from_secs(1);

/// The control plane of the agent in this process.
pub(crate) struct InProcess {
    pub(crate) app: Arc<App>,
}

impl ControlPlane for InProcess {
    async fn claim(&self, offer: &Offer) -> Result<Option<Grant>, ControlUnavailable> {
        if self.app.shutdown.is_cancelled() {
            return Ok(None);
        }
        let request = ClaimRequest {
            worker: offer.worker,
            // Publishing is the control plane's own work.
            kinds: offer.kinds.iter().copied().filter(|kind| *kind != TaskKind::Publish).collect(),
            lease_ms: STORED_LEASE_MS,
            now_ms: self.app.now_ms(),
        };
        let Some(claimed) = self.app.catalog.claim(&request).await.map_err(unavailable)? else {
            return Ok(None);
        };
        let (task, attempt) = (claimed.task.id, claimed.task.attempt);
        match grant(&self.app, claimed).await {
            Ok(grant) => Ok(Some(grant)),
            Err(failure) => {
                tracing::error!(%task, %failure, "dispatch: a task cannot be granted");
                collect::failed(&self.app, task, attempt, failure).await.map_err(unavailable)?;
                Ok(None)
            }
        }
    }

    async fn heartbeat(
        &self,
        task: TaskId,
        attempt: u32,
        progress: Progress,
    ) -> Result<Verdict, ControlUnavailable> {
        let now_ms = self.app.now_ms();
        match self.app.catalog.heartbeat(task, attempt, progress, STORED_LEASE_MS, now_ms).await {
            Ok(HeartbeatAnswer::Continue) => {
                announce_progress(&self.app, task, attempt, progress, now_ms).await;
                Ok(Verdict::Continue)
            }
            Ok(HeartbeatAnswer::Cancelled) => Ok(Verdict::Cancelled),
            Ok(HeartbeatAnswer::Lost) => Ok(Verdict::Lost),
            Err(error) => lost_unless_it_passes(task, error.into()),
        }
    }

    async fn report(
        &self,
        task: TaskId,
        attempt: u32,
        report: Report,
    ) -> Result<Verdict, ControlUnavailable> {
        match collect::collect(&self.app, task, attempt, report).await {
            Ok(verdict) => Ok(verdict),
            Err(error) if may_pass(&error) => Err(unavailable(error)),
            Err(error) => {
                let detail = format!("its report could not be stored: {error}");
                let failure = Failure::new(FailureCode::Internal, detail);
                match collect::failed(&self.app, task, attempt, failure).await {
                    Ok(settled) => Ok(collect::verdict(settled)),
                    Err(error) => lost_unless_it_passes(task, error),
                }
            }
        }
    }

    async fn wait_for_ticket(&self) {
        let _ = tokio::time::timeout(POLL, self.app.ticket.notified()).await;
    }
}

/// Whether the same call may work in a moment.
fn may_pass(error: &FlowError) -> bool {
    matches!(error, FlowError::Store(_) | FlowError::Catalog(CatalogError::Database(_)))
}

/// What never passes must not be asked for again for ever: that would hold the worker's slot, and its heartbeats the
/// lease. The worker lets go, the lease runs out, and the loss is counted.
fn lost_unless_it_passes(task: TaskId, error: FlowError) -> Result<Verdict, ControlUnavailable> {
    if may_pass(&error) {
        return Err(unavailable(error));
    }
    tracing::error!(%task, %error, "dispatch: a task is in disorder; its worker lets it go");
    Ok(Verdict::Lost)
}

fn unavailable(error: impl std::fmt::Display) -> ControlUnavailable {
    ControlUnavailable(error.to_string())
}

/// Passing news for the event stream. Failing is no matter: the next heartbeat brings newer.
async fn announce_progress(app: &App, task: TaskId, attempt: u32, progress: Progress, now_ms: i64) {
    let Ok(Some(row)) = app.catalog.task(task).await else {
        return;
    };
    app.catalog.announce(EventRow {
        seq: 0,
        at_ms: now_ms,
        tenant: row.tenant,
        kind: EventKind::TASK_PROGRESS.0.to_owned(),
        upload: None,
        asset: Some(row.asset),
        task: Some(task),
        data: json!({
            "kind": row.kind, "ordinal": row.ordinal, "attempt": attempt,
            "done_us": progress.done_us, "total_us": progress.total_us,
        }),
    });
}

async fn grant(app: &App, claimed: Claimed) -> Result<Grant, Failure> {
    let Claimed { task, asset, plan } = claimed;
    let job = job(app, asset.id, task.kind, task.ordinal, plan).await?;
    Ok(Grant {
        task: task.id,
        asset: asset.id,
        kind: task.kind,
        attempt: task.attempt,
        job,
        limits: Limits::default(),
        source_key: asset.source_key,
        output_prefix: output_prefix(asset.id, task.id, task.attempt),
        lease_ms: GRANTED_LEASE_MS,
        traceparent: task.traceparent,
    })
}

/// Where an attempt's files go.
pub(crate) fn output_prefix(asset: AssetId, task: TaskId, attempt: u32) -> String {
    format!("renditions/{asset}/{task}/a{attempt}")
}

async fn job(
    app: &App,
    asset: AssetId,
    kind: TaskKind,
    ordinal: u32,
    plan: Option<Plan>,
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
            let video = plan.video.ok_or_else(|| missing("no pictures in its plan"))?;
            let chunk = video.chunks.iter().find(|chunk| chunk.index == ordinal).copied();
            let chunk = chunk.ok_or_else(|| missing("no such chunk in its plan"))?;
            let encoder = encoder_of(app, asset).await;
            Ok(Job::Encode { video, chunk, encoder })
        }
        TaskKind::Audio => {
            Ok(Job::Audio { audio: plan.audio.ok_or_else(|| missing("no sound in its plan"))? })
        }
        TaskKind::Stills => {
            Ok(Job::Stills { stills: plan.stills.ok_or_else(|| missing("no stills in its plan"))? })
        }
        TaskKind::Probe | TaskKind::Publish => Err(missing("that is no work for a media child")),
    }
}

/// A rendition keeps one encoder family over all its chunks: the one that made the first that is done.
async fn encoder_of(app: &App, asset: AssetId) -> EncoderChoice {
    match app.catalog.encoder_in_use(asset).await {
        Ok(Some(encoder)) if encoder.contains("nvenc") => EncoderChoice::Nvenc,
        Ok(Some(_)) => EncoderChoice::X264,
        Ok(None) => EncoderChoice::Probe,
        Err(error) => {
            tracing::warn!(%asset, %error, "dispatch: the encoder of the other chunks is unknown");
            EncoderChoice::Probe
        }
    }
}

/// The bytes as the in-process agent meets them.
pub(crate) struct LocalDepot {
    pub(crate) app: Arc<App>,
}

impl Depot for LocalDepot {
    async fn open_source(&self, grant: &Grant) -> io::Result<SourceBytes> {
        let opened = self.app.uploads.open_source(&grant.source_key).await;
        opened.map(SourceBytes::File).map_err(io::Error::other)
    }

    async fn keep(&self, scratch_file: &Path, key: &str) -> io::Result<()> {
        self.app.store.put_file(scratch_file, key).await.map_err(io::Error::other)
    }
}
