//! One child without a control plane: `reelyard probe`, `plan` and `doctor`, and a server that looks at what its
//! machine can do. Same walls and same watch as for any task.

use crate::gathered::Gathered;
use reelyard_model::{
    Failure, FailureCode, MediaInfo,
    child::{Capabilities, Job, Limits, PROTOCOL, Request},
};
use reelyard_sandbox::supervise::{ChildCommand, Outcome, Watch, start};
use std::{fs::File, os::fd::OwnedFd, path::PathBuf};

#[derive(Debug)]
pub struct OneJob {
    /// From [`crate::locate_media_program`].
    pub program: PathBuf,
    pub job: Job,
    pub limits: Limits,
    pub watch: Watch,
    pub source: Option<File>,
}

/// What a job without outputs gives.
#[derive(Debug)]
pub struct OneJobDone {
    /// What the child greeted with.
    pub ffmpeg: String,
    /// Layers in force, and the reasons for those that are not: see [`crate::is_in_force`].
    pub sandbox: Vec<String>,
    pub info: Option<Box<MediaInfo>>,
    pub capabilities: Option<Capabilities>,
    pub warnings: Vec<String>,
    /// The last of its standard error: FFmpeg's own words.
    pub stderr_tail: String,
}

/// Runs the child to its end. `progress` hears `(done_us, total_us)`. Files that it makes are thrown away.
pub async fn run_once(one: OneJob, mut progress: impl FnMut(i64, i64)) -> Result<OneJobDone, Failure> {
    let scratch = tempfile::Builder::new().prefix("reelyard-").tempdir().map_err(|error| {
        Failure::new(FailureCode::StorageFailed, format!("no scratch directory could be made: {error}"))
    })?;
    let program = one.program.clone();
    let mut running = start(ChildCommand {
        program: one.program,
        arguments: Vec::new(),
        request: Request { protocol: PROTOCOL, job: one.job, limits: one.limits },
        source: one.source.map(OwnedFd::from),
        scratch: scratch.path().to_owned(),
        watch: one.watch,
    })
    .await
    .map_err(|error| {
        Failure::new(FailureCode::Internal, format!("{} could not be started: {error}", program.display()))
    })?;
    let mut gathered = Gathered::default();
    while let Some(message) = running.next().await {
        gathered.hear(message)?;
        progress(gathered.progress.done_us, gathered.progress.total_us);
    }
    let ending = running.ended().await;
    match ending.outcome {
        Outcome::Done => Ok(OneJobDone {
            ffmpeg: gathered.ffmpeg,
            sandbox: gathered.sandbox,
            info: gathered.info,
            capabilities: gathered.capabilities,
            warnings: gathered.warnings,
            stderr_tail: ending.stderr_tail,
        }),
        Outcome::Failed(failure) => Err(failure),
        Outcome::Stopped => Err(Failure::new(FailureCode::Cancelled, "the child was stopped")),
    }
}
