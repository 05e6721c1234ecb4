//! One grant from start to end: source, child, files, report.
//!
//! Whatever happens, three things are true at the end: the child and all it started are gone, the scratch directory is
//! gone, and either a report was taken or the lease is another's. `Completed` is reported only when every file is
//! durable in the depot.

use crate::{
    agent::{AgentConfig, Stage},
    control::{ControlPlane, Depot},
    gathered::{Gathered, NewFile},
    lease::Lease,
    scratch::Scratch,
    source::{Habit, Patience, Served, Serving, SourceBytes, SourceCache, Traffic},
};
use futures::{StreamExt, stream::FuturesUnordered};
use reelyard_model::{
    Failure, FailureCode,
    child::{PROTOCOL, Request},
    work::{Grant, Report, Verdict},
};
use reelyard_sandbox::{
    confine::is_in_force,
    supervise::{ChildCommand, Ending, Outcome, Running, Watch, finished_file, start},
};
use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Once},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// Files of one child that are carried away at a time.
const KEEPS_AT_A_TIME: usize = 4;
/// Tries for each file; the task as a whole is tried again anyway.
const KEEP_TRIES: u32 = 3;
const KEEP_PAUSE: Duration = Duration::from_millis(300);
/// Between tries to report, doubled up to the second.
const REPORT_PAUSE: Duration = Duration::from_millis(200);
const REPORT_LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What all attempts of an agent share.
pub(crate) struct Workshop<C, D> {
    pub(crate) control: Arc<C>,
    pub(crate) depot: Arc<D>,
    /// What children read by ranges.
    pub(crate) sources: SourceCache,
    pub(crate) config: AgentConfig,
}

/// Why an attempt was broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interruption {
    /// `Cancelled` or `Lost`: say nothing more.
    Verdict(Verdict),
    /// This program ends now: give the task back, then it need not wait for its lease to run out.
    Stopping,
}

pub(crate) async fn work<C: ControlPlane, D: Depot>(
    shop: Arc<Workshop<C, D>>,
    grant: Grant,
    granted_at: Instant,
    threads: u32,
    mut stage: watch::Receiver<Stage>,
) {
    let begun = Instant::now();
    let lease = Lease::hold(Arc::clone(&shop.control), &grant, granted_at);
    let (task, attempt) = (grant.task, grant.attempt);
    tracing::info!(source = grant.source_key, "task taken");
    let end = carry_out(&shop, Work { grant: &grant, lease: &lease, threads }, &mut stage).await;
    let report = match end {
        Ok(report) => report,
        Err(Interruption::Verdict(verdict)) => {
            tracing::info!(?verdict, "task broken off");
            return;
        }
        Err(Interruption::Stopping) => {
            tracing::info!("task given back: this program ends");
            tokio::select! {
                verdict = lease.over() => tracing::warn!(?verdict, "the lease was over before the task was taken back"),
                () = give_back(&*shop.control, task, attempt) => {}
            }
            return;
        }
    };
    match &report {
        Report::Completed { .. } => {
            tracing::info!(elapsed_ms = begun.elapsed().as_millis() as u64, "task completed");
        }
        Report::Failed { failure } => {
            tracing::warn!(code = ?failure.code, detail = failure.detail, "task failed");
        }
    }
    lease.reporting();
    tokio::select! {
        verdict = lease.over() => tracing::warn!(?verdict, "the lease was over before the report was taken"),
        () = deliver(&*shop.control, task, attempt, report) => {}
    }
}

