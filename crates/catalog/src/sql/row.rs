//! A row of either database, read by the names of its columns.
//!
//! A column of another type than the one that is asked for is an error, never a guess; only integers come in several
//! widths (PostgreSQL calls a literal `1` an INT4 and an `EXISTS` a BOOL).

use crate::CatalogError;
use sqlx::{Decode, Row as _, TypeInfo, ValueRef, postgres::PgRow, sqlite::SqliteRow};

pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// Types that a column may be read as; all of them may be NULL as an `Option`.
pub(crate) trait FromColumn: Sized {
    fn from_sqlite(row: &SqliteRow, at: impl At) -> Result<Self, sqlx::Error>;
    fn from_postgres(row: &PgRow, at: impl At) -> Result<Self, sqlx::Error>;
}

/// A name or a number of a column.
pub(crate) trait At: sqlx::ColumnIndex<SqliteRow> + sqlx::ColumnIndex<PgRow> + Copy {}
impl At for &str {}
impl At for usize {}

impl Row {
    pub(crate) fn get<T: FromColumn>(&self, column: &str) -> Result<T, CatalogError> {
        self.at(column)
    }

    pub(crate) fn first<T: FromColumn>(&self) -> Result<T, CatalogError> {
        self.at(0)
    }

    fn at<T: FromColumn>(&self, at: impl At) -> Result<T, CatalogError> {
        let value = match self {
            Self::Sqlite(row) => T::from_sqlite(row, at),
            Self::Postgres(row) => T::from_postgres(row, at),
        };
        Ok(value?)
    }
}

macro_rules! as_it_is {
    ($($type:ty)*) => {$(
        impl FromColumn for $type {
            fn from_sqlite(row: &SqliteRow, at: impl At) -> Result<Self, sqlx::Error> {
                row.try_get(at)
            }
            fn from_postgres(row: &PgRow, at: impl At) -> Result<Self, sqlx::Error> {
                row.try_get(at)
            }
        }
    )*};
}
as_it_is! { String Option<String> Vec<u8> Option<Vec<u8>> }

impl FromColumn for Option<i64> {
    fn from_sqlite(row: &SqliteRow, at: impl At) -> Result<Self, sqlx::Error> {
        row.try_get(at)
    }

    fn from_postgres(row: &PgRow, at: impl At) -> Result<Self, sqlx::Error> {
        let value = row.try_get_raw(at)?;
        if value.is_null() {
            return Ok(None);
        }
        let decoded = match value.type_info().name() {
            "INT4" => <i32 as Decode<sqlx::Postgres>>::decode(value).map(i64::from),
            "BOOL" => <bool as Decode<sqlx::Postgres>>::decode(value).map(i64::from),
            // Whatever else it is, the driver says what is wrong with it.
            _ => return row.try_get(at),
        };
        decoded.map(Some).map_err(sqlx::Error::Decode)
    }
}

impl FromColumn for i64 {
    fn from_sqlite(row: &SqliteRow, at: impl At) -> Result<Self, sqlx::Error> {
        row.try_get(at)
    }

    fn from_postgres(row: &PgRow, at: impl At) -> Result<Self, sqlx::Error> {
        let value: Option<Self> = FromColumn::from_postgres(row, at)?;
        value.ok_or_else(|| sqlx::Error::Decode("an integer was expected and there is NULL".into()))
    }
}
