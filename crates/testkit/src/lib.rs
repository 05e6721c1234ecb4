//! For tests only: real servers to talk to, and what makes them fail in every way that a network knows.
//!
//! Used by the suites of `reelyard-storage` and by the end-to-end tests of the programs; never linked into a program.
//! Everything listens on loopback, on ports that were free, in a temporary directory, and ends with its value.
//! What cannot be started panics: a test cannot go on without it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "for tests only: a test cannot go on without it")]

mod faults;
mod postgres;
mod proxy;
mod rabbit;
mod s3_server;
mod server_process;
mod tcp_proxy;

pub use faults::{Fault, Plan};
pub use postgres::PostgresServer;
pub use proxy::FaultProxy;
pub use rabbit::RabbitServer;
pub use s3_server::{ACCESS_KEY_ID, BUCKET, Kind, S3Server, SECRET_ACCESS_KEY};
pub use tcp_proxy::{Line, Passed, TcpProxy};

/// Free until a server takes it, or somebody else does in that moment.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}
