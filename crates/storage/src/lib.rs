//! Where bytes lie: uploads in progress, sources, renditions, publications.
//!
//! [`Uploads`] and [`Sources`] are what every keeper of uploads can do, [`Objects`] what every keeper of renditions and
//! publications can; [`LocalStore`] does all of it on a disk, `s3` in S3. The flow and the HTTP shells call it; it knows no rows and decides nothing
//! about uploads that `reelyard-upload` has not decided.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod concatenate;
mod error;
mod key;
pub mod ledger;
mod local;
mod objects;
mod parts;
#[cfg(feature = "s3")]
pub mod s3;
mod uploads;

pub use error::StoreError;
pub use local::LocalStore;
pub use objects::{ContentKind, Intent, ObjectEntry, Objects, OpenObject};
pub use parts::{PartError, Parts, ReceivePart};
pub use uploads::{
    ByteStream, Inflow, OpenUpload, Pull, Receive, ReceiveError, Sources, Terms, UploadStore, Uploads,
    source_key,
};

/// Pieces in one batch handed to [`Receive::write`]: below the kernel's limit for one vectored write (IOV_MAX, 1024).
pub const MAX_BATCH_PIECES: usize = 512;
