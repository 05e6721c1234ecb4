//! The walls around the media child, from both sides.
//!
//! [`confine`] is called by the child `reelyard-media`, first thing, before it looks at a byte of what a stranger
//! uploaded. [`supervise`] is called by the agent: it starts the child, listens to it, and ends it when it hangs,
//! grows or is no longer wanted. [`source`] is what the two say to each other where the source is read by the parent.
//! Neither trusts the other side: the child is confined even when it is started by
//! hand, and the supervisor holds its limits even when confinement is not to be had on this kernel.

#![allow(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[cfg(not(target_os = "linux"))]
compile_error!("Reelyard runs on Linux: its sandbox is made of Linux parts (Landlock, seccomp, pidfd).");

pub mod confine;
pub mod source;
pub mod supervise;

pub use confine::{Devices, confine};
