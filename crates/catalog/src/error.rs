//! What can go wrong, by what the caller can do about it.

use crate::OverQuota;
use reelyard_model::state::{Refused, UnknownName};

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no such row (any more): answer 404, or drop the message.
    #[error("there is no {what} {id}")]
    NotFound { what: &'static str, id: String },
    /// The row is in a state in which this cannot be done: answer 409 with the sentence.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A limit of the tenant or of the upload stands in the way: answer with the figures.
    #[error(transparent)]
    OverQuota(#[from] OverQuota),
    /// The row holds something that this version cannot read. A newer version wrote it, or the file is damaged.
    #[error("the catalogue holds a {what} that cannot be read: {reason}")]
    Unreadable { what: &'static str, reason: String },
    /// The database is away, starting, stopping, out of connections, or gave way to another transaction: the same call
    /// may work in a moment. Calls may be repeated: each one either names what it expects to find (a state, an attempt)
    /// or comes to the same the second time. One whose commit was on its way may have happened.
    #[error("the database cannot be reached or is too busy: {reason}")]
    Unavailable { reason: String },
    /// The database is busy, full, or does not understand us: try again, and tell the operator.
    #[error("the catalogue could not be read or written: {0}")]
    Database(#[source] sqlx::Error),
    #[error(
        "the catalogue's tables could not be brought up to date: {0}; if a newer reelyard has used this data directory, \
         start that one"
    )]
    Migration(#[from] sqlx::migrate::MigrateError),
}

/// Of a test that makes a commit fail.
impl From<reelyard_crash_points::Injected> for CatalogError {
    fn from(injected: reelyard_crash_points::Injected) -> Self {
        Self::Unavailable { reason: injected.to_string() }
    }
}

impl From<UnknownName> for CatalogError {
    fn from(unknown: UnknownName) -> Self {
        Self::Unreadable { what: unknown.what, reason: unknown.to_string() }
    }
}

impl From<sqlx::Error> for CatalogError {
    fn from(error: sqlx::Error) -> Self {
        if is_lost_connection(&error) || is_one_of(&error, TOO_BUSY) || is_no_connection(&error) {
            Self::Unavailable { reason: error.to_string() }
        } else {
            Self::Database(error)
        }
    }
}

/// Serialisation failure, deadlock: the transaction was rolled back.
const GAVE_WAY: &[&str] = &["40001", "40P01"];
/// What PostgreSQL says when a session ends from its side: connection exceptions, shut down by an operator, after a
/// crash, starting, idle for too long in a transaction or outside.
const ENDED: &[&str] = &["08000", "08003", "08006", "57P01", "57P02", "57P03", "57P04", "57P05", "25P03"];
/// Too many connections, out of memory or disk, a lock or a statement that took too long, and a standby that was not
/// promoted yet (it only reads).
const TOO_BUSY: &[&str] = &["53000", "53100", "53200", "53300", "55P03", "57014", "25006"];

fn is_one_of(error: &sqlx::Error, codes: &[&str]) -> bool {
    // SQLite's codes are numbers of fewer digits.
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| codes.contains(&&*code))
}

/// The connection is gone, and the next one may be better.
pub(crate) fn is_lost_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        _ => is_one_of(error, ENDED),
    }
}

/// There is no connection to be had.
const fn is_no_connection(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed)
}

impl CatalogError {
    /// It says something about the row that was asked for, and nothing about others.
    pub fn is_of_one_row(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. } | Self::Refused(_) | Self::OverQuota(_) | Self::Unreadable { .. }
        )
    }

    /// The database has rolled the transaction back in favour of another one: nothing of it was stored, for certain.
    pub(crate) fn was_taken_back(&self) -> bool {
        matches!(self, Self::Database(error) if is_one_of(error, GAVE_WAY))
    }

    pub(crate) fn not_found(what: &'static str, id: impl std::fmt::Display) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }
}