/// Until the control plane has taken it; the caller gives up when the lease is over.
async fn deliver<C: ControlPlane>(control: &C, task: reelyard_model::TaskId, attempt: u32, report: Report) {
    let mut pause = REPORT_PAUSE;
    loop {
        match control.report(task, attempt, report.clone()).await {
            Ok(Verdict::Continue) => return,
            Ok(verdict) => return tracing::info!(?verdict, "the report came too late"),
            Err(error) => tracing::warn!(%error, "the report was not taken; trying again"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(REPORT_LONGEST_PAUSE);
    }
}

/// As [`deliver`]. The program gives it a few seconds; after that the task waits for its lease to run out.
async fn give_back<C: ControlPlane>(control: &C, task: reelyard_model::TaskId, attempt: u32) {
    while let Err(error) = control.release(task, attempt).await {
        tracing::warn!(%error, "the task was not taken back; trying again");
        sleep(REPORT_PAUSE).await;
    }
}

async fn interrupted(lease: &Lease, stage: &mut watch::Receiver<Stage>) -> Interruption {
    tokio::select! {
        verdict = lease.over() => Interruption::Verdict(verdict),
        _ = stage.wait_for(|stage| *stage == Stage::Now) => Interruption::Stopping,
    }
}

/// Runs the child, and once more when it crashed: a crash is blamed on the file, for good, so it has to happen twice.
/// The files of the first run are made again, byte for byte or not: only the second run's result names any.
async fn carry_out<C: ControlPlane, D: Depot>(
    shop: &Workshop<C, D>,
    work: Work<'_>,
    stage: &mut watch::Receiver<Stage>,
) -> Result<Report, Interruption> {
    match run_child(shop, work, 1, stage).await? {
        Report::Failed { failure: first } if first.code == FailureCode::DecoderCrashed => {
            tracing::warn!(detail = first.detail, "the child crashed; trying once more");
            let mut report = run_child(shop, work, 2, stage).await?;
            if let Report::Failed { failure } = &mut report
                && failure.code == FailureCode::DecoderCrashed
            {
                failure.detail = format!("twice: {}", failure.detail);
            }
            Ok(report)
        }
        report => Ok(report),
    }
}

/// What one run of a child needs to know.
#[derive(Clone, Copy)]
struct Work<'a> {
    grant: &'a Grant,
    lease: &'a Lease,
    threads: u32,
}

async fn run_child<C: ControlPlane, D: Depot>(
    shop: &Workshop<C, D>,
    work: Work<'_>,
    run: u32,
    stage: &mut watch::Receiver<Stage>,
) -> Result<Report, Interruption> {
    let Work { grant, lease, threads } = work;
    let prepared = tokio::select! {
        biased;
        interruption = interrupted(lease, stage) => return Err(interruption),
        prepared = prepare(shop, grant, threads, run) => prepared,
    };
    let Prepared { mut running, scratch, serving } = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return Ok(Report::Failed { failure }),
    };
    let mut gathered = Gathered::default();
    let heard = tokio::select! {
        biased;
        interruption = interrupted(lease, stage) => Err(interruption),
        heard = listen(&*shop.depot, grant, scratch.path(), lease, &mut running, &mut gathered) => Ok(heard),
    };
    if !matches!(heard, Ok(Ok(()))) {
        running.stop();
    }
    let ending = running.ended().await;
    scratch.remove().await;
    tracing::debug!(
        cpu_ms = ending.usage.cpu.as_millis() as u64,
        peak_resident_bytes = ending.usage.peak_resident_bytes,
        "child ended"
    );
    if let Some(serving) = &serving {
        let Traffic { fetched_bytes, requests, served_bytes } = serving.traffic();
        tracing::info!(fetched_bytes, requests, served_bytes, "source read by ranges");
    }
    let source_failure = serving.and_then(|serving| serving.failure());
    Ok(match heard? {
        Ok(()) => match (conclude(ending, gathered, grant), source_failure) {
            // The child only knows that it could not read, or did not live through it: here is why.
            (Report::Failed { failure: childs }, Some(reason)) => {
                let mut failure = reason.into_failure(&grant.source_key);
                failure.stderr_tail = childs.stderr_tail;
                Report::Failed { failure }
            }
            (report, _) => report,
        },
        Err(mut failure) => {
            failure.stderr_tail = ending.stderr_tail;
            Report::Failed { failure }
        }
    })
}

fn conclude(ending: Ending, gathered: Gathered, grant: &Grant) -> Report {
    let result = match ending.outcome {
        Outcome::Done => gathered.result(grant.kind),
        Outcome::Failed(failure) => Err(failure),
        Outcome::Stopped => Err(Failure::new(FailureCode::ChildKilled, "the child was stopped")),
    };
    match result {
        Ok(result) => Report::Completed { result },
        Err(mut failure) => {
            if failure.stderr_tail.is_empty() {
                failure.stderr_tail = ending.stderr_tail;
            }
            Report::Failed { failure }
        }
    }
}

/// A child that runs, and what has to live as long as it does.
struct Prepared {
    running: Running,
    scratch: Scratch,
    serving: Option<Serving>,
}

