//! From the socket to the store: gathers what arrives into batches, never more than two of them in memory.

use crate::http::{limits::Limits, problem::Problem, tap::Tap};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, request::Parts};
use http_body_util::BodyExt as _;
use reelyard_storage::{MAX_BATCH_PIECES, PartError, Receive, ReceiveError, ReceivePart};
use reelyard_upload::pace::TooSlow;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// A batch is written when it has so many bytes: large enough that hashing and writing, not the passing around, is
/// what takes time.
const BATCH_BYTES: usize = 1 << 20;
/// Or when it is so old: what a slow client sent does not wait in memory.
pub(super) const BATCH_AGE: Duration = Duration::from_millis(500);
/// What is still read of a body that somebody else takes over: all that a socket's buffer holds (tcp_rmem's usual
/// limit is 6 MiB), for a time that the one who waits does not notice.
pub(super) const REST_BYTES: usize = 8 << 20;
pub(super) const REST_SILENCE: Duration = Duration::from_millis(10);
pub(super) const REST_LIMIT: Duration = Duration::from_millis(50);
/// An answer to a request that is refused before its body was read gets lost when the connection is reset under the
/// unread bytes; so much is read and thrown away first.
const DISCARDED_BYTES: usize = 1 << 20;
const DISCARD_LIMIT: Duration = Duration::from_millis(500);

/// A request's body, and where it can be read past hyper.
pub(super) struct Sent {
    pub(super) body: Body,
    pub(super) tap: Option<Tap>,
}

impl Sent {
    pub(super) fn of(request: &Parts, body: Body) -> Self {
        Self { body, tap: request.extensions.get::<Tap>().cloned() }
    }
}

/// Why the body ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// With the trailer fields that came behind it.
    Complete(HeaderMap),
    Disconnected,
    TooSlow(TooSlow),
    TakenOver,
    Shutdown,
}

/// What may end a body before its sender does.
#[derive(Clone, Copy)]
pub(super) struct Stop<'a> {
    pub(super) limits: &'a Limits,
    pub(super) taken_over: &'a CancellationToken,
    pub(super) shutdown: &'a CancellationToken,
}

#[derive(Default)]
struct Batch {
    pieces: Vec<Bytes>,
    byte_len: usize,
}

/// Where the bytes of a body go.
pub(super) trait Sink: Send {
    type Error;

    fn write(&mut self, batch: Vec<Bytes>) -> impl Future<Output = Result<(), Self::Error>> + Send;
    fn wants_checkpoint(&self) -> bool;
    fn durable_offset(&self) -> u64;
}

impl Sink for Box<dyn Receive + '_> {
    type Error = ReceiveError;

    async fn write(&mut self, batch: Vec<Bytes>) -> Result<(), ReceiveError> {
        self.as_mut().write(batch).await
    }

    fn wants_checkpoint(&self) -> bool {
        self.as_ref().wants_checkpoint()
    }

    fn durable_offset(&self) -> u64 {
        self.as_ref().durable_offset()
    }
}

/// A part counts whole or not at all, so there is nothing to tell on the way.
impl Sink for Box<dyn ReceivePart + '_> {
    type Error = PartError;

    async fn write(&mut self, batch: Vec<Bytes>) -> Result<(), PartError> {
        self.as_mut().write(batch).await
    }

    fn wants_checkpoint(&self) -> bool {
        false
    }

    fn durable_offset(&self) -> u64 {
        0
    }
}

