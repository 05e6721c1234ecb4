//! The loop: some slots that work, and one claimer that asks for all free ones in one call.
//!
//! One claimer, because a ticket wakes it once: a machine of many idle slots does not ask many times for the same task.
//!
//! Ending it takes two steps. *Drain*: claim nothing more, finish what is being done, within a limit. *Now*: kill the
//! children, say so, and go.

use crate::{
    attempt::{Workshop, work},
    control::{ControlPlane, Depot},
    machine::Slots,
    scratch,
    source::{DISK_BYTES, SourceCache},
};
use reelyard_model::{
    WorkerId,
    work::{Grant, Offer, TaskKind},
};
use reelyard_sandbox::supervise::Watch;
use std::{collections::HashMap, future::Future, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tracing::Instrument;

/// Between claims that were not answered, doubled up to the second.
const CLAIM_PAUSE: Duration = Duration::from_millis(250);
const CLAIM_LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// From "now" to the end: a kill takes milliseconds, a last report a little more.
const NOW_GRACE: Duration = Duration::from_secs(5);

/// A slot for heavy work looks for an encode first: that is the longest of all, and the light slot can do the rest
/// beside it.
const HEAVY_KINDS: [TaskKind; 4] = [TaskKind::Encode, TaskKind::Probe, TaskKind::Audio, TaskKind::Stills];
const LIGHT_KINDS: [TaskKind; 3] = [TaskKind::Probe, TaskKind::Audio, TaskKind::Stills];

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
        let sources = SourceCache::new(&config.scratch, DISK_BYTES);
        Self { shop: Arc::new(Workshop { control, depot, sources, config }) }
    }

    /// What has been fetched of sources, for its counts: [`SourceCache::traffic`].
    pub fn sources(&self) -> SourceCache {
        self.shop.sources.clone()
    }

    /// Works until it is told to end. The error says that the scratch directory cannot be used.
    pub async fn run(self, shutdown: Shutdown) -> io::Result<()> {
        let config = &self.shop.config;
        scratch::empty(&config.scratch).await?;
        let Slots { heavy, light, threads } = config.slots;
        tracing::info!(worker = %config.worker, heavy, light, threads, program = %config.program.display(), "agent ready");
        let (stage_sender, stage) = watch::channel(Stage::Working);
        // Of one member: what it drops is ended with it, and its children too.
        let mut slots = JoinSet::new();
        slots.spawn(Claimer::new(Arc::clone(&self.shop), stage).run());
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

/// Which slot an attempt fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Heavy,
    Light,
}

struct Claimer<C, D> {
    shop: Arc<Workshop<C, D>>,
    stage: watch::Receiver<Stage>,
    free_heavy: usize,
    free_light: usize,
    /// The attempts. Each in a task of its own, so that a panic in one ends that attempt and nothing else.
    running: JoinSet<()>,
    places: HashMap<tokio::task::Id, (Slot, tracing::Span)>,
}

impl<C: ControlPlane, D: Depot> Claimer<C, D> {
    fn new(shop: Arc<Workshop<C, D>>, stage: watch::Receiver<Stage>) -> Self {
        let Slots { heavy, light, .. } = shop.config.slots;
        Self {
            shop,
            stage,
            free_heavy: heavy,
            free_light: light,
            running: JoinSet::new(),
            places: HashMap::new(),
        }
    }

