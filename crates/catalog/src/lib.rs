//! The catalogue: rows on SQLite or PostgreSQL. The database is the truth about uploads, assets, tasks and publications.
//!
//! Called by `src/flow` (which decides) and `src/http` (which shows). One method is one transaction: the change of
//! state, the task rows and the event row commit together or not at all. State moves only through the machines in
//! `reelyard-model`. The crate knows no clock and no randomness: times are Unix milliseconds, ids and random numbers
//! come in as arguments. A worker's write names its attempt and is refused when that is no longer the current one.
//!
//! On SQLite one connection writes and several read (WAL), so a write never meets another write of this process, and
//! `synchronous` is FULL: what a method reported as done survives `kill -9` and loss of power. On PostgreSQL several
//! nodes write at once; `store` and `locks` say how they keep out of each other's way.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod assets;
mod audit;
mod beats;
mod completions;
mod content;
mod dispatch;
mod error;
mod events;
mod finals;
mod finish;
mod fleet;
mod follow;
mod holders;
mod keys;
mod leases;
mod ledger;
mod locks;
mod migrations;
mod operations;
mod outbox;
mod outcome;
mod overview;
mod page;
mod possession;
mod publications;
mod queues;
mod quota;
mod remembered_plans;
mod rows;
mod shares;
mod sql;
mod store;
mod tasks;
mod unreadable;
mod uploads;
mod waiting;
mod workers;

pub use assets::AssetFilter;
pub use audit::{Actor, AuditAction, AuditFilter, AuditRow};
pub use beats::{Heartbeat, TaskLabel};
pub use completions::Stored;
pub use content::{Condition, ContentQuery};
pub use dispatch::{ClaimBatch, ClaimRequest, ClaimWish, Claimed};
pub use error::CatalogError;
pub use events::{EventKind, EventRow};
pub use holders::Taken;
pub use keys::{LiveApiKey, NewApiKey, Scope, Scopes, TenantRow, UnknownScope};
pub use leases::{HeartbeatAnswer, TaskFailure};
pub use ledger::LedgerError;
pub use operations::{MAX_REPLAYED, ReplayFilter, Replayed};
pub use outbox::{OutboxTicket, ReadyQueue};
pub use outcome::{
    CompletedProbe, CompletedPublish, CompletedTask, FailedTask, NewRendition, NewTask, PublishedRendition,
    Settled,
};
pub use overview::{Counts, StateCount, TaskCount};
pub use page::{Cursor, Page};
pub use possession::{PossessionRow, Proven, VainTries};
pub use queues::{QueuePause, QueueView};
pub use quota::{DEFERRED_STEP_BYTES, OverQuota, TenantLimits, UploadGrant, Usage};
pub use rows::{ApiKeyRow, AssetRow, PublicationRow, RenditionRow, TaskRow, UploadRow};
pub use shares::TenantShare;
pub use sql::postgres::PostgresSettings;
pub use store::Catalog;
pub use tasks::TaskFilter;
pub use uploads::{FinishUpload, FinishedUpload, NewUpload};
pub use waiting::{Takers, WORKER_SILENT_AFTER_MS};
pub use workers::{NewWorker, WorkerRow};
