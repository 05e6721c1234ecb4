//! The worker agent: claim a task, hold its lease, run the media child, keep what it makes, report.
//!
//! `reelyard serve` runs one in its own process; a fleet runs one on each node. It knows the control plane and the
//! depot of bytes only through the traits in [`control`]. Nothing that a child does ends the agent: the worst outcome
//! of an attempt is a reported failure. When the control plane goes away the agent goes on working and asking until
//! the lease is over, and then drops the work: somebody else has it.
//!
//! Read in this order: `control` (what it needs), `agent` (slots that claim), `attempt` (one grant from start to
//! end), `lease`, `gathered` (what the child said), `once` (a child without a control plane, for the command line).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod control;
pub mod source;

mod agent;
mod attempt;
mod gathered;
mod lease;
mod machine;
mod once;
mod program;
mod scratch;

pub use agent::{Agent, AgentConfig, Shutdown, ShutdownHandle, shutdown};
pub use machine::{Gpu, GpuMemory, Gpus, Machine, Slots};
pub use once::{OneJob, OneJobDone, run_once};
pub use program::{MEDIA_PROGRAM, MediaProgramMissing, locate_media_program};
pub use reelyard_sandbox::{confine::is_in_force, supervise::Watch};
