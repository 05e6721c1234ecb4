//! Pools, connections and transactions of either database.
//!
//! A connection that was lost is noticed when it is used. Where nothing can have happened yet (getting a connection,
//! beginning a transaction, a reading statement outside of one) the same is tried on the next connection, a bounded
//! number of times: after a restart of the database every idle connection of the pool is a lost one. Inside a
//! transaction nothing is tried again.

use super::{Array, Bound, Engine, Row, Sql, Value};
use crate::{CatalogError, error::is_lost_connection};
use sqlx::{
    AssertSqlSafe, Executor, PgConnection, PgPool, Postgres, SqlStr, Sqlite, SqliteConnection, SqlitePool,
    pool::PoolConnection,
};
use std::borrow::Cow;

/// Beyond the number of connections that a pool can hold, so that all of them may turn out to be lost.
const TRIES_BEYOND_THE_POOL: u32 = 2;

/// The same again while it fails because the connection was lost. It must not have changed anything when it fails.
macro_rules! until_a_connection_works {
    ($most:expr, $attempt:expr) => {{
        let most: u32 = $most;
        let mut tries = 1;
        loop {
            match $attempt {
                Err(error) if tries < most && is_lost_connection(&error) => tries += 1,
                other => break other,
            }
        }
    }};
}

#[derive(Clone, Debug)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// One connection; inside a transaction when it was got from [`Transaction::connection`].
pub(crate) enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    SqliteInside(sqlx::Transaction<'static, Sqlite>),
    Postgres(PoolConnection<Postgres>),
    PostgresInside(sqlx::Transaction<'static, Postgres>),
}

/// Rolled back when it is dropped.
pub(crate) struct Transaction(Connection);

/// Where a statement can be executed.
pub(crate) enum Target<'a> {
    /// On any connection: for reading.
    Pool(&'a Pool),
    Connection(&'a mut Connection),
}

impl<'a> From<&'a Pool> for Target<'a> {
    fn from(pool: &'a Pool) -> Self {
        Self::Pool(pool)
    }
}
impl<'a> From<&'a mut Connection> for Target<'a> {
    fn from(connection: &'a mut Connection) -> Self {
        Self::Connection(connection)
    }
}

impl Pool {
    pub(crate) const fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    /// For several reading statements.
    pub(crate) async fn acquire(&self) -> Result<Connection, CatalogError> {
        Ok(match self {
            Self::Sqlite(pool) => Connection::Sqlite(pool.acquire().await?),
            Self::Postgres(pool) => Connection::Postgres(pool.acquire().await?),
        })
    }

    /// A transaction that writes. SQLite takes its one write lock now, so that what is read in it is what is changed in
    /// it; on PostgreSQL (READ COMMITTED) that is the business of the statements, which lock the rows that they read.
    pub(crate) async fn begin(&self) -> Result<Transaction, CatalogError> {
        self.begin_with("BEGIN IMMEDIATE", "BEGIN").await
    }

    /// A transaction that reads, and in which all statements see the same state.
    pub(crate) async fn snapshot(&self) -> Result<Transaction, CatalogError> {
        self.begin_with("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await
    }

    async fn begin_with(
        &self,
        sqlite: &'static str,
        postgres: &'static str,
    ) -> Result<Transaction, CatalogError> {
        let begun = until_a_connection_works!(
            self.tries(),
            match self {
                Self::Sqlite(pool) => Box::pin(pool.begin_with(sqlite)).await.map(Connection::SqliteInside),
                Self::Postgres(pool) =>
                    Box::pin(in_time(pool.begin_with(postgres))).await.map(Connection::PostgresInside),
            }
        );
        Ok(Transaction(begun?))
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }

    /// Every connection of the pool may be a lost one, and the next one is new.
    fn tries(&self) -> u32 {
        TRIES_BEYOND_THE_POOL
            + match self {
                Self::Sqlite(pool) => pool.options().get_max_connections(),
                Self::Postgres(pool) => pool.options().get_max_connections(),
            }
    }
}

impl Transaction {
    pub(crate) const fn connection(&mut self) -> &mut Connection {
        &mut self.0
    }

    /// An error here does not say that it did not happen: the answer may have been lost on the way.
    pub(crate) async fn commit(self) -> Result<(), CatalogError> {
        match self.0 {
            Connection::SqliteInside(transaction) => Box::pin(transaction.commit()).await?,
            Connection::PostgresInside(transaction) => Box::pin(in_time(transaction.commit())).await?,
            // Made by `begin_with` only, which makes no others.
            Connection::Sqlite(_) | Connection::Postgres(_) => {}
        }
        Ok(())
    }
}

/// What the drivers' functions want.
enum Raw<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

impl Connection {
    pub(crate) const fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) | Self::SqliteInside(_) => Engine::Sqlite,
            Self::Postgres(_) | Self::PostgresInside(_) => Engine::Postgres,
        }
    }

    /// Locks the rows that this statement selects, and reads nothing of them. Nothing on SQLite. It waits for whoever
    /// holds them, and what is read in a later statement is then newer than what that one wrote.
    pub(crate) async fn lock(&mut self, select: Sql) -> Result<(), CatalogError> {
        if self.engine() == Engine::Postgres {
            select.for_update().fetch_all(self).await?;
        }
        Ok(())
    }

    fn raw(&mut self) -> Raw<'_> {
        match self {
            Self::Sqlite(connection) => Raw::Sqlite(connection),
            Self::SqliteInside(transaction) => Raw::Sqlite(transaction),
            Self::Postgres(connection) => Raw::Postgres(connection),
            Self::PostgresInside(transaction) => Raw::Postgres(transaction),
        }
    }
}

