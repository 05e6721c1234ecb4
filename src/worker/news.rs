//! Orders that come without being asked for: one stream, kept open for as long as the worker lives, on which a server
//! tells when an attempt is over and when an operator wants this worker idle. So a cancel stops a child in moments, not at
//! its next heartbeat.
//!
//! A stream that ends is opened anew, with what is in hand then; what ended in between is told at once. Nothing depends
//! on it: heartbeats tell the same.

use super::link::{CallError, Link, SHORT_LIMIT};
use crate::app::random_u32;
use reelyard_model::{
    WorkerId,
    work::{Progress, Verdict},
    worker_protocol::{
        Beat, HeartbeatAnswer, HeartbeatCall, Held, MAX_ATTEMPTS, MAX_GRANTS, ORDERS_KEEP_ALIVE_MS,
        OrdersCall, OrdersLine, Over, WORKER_PROTOCOL,
    },
};
use reqwest::Response;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

/// Two lines that keep the connection alive and did not come: it is dead.
const SILENCE: Duration = Duration::from_millis(2 * ORDERS_KEEP_ALIVE_MS + 5_000);
/// A line is some hundred bytes.
const MAX_LINE_BYTES: usize = 16 << 10;
/// Before a stream is opened anew, doubled up to the second while streams end as soon as they begin. By chance, so that
/// a fleet does not come back all at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A stream that lived so long was in order.
const LIVED: Duration = Duration::from_secs(30);
/// Where the server does not understand, which only another version of one of us changes.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// Orders that are kept for attempts that nobody here listens for (yet), and grants that nobody listens for yet.
const MOST_EARLY: usize = 256;
const MOST_GRANTED: usize = 2 * MAX_GRANTS as usize;

type Told = watch::Sender<Option<Verdict>>;

pub(super) struct News {
    heard: Arc<Heard>,
    _listening: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Heard {
    state: Mutex<State>,
    /// Something is in doubt.
    doubts: Notify,
    drained: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    listeners: HashMap<Held, Told>,
    /// Orders that came before somebody listened: the claim was still being answered, or its task being taken up.
    early: VecDeque<(Held, Verdict)>,
    /// Answers of claims that nobody listens for yet.
    granted: VecDeque<Held>,
    /// How many streams were opened; `Some`: this one is open.
    streams: u64,
    open: Option<u64>,
    /// Those of them that may have ended while nobody could tell; they are asked about once.
    doubtful: Vec<Held>,
}

/// An attempt that is listened for as long as this lives.
struct Listening<'news> {
    heard: &'news Heard,
    held: Held,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.heard.state().listeners.remove(&self.held);
    }
}

/// The stream that was open when a claim began.
#[derive(Clone, Copy)]
pub(super) struct Claiming(Option<u64>);

impl News {
    /// `drained`: whether this worker was told to take nothing new.
    pub(super) fn start(link: Arc<Link>, worker: WorkerId, drained: Arc<AtomicBool>) -> Self {
        let heard = Arc::new(Heard { drained, ..Heard::default() });
        let listening = tokio::spawn(listen_for_ever(heard.clone(), link, worker));
        Self { heard, _listening: AbortOnDropHandle::new(listening) }
    }

    /// Returns when this attempt is over, as far as the servers tell.
    pub(super) async fn over(&self, held: Held) -> Verdict {
        let (sender, mut told) = watch::channel(None);
        {
            let mut state = self.heard.state();
            state.granted.retain(|granted| *granted != held);
            if let Some(place) = state.early.iter().position(|(early, _)| *early == held)
                && let Some((_, verdict)) = state.early.remove(place)
            {
                return verdict;
            }
            state.listeners.insert(held, sender);
        }
        let _listening = Listening { heard: &self.heard, held };
        match told.wait_for(Option::is_some).await.ok().and_then(|verdict| *verdict) {
            Some(verdict) => verdict,
            // The same attempt was listened for anew: the other one hears it.
            None => std::future::pending().await,
        }
    }

    /// Before a claim is sent.
    pub(super) fn claiming(&self) -> Claiming {
        Claiming(self.heard.state().open)
    }

    /// What a claim brought. Unless one stream was open from before it began, an order may have gone by unheard.
    pub(super) fn granted(&self, since: Claiming, granted: &[Held]) {
        if granted.is_empty() {
            return;
        }
        let mut state = self.heard.state();
        state.granted.extend(granted);
        let surplus = state.granted.len().saturating_sub(MOST_GRANTED);
        state.granted.drain(..surplus);
        if since.0.is_none() || since.0 != state.open {
            state.doubtful.extend(granted);
            self.heard.doubts.notify_one();
        }
    }
}

