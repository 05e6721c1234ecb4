//! **dispatch**: the control plane as a worker meets it: claim, heartbeat, report, and a ticket that says "look again".
//!
//! The in-process agent calls it through the agent's own trait, workers elsewhere through `http/worker`; both meet the
//! same functions. The catalogue is the truth, and everything here is a conversion: a claimed row with its plan becomes
//! a grant, a verdict comes from the row's state. Failing to reach the catalogue is told to the caller, who asks again.

mod ends;
pub(crate) mod fleet;
mod grants;
pub(crate) mod layouts;
pub(crate) mod orders;
mod ready;

pub(crate) use grants::{attempt_is_at_work, is_output_name, output_prefix};

use super::{FlowError, collect};
use crate::app::App;
use reelyard_agent::{
    control::{ControlPlane, ControlUnavailable, Depot},
    source::SourceBytes,
};
use reelyard_catalog::{CatalogError, ClaimWish, Claimed, EventKind, EventRow, Heartbeat, HeartbeatAnswer};
use reelyard_model::{
    Failure, FailureCode, TaskId, WorkerId,
    work::{Grant, Offer, Progress, Report, TaskKind, Verdict},
    worker_protocol::{Beat, Held},
};
use serde_json::json;
use std::{io, path::Path, sync::Arc, time::Duration};
use uuid::Uuid;

/// What the worker in this process is told: it sends a heartbeat at a third of it, which is also how fresh its progress
/// shows. A worker elsewhere is told all of the lease: it has to get over a restart of the server.
const IN_PROCESS_LEASE_MS: u64 = 9_000;
/// What the row says. Longer than what it takes to restart a server, so that this costs no worker its work.
pub(crate) const STORED_LEASE_MS: u64 = 30_000;
/// An idle worker looks without a ticket too: back-offs end silently, and tickets may be missed.
const POLL: Duration = Duration::from_secs(1);

/// What is asked for in one call.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) offers: Vec<Offer>,
    /// Tasks, of all offers together.
    pub(crate) most: usize,
    /// Of the lease, what the worker is told.
    pub(crate) told_lease_ms: u64,
    /// Where the answer may get lost.
    pub(crate) name: Option<Uuid>,
}

/// Tasks that fit these offers, each under a fresh lease. First what each offer prefers, then the rest of what it takes.
pub(crate) async fn claim(app: &App, claim: &Claim) -> Result<Vec<Grant>, FlowError> {
    let offers = &claim.offers;
    let mut free = free_slots(offers, claim.most);
    let mut grants = Vec::new();
    for first in [true, false] {
        let wishes: Vec<ClaimWish> =
            offers.iter().zip(&free).map(|(offer, slots)| wish(offer, first, *slots, claim.name)).collect();
        if app.shutdown.is_cancelled() {
            break;
        }
        if wishes.iter().all(|wish| wish.slots == 0 || wish.kinds.is_empty()) {
            continue;
        }
        let claimed = match app.desk.claim(wishes, app.fleet.lease_ms, app.now_ms()).await {
            Ok(claimed) => claimed,
            // What was granted already is not to wait for its lease.
            Err(error) if !grants.is_empty() => {
                tracing::warn!(%error, granted = grants.len(), "dispatch: a claim is answered in part");
                break;
            }
            Err(error) => return Err(error.into()),
        };
        for (slots, claimed) in free.iter_mut().zip(claimed) {
            for one in claimed {
                if let Some(grant) = grant_or_settle(app, one, claim.told_lease_ms).await {
                    *slots -= 1;
                    grants.push(grant);
                }
            }
        }
    }
    Ok(grants)
}

/// Gives back what claims of this worker brought whose answers it never heard.
pub(crate) async fn release_unheard(app: &App, worker: WorkerId, claims: &[Uuid]) -> Result<(), FlowError> {
    let released = app.catalog.release_unheard(worker, claims, app.now_ms()).await?;
    if released > 0 {
        tracing::info!(%worker, tasks = released, "dispatch: the answer of a claim was lost; its tasks are back in line");
        app.ring();
    }
    Ok(())
}

/// The slots of each offer, `most` of all together.
fn free_slots(offers: &[Offer], most: usize) -> Vec<u32> {
    let mut left = u32::try_from(most).unwrap_or(u32::MAX);
    let take = |offer: &Offer| {
        let slots = offer.slots.min(left);
        left -= slots;
        slots
    };
    offers.iter().map(take).collect()
}

