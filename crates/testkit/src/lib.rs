//! For tests only: real servers to talk to, and what makes them fail in every way that a network knows.
//!
//! Used by the suites of `reelyard-storage` and by the end-to-end tests of the programs; never linked into a program.
//! Everything listens on loopback, on ports of its own, in a temporary directory, and ends with its value.
//! What cannot be started panics: a test cannot go on without it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "for tests only: a test cannot go on without it")]

mod faults;
mod ports;
mod postgres;
mod proxy;
mod rabbit;
mod s3_server;
mod server_process;
mod tcp_proxy;

pub use faults::{Fault, Plan};
pub use ports::free_port;
pub use postgres::PostgresServer;
pub use proxy::FaultProxy;
pub use rabbit::RabbitServer;
pub use s3_server::{ACCESS_KEY_ID, BUCKET, Kind, S3Server, SECRET_ACCESS_KEY};
pub use tcp_proxy::{Line, Passed, TcpProxy};
