//! The presets that this program knows: the built-in ones, with those of a directory.
//!
//! Called by `cmd/serve` and `cmd/plan`, so that a preset can be tried out before a server has it. Reads files and changes
//! none; a file that is wrong is an error that names the file and the line, never left out.

use anyhow::Context;
use reelyard_planner::Presets;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where presets come from besides this program.
#[derive(clap::Args)]
pub(crate) struct PresetFiles {
    /// A directory of preset files (*.toml) that add to the built-in ones or replace them
    #[arg(long = "presets", value_name = "DIR", env = "REELYARD_PRESETS")]
    directory: Option<PathBuf>,
}

impl PresetFiles {
    pub(crate) fn load(&self) -> anyhow::Result<Presets> {
        match &self.directory {
            Some(directory) => with_directory(directory),
            None => Ok(Presets::built_in()?),
        }
    }
}

fn with_directory(directory: &Path) -> anyhow::Result<Presets> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("--presets {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            files.push((path.display().to_string(), text));
        }
    }
    // By name, so that the same directory gives the same list.
    files.sort();
    Ok(Presets::with_files(files.iter().map(|(path, text)| (path.as_str(), text.as_str())))?)
}
