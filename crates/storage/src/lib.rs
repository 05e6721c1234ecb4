//! Where bytes lie: uploads in progress, sources, renditions, publications.
//!
//! [`Uploads`] and [`Sources`] are what every keeper of uploads can do; [`LocalStore`] keeps them on a disk, and keeps
//! renditions and publications there too. The flow and the HTTP shells call it; it knows no rows and decides nothing
//! about uploads that `reelyard-upload` has not decided.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod concatenate;
mod error;
pub mod ledger;
mod local;
mod parts;
#[cfg(feature = "s3")]
pub mod s3;
mod uploads;

pub use error::StoreError;
pub use local::{LocalStore, ObjectEntry, OpenObject};
pub use parts::{PartError, Parts, ReceivePart};
pub use uploads::{
    ByteStream, OpenUpload, Receive, ReceiveError, Sources, Terms, UploadStore, Uploads, source_key,
};

/// Pieces in one batch handed to [`Receive::write`]: below the kernel's limit for one vectored write (IOV_MAX, 1024).
pub const MAX_BATCH_PIECES: usize = 512;
