//! Pages of lists: by id (ids rise with time), newest first, with the last id as the cursor.

use std::{fmt, str::FromStr};
use uuid::Uuid;

/// Rows on a page at most, whatever was asked for.
pub(crate) const MAX_PAGE_ROWS: u32 = 500;

/// Where the next page begins; opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub(crate) Uuid);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}
impl FromStr for Cursor {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

#[derive(Clone, Debug)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// `None`: this was the last page.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// From one row more than the page holds.
    pub(crate) fn cut(mut rows: Vec<T>, limit: u32, id: impl Fn(&T) -> Uuid) -> Self {
        let limit = limit as usize;
        let next = (rows.len() > limit).then(|| {
            rows.truncate(limit);
            rows.last().map(|row| Cursor(id(row)))
        });
        Self { rows, next: next.flatten() }
    }
}
