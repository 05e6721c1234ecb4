//! Holding a lease: a heartbeat at a third of its length, for as long as the work goes on.
//!
//! A task of its own sends them, so that neither a slow store nor a busy child can let the lease run out. It ends when
//! the control plane says so (cancelled, lost), or when the control plane has been silent for the whole length: by
//! then the lease is another's, whether we hear about it or not.
//!
//! All leases of a program beat on the same strokes, counted from one moment, so that a control plane that is far away
//! gets the heartbeats of all slots in one request.

use crate::control::ControlPlane;
use reelyard_model::work::{Grant, Progress, Verdict};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, timeout_at},
};

/// Shortest pause between two heartbeats, whatever a grant says.
const SHORTEST_BEAT: Duration = Duration::from_millis(20);

/// After a heartbeat that was not taken the next comes this much sooner: there are only two more before the end.
const RETRIES_PER_BEAT: u32 = 4;

/// From which all leases of this program count their strokes.
fn first_stroke() -> Instant {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    *FIRST.get_or_init(Instant::now)
}

/// The next stroke after `now`, at most `beat` later. Two leases of the same length have the same strokes.
fn next_stroke(first: Instant, now: Instant, beat: Duration) -> Instant {
    if now < first {
        return first.min(now + beat);
    }
    let into_beat = (now - first).as_nanos() % beat.as_nanos().max(1);
    now + beat.saturating_sub(Duration::from_nanos(u64::try_from(into_beat).unwrap_or(0)))
}

pub(crate) struct Lease {
    progress: watch::Sender<Progress>,
    over: watch::Receiver<Option<Verdict>>,
    /// True: the report is on its way.
    reporting: watch::Sender<bool>,
    beating: JoinHandle<()>,
}

impl Lease {
    /// `granted_at` is from before the claim was sent: our clock must run out before the control plane's.
    pub(crate) fn hold<C: ControlPlane>(control: Arc<C>, grant: &Grant, granted_at: Instant) -> Self {
        let (progress, news) = watch::channel(Progress::default());
        let (over_sender, over) = watch::channel(None);
        let (reporting, is_reporting) = watch::channel(false);
        let (task, attempt) = (grant.task, grant.attempt);
        let length = Duration::from_millis(grant.lease_ms);
        let beating = tokio::spawn(async move {
            let beat = (length / 3).max(SHORTEST_BEAT);
            let first = first_stroke();
            let mut ticks = interval_at(next_stroke(first, granted_at, beat), beat);
            // A beat that was late or was tried again leaves the next ones where they were.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let called_off = async {
                let verdict = control.called_off(task, attempt).await;
                // Our own report ends the attempt, and that news may be here before its answer.
                if *is_reporting.borrow() { std::future::pending().await } else { verdict }
            };
            tokio::pin!(called_off);
            let mut ends_at = granted_at + length;
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = tokio::time::sleep_until(ends_at) => {}
                    verdict = &mut called_off => {
                        let _ = over_sender.send(Some(verdict));
                        return;
                    }
                }
                let sent_at = Instant::now();
                if sent_at >= ends_at {
                    tracing::warn!(%task, attempt, "the lease ran out: the control plane was silent for its whole length");
                    let _ = over_sender.send(Some(Verdict::Lost));
                    return;
                }
                let now = *news.borrow();
                let answer = tokio::select! {
                    answer = timeout_at(ends_at, control.heartbeat(task, attempt, now)) => answer,
                    verdict = &mut called_off => Ok(Ok(verdict)),
                };
                match answer {
                    Ok(Ok(Verdict::Continue)) => {
                        ends_at = sent_at + length;
                        ticks.reset_at(next_stroke(first, sent_at, beat));
                    }
                    Ok(Ok(verdict)) => {
                        let _ = over_sender.send(Some(verdict));
                        return;
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(%task, attempt, %error, "a heartbeat was not taken; trying again soon");
                        ticks.reset_after(beat / RETRIES_PER_BEAT);
                    }
                    Err(_) => {}
                }
            }
        });
        Self { progress, over, reporting, beating }
    }

    /// From here on only time, or a heartbeat, ends the lease: the answer to the report says how the attempt ended.
    pub(crate) fn reporting(&self) {
        self.reporting.send_replace(true);
    }

    pub(crate) fn progress(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    /// Returns when the work is ours no more: `Cancelled` or `Lost`. Safe to drop and call again.
    pub(crate) async fn over(&self) -> Verdict {
        let mut over = self.over.clone();
        // An error means that the task is gone, which happens only with the runtime.
        over.wait_for(Option::is_some).await.ok().and_then(|verdict| *verdict).unwrap_or(Verdict::Lost)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::next_stroke;
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn leases_that_began_at_different_times_beat_together() {
        let beat = Duration::from_millis(300);
        let first = Instant::now();
        let granted = first + Duration::from_millis(1000);
        assert_eq!(next_stroke(first, granted, beat), first + beat * 4);
        assert_eq!(next_stroke(first, granted + Duration::from_millis(100), beat), first + beat * 4);
        assert_eq!(next_stroke(first, first + beat * 4, beat), first + beat * 5);
        // The first lease was asked for before the strokes began.
        assert_eq!(next_stroke(granted, first, beat), first + beat);
    }
}
