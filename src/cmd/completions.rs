//! `reelyard completions SHELL`: prints a completion script for bash, zsh, fish, elvish or PowerShell.

use clap::CommandFactory;
use clap_complete::Shell;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell to complete for.
    shell: Shell,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    clap_complete::generate(args.shell, &mut super::Cli::command(), "reelyard", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