/// Feeds the body to the store until it ends, breaks, goes quiet, or somebody else wants the upload. All that has
/// arrived by then was handed over. `tell` hears of the durable offset from time to time.
pub(super) async fn receive<Into: Sink>(
    body: Body,
    body_len: Option<u64>,
    receiving: &mut Into,
    stop: Stop<'_>,
    mut tell: impl FnMut(u64),
) -> Result<Ended, Into::Error> {
    let mut body = body;
    let mut trailers = HeaderMap::new();
    let mut batch = Batch::default();
    let mut received = 0_u64;
    let mut batch_due = None;
    let mut pace = stop.limits.pace();
    let ended = loop {
        let pace_due = Instant::from_std(stop.limits.instant(pace.look_again_ms(stop.limits.now_ms())));
        let due = batch_due.unwrap_or(pace_due).min(pace_due);
        match next(&mut body, stop, due).await {
            Next::Bytes(bytes) => {
                pace.received(bytes.len() as u64, stop.limits.now_ms());
                batch_due.get_or_insert_with(|| Instant::now() + BATCH_AGE);
                received += bytes.len() as u64;
                batch.byte_len += bytes.len();
                batch.pieces.push(bytes);
                if batch.byte_len < BATCH_BYTES && batch.pieces.len() < MAX_BATCH_PIECES {
                    continue;
                }
            }
            Next::Trailers(fields) => {
                trailers = fields;
                continue;
            }
            Next::Due => {
                if let Err(slow) = pace.check(stop.limits.now_ms()) {
                    break Ended::TooSlow(slow);
                }
                if batch_due.is_none_or(|batch_due| batch_due > Instant::now()) {
                    continue;
                }
            }
            Next::End if body_len.is_some_and(|body_len| received < body_len) => break Ended::Disconnected,
            Next::End => break Ended::Complete(trailers),
            Next::Broken => break Ended::Disconnected,
            Next::Stop(why) => {
                gather_rest(&mut body, &mut batch).await;
                break why;
            }
        }
        // Our own store is not held against the sender.
        pace.hold(stop.limits.now_ms());
        receiving.write(std::mem::take(&mut batch).pieces).await?;
        pace.go_on(stop.limits.now_ms());
        // A body that never lets us wait has its end here.
        if let Err(slow) = pace.check(stop.limits.now_ms()) {
            break Ended::TooSlow(slow);
        }
        tell(receiving.durable_offset());
        batch_due = receiving.wants_checkpoint().then(|| Instant::now() + BATCH_AGE);
    };
    if !batch.pieces.is_empty() {
        receiving.write(batch.pieces).await?;
    }
    Ok(ended)
}

/// A sender whose connection broke comes back at once, while what it sent before still waits in the socket: that is
/// read first. The socket tells of it bit by bit, so a short silence counts as its end.
async fn gather_rest(body: &mut Body, batch: &mut Batch) {
    let end = Instant::now() + REST_LIMIT;
    while batch.byte_len < REST_BYTES && batch.pieces.len() < MAX_BATCH_PIECES {
        match timeout_at(end.min(Instant::now() + REST_SILENCE), body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let Ok(bytes) = frame.into_data() else { return };
                batch.byte_len += bytes.len();
                batch.pieces.push(bytes);
            }
            _ => return,
        }
    }
}

enum Next {
    Bytes(Bytes),
    Trailers(HeaderMap),
    End,
    Broken,
    Stop(Ended),
    Due,
}

async fn next(body: &mut Body, stop: Stop<'_>, due: Instant) -> Next {
    tokio::select! {
        biased;
        () = stop.taken_over.cancelled() => Next::Stop(Ended::TakenOver),
        () = stop.shutdown.cancelled() => Next::Stop(Ended::Shutdown),
        frame = timeout_at(due, body.frame()) => match frame {
            Err(_) => Next::Due,
            Ok(None) => Next::End,
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => Next::Bytes(bytes),
                Err(frame) => Next::Trailers(frame.into_trailers().unwrap_or_default()),
            },
            // The reason is the client's or the network's; neither is ours to report.
            Ok(Some(Err(_))) => Next::Broken,
        },
    }
}

/// Reads a little of a body that nobody wants, so that the refusal reaches its sender.
pub(super) async fn refuse(body: Body, problem: Problem) -> Problem {
    let mut body = body;
    let due = Instant::now() + DISCARD_LIMIT;
    let mut discarded = 0;
    while discarded < DISCARDED_BYTES {
        match timeout_at(due, body.frame()).await {
            Ok(Some(Ok(frame))) => discarded += frame.data_ref().map_or(0, Bytes::len),
            _ => break,
        }
    }
    problem
}