fn wish(offer: &Offer, first: bool, slots: u32, claim: Option<Uuid>) -> ClaimWish {
    let is_first = |kind: &TaskKind| offer.prefers.is_empty() || offer.prefers.contains(kind);
    // Publishing is the control plane's own work.
    let kinds = offer.kinds.iter().copied().filter(|kind| *kind != TaskKind::Publish);
    let kinds = kinds.filter(|kind| is_first(kind) == first).collect();
    ClaimWish { worker: offer.worker, kinds, slots, claim }
}

/// `None`: what was claimed cannot be granted, and went back in line or was given up.
async fn grant_or_settle(app: &App, claimed: Claimed, told_lease_ms: u64) -> Option<Grant> {
    let (task, attempt) = (claimed.task.id, claimed.task.attempt);
    match grants::grant(app, claimed, told_lease_ms).await {
        Ok(grant) => return Some(grant),
        Err(grants::NoGrant::NotNow(error)) => {
            tracing::warn!(%task, %error, "dispatch: a task cannot be granted now and goes back in line");
            // What cannot be stored now is found when the lease runs out; the others' grants are not to wait for it.
            if let Err(error) = app.catalog.release(task, attempt, app.now_ms()).await {
                tracing::warn!(%task, %error, "dispatch: it keeps its lease until that is over");
            }
        }
        Err(grants::NoGrant::Never(failure)) => {
            tracing::error!(%task, %failure, "dispatch: a task cannot be granted");
            if let Err(error) = collect::failed(app, task, attempt, failure).await {
                tracing::warn!(%task, %error, "dispatch: it keeps its lease until that is over");
            }
        }
    }
    None
}

/// Prolongs the leases and stores the progress, in one transaction; in the order of the beats. `None`: it could not be
/// asked; an error where none could.
pub(crate) async fn heartbeats(app: &App, beats: &[Beat]) -> Result<Vec<Option<Verdict>>, FlowError> {
    match heartbeats_together(app, beats).await {
        Ok(verdicts) => Ok(verdicts.into_iter().map(Some).collect()),
        Err(error) if may_pass(&error) => Err(error),
        // Each alone, so that one that is in disorder does not speak for the others.
        Err(_) => {
            let mut verdicts = Vec::with_capacity(beats.len());
            for beat in beats {
                verdicts.push(heartbeat(app, beat.task, beat.attempt, beat.progress).await.ok());
            }
            Ok(verdicts)
        }
    }
}

async fn heartbeats_together(app: &App, beats: &[Beat]) -> Result<Vec<Verdict>, FlowError> {
    let now_ms = app.now_ms();
    let stored: Vec<Heartbeat> = beats
        .iter()
        .map(|beat| Heartbeat { task: beat.task, attempt: beat.attempt, progress: beat.progress })
        .collect();
    let answers = app.catalog.heartbeats(&stored, app.fleet.lease_ms, now_ms).await?;
    let goes_on = |(_, answer): &(&Beat, &HeartbeatAnswer)| **answer == HeartbeatAnswer::Continue;
    let continued = beats.iter().zip(&answers).filter(goes_on).map(|(beat, _)| *beat).collect::<Vec<_>>();
    announce_progress(app, &continued, now_ms).await;
    let verdict = |answer: &HeartbeatAnswer| match answer {
        HeartbeatAnswer::Continue => Verdict::Continue,
        HeartbeatAnswer::Cancelled => Verdict::Cancelled,
        HeartbeatAnswer::Lost => Verdict::Lost,
    };
    Ok(answers.iter().map(verdict).collect())
}

/// One of [`heartbeats`].
pub(crate) async fn heartbeat(
    app: &App,
    task: TaskId,
    attempt: u32,
    progress: Progress,
) -> Result<Verdict, FlowError> {
    match heartbeats_together(app, &[Beat { task, attempt, progress }]).await {
        Ok(verdicts) => Ok(verdicts.first().copied().unwrap_or(Verdict::Lost)),
        Err(error) => lost_unless_it_passes(task, error),
    }
}

/// Ends the attempt. Asked again, it answers as the first time.
pub(crate) async fn report(
    app: &App,
    task: TaskId,
    attempt: u32,
    report: Report,
) -> Result<Verdict, FlowError> {
    let report = match grants::outside_its_folder(&report) {
        Some(file) => {
            let detail = format!("the worker named a file that no child may make: {file:?}");
            Report::Failed { failure: Failure::new(FailureCode::Internal, detail) }
        }
        None => report,
    };
    match collect::collect(app, task, attempt, report).await {
        Ok(verdict) => Ok(verdict),
        Err(error) if may_pass(&error) => Err(error),
        Err(error) => {
            let detail = format!("its report could not be stored: {error}");
            let failure = Failure::new(FailureCode::Internal, detail);
            match collect::failed(app, task, attempt, failure).await {
                Ok(settled) => Ok(collect::verdict(settled)),
                Err(error) => lost_unless_it_passes(task, error),
            }
        }
    }
}

