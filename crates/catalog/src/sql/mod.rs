//! The one way to the database: one text of SQL and one set of values for SQLite and PostgreSQL.
//!
//! Used by every other file of this crate, and by nothing outside of it. The two drivers are called natively; what
//! differs between the databases is decided in here and nowhere else:
//!
//! - Parameters are written `?`, or `?1`, `?2` where one is used twice. PostgreSQL gets `$1`, `$2`.
//! - Values are integers (64 bits, signed), text, bytes, or NULL of one of the three. There is no boolean: 0 and 1.
//! - The larger of two numbers is written `GREATEST(a, b)`. SQLite gets `MAX(a, b)`.
//! - Sums are written `CAST(SUM(x) AS BIGINT)`: PostgreSQL's sums of integers are NUMERIC.
//! - Many values at once are [`Sql::push_in`] and [`Sql::push_rows`]: arrays on PostgreSQL, many parameters on SQLite.
//! - [`Sql::for_update`] locks the rows that are read. SQLite has one writer at a time, so there it is nothing.
//! - Where the two need different texts, [`either`] takes both.
//!
//! PostgreSQL's text cannot hold the character U+0000. It is stored as U+FFFD there.
//!
//! It does not retry, except where nothing can have happened yet (see `connection`), and it knows no table.

mod connection;
pub(crate) mod placeholders;
pub(crate) mod postgres;
pub(crate) mod row;
pub(crate) mod sqlite;
mod value;

pub(crate) use connection::{Connection, Pool, Target, Transaction};
pub(crate) use row::{FromColumn, Row};
pub(crate) use value::{Array, Bound, Value};

use crate::CatalogError;
use std::borrow::Cow;

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// A statement with its values.
#[derive(Clone, Debug)]
#[must_use = "a statement does nothing until it is executed"]
pub(crate) struct Sql {
    sqlite: Cow<'static, str>,
    /// Where it is not the same.
    postgres: Option<Cow<'static, str>>,
    values: Vec<Bound>,
    /// Appended on PostgreSQL only.
    lock: Option<&'static str>,
}

/// A statement in portable SQL.
pub(crate) fn sql(text: impl Into<Cow<'static, str>>) -> Sql {
    Sql { sqlite: text.into(), postgres: None, values: Vec::new(), lock: None }
}

/// A statement that the two databases need in different words, with the same parameters.
pub(crate) fn either(sqlite: impl Into<Cow<'static, str>>, postgres: impl Into<Cow<'static, str>>) -> Sql {
    let postgres = Some(postgres.into());
    Sql { sqlite: sqlite.into(), postgres, values: Vec::new(), lock: None }
}

