//! Dispatch measured: `make bench-fleet` runs it; `benches/README.md` has its table and what it says.
//!
//! Starts PostgreSQL (durable, as by default), RabbitMQ, SeaweedFS and one `reelyard serve`, all on this machine, and
//! then simulated workers: each claims over HTTP when a ticket has come, holds its tasks for a while, and reports over
//! HTTP what an encoder would have made. In each round new assets are planned while the workers are at it, so that the
//! whole way is under load: plan, tasks, outbox, broker, claim, report. Between rounds the broker alone is measured.
//! Prints a table on standard output (progress on standard error). Everything it starts ends with it; a task that is
//! not done exactly once fails the run.

#![allow(clippy::cast_precision_loss, reason = "counts and times become rates")]

mod film;
mod raw;
mod report;
mod round;
mod servers;
mod usage;
mod worker;

use anyhow::{Context as _, Result};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::PathBuf;

#[derive(Parser, Clone)]
#[command(
    about = "Dispatch measured: tasks claimed and completed, on PostgreSQL and RabbitMQ, beside the broker's own rate."
)]
struct Options {
    /// Times that all is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Assets in a round
    #[arg(long, default_value_t = 100)]
    assets: usize,
    /// Encode tasks of each asset
    #[arg(long, default_value_t = 100)]
    chunks: u32,
    #[arg(long, default_value_t = 4)]
    tenants: usize,
    #[arg(long, default_value_t = 200)]
    workers: usize,
    /// Tasks at a time of one worker
    #[arg(long, default_value_t = 4)]
    slots: u32,
    /// How long a task takes on average, half of it to one and a half times of it; 0: no time at all
    #[arg(long, default_value_t = 600)]
    work_ms: u64,
    /// Without the stream that each worker keeps open for its orders
    #[arg(long)]
    without_orders: bool,
    /// Tickets of each measurement of the broker alone; 0: none
    #[arg(long, default_value_t = 20_000)]
    raw_tickets: usize,
    /// Ask PostgreSQL for the statements that took longest, and print them
    #[arg(long)]
    statements: bool,
    /// The program to measure
    #[arg(long)]
    reelyard: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    raise_descriptor_limit();
    let beside = std::env::current_exe()?.parent().context("this program lies nowhere")?.to_owned();
    let program = options.reelyard.clone().unwrap_or_else(|| beside.join("reelyard"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Servers are started and ended outside: that waits.
    let mut servers = servers::Servers::start(&program, &options)?;
    let measured = runtime.block_on(round::all(&options, &servers))?;
    report::print(&options, &measured);
    servers.stop();
    Ok(())
}

/// A thousand sockets here, and as many in the server, which inherits it.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
