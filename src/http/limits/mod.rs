//! How much of the server one caller may have at a time: requests a second, bodies at once, the least speed.
//!
//! [`Limits`] is made by `cmd/serve` from its options and lives in the `App`. `auth.rs` asks it on every request,
//! `uploads/` for every body. Decisions are those of `reelyard_upload::pace` and [`seats`]; this is where they meet the
//! clock. Everything that is kept is bounded by a constant here, so that no number of callers makes memory grow. Limits
//! are kept in memory: a server that starts anew begins with full buckets.

mod bodies;
mod rates;
mod seats;
mod transfers;

pub(crate) use rates::{Allowed, OneOf};
pub(crate) use transfers::Seat;

use bodies::Bodies;
use rates::Rates;
use reelyard_upload::pace::{Pace, PaceLimits, Rate};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use transfers::Transfers;

/// Requests of one tenant; a parallel client with parts of 8 MiB at 10 Gbit/s sends 150 a second, and some have ten of
/// them. A request costs the server well below a millisecond.
pub(crate) const DEFAULT_REQUESTS_PER_SECOND: u32 = 2000;
/// Uploads begun by one tenant. A creation costs a commit and, on disk, two files.
pub(crate) const DEFAULT_CREATIONS_PER_SECOND: u32 = 100;
/// Bodies received at a time. In S3 each one holds at most two batches of 1 MiB; one that stalls holds next to nothing.
pub(crate) const DEFAULT_MAX_TRANSFERS: u32 = 2000;
/// Bodies that are fetched from their sockets at the same moment, each through two pieces of 2 MiB. The others' bytes wait in the kernel.
const MAX_FETCHING: usize = 16;
/// Begun and not ended, of one tenant without a limit of its own: a row, a file and a journal each, for a week.
pub(crate) const DEFAULT_OPEN_UPLOADS: u32 = 1000;
/// A body that finds no seat waits for one so long: clients that resume give up at a minute or so.
pub(crate) const DEFAULT_TRANSFER_WAIT_SECONDS: u32 = 10;
/// Bytes a second on average: a bad mobile network brings ten times as much.
pub(crate) const DEFAULT_MIN_BYTES_PER_SECOND: u32 = 1024;
/// A client that sends nothing for so long is gone, whatever TCP still believes. It can come back and go on.
pub(crate) const DEFAULT_IDLE_SECONDS: u32 = 90;
/// For one body. An upload may take as many as it likes.
pub(crate) const DEFAULT_MAX_BODY_SECONDS: u32 = 12 * 3600;
/// The speed is looked at over so many idle limits: a short silence of a fast sender is not slowness.
const WINDOW_IN_IDLE_LIMITS: u64 = 2;

/// What an operator can set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) requests_per_second: u32,
    pub(crate) creations_per_second: u32,
    pub(crate) max_transfers: u32,
    /// For tenants that have no limit of their own; `None`: three quarters of all.
    pub(crate) max_transfers_per_tenant: Option<u32>,
    /// For tenants that have no limit of their own.
    pub(crate) max_open_uploads_per_tenant: u32,
    pub(crate) transfer_wait_seconds: u32,
    /// 0: any speed will do.
    pub(crate) min_bytes_per_second: u32,
    pub(crate) idle_seconds: u32,
    pub(crate) max_body_seconds: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            requests_per_second: DEFAULT_REQUESTS_PER_SECOND,
            creations_per_second: DEFAULT_CREATIONS_PER_SECOND,
            max_transfers: DEFAULT_MAX_TRANSFERS,
            max_transfers_per_tenant: None,
            max_open_uploads_per_tenant: DEFAULT_OPEN_UPLOADS,
            transfer_wait_seconds: DEFAULT_TRANSFER_WAIT_SECONDS,
            min_bytes_per_second: DEFAULT_MIN_BYTES_PER_SECOND,
            idle_seconds: DEFAULT_IDLE_SECONDS,
            max_body_seconds: DEFAULT_MAX_BODY_SECONDS,
        }
    }
}

pub(crate) struct Limits {
    started: Instant,
    pub(crate) rates: Rates,
    pub(crate) transfers: Transfers,
    pub(crate) bodies: Bodies,
    /// Threads that fetch, hash and write bodies: more would wait for processors and disks, with a buffer each.
    pub(crate) fetching: Semaphore,
    /// Of a tenant that has no limit of its own.
    pub(crate) open_uploads: u32,
    pace: PaceLimits,
}

impl Limits {
    pub(crate) fn new(settings: Settings) -> Self {
        let idle_ms = u64::from(settings.idle_seconds.max(1)) * 1000;
        Self {
            started: Instant::now(),
            rates: Rates::new(settings.requests_per_second, settings.creations_per_second),
            transfers: Transfers::new(
                settings.max_transfers,
                settings.max_transfers_per_tenant,
                Duration::from_secs(u64::from(settings.transfer_wait_seconds)),
            ),
            bodies: Bodies::default(),
            fetching: Semaphore::new(MAX_FETCHING),
            open_uploads: settings.max_open_uploads_per_tenant,
            pace: PaceLimits {
                idle_ms,
                min_bytes_per_second: u64::from(settings.min_bytes_per_second),
                window_ms: idle_ms * WINDOW_IN_IDLE_LIMITS,
                total_ms: u64::from(settings.max_body_seconds.max(1)) * 1000,
            },
        }
    }

    /// Milliseconds on this process's own clock, which never goes back.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When that was, or will be.
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms)
    }

    /// For a body that begins now.
    pub(crate) fn pace(&self) -> Pace {
        Pace::new(self.pace, self.now_ms())
    }
}

/// So many a second, and those of so many seconds at once: clients begin with a burst.
const fn rate(per_second: u32, burst_seconds: u32) -> Rate {
    Rate::new(per_second, per_second.saturating_mul(burst_seconds))
}
