//! The rest of a body from its socket to the store, past hyper: each slice of it on one thread, which fetches, hashes and
//! writes.
//!
//! The store has to be one that can fetch by itself, and the request has to carry a tap; other bodies go through `body`.
//! Between slices this looks at whoever may end the body, and at its sender's pace. A slow sender's bytes are left in the
//! socket until there are some: a stalled body holds no memory here and no thread.

use super::{
    body::{self, BATCH_AGE, Ended, REST_BYTES, REST_LIMIT, REST_SILENCE, Sent, Stop},
    meter::{MeterError, Metered},
};
use crate::{
    app::App,
    http::tap::{Rest, Slice, Tap},
};
use http::HeaderMap;
use reelyard_catalog::UploadRow;
use reelyard_storage::{Pull, Receive, ReceiveError};
use reelyard_upload::ChunkRequest;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// After so much others get the thread.
const SLICE_BYTES: u64 = 16 << 20;
/// A fast sender is never silent for so long; waiting on the thread is cheaper than giving it back.
const SLICE_SILENCE: Duration = Duration::from_millis(3);
/// But one that lets it wait again and again has it no longer than this.
const SLICE_PATIENCE: Duration = Duration::from_millis(10);
/// A sender of whom a slice brought less is slow: for him the next one begins when there is so much, or after some time,
/// and waits for nothing. His bytes are worth no thread one by one.
const WORTHWHILE_BYTES: u64 = 64 << 10;
const GATHERING_TIME: Duration = Duration::from_millis(200);
const SLOW_SLICE_BYTES: u64 = 256 << 10;

/// What the next slice takes.
fn slice<'a>(is_slow: bool, stop: &'a [&'a CancellationToken]) -> Slice<'a> {
    match is_slow {
        true => Slice { bytes: SLOW_SLICE_BYTES, silence: Duration::ZERO, patience: Duration::ZERO, stop },
        false => Slice { bytes: SLICE_BYTES, silence: SLICE_SILENCE, patience: SLICE_PATIENCE, stop },
    }
}

/// Feeds a body to the store as [`body::receive`] does: straight off the socket, where the store and the connection can.
/// A length that is told was let in whole.
pub(super) async fn receive(
    app: &App,
    row: &UploadRow,
    chunk: &ChunkRequest,
    receiving: &mut Box<dyn Receive>,
    sent: Sent,
    stop: Stop<'_>,
    tell: impl FnMut(u64),
) -> Result<Ended, MeterError> {
    let Sent { mut body, tap } = sent;
    if let Some(pull) = receiving.as_pull()
        && let Some(tap) = tap.filter(|_| chunk.body_len.is_some() && !Tap::is_small(&body))
    {
        match tap.open(body).await {
            Ok(rest) => return Ok(fetch(rest, pull, stop, tell).await?),
            Err(left) => body = left,
        }
    }
    let mut metered = Metered::new(app, row, chunk, receiving);
    body::receive(body, chunk.body_len, &mut metered, stop, tell).await
}

/// Lets the store fetch the rest of a body. Ends as `body::receive` does.
async fn fetch(
    mut rest: Rest,
    receiving: &mut dyn Pull,
    stop: Stop<'_>,
    mut tell: impl FnMut(u64),
) -> Result<Ended, ReceiveError> {
    let mut pace = stop.limits.pace();
    let stops = [stop.taken_over, stop.shutdown];
    let mut is_slow = false;
    let mut checkpoint_due = None;
    while rest.missing() > 0 {
        let pace_due = Instant::from_std(stop.limits.instant(pace.look_again_ms(stop.limits.now_ms())));
        match next(&mut rest, stop, is_slow, checkpoint_due.unwrap_or(pace_due).min(pace_due)).await {
            Next::Bytes => {}
            Next::Stop(why) => {
                let all = Slice {
                    bytes: REST_BYTES as u64,
                    silence: REST_SILENCE,
                    patience: REST_LIMIT,
                    stop: &[],
                };
                // Many may be stopped at once: a thousand by a node that ends, or by their clients that come back.
                let _place = stop.limits.fetching.acquire().await;
                receiving.pull(rest.slice(&all)).await?;
                return Ok(why);
            }
            Next::Due => {
                if let Err(slow) = pace.check(stop.limits.now_ms()) {
                    return Ok(Ended::TooSlow(slow));
                }
                if checkpoint_due.is_some_and(|due| due <= Instant::now()) {
                    receiving.write(Vec::new()).await?;
                    tell(receiving.durable_offset());
                    checkpoint_due = receiving.wants_checkpoint().then(|| Instant::now() + BATCH_AGE);
                }
                continue;
            }
        }
        let missing = rest.missing();
        // Our own work is not held against the sender, but what it let us wait meanwhile is.
        pace.hold(stop.limits.now_ms());
        let place = stop.limits.fetching.acquire().await;
        receiving.pull(rest.slice(&slice(is_slow, &stops))).await?;
        drop(place);
        let now_ms = stop.limits.now_ms();
        let fetched = missing - rest.missing();
        pace.go_on(now_ms.saturating_sub(rest.waited().as_millis() as u64));
        pace.received(fetched, now_ms);
        if let Err(slow) = pace.check(now_ms) {
            return Ok(Ended::TooSlow(slow));
        }
        if rest.is_cut() {
            return Ok(Ended::Disconnected);
        }
        tell(receiving.durable_offset());
        checkpoint_due = receiving.wants_checkpoint().then(|| Instant::now() + BATCH_AGE);
        is_slow = fetched < WORTHWHILE_BYTES;
    }
    rest.give_back();
    Ok(Ended::Complete(HeaderMap::new()))
}

enum Next {
    Bytes,
    Stop(Ended),
    Due,
}

async fn next(rest: &mut Rest, stop: Stop<'_>, is_slow: bool, due: Instant) -> Next {
    let bytes = async {
        rest.readable().await;
        if is_slow {
            // The end of the time is as good a reason to fetch what there is.
            let _ = timeout(GATHERING_TIME, rest.gathered(WORTHWHILE_BYTES)).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.taken_over.cancelled() => Next::Stop(Ended::TakenOver),
        () = stop.shutdown.cancelled() => Next::Stop(Ended::Shutdown),
        woken = timeout_at(due, bytes) => woken.map_or(Next::Due, |()| Next::Bytes),
    }
}
