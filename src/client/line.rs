//! What the line to a server takes: how many bytes left, when a request has stalled, how many requests go at once.
//!
//! Used by requests with large bodies and by whoever sends them. Nothing here talks to anybody; the decisions are pure,
//! time comes in. A stall is [`ClientError::Stalled`]: the request is given up and may be sent again.

use super::ClientError;
use std::{
    ops::Range,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// A connection that takes no byte, and an answer that does not come, for so long is given up.
const STALL_LIMIT: Duration = Duration::from_secs(60);
const STALL_LOOK: Duration = Duration::from_secs(1);
/// What was handed over is not yet sent. Below this speed of one connection a part has no sense any more.
const LEAST_BYTES_PER_S: u64 = 16 << 10;
/// A socket holds so much at most (the last of Linux's `tcp_wmem`), so more than this of a body is never on its way.
const MAX_HELD_BYTES: u64 = 4 << 20;
/// The HTTP client and the socket take so much of a body although nobody reads it: no sign of a line.
const SWALLOWED_BYTES: u64 = 1 << 20;
/// After so many parts in a row one more may go at a time: a tunnel need not slow the rest of a long upload.
const PARTS_PER_LANE: u32 = 8;

/// Bytes of one body, which may be sent more than once.
pub(crate) struct SentBytes {
    /// Of the try that is under way, or of what is stored.
    now: AtomicU64,
    /// By all bodies and all tries, without what is swallowed of each, since somebody took it.
    left: Arc<AtomicU64>,
}

impl SentBytes {
    pub(crate) fn new(now: u64, left: Arc<AtomicU64>) -> Self {
        Self { now: AtomicU64::new(now), left }
    }

    pub(crate) fn get(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// What was there before.
    pub(crate) fn set(&self, byte_len: u64) -> u64 {
        self.now.swap(byte_len, Ordering::Relaxed)
    }

    pub(crate) fn add(&self, byte_len: u64) {
        let before = self.now.fetch_add(byte_len, Ordering::Relaxed);
        let counted = (before + byte_len).saturating_sub(before.max(SWALLOWED_BYTES));
        self.left.fetch_add(counted, Ordering::Relaxed);
    }
}

/// Ends when the request does not get on any more. `sent` counts from the start of `body` to its end.
pub(super) async fn stalled(sent: impl Fn() -> u64, body: Range<u64>) -> ClientError {
    let mut watch = StallWatch::new(Instant::now(), body);
    loop {
        tokio::time::sleep(STALL_LOOK).await;
        if let Some(after) = watch.look(Instant::now(), sent()) {
            return ClientError::Stalled(after);
        }
    }
}

struct StallWatch {
    sent: u64,
    moved_at: Instant,
    body: Range<u64>,
}

impl StallWatch {
    fn new(now: Instant, body: Range<u64>) -> Self {
        Self { sent: body.start, moved_at: now, body }
    }

    /// Once it has stalled: for how long nothing moved.
    fn look(&mut self, now: Instant, sent: u64) -> Option<Duration> {
        if sent != self.sent {
            (self.sent, self.moved_at) = (sent, now);
        }
        let limit = if sent >= self.body.end {
            // All of it is handed over, but the last of it is still to go, and then the answer to come.
            let held = (self.body.end - self.body.start).min(MAX_HELD_BYTES);
            STALL_LIMIT + Duration::from_secs(held / LEAST_BYTES_PER_S)
        } else {
            STALL_LIMIT
        };
        (now.duration_since(self.moved_at) >= limit).then_some(limit)
    }
}

/// Lets so many requests go at a time: as many as told at first, half of them after each stall, one at least.
pub(crate) struct Lanes {
    width: Mutex<Width>,
    changed: Notify,
}

/// One request that may go; until it is dropped.
pub(crate) struct Lane<'a> {
    lanes: &'a Lanes,
    halvings: u32,
}

impl Lanes {
    pub(crate) fn new(most: usize) -> Self {
        Self { width: Mutex::new(Width::new(most)), changed: Notify::new() }
    }

    pub(crate) async fn enter(&self) -> Lane<'_> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let entered = self.width().enter();
            if let Some(halvings) = entered {
                return Lane { lanes: self, halvings };
            }
            changed.await;
        }
    }

    fn width(&self) -> MutexGuard<'_, Width> {
        self.width.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane<'_> {
    pub(crate) fn got_through(&self) {
        self.lanes.width().got_through();
    }

    pub(crate) fn stalled(&self) {
        self.lanes.width().stalled(self.halvings);
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.lanes.width().under_way -= 1;
        self.lanes.changed.notify_waiters();
    }
}

