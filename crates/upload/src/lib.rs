//! The upload engine: what may be received, what counts, when it is whole. Pure: no file, socket, clock or random.
//!
//! [`engine::Transfer`] holds what is durable of one upload and decides on chunks; [`checksum`] verifies one chunk;
//! [`whole_hash`] is the SHA-256 of the whole, whose state can be stored and restored; [`fields`] reads headers. Each
//! dialect is a module of its own, headers in, requests out: [`tus`] is tus 1.0.0, [`ietf`] the IETF draft.
//! `reelyard-storage` carries the engine's decisions to the disk or to S3, and `src/http/uploads` carries the dialects to
//! the wire.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod checksum;
pub mod digest_fields;
pub mod engine;
pub mod fields;
pub mod ietf;
pub mod ledger;
pub mod pace;
pub mod parts;
pub mod possession;
#[cfg(test)]
mod testing;
pub mod tus;
pub mod whole_hash;

pub use checksum::{Algorithm, Checksum};
pub use engine::{BodyEnd, Check, Checkpoint, Chunk, ChunkRequest, Refusal, Settled, Transfer};
pub use whole_hash::WholeHash;

/// Largest upload that is accepted unless the operator says otherwise: twelve hours (the longest video that is
/// processed) at 90 Mbit/s.
pub const DEFAULT_MAX_UPLOAD_BYTES: u64 = 512 << 30;
/// No operator may allow more: sizes are stored in signed 64-bit columns and file systems end at 8 EiB.
pub const MAX_UPLOAD_BYTES: u64 = i64::MAX as u64;
