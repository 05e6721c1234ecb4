//! How long an unwilling S3 is asked again, and which of its answers mean "later".
//!
//! The client itself repeats nothing: whoever repeats must know whether the request may be sent twice and under which
//! key, so every request goes through [`Patient::keep_trying`]. Past the bound the caller gets
//! [`StoreError::Unavailable`].

use crate::StoreError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// The least that a connection to S3 is expected to carry, in bytes per second: gives the time for one attempt.
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;
/// Requests on their way at the same time, each on a connection of its own. A thousand senders that stall at once would
/// otherwise open a thousand connections for a few bytes each.
const MOST_REQUESTS_AT_ONCE: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// No new attempt begins after so long. A client waits for its answer meanwhile, and most give up after a minute.
    pub bound_ms: u64,
    /// One attempt without a body may take so long; one with a body its time on a slow line longer.
    pub attempt_ms: u64,
    /// The wait before the second attempt; it doubles from then on, and a random half of it is left out so that many
    /// uploads do not come back at the same moment.
    pub first_wait_ms: u64,
    pub longest_wait_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { bound_ms: 30_000, attempt_ms: 10_000, first_wait_ms: 100, longest_wait_ms: 4_000 }
    }
}

/// Why one attempt failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It may go better next time.
    Passing(String),
    /// What was asked for is not there.
    Missing,
    /// It will not go better.
    Lasting(StoreError),
}

/// Patience, and the line in which requests wait for their turn.
#[derive(Clone, Debug)]
pub(crate) struct Patient {
    patience: Patience,
    turns: Arc<Semaphore>,
    /// The bound counts the wait for a turn, too.
    counts_waiting: bool,
}

impl Patient {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, turns: Arc::new(Semaphore::new(MOST_REQUESTS_AT_ONCE)), counts_waiting: false }
    }

    /// For requests that somebody waits for who gives up soon: when S3 hangs, the last of a thousand hears of it as
    /// early as the first. Senders of bytes would rather wait in line than send them once more.
    pub(crate) fn in_a_hurry(patience: Patience) -> Self {
        Self { counts_waiting: true, ..Self::new(patience) }
    }

    pub(crate) fn terms(&self) -> Patience {
        self.patience
    }

    pub(crate) fn attempt_time(&self, body_len: u64) -> Duration {
        Duration::from_millis(self.patience.attempt_ms + body_len * 1_000 / SLOWEST_BYTES_PER_SECOND)
    }

    /// `Ok(None)`: what was asked for is not there.
    pub(crate) async fn keep_trying<T, Attempt: Future<Output = Result<T, Fault>>>(
        &self,
        doing: &str,
        body_len: u64,
        mut attempt: impl FnMut() -> Attempt,
    ) -> Result<Option<T>, StoreError> {
        let began = Instant::now();
        let bound = Duration::from_millis(self.patience.bound_ms);
        let time = self.attempt_time(body_len);
        let mut wait_ms = self.patience.first_wait_ms;
        loop {
            // It fails only when it is closed, which nobody does. Held for the attempt, not for the wait after it.
            let turn = if self.counts_waiting {
                let turn =
                    tokio::time::timeout(bound.saturating_sub(began.elapsed()), self.turns.acquire()).await;
                turn.map_err(|_| StoreError::Unavailable {
                    doing: doing.to_owned(),
                    reason: format!("no turn within {bound:?}: {MOST_REQUESTS_AT_ONCE} requests wait for S3"),
                })?
            } else {
                self.turns.acquire().await
            };
            let outcome = tokio::time::timeout(time, attempt()).await;
            drop(turn);
            let reason = match outcome {
                Ok(Ok(done)) => return Ok(Some(done)),
                Ok(Err(Fault::Missing)) => return Ok(None),
                Ok(Err(Fault::Lasting(error))) => return Err(error),
                Ok(Err(Fault::Passing(reason))) => reason,
                Err(_) => format!("no answer within {time:?}"),
            };
            let wait = Duration::from_millis(jittered(wait_ms));
            if began.elapsed() + wait >= bound {
                return Err(StoreError::Unavailable { doing: doing.to_owned(), reason });
            }
            tracing::debug!(doing, reason, ?wait, "S3 is asked again");
            tokio::time::sleep(wait).await;
            wait_ms = (wait_ms * 2).min(self.patience.longest_wait_ms);
        }
    }
}

/// Between half of it and all of it.
fn jittered(wait_ms: u64) -> u64 {
    let half = wait_ms / 2;
    half + getrandom::u64().map_or(half, |random| random % (half + 1))
}