struct Width {
    most: usize,
    allowed: usize,
    under_way: usize,
    halvings: u32,
    /// Parts in a row that got through.
    through: u32,
}

impl Width {
    fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { most, allowed: most, under_way: 0, halvings: 0, through: 0 }
    }

    /// If there is room: how often it was halved before.
    fn enter(&mut self) -> Option<u32> {
        (self.under_way < self.allowed).then(|| {
            self.under_way += 1;
            self.halvings
        })
    }

    fn got_through(&mut self) {
        self.through += 1;
        if self.through >= PARTS_PER_LANE {
            self.through = 0;
            self.allowed = self.most.min(self.allowed + 1);
        }
    }

    /// What began before the last halving went with too many others and says nothing about the width of now.
    fn stalled(&mut self, halvings_before: u32) {
        self.through = 0;
        if halvings_before == self.halvings {
            self.halvings += 1;
            self.allowed = (self.allowed / 2).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lanes, PARTS_PER_LANE, SWALLOWED_BYTES, SentBytes, StallWatch, Width};
    use std::{
        sync::{Arc, atomic::Ordering},
        time::{Duration, Instant},
    };

    const MIB: u64 = 1 << 20;
    const PART: u64 = 16 * MIB;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_body_that_moves_now_and_then_has_not_stalled_and_one_that_rests_for_a_minute_has() {
        let began = Instant::now();
        let mut watch = StallWatch::new(began, 0..PART);
        for minute in 0..20 {
            assert_eq!(watch.look(began + seconds(minute * 59), minute * 1000), None);
        }
        let last_move = began + seconds(19 * 59);
        assert_eq!(watch.look(last_move + seconds(59), 19_000), None);
        assert_eq!(watch.look(last_move + seconds(60), 19_000), Some(seconds(60)));
    }

    #[test]
    fn what_is_handed_over_has_time_to_drain_and_to_be_answered() {
        // 650 KiB in buffers at 5 KiB/s: 130 s after the last piece was handed over.
        let began = Instant::now();
        let mut watch = StallWatch::new(began, 0..PART);
        assert_eq!(watch.look(began, PART), None);
        assert_eq!(watch.look(began + seconds(130), PART), None);
        assert_eq!(watch.look(began + seconds(60 + 256), PART), Some(seconds(60 + 256)));
        let end = 100 + 32 * 1024;
        let mut small = StallWatch::new(began, 100..end);
        for (second, stalled) in [(0, None), (61, None), (62, Some(seconds(62)))] {
            assert_eq!(small.look(began + seconds(second), end), stalled);
        }
    }

    #[test]
    fn what_buffers_swallow_of_each_try_did_not_leave() {
        let left = Arc::default();
        let sent = SentBytes::new(0, Arc::clone(&left));
        for _ in 0..3 {
            sent.set(0);
            sent.add(SWALLOWED_BYTES - 10);
        }
        assert_eq!(left.load(Ordering::Relaxed), 0);
        sent.add(30);
        sent.add(5);
        assert_eq!((sent.get(), left.load(Ordering::Relaxed)), (SWALLOWED_BYTES + 25, 25));
    }

    #[test]
    fn a_stall_halves_the_width_once_for_all_that_were_under_way() {
        let mut width = Width::new(4);
        let under_way: Vec<u32> = (0..4).map(|_| width.enter().unwrap()).collect();
        assert_eq!(width.enter(), None);
        for halvings in under_way {
            width.stalled(halvings);
            width.under_way -= 1;
        }
        let now = (width.enter(), width.enter(), width.enter());
        assert_eq!(now, (Some(1), Some(1), None), "two at a time now");
        width.stalled(1);
        width.stalled(2);
        assert_eq!(width.allowed, 1, "one at least");
    }

    #[test]
    fn the_width_grows_again_by_one_while_parts_get_through() {
        let mut width = Width::new(4);
        width.stalled(0);
        for allowed in [3, 4, 4] {
            (0..PARTS_PER_LANE).for_each(|_| width.got_through());
            assert_eq!(width.allowed, allowed);
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_lane_goes_when_another_is_done() {
        let lanes = Lanes::new(2);
        let (first, second) = (lanes.enter().await, lanes.enter().await);
        first.stalled();
        let done = async {
            drop(first);
            tokio::task::yield_now().await;
            assert_eq!(lanes.width().under_way, 1, "one at a time now");
            drop(second);
        };
        let (third, ()) = tokio::join!(lanes.enter(), done);
        assert_eq!(third.halvings, 1);
    }
}
