//! PostgreSQL: a pool of bounded size, and sessions that cannot hold the fleet up.
//!
//! Every wait has an end that the server keeps, because a node may stand still in the middle of anything: a statement
//! for a lock, a statement for its result, and a transaction for its next statement.

use super::Pool;
use crate::CatalogError;
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{str::FromStr, time::Duration};

/// How a node uses its database.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// Connections of this node at most. All nodes together have to stay below the server's `max_connections`.
    pub max_connections: u32,
    /// How long a call waits for a connection, a restart of the database among the reasons.
    pub acquire_timeout: Duration,
    /// Shown by the server beside each session.
    pub application_name: String,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            // Statements take about a millisecond each. PostgreSQL allows 100 by itself, so six nodes fit.
            max_connections: 16,
            // Longer than a quick restart, shorter than the patience of a client.
            acquire_timeout: Duration::from_secs(5),
            application_name: "reelyard".to_owned(),
        }
    }
}

/// A row is held for one short transaction, so who waits this long waits for one that stands still.
const LOCK_TIMEOUT: &str = "7s";
/// No statement reads more than a few thousand rows. Above [`LOCK_TIMEOUT`], which says better what was the matter.
const STATEMENT_TIMEOUT: &str = "9s";
/// A node that was stopped inside a transaction loses it after this time, and the rows that it held are free. Below
/// [`LOCK_TIMEOUT`], so that who waits for them gets them.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "5s";
/// What is looked at here was written a moment ago and lies in memory. PostgreSQL's own figure, 4, is a spinning disk's:
/// with it, plans collect pages into bitmaps where walking an index would find the few rows that are wanted.
const RANDOM_PAGE_COST: &str = "1.1";
/// A server that has not answered by now does not answer at all: it hangs, or the network swallows what is sent. Above
/// [`STATEMENT_TIMEOUT`], which the server itself keeps.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);
/// The same for a connection that is only tried: its place in the pool is wanted.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that lay idle for longer is tried before it is used; one that was used just now is not.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// Beyond the steady load connections are given back.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) fn options(url: &str, settings: &PostgresSettings) -> Result<PgConnectOptions, CatalogError> {
    Ok(PgConnectOptions::from_str(url)?.application_name(&settings.application_name))
}

/// A pool on tables that are up to date.
pub(crate) async fn connect(
    options: PgConnectOptions,
    settings: &PostgresSettings,
) -> Result<Pool, CatalogError> {
    let sessions = options.clone().options([
        ("lock_timeout", LOCK_TIMEOUT),
        ("statement_timeout", STATEMENT_TIMEOUT),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT),
        ("default_transaction_isolation", "read committed"),
        ("random_page_cost", RANDOM_PAGE_COST),
    ]);
    // With a session of its own: who waits for another node's migration waits as long as that takes.
    let migrating = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(settings.acquire_timeout)
        .connect_with(options)
        .await?;
    crate::migrations::postgres().run(&migrating).await?;
    migrating.close().await;
    let pool = PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.acquire_timeout)
        .idle_timeout(IDLE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, metadata| {
            Box::pin(async move {
                if metadata.idle_for > TRUSTED_IDLE { is_alive(connection).await } else { Ok(true) }
            })
        })
        // sqlx does this too when a connection comes back, and without an end: one that hangs would keep its place.
        .after_release(|connection, _| Box::pin(is_alive(connection)))
        .connect_with(sessions)
        .await?;
    Ok(Pool::Postgres(pool))
}

/// An error takes the connection out of the pool at once.
async fn is_alive(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let answered = tokio::time::timeout(PING_TIMEOUT, connection.ping()).await;
    answered.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())).map(|()| true)
}
