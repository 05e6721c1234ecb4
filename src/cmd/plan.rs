//! `reelyard plan FILE`: what would be made of a media file, and the reason for each decision. Makes nothing.

use super::{
    output::print,
    probe::{Source, refuse},
};
use crate::presets::PresetFiles;
use reelyard_planner::{DEFAULT_PRESET, Policy};
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// The recipe
    #[arg(long, value_name = "NAME", default_value = DEFAULT_PRESET)]
    preset: String,
    #[command(flatten)]
    presets: PresetFiles,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let presets = args.presets.load()?;
    // Before the file is read: that can take a while.
    let Some(preset) = presets.get(&args.preset) else {
        let names: Vec<&str> = presets.names().collect();
        anyhow::bail!("there is no preset {:?}; there are: {}", args.preset, names.join(", "));
    };
    let planned =
        args.source.measure()?.and_then(|info| reelyard_planner::plan(&info, preset, &Policy::default()));
    match planned {
        Ok(plan) if args.json => print(&format!("{}\n", serde_json::to_string_pretty(&plan)?)),
        Ok(plan) => print(&reelyard_planner::explain(&plan)),
        Err(failure) => refuse(args.source.file(), &failure, args.json),
    }
}
