//! The loop: some slots, each of which claims a task, works on it, and claims the next.
//!
//! Ending it takes two steps. *Drain*: claim nothing more, finish what is being done, within a limit. *Now*: kill the
//! children, say so, and go.

use crate::{
    attempt::{Workshop, work},
    control::{ControlPlane, ControlUnavailable, Depot},
    machine::Slots,
    scratch,
};
use reelyard_model::{
    WorkerId,
    work::{Grant, Offer, TaskKind},
};
use reelyard_sandbox::supervise::Watch;
use std::{io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::Instrument;

/// Between claims that were not answered, doubled up to the second.
const CLAIM_PAUSE: Duration = Duration::from_millis(250);
const CLAIM_LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// From "now" to the end: a kill takes milliseconds, a last report a little more.
const NOW_GRACE: Duration = Duration::from_secs(5);

/// What a slot asks for, one after the other until there is something. A slot for heavy work looks for an encode
/// first: that is the longest of all, and the light slot can do the rest beside it.
const HEAVY_KINDS: &[&[TaskKind]] = &[&[TaskKind::Encode], LIGHT_KINDS[0]];
const LIGHT_KINDS: &[&[TaskKind]] = &[&[TaskKind::Probe, TaskKind::Audio, TaskKind::Stills]];

#[derive(Clone, Debug)]
pub struct AgentConfig {
    pub worker: WorkerId,
    /// From [`crate::locate_media_program`].
    pub program: PathBuf,
    /// Root of the scratch directories, this agent's alone: it is emptied at start. Best on the same file system as
    /// the depot, where a file is kept by renaming it.
    pub scratch: PathBuf,
    /// From [`Slots::for_machine`].
    pub slots: Slots,
    pub memory_bytes: u64,
    pub watch: Watch,
    /// How long running tasks have when the program is asked to end.
    pub drain: Duration,
}

/// The agent's half of [`shutdown`].
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Stage>);

/// The other half. Dropping it without a word means [`ShutdownHandle::now`].
#[derive(Debug)]
pub struct ShutdownHandle(watch::Sender<Stage>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Working,
    Draining,
    Now,
}

/// A pair: keep the handle, give the other to [`Agent::run`].
pub fn shutdown() -> (ShutdownHandle, Shutdown) {
    let (sender, receiver) = watch::channel(Stage::Working);
    (ShutdownHandle(sender), Shutdown(receiver))
}

impl ShutdownHandle {
    /// First signal: take nothing new, finish what is running.
    pub fn drain(&self) {
        self.0.send_if_modified(|stage| std::mem::replace(stage, Stage::Draining.max(*stage)) != *stage);
    }

    /// Second signal: stop now.
    pub fn now(&self) {
        self.0.send_replace(Stage::Now);
    }
}

/// A worker.
pub struct Agent<C, D> {
    shop: Arc<Workshop<C, D>>,
}

impl<C: ControlPlane, D: Depot> Agent<C, D> {
    pub fn new(config: AgentConfig, control: Arc<C>, depot: Arc<D>) -> Self {
        Self { shop: Arc::new(Workshop { control, depot, config }) }
    }

    /// Works until it is told to end. The error says that the scratch directory cannot be used.
    pub async fn run(self, shutdown: Shutdown) -> io::Result<()> {
        let config = &self.shop.config;
        scratch::empty(&config.scratch).await?;
        let Slots { heavy, light, threads } = config.slots;
        tracing::info!(worker = %config.worker, heavy, light, threads, program = %config.program.display(), "agent ready");
        let (stage_sender, stage) = watch::channel(Stage::Working);
        let mut slots = JoinSet::new();
        for number in 0..heavy + light {
            let is_heavy = number < heavy;
            slots.spawn(
                slot(Arc::clone(&self.shop), is_heavy, stage.clone())
                    .instrument(tracing::info_span!("slot", number)),
            );
        }
        let all_ended = async { while slots.join_next().await.is_some() {} };
        let end = follow(shutdown, &stage_sender, config.drain);
        tokio::select! {
            () = all_ended => {}
            () = end => {}
        }
        // Told "now": the slots end by themselves, or are ended.
        let gone = timeout(NOW_GRACE, async { while slots.join_next().await.is_some() {} }).await;
        if gone.is_err() {
            tracing::warn!("tasks did not end in time and are left to their leases");
        }
        slots.shutdown().await;
        tracing::info!("agent ended");
        Ok(())
    }
}

