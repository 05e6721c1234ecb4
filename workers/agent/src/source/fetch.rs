//! One stretch of blocks, brought from the store: tried again where that may help, given up within a bound.

use super::{
    RangeReader, SourceFailure,
    blocks::{BLOCK_BYTES, bytes_of},
    cache::{Claim, Counters},
};
use bytes::BytesMut;
use futures::StreamExt;
use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// How long a store may fail. All of it together stays below the child's own watchdog (60 s without progress), so that
/// the reason is told and not "the child hangs".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Between two tries, doubled up to the second.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// Without a byte, one try is over.
    pub stall: Duration,
    /// Without a byte in any try, the stretch is given up.
    pub give_up_after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(4),
            stall: Duration::from_secs(10),
            give_up_after: Duration::from_secs(30),
        }
    }
}

/// Streams that end early, in a row, without an error, after which the source is taken for shorter than it was.
const MOST_EARLY_ENDS: u32 = 3;

/// A fetch under way. Dropping it ends it.
pub(super) struct Fetch {
    /// The stretch of reading that it was begun for.
    pub(super) run: u64,
    pub(super) blocks: Range<u64>,
    outcome: Arc<Mutex<Option<SourceFailure>>>,
    task: JoinHandle<()>,
}

/// What each fetch of a child's needs.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub(super) reader: Arc<dyn RangeReader>,
    pub(super) patience: Patience,
    /// Of the task, and of the worker.
    pub(super) counters: [Arc<Counters>; 2],
}

impl Fetch {
    pub(super) fn start(fetcher: Fetcher, run: u64, claim: Claim) -> Self {
        let blocks = claim.blocks().clone();
        let outcome = Arc::new(Mutex::new(None));
        let told = Arc::clone(&outcome);
        let task = tokio::spawn(async move {
            let mut claim = claim;
            if let Err(failure) = fetcher.fetch(&mut claim).await {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            }
            // Only now: whoever wakes up because the blocks did not come finds the reason.
            drop(claim);
        });
        Self { run, blocks, outcome, task }
    }

    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    pub(super) fn failure(&self) -> Option<SourceFailure> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How one try went wrong.
enum Broken {
    Early,
    Failed(io::Error),
}

impl Fetcher {
    fn count(&self, what: impl Fn(&Counters)) {
        self.counters.iter().for_each(|counters| what(counters));
    }

    /// Brings all blocks of the claim.
    async fn fetch(&self, claim: &mut Claim) -> Result<(), SourceFailure> {
        let byte_len = self.reader.byte_len();
        let wanted = bytes_of(claim.blocks(), byte_len);
        let mut progress = Progress { at: wanted.start, block: BytesMut::new(), moved_at: Instant::now() };
        let mut pause = self.patience.first_pause;
        let mut early_ends = 0;
        while progress.at < wanted.end {
            let before = progress.at;
            let Err(broken) = self.one_try(&mut progress, wanted.end, claim).await else { return Ok(()) };
            if progress.at > before {
                (pause, early_ends) = (self.patience.first_pause, 0);
            }
            let error = match broken {
                Broken::Failed(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(SourceFailure::Gone(error.to_string()));
                }
                Broken::Failed(error) => error.to_string(),
                Broken::Early => {
                    early_ends += 1;
                    let what = format!("it ends at byte {}, its length is {byte_len}", progress.at);
                    if early_ends == MOST_EARLY_ENDS {
                        return Err(SourceFailure::Gone(what));
                    }
                    what
                }
            };
            let silent = progress.moved_at.elapsed();
            if silent + pause >= self.patience.give_up_after {
                return Err(SourceFailure::Unavailable(format!(
                    "given up after {} s: {error}",
                    silent.as_secs()
                )));
            }
            tracing::debug!(error, at = progress.at, "a source could not be read; trying again");
            sleep(pause).await;
            pause = (pause * 2).min(self.patience.longest_pause);
        }
        Ok(())
    }

    async fn one_try(&self, progress: &mut Progress, end: u64, claim: &mut Claim) -> Result<(), Broken> {
        self.count(|counters| _ = counters.requests.fetch_add(1, Ordering::Relaxed));
        let mut stream = self.reader.read(progress.at..end);
        while progress.at < end {
            let piece = match timeout(self.patience.stall, stream.next()).await {
                Ok(Some(Ok(piece))) => piece,
                Ok(Some(Err(error))) => return Err(Broken::Failed(error)),
                Ok(None) => return Err(Broken::Early),
                Err(_) => return Err(Broken::Failed(io::ErrorKind::TimedOut.into())),
            };
            self.count(|counters| {
                _ = counters.fetched_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed)
            });
            if piece.len() as u64 > end - progress.at {
                let what = "the store sent more than it was asked for";
                return Err(Broken::Failed(io::Error::new(io::ErrorKind::InvalidData, what)));
            }
            progress.take(&piece, end, claim);
        }
        Ok(())
    }
}

struct Progress {
    at: u64,
    /// The beginning of the block that is being filled.
    block: BytesMut,
    moved_at: Instant,
}

impl Progress {
    fn take(&mut self, mut piece: &[u8], end: u64, claim: &mut Claim) {
        if !piece.is_empty() {
            self.moved_at = Instant::now();
        }
        while !piece.is_empty() {
            let room = (BLOCK_BYTES - self.at % BLOCK_BYTES).min(piece.len() as u64);
            let (now, later) = piece.split_at(room as usize);
            self.block.extend_from_slice(now);
            self.at += room;
            piece = later;
            if self.at.is_multiple_of(BLOCK_BYTES) || self.at == end {
                claim.arrived(self.block.split().freeze());
            }
        }
    }
}
