//! The nouns of Reelyard, and nothing that acts.
//!
//! Every other crate speaks in these types. The crate is pure: no clock, no randomness, no file, no socket.
//! Forms that are stored or sent carry a version field from the first day (`MediaInfo::version`,
//! `Plan::version`, `child::PROTOCOL`). Read the modules in the order below: it is the order in which an
//! upload meets them.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod child;
pub mod failure;
pub mod ids;
pub mod media_info;
pub mod output;
pub mod plan;
pub mod rational;
pub mod tier;
pub mod work;
pub mod worker_protocol;

pub mod asset_state;
pub mod publication_state;
pub mod retry_policy;
pub mod state;
pub mod task_state;
pub mod upload_state;

pub use failure::{Failure, FailureClass, FailureCode};
pub use ids::{AssetId, PlaybackId, TaskId, TenantId, UploadId, WorkerId};
pub use media_info::MediaInfo;
pub use plan::Plan;
pub use rational::Rational;
pub use tier::Tier;

pub use asset_state::AssetState;
pub use publication_state::PublicationState;
pub use task_state::TaskState;
pub use upload_state::{Completion, UploadKind, UploadState};
