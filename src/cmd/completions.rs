//! `reelyard completions SHELL`: prints a completion script for bash, zsh, fish, elvish or PowerShell.

use super::output::print;
use clap::CommandFactory;
use clap_complete::Shell;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell to complete for.
    shell: Shell,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "reelyard", &mut script);
    print(&String::from_utf8_lossy(&script))
}
