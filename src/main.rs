//! `reelyard`: server, command line and worker agent. Links no FFmpeg.
//!
//! This file only reads the command line and hands over to `cmd/`. Exit status: 0 done, 1 the command failed (the
//! reason is on standard error), 2 the command line was wrong.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod app;
mod client;
mod cmd;
mod config;
mod flow;
mod holders;
mod http;
mod ledger;
mod presets;
mod worker;

use clap::Parser;
use std::process::ExitCode;

/// glibc's allocator keeps what many connections have freed on many threads: a stalled upload cost 78 KiB with it, and
/// costs 54 with this one (see `benches/README.md`). How soon it gives memory back is in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match cmd::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("reelyard: {error:#}");
            ExitCode::FAILURE
        }
    }
}
