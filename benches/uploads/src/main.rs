//! Uploads measured: `make bench-uploads` runs it; `benches/README.md` has its tables and what they say.
//!
//! Starts each server on loopback, sends to all of them with the same client, and prints the tables on standard output
//! (progress on standard error). Everything it starts ends with it, by process number. A peer that is not installed is
//! left out with a word; any failure ends the run.

mod hand_over;
mod http;
mod memory;
mod process;
mod report;
mod server;
mod transfer;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use server::{Kind, Programs};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Transfer,
    Memory,
    HandOver,
}

#[derive(Parser)]
#[command(
    about = "Uploads measured: reelyard, a floor without HTTP, and other people's servers, in one run."
)]
struct Options {
    /// Times that each server takes each shape of upload.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Hand-overs measured.
    #[arg(long, default_value_t = 200)]
    times: usize,
    #[arg(long, value_delimiter = ',')]
    parts: Vec<Part>,
    #[arg(long, value_delimiter = ',')]
    servers: Vec<Kind>,
    /// The program to measure.
    #[arg(long)]
    reelyard: Option<PathBuf>,
    /// Where the servers keep what they are sent; a folder is made in it and removed. On the disk that is of interest.
    #[arg(long)]
    scratch: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    raise_descriptor_limit();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = here.join("../../.tools");
    let beside = std::env::current_exe()?.parent().context("this program lies nowhere")?.to_owned();
    let programs = Programs {
        reelyard: options.reelyard.clone().unwrap_or_else(|| beside.join("reelyard")),
        floor: beside.join("floor"),
        rustus: tools.join("rustus/bin/rustus"),
        nginx: tools.join("nginx/usr/sbin/nginx"),
        tus_node: here.join("tus-server.mjs"),
    };
    let wanted = if options.servers.is_empty() { Kind::ALL.to_vec() } else { options.servers.clone() };
    let (kinds, absent): (Vec<Kind>, Vec<Kind>) =
        wanted.into_iter().partition(|kind| kind.needs(&programs).exists());
    for kind in absent {
        println!("{} is left out: {} is not there", kind.name(), kind.needs(&programs).display());
    }
    let scratch = options.scratch.as_deref().unwrap_or(&beside);
    let folder = tempfile::Builder::new().prefix("bench-uploads-").tempdir_in(scratch)?;
    let folder = folder.path().canonicalize()?;

    let wants = |part| options.parts.is_empty() || options.parts.contains(&part);
    if wants(Part::Transfer) {
        report::transfers(&transfer::measure(&kinds, &programs, &folder, options.rounds)?);
    }
    if wants(Part::Memory) {
        report::memory(&memory::measure(&kinds, &programs, &folder)?);
    }
    if wants(Part::HandOver) {
        report::hand_overs(&hand_over::measure(&kinds, &programs, &folder, options.times)?);
    }
    Ok(())
}

/// A thousand stalled uploads are a thousand sockets here, and more in the servers, which inherit it.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
