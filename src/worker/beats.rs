//! Heartbeats of all slots in one call.
//!
//! The leases of an agent beat on the same strokes, so their heartbeats come within moments of each other: the first
//! one waits that long for the others. A call that fails fails all of them, and each lease tries again by itself.

use super::link::{CallError, Link, SHORT_LIMIT};
use reelyard_agent::control::ControlUnavailable;
use reelyard_model::{
    WorkerId,
    work::Verdict,
    worker_protocol::{Beat, HeartbeatAnswer, HeartbeatCall, MAX_ATTEMPTS, WORKER_PROTOCOL},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

/// How long the first heartbeat of a stroke waits for the others: more than a busy scheduler needs, and nothing
/// beside a lease.
const GATHER: Duration = Duration::from_millis(25);

type Told = Result<Verdict, ControlUnavailable>;

/// A heartbeat, and who waits for its verdict.
struct Waiting {
    beat: Beat,
    answer: oneshot::Sender<Told>,
}

#[derive(Clone)]
pub(super) struct Beats(mpsc::Sender<Waiting>);

impl Beats {
    pub(super) fn start(link: Arc<Link>, worker: WorkerId) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Waiting>(MAX_ATTEMPTS);
        tokio::spawn(async move {
            while let Some(first) = receiver.recv().await {
                let until = Instant::now() + GATHER;
                let mut stroke = vec![first];
                while stroke.len() < MAX_ATTEMPTS {
                    match timeout_at(until, receiver.recv()).await {
                        Ok(Some(more)) => stroke.push(more),
                        Ok(None) | Err(_) => break,
                    }
                }
                // Apart: the next stroke does not wait for a server that hangs.
                tokio::spawn(send(link.clone(), worker, stroke));
            }
        });
        Self(sender)
    }

    pub(super) async fn send(&self, beat: Beat) -> Told {
        let (answer, told) = oneshot::channel();
        let ended = || ControlUnavailable("this worker ends".to_owned());
        self.0.send(Waiting { beat, answer }).await.map_err(|_| ended())?;
        told.await.map_err(|_| ended())?
    }
}

async fn send(link: Arc<Link>, worker: WorkerId, stroke: Vec<Waiting>) {
    let beats = stroke.iter().map(|waiting| waiting.beat).collect();
    let call = HeartbeatCall { protocol: WORKER_PROTOCOL, worker, beats };
    let answered: Result<HeartbeatAnswer, CallError> = link.call("heartbeat", &call, SHORT_LIMIT).await;
    let mut verdicts = match &answered {
        Ok(answer) => answer.verdicts.clone().into_iter(),
        Err(_) => Vec::new().into_iter(),
    };
    for waiting in stroke {
        let told = match (&answered, verdicts.next().flatten()) {
            (_, Some(verdict)) => Ok(verdict),
            (Err(error), None) => Err(error.clone().into()),
            (Ok(_), None) => Err(ControlUnavailable("the server could not look this task up".to_owned())),
        };
        // Nobody waits for it any more: the task has ended.
        let _ = waiting.answer.send(told);
    }
}