/// Passes the stages on, and turns a drain that takes too long into "now". Returns once it is "now".
async fn follow(mut shutdown: Shutdown, stage: &watch::Sender<Stage>, drain: Duration) {
    // An error is a dropped handle.
    let asked = shutdown.0.wait_for(|stage| *stage > Stage::Working).await.map_or(Stage::Now, |stage| *stage);
    if asked == Stage::Draining {
        tracing::info!(limit_s = drain.as_secs(), "agent drains: no new tasks");
        stage.send_replace(Stage::Draining);
        let _ = timeout(drain, shutdown.0.wait_for(|stage| *stage == Stage::Now)).await;
    }
    stage.send_replace(Stage::Now);
}

async fn slot<C: ControlPlane, D: Depot>(
    shop: Arc<Workshop<C, D>>,
    is_heavy: bool,
    mut stage: watch::Receiver<Stage>,
) {
    let config = &shop.config;
    let threads = if is_heavy { config.slots.threads } else { 1 };
    let wanted = if is_heavy { HEAVY_KINDS } else { LIGHT_KINDS };
    let offers: Vec<Offer> = wanted
        .iter()
        .map(|kinds| Offer {
            worker: config.worker,
            kinds: kinds.to_vec(),
            cpu_millicores: threads.saturating_mul(1000),
            memory_bytes: config.memory_bytes / (config.slots.heavy + config.slots.light).max(1) as u64,
        })
        .collect();
    let mut pause = CLAIM_PAUSE;
    loop {
        if *stage.borrow() > Stage::Working {
            return;
        }
        let granted_at = Instant::now();
        // Not broken off by a drain: a task that was granted while nobody listened would have to wait for its lease.
        let claimed = tokio::select! {
            biased;
            _ = stage.wait_for(|stage| *stage == Stage::Now) => return,
            claimed = first_granted(&*shop.control, &offers) => claimed,
        };
        match claimed {
            Ok(Some(grant)) => {
                pause = CLAIM_PAUSE;
                work_apart(Arc::clone(&shop), grant, granted_at, threads, stage.clone()).await;
            }
            Ok(None) => {
                pause = CLAIM_PAUSE;
                tokio::select! {
                    _ = stage.wait_for(|stage| *stage > Stage::Working) => return,
                    () = shop.control.wait_for_ticket() => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "no claim; trying again");
                tokio::select! {
                    _ = stage.wait_for(|stage| *stage > Stage::Working) => return,
                    () = sleep(pause) => {}
                }
                pause = (pause * 2).min(CLAIM_LONGEST_PAUSE);
            }
        }
    }
}

async fn first_granted<C: ControlPlane>(
    control: &C,
    offers: &[Offer],
) -> Result<Option<Grant>, ControlUnavailable> {
    for offer in offers {
        if let Some(grant) = control.claim(offer).await? {
            return Ok(Some(grant));
        }
    }
    Ok(None)
}

/// In a task of its own, so that a panic in it ends the attempt and not the slot. Aborted with the slot.
async fn work_apart<C: ControlPlane, D: Depot>(
    shop: Arc<Workshop<C, D>>,
    grant: Grant,
    granted_at: Instant,
    threads: u32,
    stage: watch::Receiver<Stage>,
) {
    let span = tracing::info_span!(
        "task",
        task = %grant.task,
        asset = %grant.asset,
        attempt = grant.attempt,
        kind = grant.kind.as_str(),
        traceparent = grant.traceparent,
    );
    let mut apart = JoinSet::new();
    apart.spawn(work(shop, grant, granted_at, threads, stage).instrument(span.clone()));
    if let Some(Err(error)) = apart.join_next().await {
        span.in_scope(
            || tracing::error!(%error, "the attempt broke; its lease runs out and the task is tried again"),
        );
    }
}