/// Back in line at once, and nothing is counted against it. False: it was not the worker's any more.
pub(crate) async fn release(app: &App, held: Held) -> Result<bool, FlowError> {
    let released = match app.catalog.release(held.task, held.attempt, app.now_ms()).await {
        Ok(released) => released,
        Err(CatalogError::NotFound { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    if released {
        tracing::info!(task = %held.task, attempt = held.attempt, "dispatch: a task was given back");
        app.ring();
    }
    Ok(released)
}

/// Whether the same call may work in a moment.
fn may_pass(error: &FlowError) -> bool {
    matches!(
        error,
        FlowError::Store(_)
            | FlowError::Catalog(CatalogError::Database(_) | CatalogError::Unavailable { .. })
    )
}

/// What never passes must not be asked for again for ever: that would hold the worker's slot, and its heartbeats the
/// lease. The worker lets go, the lease runs out, and the loss is counted.
fn lost_unless_it_passes(task: TaskId, error: FlowError) -> Result<Verdict, FlowError> {
    if may_pass(&error) {
        return Err(error);
    }
    tracing::error!(%task, %error, "dispatch: a task is in disorder; its worker lets it go");
    Ok(Verdict::Lost)
}

/// Passing news for the event stream. Failing is no matter: the next heartbeat brings newer.
async fn announce_progress(app: &App, beats: &[Beat], now_ms: i64) {
    let tasks: Vec<TaskId> = beats.iter().map(|beat| beat.task).collect();
    let Ok(labels) = app.catalog.task_labels(&tasks).await else {
        return;
    };
    for beat in beats {
        let Some(label) = labels.get(&beat.task) else { continue };
        app.catalog.announce(EventRow {
            seq: 0,
            at_ms: now_ms,
            tenant: label.tenant,
            kind: EventKind::TASK_PROGRESS.0.to_owned(),
            upload: None,
            asset: Some(label.asset),
            task: Some(beat.task),
            data: json!({
                "kind": label.kind, "ordinal": label.ordinal, "attempt": beat.attempt,
                "done_us": beat.progress.done_us, "total_us": beat.progress.total_us,
            }),
        });
    }
}

/// The control plane of the agent in this process.
pub(crate) struct InProcess {
    pub(crate) app: Arc<App>,
}

impl ControlPlane for InProcess {
    async fn claim(&self, offers: &[Offer]) -> Result<Vec<Grant>, ControlUnavailable> {
        // A database elsewhere may be away for a while, which is to cost nobody its work.
        let told_lease_ms = match self.app.catalog.is_shared() {
            true => self.app.fleet.lease_ms,
            false => IN_PROCESS_LEASE_MS.min(self.app.fleet.lease_ms),
        };
        // Nothing lies between us on which an answer could get lost.
        let wanted = Claim { offers: offers.to_vec(), most: usize::MAX, told_lease_ms, name: None };
        claim(&self.app, &wanted).await.map_err(unavailable)
    }

    async fn heartbeat(
        &self,
        task: TaskId,
        attempt: u32,
        progress: Progress,
    ) -> Result<Verdict, ControlUnavailable> {
        heartbeat(&self.app, task, attempt, progress).await.map_err(unavailable)
    }

    async fn report(&self, task: TaskId, attempt: u32, told: Report) -> Result<Verdict, ControlUnavailable> {
        report(&self.app, task, attempt, told).await.map_err(unavailable)
    }

    async fn release(&self, task: TaskId, attempt: u32) -> Result<(), ControlUnavailable> {
        release(&self.app, Held { task, attempt }).await.map_err(unavailable)?;
        Ok(())
    }

    async fn called_off(&self, task: TaskId, attempt: u32) -> Verdict {
        match ends::over(&self.app, Held { task, attempt }).await {
            Ok(verdict) => verdict,
            // The heartbeats tell it too.
            Err(error) => {
                tracing::warn!(%task, %error, "dispatch: a task is not watched for its cancellation");
                std::future::pending().await
            }
        }
    }

    async fn wait_for_ticket(&self, _: &[Offer]) {
        let _ = tokio::time::timeout(POLL, self.app.ticket.notified()).await;
    }
}

fn unavailable(error: impl std::fmt::Display) -> ControlUnavailable {
    ControlUnavailable(error.to_string())
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