impl Sql {
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(Bound::One(value.into()));
        self
    }

    /// For statements that are put together: more text.
    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.push_either(text, text)
    }

    /// More text, in the words of each database.
    pub(crate) fn push_either(&mut self, sqlite: &str, postgres: &str) -> &mut Self {
        if self.postgres.is_none() && sqlite != postgres {
            self.postgres = Some(self.sqlite.clone());
        }
        self.sqlite.to_mut().push_str(sqlite);
        if let Some(text) = &mut self.postgres {
            text.to_mut().push_str(postgres);
        }
        self
    }

    /// A value where the text has got to. Not together with numbered parameters.
    pub(crate) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.push("?");
        self.values.push(Bound::One(value.into()));
        self
    }

    /// ` IN (...)`: one of these. Without any, a NULL, which is in no list.
    ///
    /// On PostgreSQL it is one array, so the text is the same however long the list is: a connection prepares and plans
    /// it once. On SQLite the last value is repeated up to the next power of two, so that there are few different texts.
    pub(crate) fn push_in(&mut self, values: impl Iterator<Item = impl Into<Value>>) -> &mut Self {
        let mut values: Vec<Value> = values.map(Into::into).collect();
        let Some(last) = values.last().cloned() else {
            return self.push(" IN (NULL)");
        };
        // PostgreSQL does not mind the repetition either.
        values.resize(values.len().next_power_of_two(), last);
        let many = vec!["?"; values.len()].join(", ");
        self.push_either(&format!(" IN ({many})"), " = ANY(?)");
        self.values.push(Bound::Rows(vec![values]));
        self
    }

    /// A table of these rows, of which there is at least one, for `FROM`. Its columns are `column1`, `column2` and so on.
    /// What [`Sql::push_in`] says of texts holds here too.
    pub(crate) fn push_rows<const N: usize>(&mut self, rows: Vec<[Value; N]>, name: &str) -> &mut Self {
        let row = format!("({})", vec!["?"; N].join(", "));
        let columns: Vec<String> = (1..=N).map(|number| format!("column{number}")).collect();
        self.push_either(
            &format!("(VALUES {}) AS {name}", vec![row.as_str(); rows.len()].join(", ")),
            &format!("UNNEST({}) AS {name} ({})", vec!["?"; N].join(", "), columns.join(", ")),
        );
        let mut by_column: Vec<Vec<Value>> = (0..N).map(|_| Vec::with_capacity(rows.len())).collect();
        for row in rows {
            for (column, value) in by_column.iter_mut().zip(row) {
                column.push(value);
            }
        }
        self.values.push(Bound::Rows(by_column));
        self
    }

    /// The rows that are read stay as they are until the transaction ends; waits for whoever holds them. Not in
    /// statements with an outer join, which PostgreSQL refuses: lock first, then read.
    ///
    /// "NO KEY": the checks of foreign keys, which only ask whether a row is there, need not wait for us.
    pub(crate) const fn for_update(mut self) -> Self {
        self.lock = Some(" FOR NO KEY UPDATE");
        self
    }

    /// The same, but rows that somebody else holds are passed over, as if they were not there.
    pub(crate) const fn for_update_skip_locked(mut self) -> Self {
        self.lock = Some(" FOR NO KEY UPDATE SKIP LOCKED");
        self
    }

    /// The text as this database wants it.
    fn text_for(&self, engine: Engine) -> Cow<'static, str> {
        let (portable, changed, lock) = match engine {
            Engine::Sqlite => (&self.sqlite, placeholders::for_sqlite(&self.sqlite), None),
            Engine::Postgres => {
                let portable = self.postgres.as_ref().unwrap_or(&self.sqlite);
                (portable, placeholders::for_postgres(portable), self.lock)
            }
        };
        let mut text = changed.map_or_else(|| portable.clone(), Cow::Owned);
        if let Some(lock) = lock {
            text.to_mut().push_str(lock);
        }
        text
    }

    // What a driver keeps while it is asked is kilobytes. It lies in a box of its own for that time: else every future that
    // asks anything anywhere is as large, for as long as it lives, a stalled upload's too.

    /// How many rows were changed.
    pub(crate) async fn execute<'a>(self, target: impl Into<Target<'a>>) -> Result<u64, CatalogError> {
        Box::pin(target.into().execute(self)).await
    }

    pub(crate) async fn fetch_all<'a>(self, target: impl Into<Target<'a>>) -> Result<Vec<Row>, CatalogError> {
        Box::pin(target.into().fetch_all(self)).await
    }

    /// The first row, if there is any.
    pub(crate) async fn fetch_optional<'a>(
        self,
        target: impl Into<Target<'a>>,
    ) -> Result<Option<Row>, CatalogError> {
        Box::pin(target.into().fetch_optional(self)).await
    }

    /// Of statements that always have a row.
    pub(crate) async fn fetch_one<'a>(self, target: impl Into<Target<'a>>) -> Result<Row, CatalogError> {
        let found = self.fetch_optional(target).await?;
        found.ok_or_else(|| CatalogError::Database(sqlx::Error::RowNotFound))
    }

    /// The first column of the one row.
    pub(crate) async fn scalar<'a, T: FromColumn>(
        self,
        target: impl Into<Target<'a>>,
    ) -> Result<T, CatalogError> {
        self.fetch_one(target).await?.first()
    }

    /// The first column of the first row, if there is any.
    pub(crate) async fn scalar_optional<'a, T: FromColumn>(
        self,
        target: impl Into<Target<'a>>,
    ) -> Result<Option<T>, CatalogError> {
        self.fetch_optional(target).await?.map(|row| row.first()).transpose()
    }

    /// The first column of every row.
    pub(crate) async fn scalars<'a, T: FromColumn>(
        self,
        target: impl Into<Target<'a>>,
    ) -> Result<Vec<T>, CatalogError> {
        self.fetch_all(target).await?.iter().map(Row::first).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Engine, Value, either, sql};

    #[test]
    fn a_statement_grows_in_the_words_of_each_database() {
        let mut query = sql("SELECT * FROM asset WHERE tenant = ");
        query.push_bind("t").push(" AND ").push_either("INSTR(a, ", "STRPOS(a, ");
        query.push_bind(7).push(") > 0");
        assert_eq!(
            query.text_for(Engine::Sqlite),
            "SELECT * FROM asset WHERE tenant = ? AND INSTR(a, ?) > 0"
        );
        assert_eq!(
            query.text_for(Engine::Postgres),
            "SELECT * FROM asset WHERE tenant = $1 AND STRPOS(a, $2) > 0"
        );
    }

    #[test]
    fn however_many_values_there_are_postgres_gets_one_text() {
        let text_of = |count: i64, engine| {
            let mut query = sql("UPDATE task SET done_us = given.column2 FROM ");
            query.push_rows((0..count).map(|at| [Value::from(at), Value::from(at)]).collect(), "given");
            query.push(" WHERE id = given.column1 AND id").push_in(0..count);
            query.text_for(engine).into_owned()
        };
        let on_postgres = "UPDATE task SET done_us = given.column2 FROM UNNEST($1, $2) AS given (column1, column2) \
                           WHERE id = given.column1 AND id = ANY($3)";
        assert_eq!(text_of(1, Engine::Postgres), on_postgres);
        assert_eq!(text_of(300, Engine::Postgres), on_postgres);
        assert_eq!(
            text_of(3, Engine::Sqlite),
            "UPDATE task SET done_us = given.column2 FROM (VALUES (?, ?), (?, ?), (?, ?)) AS given \
             WHERE id = given.column1 AND id IN (?, ?, ?, ?)"
        );
    }

    #[test]
    fn rows_are_locked_where_several_write_at_once() {
        let query = sql("SELECT * FROM task WHERE id = ?").for_update_skip_locked();
        assert_eq!(query.text_for(Engine::Sqlite), "SELECT * FROM task WHERE id = ?");
        assert_eq!(
            query.text_for(Engine::Postgres),
            "SELECT * FROM task WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED"
        );
        let query = either("a ?", "b ?").for_update();
        assert_eq!(query.text_for(Engine::Postgres), "b $1 FOR NO KEY UPDATE");
    }
}
