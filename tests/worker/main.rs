//! A server without workers of its own, and `reelyard worker` processes that reach it over HTTP alone.
//!
//! Each test has its own server on a free port, with keys, and starts real workers with real media children.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod calls;
mod endings;
mod fencing;
mod fleet;
mod publishing;
mod stores;
#[path = "../support/mod.rs"]
mod support;
