//! The catalogue: rows on SQLite or PostgreSQL. The database is the truth about uploads, assets, tasks and publications.
//!
//! Called by `src/flow` (which decides) and `src/http` (which shows). One method is one transaction: the change of
//! state, the task rows and the event row commit together or not at all. State moves only through the machines in
//! `reelyard-model`. The crate knows no clock and no randomness: times are Unix milliseconds, ids and random numbers
//! come in as arguments. A worker's write names its attempt and is refused when that is no longer the current one.
//!
//! One connection writes, several read (WAL), so a write never meets another write of this process. `synchronous` is
//! FULL: what a method reported as done survives `kill -9` and loss of power.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod assets;
mod claim;
mod content;
mod error;
mod events;
mod finals;
mod follow;
mod holders;
mod keys;
mod ledger;
mod locks;
mod migrations;
mod outcome;
mod overview;
mod page;
mod possession;
mod publications;
mod quota;
mod rows;
mod sql;
mod store;
mod tasks;
mod uploads;

pub use assets::AssetFilter;
pub use claim::{ClaimRequest, Claimed, HeartbeatAnswer};
pub use content::{Condition, ContentQuery};
pub use error::CatalogError;
pub use events::{EventKind, EventRow};
pub use holders::Taken;
pub use keys::{LiveApiKey, NewApiKey, Scope, Scopes, TenantRow, UnknownScope};
pub use ledger::LedgerError;
pub use outcome::{
    CompletedProbe, CompletedPublish, CompletedTask, FailedTask, NewRendition, NewTask, PublishedRendition,
    Settled,
};
pub use overview::{Counts, StateCount, TaskCount, Waiting};
pub use page::{Cursor, Page};
pub use possession::{PossessionRow, Proven, VainTries};
pub use quota::{DEFERRED_STEP_BYTES, OverQuota, TenantLimits, UploadGrant, Usage};
pub use rows::{ApiKeyRow, AssetRow, PublicationRow, RenditionRow, TaskRow, UploadRow};
pub use sql::postgres::PostgresSettings;
pub use store::Catalog;
pub use tasks::TaskFilter;
pub use uploads::{FinishUpload, FinishedUpload, NewUpload};