impl Heard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in hand, for the next stream.
    fn next_stream(&self) -> (u64, Vec<Held>) {
        let mut state = self.state();
        state.streams += 1;
        let held = state.listeners.keys().chain(&state.granted).copied().take(MAX_ATTEMPTS).collect();
        (state.streams, held)
    }

    fn take(&self, line: OrdersLine) {
        if let Some(drain) = line.drain
            && self.drained.swap(drain, Ordering::Relaxed) != drain
        {
            tracing::info!(drain, "an operator told this worker whether to take new work");
        }
        let Some(over) = line.over else { return };
        let held = Held { task: over.task, attempt: over.attempt };
        let mut state = self.state();
        if let Some(told) = state.listeners.get(&held) {
            told.send_replace(Some(over.verdict));
            return;
        }
        if state.early.len() >= MOST_EARLY {
            state.early.pop_front();
        }
        state.early.push_back((held, over.verdict));
    }

    /// While a stream is open, so that whatever ends after the question is told. A question that fails is left to the
    /// heartbeats of the attempt itself.
    async fn ask_about_doubtful(&self, link: &Link, worker: WorkerId) {
        loop {
            let doubtful = std::mem::take(&mut self.state().doubtful);
            for some in doubtful.chunks(MAX_ATTEMPTS) {
                let beat = |held: &Held| Beat {
                    task: held.task,
                    attempt: held.attempt,
                    progress: Progress::default(),
                };
                let beats = some.iter().map(beat).collect();
                let call = HeartbeatCall { protocol: WORKER_PROTOCOL, worker, beats };
                let answered: Result<HeartbeatAnswer, CallError> =
                    link.call("heartbeat", &call, SHORT_LIMIT).await;
                let verdicts = answered.map_or_else(|_| Vec::new(), |answer| answer.verdicts);
                for (held, verdict) in some.iter().zip(verdicts) {
                    let Some(verdict @ (Verdict::Cancelled | Verdict::Lost)) = verdict else { continue };
                    let over = Over { task: held.task, attempt: held.attempt, verdict };
                    self.take(OrdersLine { over: Some(over), drain: None });
                }
            }
            self.doubts.notified().await;
        }
    }
}

async fn listen_for_ever(heard: Arc<Heard>, link: Arc<Link>, worker: WorkerId) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        match listen_once(&heard, &link, worker).await {
            Ok(()) => {}
            // The link waits before it asks that server again.
            Err(error @ CallError::Away(_)) => tracing::debug!(%error, "no orders; asking again"),
            // It ends the program.
            Err(CallError::Denied(_)) => return,
            Err(error) => {
                tracing::warn!(%error, "orders are refused; heartbeats tell the same");
                sleep(REFUSED_PAUSE).await;
            }
        }
        pause = if begun.elapsed() >= LIVED { FIRST_PAUSE } else { pause };
        sleep(pause.mul_f64(0.5 + 0.5 * f64::from(random_u32()) / f64::from(u32::MAX))).await;
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// One stream, from its opening to its end.
async fn listen_once(heard: &Heard, link: &Link, worker: WorkerId) -> Result<(), CallError> {
    let (number, held) = heard.next_stream();
    let call = OrdersCall { protocol: WORKER_PROTOCOL, worker, held };
    let mut answer = link.open("orders", &call).await?;
    heard.state().open = Some(number);
    let ended = tokio::select! {
        ended = read(heard, &mut answer) => ended,
        () = heard.ask_about_doubtful(link, worker) => Ok(()),
    };
    heard.state().open = None;
    ended
}

async fn read(heard: &Heard, answer: &mut Response) -> Result<(), CallError> {
    let broken = |why: &str| CallError::Away(format!("the stream of orders broke: {why}"));
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let piece =
            timeout(SILENCE, answer.chunk()).await.map_err(|_| broken("nothing came for too long"))?;
        let Some(piece) = piece.map_err(|error| broken(&error.to_string()))? else { return Ok(()) };
        rest.extend_from_slice(&piece);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = serde_json::from_slice(&rest[..end]).map_err(|error| broken(&error.to_string()))?;
            rest.drain(..=end);
            heard.take(line);
        }
        if rest.len() > MAX_LINE_BYTES {
            return Err(broken("a line is too long"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Heard, News};
    use reelyard_model::{
        TaskId,
        work::Verdict,
        worker_protocol::{Held, OrdersLine, Over},
    };
    use std::{sync::Arc, time::Duration};
    use tokio_util::task::AbortOnDropHandle;
    use uuid::Uuid;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Without a server: the lines are put in by hand.
    fn news() -> News {
        let _listening = AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
        News { heard: Arc::new(Heard::default()), _listening }
    }

    fn held(number: u128) -> Held {
        Held { task: TaskId::from_uuid(Uuid::from_u128(number)), attempt: 2 }
    }

    fn order(held: Held) -> OrdersLine {
        let over = Over { task: held.task, attempt: held.attempt, verdict: Verdict::Cancelled };
        OrdersLine { over: Some(over), drain: None }
    }

    #[tokio::test]
    async fn an_order_is_heard_whether_it_comes_before_its_attempt_is_taken_up_or_after() {
        let news = news();
        news.heard.take(order(held(1)));
        assert_eq!(tokio::time::timeout(PATIENCE, news.over(held(1))).await, Ok(Verdict::Cancelled));
        let waiting = tokio::join!(tokio::time::timeout(PATIENCE, news.over(held(2))), async {
            // The join has polled the listener by now.
            news.heard.take(order(held(3)));
            news.heard.take(order(held(2)));
        });
        assert_eq!(waiting.0, Ok(Verdict::Cancelled));
        assert!(news.heard.state().listeners.is_empty(), "nobody listens any more");
    }

    #[tokio::test]
    async fn what_is_granted_is_asked_about_unless_one_stream_was_open_all_the_while() {
        let news = news();
        let doubtful = || std::mem::take(&mut news.heard.state().doubtful);
        let since = news.claiming();
        news.granted(since, &[held(1)]);
        assert_eq!(doubtful(), [held(1)], "no stream was open");
        let (number, in_hand) = news.heard.next_stream();
        assert_eq!(in_hand, [held(1)], "the next stream is told of it");
        news.heard.state().open = Some(number);
        let since = news.claiming();
        news.granted(since, &[held(2)]);
        assert_eq!(doubtful(), [], "it was open all the while");
        let since = news.claiming();
        let (number, _) = news.heard.next_stream();
        news.heard.state().open = Some(number);
        news.granted(since, &[held(3)]);
        assert_eq!(doubtful(), [held(3)], "another one is open now");
    }
}
