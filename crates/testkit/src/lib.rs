//! For tests only: real servers to talk to, and what makes them fail in every way that a network knows.
//!
//! Used by the suites of `reelyard-storage` and by the end-to-end tests of the programs; never linked into a program.
//! Everything listens on loopback, on ports that were free, in a temporary directory, and ends with its value.
//! What cannot be started panics: a test cannot go on without it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "for tests only: a test cannot go on without it")]

mod faults;
mod proxy;
mod s3_server;

pub use faults::{Fault, Plan};
pub use proxy::FaultProxy;
pub use s3_server::{ACCESS_KEY_ID, BUCKET, Kind, S3Server, SECRET_ACCESS_KEY};