    /// Until it is told to drain and all attempts have ended.
    async fn run(mut self) {
        let mut stage = self.stage.clone();
        let mut pause = CLAIM_PAUSE;
        while *stage.borrow() == Stage::Working {
            let offers = self.offers();
            if offers.is_empty() {
                tokio::select! {
                    _ = stage.wait_for(|stage| *stage > Stage::Working) => {}
                    Some(ended) = self.running.join_next_with_id() => self.free(ended),
                }
                continue;
            }
            let claimed_at = Instant::now();
            // Not broken off by a drain: a task that was granted while nobody listened would have to wait for its lease.
            let claimed = tokio::select! {
                biased;
                _ = stage.wait_for(|stage| *stage == Stage::Now) => break,
                claimed = self.shop.control.claim(&offers) => claimed,
            };
            let shop = Arc::clone(&self.shop);
            match claimed {
                Ok(grants) => {
                    pause = CLAIM_PAUSE;
                    let all_filled = grants.len() >= wanted(&offers);
                    for grant in grants {
                        self.begin(grant, claimed_at).await;
                    }
                    if all_filled {
                        continue;
                    }
                    let offers = self.offers();
                    self.until(&mut stage, shop.control.wait_for_ticket(&offers)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "no claim; trying again");
                    self.until(&mut stage, sleep(pause)).await;
                    pause = (pause * 2).min(CLAIM_LONGEST_PAUSE);
                }
            }
        }
        while let Some(ended) = self.running.join_next_with_id().await {
            self.free(ended);
        }
    }

    /// Until that happens, or something else that changes what there is to ask for.
    async fn until(&mut self, stage: &mut watch::Receiver<Stage>, something: impl Future<Output = ()>) {
        tokio::select! {
            _ = stage.wait_for(|stage| *stage > Stage::Working) => {}
            Some(ended) = self.running.join_next_with_id() => self.free(ended),
            () = something => {}
        }
    }

    /// What the free slots can take. The light ones first: small tasks are theirs.
    fn offers(&self) -> Vec<Offer> {
        let config = &self.shop.config;
        let all = (config.slots.heavy + config.slots.light).max(1) as u64;
        let offer = |kinds: &[TaskKind], prefers: &[TaskKind], free: usize, threads: u32| Offer {
            worker: config.worker,
            kinds: kinds.to_vec(),
            prefers: prefers.to_vec(),
            slots: u32::try_from(free).unwrap_or(u32::MAX),
            cpu_millicores: threads.saturating_mul(1000),
            memory_bytes: config.memory_bytes / all,
        };
        let light = offer(&LIGHT_KINDS, &[], self.free_light, 1);
        let heavy = offer(&HEAVY_KINDS, &HEAVY_KINDS[..1], self.free_heavy, config.slots.threads);
        [light, heavy].into_iter().filter(|offer| offer.slots > 0).collect()
    }

    /// Into the smallest free slot that will do.
    async fn begin(&mut self, grant: Grant, claimed_at: Instant) {
        let slot = match grant.kind {
            TaskKind::Probe | TaskKind::Audio | TaskKind::Stills if self.free_light > 0 => Slot::Light,
            _ if self.free_heavy > 0 => Slot::Heavy,
            kind => {
                tracing::error!(task = %grant.task, kind = kind.as_str(), "a task was granted for which no slot is free");
                if let Err(error) = self.shop.control.release(grant.task, grant.attempt).await {
                    tracing::warn!(%error, task = %grant.task, "it could not be given back; its lease runs out");
                }
                return;
            }
        };
        let threads = match slot {
            Slot::Heavy => self.shop.config.slots.threads,
            Slot::Light => 1,
        };
        *self.count(slot) -= 1;
        let span = tracing::info_span!(
            "task",
            task = %grant.task,
            asset = %grant.asset,
            attempt = grant.attempt,
            kind = grant.kind.as_str(),
            traceparent = grant.traceparent,
        );
        let attempt = work(Arc::clone(&self.shop), grant, claimed_at, threads, self.stage.clone());
        let id = self.running.spawn(attempt.instrument(span.clone())).id();
        self.places.insert(id, (slot, span));
    }

    fn free(&mut self, ended: Result<(tokio::task::Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some((slot, span)) = self.places.remove(&id) else { return };
        *self.count(slot) += 1;
        if let Err(error) = ended {
            span.in_scope(
                || tracing::error!(%error, "the attempt broke; its lease runs out and the task is tried again"),
            );
        }
    }

    fn count(&mut self, slot: Slot) -> &mut usize {
        match slot {
            Slot::Heavy => &mut self.free_heavy,
            Slot::Light => &mut self.free_light,
        }
    }
}

fn wanted(offers: &[Offer]) -> usize {
    offers.iter().map(|offer| offer.slots as usize).sum()
}
