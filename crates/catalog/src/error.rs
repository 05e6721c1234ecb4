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
    /// The database is busy, full or gone: try again, and tell the operator.
    #[error("the catalogue could not be read or written: {0}")]
    Database(#[from] sqlx::Error),
    #[error(
        "the catalogue's tables could not be brought up to date: {0}; if a newer reelyard has used this data directory, \
         start that one"
    )]
    Migration(#[from] sqlx::migrate::MigrateError),
}

impl From<UnknownName> for CatalogError {
    fn from(unknown: UnknownName) -> Self {
        Self::Unreadable { what: unknown.what, reason: unknown.to_string() }
    }
}

impl CatalogError {
    pub(crate) fn not_found(what: &'static str, id: impl std::fmt::Display) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }
}
