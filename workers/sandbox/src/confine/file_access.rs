//! Landlock: which paths the child may open. Where the kernel does not have it the child can still open what its
//! user can; the reason is reported, and the list of system calls still keeps it from sending anything away.

use super::Devices;
use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use std::path::{Path, PathBuf};

/// The newest interface that these rules were thought through for; on older kernels the crate leaves out what they lack.
const NEWEST: ABI = ABI::V6;

/// Seeds of FFmpeg's random numbers, and what libraries ask about the processors.
const READ_ALWAYS: &[&str] = &["/dev/urandom", "/sys/devices/system/cpu", "/sys/devices/system/node"];
/// Libraries that CUDA and NVENC load when they are first used, and what the driver asks about itself.
const READ_WITH_DEVICES: &[&str] = &["/usr", "/lib", "/lib64", "/opt", "/etc/ld.so.cache", "/proc", "/sys"];
/// Only names that begin so are opened in `/dev`.
const DEVICE_PREFIX: &str = "nvidia";

pub(super) fn restrict(scratch: &Path, devices: Devices) -> Result<String, String> {
    // A rule for a path that is not there would be left out in silence.
    if !scratch.is_dir() {
        return Err(format!("the scratch directory {} is not a directory", scratch.display()));
    }
    let status =
        rules(scratch, devices).and_then(RulesetCreated::restrict_self).map_err(|error| error.to_string())?;
    match (status.ruleset, status.landlock) {
        (_, LandlockStatus::NotEnabled) => Err("the kernel has it switched off at boot".to_owned()),
        (_, LandlockStatus::NotImplemented) => Err("the kernel was built without it".to_owned()),
        (RulesetStatus::NotEnforced, _) => Err("the kernel enforced none of the rules".to_owned()),
        (_, LandlockStatus::Available { effective_abi, .. }) => Ok(format!("v{}", effective_abi as i32)),
    }
}

fn rules(scratch: &Path, devices: Devices) -> Result<RulesetCreated, RulesetError> {
    // Below scratch: files and folders. No links, devices, sockets or pipes: whoever moves the results away must
    // find plain files.
    let make_files = AccessFs::from_all(NEWEST)
        & !(AccessFs::MakeSym
            | AccessFs::MakeChar
            | AccessFs::MakeBlock
            | AccessFs::MakeSock
            | AccessFs::MakeFifo)
        & !(AccessFs::Execute | AccessFs::IoctlDev);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules([scratch], make_files))?
        .add_rules(path_beneath_rules(READ_ALWAYS, read))?;
    if devices == Devices::Nvidia {
        rules = rules
            .add_rules(path_beneath_rules(READ_WITH_DEVICES, read | AccessFs::Execute))?
            .add_rules(path_beneath_rules(device_nodes(), read | AccessFs::WriteFile | AccessFs::IoctlDev))?;
    }
    Ok(rules)
}

fn device_nodes() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(DEVICE_PREFIX))
        .map(|entry| entry.path())
        .collect()
}
