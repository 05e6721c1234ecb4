//! The suite on SQLite: a catalogue is a file.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "suite/access.rs"]
mod access;
#[path = "suite/assets.rs"]
mod assets;
#[path = "suite/fleet.rs"]
mod fleet;
#[path = "suite/kill.rs"]
mod kill;
#[path = "suite/leases.rs"]
mod leases;
#[path = "suite/operations.rs"]
mod operations;
#[path = "suite/shared_uploads.rs"]
mod shared_uploads;
#[path = "suite/statements.rs"]
mod statements;
mod support;
#[path = "suite/unreadable.rs"]
mod unreadable;
#[path = "suite/uploads.rs"]
mod uploads;

/// Asked by `support`.
const ON_POSTGRES: bool = false;
