//! How often and how slowly: token buckets for requests, and the least that a sender has to keep up.
//!
//! Called by `src/http/limits` (buckets) and by whatever reads a request's body ([`Pace`]). Knows no clock: every
//! method is told the time in milliseconds on one clock that never goes back; a time before the last one counts as
//! the last one. Nothing here waits, and nothing here fails: decisions go out as values.

mod body;
mod bucket;
mod buckets;

pub use body::{Pace, PaceLimits, TooSlow};
pub use bucket::{Bucket, Rate, Refill};
pub use buckets::Buckets;
