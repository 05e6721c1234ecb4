//! SQLite: a file of this machine, one connection that writes and several that read (WAL).

use super::Pool;
use crate::CatalogError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::{path::Path, time::Duration};

/// Readers beside the one writer: handlers wait for each other only beyond so many reads at a time.
const READERS: u32 = 6;
/// How long a statement waits for a lock held by another process (a backup, somebody's sqlite3 shell).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The writer, on tables that are up to date, and the readers. The file is made when it is missing. A file does not go
/// away as a server does, so connections are not tried before each use: that is as dear as a small question.
pub(crate) async fn open(path: &Path) -> Result<(Pool, Pool), CatalogError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options.clone())
        .await?;
    crate::migrations::sqlite().run(&writer).await?;
    let reader = SqlitePoolOptions::new()
        .max_connections(READERS)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options.pragma("query_only", "1"))
        .await?;
    Ok((Pool::Sqlite(writer), Pool::Sqlite(reader)))
}
