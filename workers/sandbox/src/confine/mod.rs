//! What the child gives up before it opens the source. Called once, by `reelyard-media`, while it still has one
//! thread: Landlock, seccomp and capabilities belong to a thread and are inherited by the threads it starts later.
//!
//! Each layer is put on by itself and best effort: a kernel without Landlock still gives the others. Nothing here
//! fails; the answer is the list of layers with, for each that is missing, the reason. `Hello` and `reelyard
//! doctor` show it.

mod file_access;
mod process;
mod syscalls;

use reelyard_model::child::Limits;
use std::path::Path;

/// Whether the job may talk to a graphics card. It costs two layers: CUDA reserves more address space than any
/// bound allows, and loads libraries and generates code while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    None,
    Nvidia,
}

impl Devices {
    /// `Nvidia` where the driver's control node is there; without it no NVENC can open, so nothing is lost.
    pub fn present() -> Self {
        if Path::new("/dev/nvidiactl").exists() { Self::Nvidia } else { Self::None }
    }
}

/// Shuts the process in: afterwards it can read descriptors 0 to 3, write below `scratch`, compute, and start
/// threads. Files cannot be opened anywhere else, nothing can be executed, no socket made, no other process seen.
///
/// Call it before the first thread is started and before the source is touched. The source is read through
/// descriptor 3 itself: a file with `pread`, a socket with `read` and `write`, the only calls that are left for one.
/// Opening it again by `/proc/self/fd/3` is refused.
///
/// Where there is no Landlock the scratch directory becomes the root directory, when that is permitted; so paths must
/// be relative to the working directory afterwards, and `scratch` must be it.
///
/// The answer names every layer: `rlimits`, `no_new_privs`, `seccomp`, `landlock v5`, or, for one that could not be
/// had, its name and the reason: `landlock missing: the kernel has it switched off`.
pub fn confine(limits: &Limits, scratch: &Path, devices: Devices) -> Vec<String> {
    // Asked now: afterwards /proc cannot be read.
    let executable_stacks = process::has_executable_stack();
    let mut layers = vec![
        described("descriptors", process::close_inherited_descriptors()),
        described("rlimits", process::set_resource_limits(limits, devices)),
        described("no_new_privs", process::forbid_new_privileges()),
    ];
    let landlock = file_access::restrict(scratch, devices);
    // The second best, where the best is not to be had. Not with a graphics card: its libraries would be out of reach.
    let second_best = landlock.is_err() && devices == Devices::None;
    layers.push(described("landlock", landlock));
    if second_best {
        layers.push(described("chroot", process::change_root(scratch)));
    }
    layers.push(described("capabilities", process::drop_capabilities()));
    // After the two above: a change of credentials takes it away again.
    layers.push(described("parent_death", process::die_with_parent()));
    // Last: the calls that the other layers need are not on its list.
    layers.push(described("seccomp", syscalls::restrict(devices, executable_stacks)));
    layers
}

/// Whether an entry of [`confine`]'s list says that the layer is in force.
pub fn is_in_force(layer: &str) -> bool {
    !layer.contains(MISSING)
}

const MISSING: &str = " missing: ";

/// `Ok("")` is the bare name, `Ok("v5")` adds a detail.
fn described(name: &str, outcome: Result<String, String>) -> String {
    match outcome {
        Ok(detail) if detail.is_empty() => name.to_owned(),
        Ok(detail) => format!("{name} {detail}"),
        Err(reason) => format!("{name}{MISSING}{reason}"),
    }
}
