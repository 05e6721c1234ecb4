//! axum's extractors with our refusals, and the readers of ids and lists in addresses.

use super::problem::{Kind, Problem};
use axum::extract::{FromRequest, FromRequestParts};
use reelyard_catalog::Cursor;
use std::str::FromStr;

/// The query string, typed.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(super) struct Query<T>(pub(super) T);

/// The variable parts of the address. A part that is not text is refused with a problem.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(super) struct Path<T>(pub(super) T);

/// A JSON body, bounded by the router's body limit.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(Problem))]
pub(super) struct Json<T>(pub(super) T);

/// Rows on a page when nobody asks for another number, and at most.
pub(super) const DEFAULT_PAGE_ROWS: u32 = 50;
pub(super) const MAX_PAGE_ROWS: u32 = 200;

/// An id of the path. What is not an id is the id of nothing.
pub(super) fn id<T: FromStr>(text: &str, what: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::not_found(what))
}

/// `ready,failed`: names of one kind, separated by commas. Unknown names are refused by name.
pub(super) fn names<T: FromStr>(text: Option<&str>, parameter: &str) -> Result<Vec<T>, Problem> {
    text.unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| {
            name.parse().map_err(|_| {
                Problem::new(Kind::BadRequest, format!("`{parameter}` does not know the name {name:?}."))
                    .with("parameter", parameter)
            })
        })
        .collect()
}

pub(super) fn page_rows(limit: Option<u32>) -> u32 {
    limit.unwrap_or(DEFAULT_PAGE_ROWS).clamp(1, MAX_PAGE_ROWS)
}

pub(super) fn cursor(text: Option<&str>) -> Result<Option<Cursor>, Problem> {
    text.map(|text| {
        text.parse().map_err(|_| {
            Problem::new(Kind::BadCursor, "This cursor did not come from a list of this server.")
        })
    })
    .transpose()
}
