//! Uploads against the real server: every MUST of tus 1.0.0 that the server claims, hand-over, cut connections,
//! `kill -9`, and the published clients.
//!
//! Each test starts a server of its own on a free port with its own data directory.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod browser_client;
mod chaos;
mod clients;
mod command;
mod crash;
mod full_disk;
mod hand_over;
mod ietf;
mod ietf_connections;
mod ietf_digests;
mod ietf_limits;
mod ietf_versions;
mod line;
mod parts;
mod protocol;
mod same_content;
mod server;
mod tus;
mod tus_concatenation;
mod wire;