/// An error and what is behind it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A request that cannot be made.
pub(super) fn unbuilt(doing: &str, error: impl std::error::Error + Send + Sync + 'static) -> Fault {
    Fault::Lasting(StoreError::Io { doing: doing.to_owned(), source: io::Error::other(error) })
}

/// What an answer of S3 means for the one who asked.
pub(crate) fn fault<E>(doing: &str, error: SdkError<E>) -> Fault
where
    E: ProvideErrorMetadata + std::error::Error + fmt::Debug + Send + Sync + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let code = error.code().unwrap_or_default().to_owned();
    let text = match (&error, status) {
        (SdkError::ServiceError(_), Some(status)) => {
            format!("S3 answers {status} {code} {}", error.message().unwrap_or_default()).trim().to_owned()
        }
        _ => with_causes(&error),
    };
    let lasting = |kind, text| {
        Fault::Lasting(StoreError::Io { doing: doing.to_owned(), source: io::Error::new(kind, text) })
    };
    match (status, code.as_str()) {
        (None, _) if matches!(error, SdkError::ConstructionFailure(_)) => {
            lasting(io::ErrorKind::InvalidInput, text)
        }
        (_, "NoSuchBucket") => lasting(io::ErrorKind::Other, text),
        (Some(404), _) => Fault::Missing,
        // We ask for the object that we have begun to read, and there is another one.
        (Some(412), _) => Fault::Lasting(StoreError::Conflict {
            what: format!("{doing}: the object was put anew meanwhile"),
        }),
        (Some(507), _) => Fault::Lasting(StoreError::Full {
            doing: doing.to_owned(),
            source: io::Error::new(io::ErrorKind::StorageFull, text),
        }),
        // Damage and delay on the way, and two at the same time.
        (
            _,
            "BadDigest"
            | "XAmzContentChecksumMismatch"
            | "IncompleteBody"
            | "RequestTimeout"
            | "OperationAborted",
        ) => Fault::Passing(text),
        (Some(403), _) => {
            let hint = "are the credentials right, and do they allow it?";
            lasting(io::ErrorKind::PermissionDenied, format!("{text} ({hint})"))
        }
        (Some(300..400), _) => lasting(io::ErrorKind::Other, format!("{text} (is the region right?)")),
        (Some(408 | 409 | 429), _) | (None, _) => Fault::Passing(text),
        (Some(400..500), _) => lasting(io::ErrorKind::Other, text),
        _ => Fault::Passing(text),
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Patience, Patient, jittered};
    use crate::StoreError;
    use futures::future::join_all;
    use std::{
        cell::Cell,
        future::{pending, ready},
        time::{Duration, Instant},
    };

    /// Asks again soon, for so long.
    fn quick(bound_ms: u64) -> Patient {
        Patient::new(Patience { bound_ms, attempt_ms: 1_000, first_wait_ms: 1, longest_wait_ms: 4 })
    }

    #[tokio::test]
    async fn a_passing_fault_is_tried_again() {
        let tries = Cell::new(0);
        // Longer than a machine stands still.
        let patient = quick(10_000);
        let outcome = patient.keep_trying("asking", 0, || {
            tries.set(tries.get() + 1);
            ready(if tries.get() < 3 { Err(Fault::Passing("503".to_owned())) } else { Ok(7) })
        });
        assert_eq!(outcome.await.unwrap(), Some(7));
        assert_eq!(tries.get(), 3);
    }

    #[tokio::test]
    async fn patience_ends() {
        let outcome: Result<Option<()>, _> =
            quick(60).keep_trying("asking", 0, || ready(Err(Fault::Passing("503".to_owned())))).await;
        assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
    }

    #[tokio::test]
    async fn who_is_in_a_hurry_does_not_wait_long_for_a_turn_either() {
        let patience = Patience { bound_ms: 60, attempt_ms: 2_000, first_wait_ms: 1, longest_wait_ms: 4 };
        let patient = Patient::in_a_hurry(patience);
        let begin = Instant::now();
        let asking = (0..1_000).map(|_| {
            let patient = patient.clone();
            async move { patient.keep_trying("asking", 0, pending::<Result<(), Fault>>).await }
        });
        for outcome in join_all(asking).await {
            assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
        }
        // Who waits in line for eight rounds of attempts waits for sixteen seconds.
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn what_is_missing_is_not_asked_for_again() {
        let outcome: Result<Option<()>, _> =
            quick(60).keep_trying("asking", 0, || ready(Err(Fault::Missing))).await;
        assert_eq!(outcome.unwrap(), None);
    }

    #[test]
    fn waits_vary_by_half() {
        for _ in 0..100 {
            assert!((50..=100).contains(&jittered(100)));
        }
    }
}