impl Target<'_> {
    pub(super) async fn execute(self, sql: Sql) -> Result<u64, CatalogError> {
        let changed = match self {
            Self::Pool(Pool::Sqlite(pool)) => for_sqlite(sql).execute(pool).await?.rows_affected(),
            Self::Pool(Pool::Postgres(pool)) => {
                in_time(for_postgres(sql).execute(pool)).await?.rows_affected()
            }
            Self::Connection(connection) => match connection.raw() {
                Raw::Sqlite(raw) => for_sqlite(sql).execute(raw).await?.rows_affected(),
                Raw::Postgres(raw) => in_time(for_postgres(sql).execute(raw)).await?.rows_affected(),
            },
        };
        Ok(changed)
    }

    pub(super) async fn fetch_all(self, sql: Sql) -> Result<Vec<Row>, CatalogError> {
        let rows = match self {
            Self::Pool(any) => until_a_connection_works!(
                any.tries(),
                match any {
                    Pool::Sqlite(pool) => sqlite_rows(pool, sql.clone()).await,
                    Pool::Postgres(pool) => postgres_rows(pool, sql.clone()).await,
                }
            )?,
            Self::Connection(connection) => match connection.raw() {
                Raw::Sqlite(raw) => sqlite_rows(raw, sql).await?,
                Raw::Postgres(raw) => postgres_rows(raw, sql).await?,
            },
        };
        Ok(rows)
    }

    pub(super) async fn fetch_optional(self, sql: Sql) -> Result<Option<Row>, CatalogError> {
        let row = match self {
            Self::Pool(any) => until_a_connection_works!(
                any.tries(),
                match any {
                    Pool::Sqlite(pool) => sqlite_row(pool, sql.clone()).await,
                    Pool::Postgres(pool) => postgres_row(pool, sql.clone()).await,
                }
            )?,
            Self::Connection(connection) => match connection.raw() {
                Raw::Sqlite(raw) => sqlite_row(raw, sql).await?,
                Raw::Postgres(raw) => postgres_row(raw, sql).await?,
            },
        };
        Ok(row)
    }
}

/// A server that hangs must not hold up its callers for ever. It is not tried again: `PoolTimedOut` is no lost connection.
async fn in_time<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let waited = tokio::time::timeout(super::postgres::ANSWER_TIMEOUT, answer).await;
    waited.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

type SqliteQuery = sqlx::query::Query<'static, Sqlite, <Sqlite as sqlx::Database>::Arguments>;
type PostgresQuery = sqlx::query::Query<'static, Postgres, <Postgres as sqlx::Database>::Arguments>;

async fn sqlite_rows<'c>(
    on: impl Executor<'c, Database = Sqlite>,
    sql: Sql,
) -> Result<Vec<Row>, sqlx::Error> {
    Ok(for_sqlite(sql).fetch_all(on).await?.into_iter().map(Row::Sqlite).collect())
}
async fn postgres_rows<'c>(
    on: impl Executor<'c, Database = Postgres>,
    sql: Sql,
) -> Result<Vec<Row>, sqlx::Error> {
    Ok(in_time(for_postgres(sql).fetch_all(on)).await?.into_iter().map(Row::Postgres).collect())
}
async fn sqlite_row<'c>(
    on: impl Executor<'c, Database = Sqlite>,
    sql: Sql,
) -> Result<Option<Row>, sqlx::Error> {
    Ok(for_sqlite(sql).fetch_optional(on).await?.map(Row::Sqlite))
}
async fn postgres_row<'c>(
    on: impl Executor<'c, Database = Postgres>,
    sql: Sql,
) -> Result<Option<Row>, sqlx::Error> {
    Ok(in_time(for_postgres(sql).fetch_optional(on)).await?.map(Row::Postgres))
}

fn for_sqlite(sql: Sql) -> SqliteQuery {
    let mut query = sqlx::query(statement(sql.text_for(Engine::Sqlite)));
    for bound in sql.values {
        query = match bound {
            Bound::One(value) => bind_on_sqlite(query, value),
            Bound::Rows(columns) => row_by_row(columns).into_iter().fold(query, bind_on_sqlite),
        };
    }
    query
}

fn bind_on_sqlite(query: SqliteQuery, value: Value) -> SqliteQuery {
    match value {
        Value::Integer(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::Bytes(value) => query.bind(value),
    }
}

fn row_by_row(columns: Vec<Vec<Value>>) -> Vec<Value> {
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    let mut values = Vec::new();
    loop {
        let before = values.len();
        values.extend(columns.iter_mut().filter_map(Iterator::next));
        if values.len() == before {
            return values;
        }
    }
}

fn for_postgres(sql: Sql) -> PostgresQuery {
    let mut query = sqlx::query(statement(sql.text_for(Engine::Postgres)));
    for bound in sql.values {
        query = match bound {
            Bound::One(Value::Integer(value)) => query.bind(value),
            Bound::One(Value::Text(value)) => query.bind(value.map(without_nul)),
            Bound::One(Value::Bytes(value)) => query.bind(value),
            Bound::Rows(columns) => {
                columns.into_iter().fold(query, |query, column| match Array::of(column) {
                    Array::Integers(column) => query.bind(column),
                    Array::Texts(column) => {
                        let clean = |text: Option<String>| text.map(without_nul);
                        query.bind(column.into_iter().map(clean).collect::<Vec<_>>())
                    }
                })
            }
        };
    }
    query
}

/// Texts are put together from this crate's own words only; whatever came from outside is bound.
fn statement(text: Cow<'static, str>) -> SqlStr {
    use sqlx::SqlSafeStr;
    match text {
        Cow::Borrowed(text) => SqlStr::from_static(text),
        Cow::Owned(text) => AssertSqlSafe(text).into_sql_str(),
    }
}

fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text }
}