async fn prepare<C, D: Depot>(
    shop: &Workshop<C, D>,
    grant: &Grant,
    threads: u32,
    run: u32,
) -> Result<Prepared, Failure> {
    let (source, serving) = open_source(shop, grant).await.map_err(|error| {
        Failure::new(
            FailureCode::SourceMissing,
            format!("the source {} cannot be opened: {error}", grant.source_key),
        )
    })?;
    let name = format!("{}-a{}-run{run}", grant.task, grant.attempt);
    let scratch = Scratch::make(&shop.config.scratch, name).await.map_err(|error| {
        Failure::new(FailureCode::StorageFailed, format!("no scratch directory could be made: {error}"))
    })?;
    let mut limits = grant.limits;
    // The control plane does not know this machine.
    limits.threads = threads;
    let wall_clock = shop.config.watch.wall_clock.min(Duration::from_secs(limits.cpu_seconds));
    let running = start(ChildCommand {
        program: shop.config.program.clone(),
        arguments: Vec::new(),
        request: Request { protocol: PROTOCOL, job: grant.job.clone(), limits },
        source: Some(source),
        scratch: scratch.path().to_owned(),
        watch: Watch { wall_clock, ..shop.config.watch },
    })
    .await
    .map_err(|error| {
        let program = shop.config.program.display();
        Failure::new(FailureCode::Internal, format!("{program} could not be started: {error}"))
    })?;
    Ok(Prepared { running, scratch, serving })
}

/// The child's descriptor, and who answers at its other end where that is a socket.
async fn open_source<C, D: Depot>(
    shop: &Workshop<C, D>,
    grant: &Grant,
) -> io::Result<(OwnedFd, Option<Serving>)> {
    match shop.depot.open_source(grant).await? {
        SourceBytes::File(file) => Ok((file.into(), None)),
        SourceBytes::Ranges(reader) => {
            let served = Served {
                key: grant.source_key.clone(),
                reader,
                habit: Habit::of(&grant.job),
                patience: Patience::default(),
            };
            Serving::start(&shop.sources, served).map(|(descriptor, serving)| (descriptor, Some(serving)))
        }
    }
}

/// Hears the child to its end while its files are carried away. Good when all of them are durable.
async fn listen<D: Depot>(
    depot: &D,
    grant: &Grant,
    scratch: &Path,
    lease: &Lease,
    running: &mut Running,
    gathered: &mut Gathered,
) -> Result<(), Failure> {
    let mut keeps = FuturesUnordered::new();
    let mut more = true;
    while more || !keeps.is_empty() {
        tokio::select! {
            Some(kept) = keeps.next(), if !keeps.is_empty() => kept?,
            message = running.next(), if more && keeps.len() < KEEPS_AT_A_TIME => match message {
                Some(message) => {
                    if let Some(file) = gathered.hear(message)? {
                        keeps.push(keep(depot, scratch, &grant.output_prefix, file));
                    }
                    lease.progress(gathered.progress);
                    tell_missing_layers(&gathered.sandbox);
                }
                None => more = false,
            },
        }
    }
    Ok(())
}

async fn keep<D: Depot>(depot: &D, scratch: &Path, prefix: &str, new: NewFile) -> Result<(), Failure> {
    let NewFile { file, byte_len } = new;
    let path = finished_file(scratch, &file, byte_len)
        .map_err(|error| Failure::new(FailureCode::Internal, error.to_string()))?;
    let key = format!("{prefix}/{file}");
    let mut pause = KEEP_PAUSE;
    let mut tries = 1;
    loop {
        match depot.keep(&path, &key).await {
            Ok(()) => return Ok(()),
            Err(error) if tries == KEEP_TRIES => {
                let detail = format!("{key} could not be stored in {tries} tries: {error}");
                return Err(Failure::new(FailureCode::StorageFailed, detail));
            }
            Err(error) => tracing::warn!(%error, key, tries, "a file could not be stored; trying again"),
        }
        sleep(pause).await;
        pause *= 2;
        tries += 1;
    }
}

/// Once for the whole program: it is the machine's property, not the task's.
fn tell_missing_layers(sandbox: &[String]) {
    static TOLD: Once = Once::new();
    let missing: Vec<&String> = sandbox.iter().filter(|layer| !is_in_force(layer)).collect();
    if !missing.is_empty() {
        TOLD.call_once(|| {
            tracing::warn!(?missing, "media children run without some layers of their sandbox")
        });
    }
}
