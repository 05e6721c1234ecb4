//! The command line: one file per subcommand, each with its `Args` and a `run`.

mod audit;
mod catalogue;
mod completions;
mod doctor;
mod healthcheck;
mod jobs;
mod keys;
mod machine;
mod operator;
mod output;
mod plan;
mod probe;
mod queues;
mod serve;
mod signals;
mod tenants;
mod upload;
mod worker;
mod workers;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A self-hosted video platform: resumable uploads in, signed adaptive streams out.
#[derive(Parser)]
#[command(name = "reelyard", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server: API, playback origin and a worker on this machine.
    Serve(serve::Args),
    /// Take work from a server over HTTP, on a machine of its own.
    Worker(worker::Args),
    /// List the machines that take work; let one of them take no more.
    Workers(workers::Args),
    /// Upload a video, resuming where an earlier try stopped.
    Upload(upload::Args),
    /// List, watch, cancel and retry jobs.
    Jobs(jobs::Args),
    /// List the queues; let nobody take up a kind of work for now.
    Queues(queues::Args),
    /// Show who did what to jobs, queues and workers, and why.
    Audit(audit::Args),
    /// Make, list and revoke API keys.
    Keys(keys::Args),
    /// Add and list tenants, and set how much they may have.
    Tenants(tenants::Args),
    /// Show the facts about a media file.
    Probe(probe::Args),
    /// Show what would be made of a media file, and why.
    Plan(plan::Args),
    /// Show what this machine can do.
    Doctor(doctor::Args),
    /// Ask a server whether it is ready: exit status 0 or 1, for containers.
    Healthcheck(healthcheck::Args),
    /// Print a shell completion script.
    Completions(completions::Args),
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => serve::run(args),
            Command::Worker(args) => worker::run(args),
            Command::Workers(args) => workers::run(args),
            Command::Upload(args) => upload::run(args),
            Command::Jobs(args) => jobs::run(args),
            Command::Queues(args) => queues::run(args),
            Command::Audit(args) => audit::run(args),
            Command::Keys(args) => keys::run(args),
            Command::Tenants(args) => tenants::run(args),
            Command::Probe(args) => probe::run(args),
            Command::Plan(args) => plan::run(args),
            Command::Doctor(args) => doctor::run(args),
            Command::Healthcheck(args) => healthcheck::run(args),
            Command::Completions(args) => completions::run(args),
        }
    }
}
