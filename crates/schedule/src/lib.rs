//! Who gets the next worker, and why somebody waits. Pure: waiting and running work come in, an order goes out.
//!
//! The catalogue calls [`picks`] inside the transaction that claims tasks, with the short summary of [`Situation`], and
//! takes from each picked queue its oldest tasks; [`deal`] then says which of the claimed tasks goes to which offer. The
//! API calls [`why_waiting`]. Nothing here fails: numbers that make no sense are read as their nearest sensible ones.
//! The model, and what was rejected, is in docs/decisions/0015-dispatch-order.md.
//!
//! Read the modules in this order:
//! - `situation`: the words of a decision
//! - `places`: whether the free slots can still take one more task of a kind
//! - `order`: the decision
//! - `waiting`: one plain sentence for one waiting task

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod situation;

mod order;
mod places;
mod waiting;

pub use order::{LANE_PART, OVERDUE_BULK_MS, OVERDUE_NORMAL_MS, picks};
pub use places::deal;
pub use situation::{Pick, Queue, Running, Situation, Slots, TenantLoad};
pub use waiting::{Ahead, Facts, LastTry, Need, Pause, Waiting, why_waiting};
