//! The fleet as a whole: API nodes, workers, PostgreSQL, RabbitMQ and SeaweedFS, all of them real, each behind a proxy.
//!
//! `farm` starts it, `story` is the main job on it, `points` ends, fails and holds up every named crash point, `chaos`
//! breaks everything at random and compares what was promised with what is there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod client;
mod farm;
mod points;
mod process;
mod story;
mod truth;
