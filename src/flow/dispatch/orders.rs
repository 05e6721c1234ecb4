//! What a worker is told without having asked for it: that an attempt is over, and whether to take nothing new.
//!
//! Each worker has one stream at some node, for as long as it lives. Attempts end by the catalogue's events, which reach
//! every node of a fleet and name the worker, so it does not matter through which node somebody cancelled, and nobody
//! asks the database: not when an attempt ends, and not when a worker takes or ends one. What workers are to know that
//! no event tells (drain, and that a key was revoked) is asked once for all of them now and then.
//!
//! Nothing falls between: a stream is there before the rows of what its worker has in hand are looked at. Where events
//! were missed, or a worker does not read, streams end; they are opened anew with what is in hand then.

use super::{ends::Ends, ready::Ready};
use crate::app::App;
use reelyard_catalog::{Catalog, CatalogError, EventKind, EventRow};
use reelyard_model::{
    TaskId, TaskState, WorkerId,
    work::{TaskKind, Verdict},
    worker_protocol::{Held, OrdersLine, Over},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{
        broadcast::{Receiver, error::RecvError},
        mpsc,
    },
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

/// Lines that wait for a worker that does not read: more than it has attempts is of no use to it.
const MOST_WAITING: usize = 256;
/// How late an operator's order through another node is told.
const DRAIN_EVERY: Duration = Duration::from_secs(1);
/// How long whoever holds a revoked key may still hear.
const KEYS_EVERY: Duration = Duration::from_secs(5);
/// What was asked is believed for so long: two looks, of which one may be slow.
const BELIEVED: Duration = Duration::from_secs(2);

/// The streams of this node.
pub(crate) struct Orders {
    heard: Arc<Heard>,
    _at_work: [AbortOnDropHandle<()>; 2],
}

struct Heard {
    streams: Mutex<HashMap<WorkerId, Stream>>,
    /// How many there were: the number of the next one.
    opened: AtomicU64,
    ready: Ready,
    ends: Ends,
}

struct Stream {
    number: u64,
    lines: mpsc::Sender<OrdersLine>,
    /// By which it was opened; `None`: the server has none.
    key: Option<Uuid>,
    /// As it was told.
    drain: bool,
    /// When that was asked.
    asked: Instant,
}

/// The near end of one stream; when it goes, so does the stream.
pub(crate) struct Listening {
    heard: Arc<Heard>,
    worker: WorkerId,
    number: u64,
    lines: mpsc::Receiver<OrdersLine>,
}

impl Orders {
    /// Inside a tokio runtime; looks at the events and the rows until it is dropped.
    pub(crate) fn watch(catalog: &Catalog) -> Self {
        let events = catalog.subscribe();
        let ready = Ready::since(*catalog.last_event().borrow());
        let heard = Arc::new(Heard {
            streams: Mutex::default(),
            opened: AtomicU64::new(0),
            ready,
            ends: Ends::default(),
        });
        let tasks = [
            tokio::spawn(hear(heard.clone(), catalog.clone(), events)),
            tokio::spawn(look(heard.clone(), catalog.clone())),
        ];
        Self { heard, _at_work: tasks.map(AbortOnDropHandle::new) }
    }

    /// Tells the worker's `drain` first. An older stream of the same worker ends.
    pub(crate) fn listen(&self, worker: WorkerId, key: Option<Uuid>, drain: bool) -> Listening {
        let number = self.heard.opened.fetch_add(1, Ordering::Relaxed);
        let (sender, lines) = mpsc::channel(MOST_WAITING);
        let _ = sender.try_send(OrdersLine { over: None, drain: Some(drain) });
        let stream = Stream { number, lines: sender, key, drain, asked: Instant::now() };
        self.heard.streams().insert(worker, stream);
        metrics::counter!("reelyard_worker_streams_opened_total").increment(1);
        Listening { heard: self.heard.clone(), worker, number, lines }
    }

    /// The worker's `drain`, where it is known without asking because it has a stream here.
    pub(crate) fn drain_of(&self, worker: WorkerId) -> Option<bool> {
        let streams = self.heard.streams();
        let stream = streams.get(&worker).filter(|stream| stream.asked.elapsed() < BELIEVED)?;
        Some(stream.drain)
    }

    pub(super) fn ends(&self) -> &Ends {
        &self.heard.ends
    }

    /// An operator has said so through this node.
    pub(crate) fn drain(&self, worker: WorkerId, drain: bool) {
        self.heard.drain(worker, drain, Instant::now());
    }
}

/// Opens the worker's stream, and tells on it what is over of these attempts.
pub(crate) async fn open(
    app: &App,
    worker: WorkerId,
    key: Option<Uuid>,
    held: &[Held],
    drain: bool,
) -> Result<Listening, CatalogError> {
    // First of all: what ends after the look is told by its event.
    let listening = app.orders.listen(worker, key, drain);
    let tasks: Vec<TaskId> = held.iter().map(|held| held.task).collect();
    let states = app.catalog.task_states(&tasks).await?;
    for held in held {
        let Some(verdict) = verdict(states.get(&held.task).copied(), held.attempt) else { continue };
        let over = Over { task: held.task, attempt: held.attempt, verdict };
        app.orders.heard.tell(worker, OrdersLine { over: Some(over), drain: None });
    }
    Ok(listening)
}

/// Returns when something of these kinds may have become ready after the event number `after`.
pub(crate) async fn something_ready(app: &App, kinds: &[TaskKind], after: i64) {
    // A number from the future belongs to another database, or to a node that has heard more.
    let after = after.min(*app.catalog.last_event().borrow());
    app.orders.heard.ready.after(kinds, after).await;
}

impl Listening {
    /// `None`: it ends, and the worker has to open another.
    pub(crate) async fn next(&mut self) -> Option<OrdersLine> {
        self.lines.recv().await
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut streams = self.heard.streams();
        if streams.get(&self.worker).is_some_and(|stream| stream.number == self.number) {
            streams.remove(&self.worker);
        }
    }
}

impl Heard {
    /// Whoever panicked with it left whole entries.
    fn streams(&self) -> MutexGuard<'_, HashMap<WorkerId, Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, worker: WorkerId, line: OrdersLine) {
        Self::tell_one_of(&mut self.streams(), worker, line);
    }

    fn tell_one_of(streams: &mut HashMap<WorkerId, Stream>, worker: WorkerId, line: OrdersLine) {
        let is_full = streams.get(&worker).is_some_and(|stream| stream.lines.try_send(line).is_err());
        if is_full {
            tracing::debug!(%worker, "dispatch: a worker does not read its orders; its stream ends");
            streams.remove(&worker);
        }
    }

    fn drain(&self, worker: WorkerId, drain: bool, asked: Instant) {
        let mut streams = self.streams();
        let Some(stream) = streams.get_mut(&worker) else { return };
        // An answer that was under way when an operator spoke is older than his word.
        if stream.asked > asked {
            return;
        }
        stream.asked = asked;
        // Under the same lock, so that the last that is told is the last that was said.
        if std::mem::replace(&mut stream.drain, drain) != drain {
            Self::tell_one_of(&mut streams, worker, OrdersLine { over: None, drain: Some(drain) });
        }
    }

    fn end_those_of(&self, is_dead: impl Fn(Uuid) -> bool) {
        self.streams().retain(|worker, stream| {
            let ends = stream.key.is_some_and(&is_dead);
            if ends {
                tracing::info!(%worker, "dispatch: the key of a worker was revoked; its stream of orders ends");
            }
            !ends
        });
    }
}

/// As long as the catalogue is open.
async fn hear(heard: Arc<Heard>, catalog: Catalog, mut events: Receiver<Arc<EventRow>>) {
    loop {
        match events.recv().await {
            Ok(event) => {
                heard.ready.saw(&event);
                if let Some((worker, over)) = attempt_over(&event) {
                    heard.ends.wake(over.task);
                    heard.tell(worker, OrdersLine { over: Some(over), drain: None });
                }
            }
            Err(RecvError::Lagged(missed)) => {
                let ended = std::mem::take(&mut *heard.streams()).len();
                tracing::warn!(
                    missed,
                    ended,
                    "dispatch: events were missed; the workers open their streams anew"
                );
                heard.ready.missed_until(*catalog.last_event().borrow());
                heard.ends.wake_all();
            }
            Err(RecvError::Closed) => return heard.streams().clear(),
        }
    }
}

/// Whose attempt this event ends, unless by being done.
fn attempt_over(event: &EventRow) -> Option<(WorkerId, Over)> {
    if event.kind != EventKind::TASK_CHANGED.0 || event.data["from"] != TaskState::Leased.as_str() {
        return None;
    }
    let verdict = match event.data["state"].as_str()?.parse().ok()? {
        TaskState::Done => return None,
        TaskState::Cancelled => Verdict::Cancelled,
        _ => Verdict::Lost,
    };
    let worker = event.data["worker"].as_str()?.parse().ok()?;
    let attempt = event.data["attempt"].as_u64()?.try_into().ok()?;
    Some((worker, Over { task: event.task?, attempt, verdict }))
}

/// `None`: it is at work, or its report was taken.
pub(super) fn verdict(newest: Option<(u32, TaskState)>, attempt: u32) -> Option<Verdict> {
    match newest {
        Some((newest, TaskState::Leased | TaskState::Done)) if newest == attempt => None,
        Some((newest, TaskState::Cancelled)) if newest == attempt => Some(Verdict::Cancelled),
        _ => Some(Verdict::Lost),
    }
}

/// Asks what no event tells, for all streams at once. A catalogue that is away changes nothing.
async fn look(heard: Arc<Heard>, catalog: Catalog) {
    let mut ticks = interval(DRAIN_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keys_asked = Instant::now();
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        let workers: Vec<WorkerId> = heard.streams().keys().copied().collect();
        if workers.is_empty() {
            continue;
        }
        match catalog.workers_drain(&workers).await {
            Ok(drains) => drains.into_iter().for_each(|(worker, drain)| heard.drain(worker, drain, asked)),
            Err(error) => tracing::debug!(%error, "dispatch: which workers drain is not known at the moment"),
        }
        if keys_asked.elapsed() >= KEYS_EVERY {
            keys_asked = Instant::now();
            let mut keys: Vec<Uuid> = heard.streams().values().filter_map(|stream| stream.key).collect();
            keys.sort_unstable();
            keys.dedup();
            match catalog.api_keys_that_live(&keys).await {
                // One that came meanwhile was looked at when it came.
                Ok(live) => heard.end_those_of(|key| keys.contains(&key) && !live.contains(&key)),
                Err(error) => tracing::debug!(%error, "dispatch: which keys live is not known at the moment"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::attempt_over;
    use reelyard_catalog::EventRow;
    use reelyard_model::{TaskId, TenantId, WorkerId, work::Verdict};
    use serde_json::{Value, json};
    use uuid::Uuid;

    fn event(kind: &str, data: Value) -> EventRow {
        let task = Some(TaskId::from_uuid(Uuid::from_u128(7)));
        let (tenant, kind) = (TenantId::DEFAULT, kind.to_owned());
        EventRow { seq: 1, at_ms: 0, tenant, kind, upload: None, asset: None, task, data }
    }

    #[test]
    fn an_attempt_is_over_when_its_task_leaves_the_lease_without_being_done() {
        let worker = WorkerId::from_uuid(Uuid::from_u128(9));
        let moved = |from: &str, state: &str| {
            event(
                "task.changed",
                json!({"from": from, "state": state, "attempt": 3, "worker": worker.to_string()}),
            )
        };
        let told = |event: &EventRow| attempt_over(event).map(|(worker, over)| (worker, over.verdict));
        assert_eq!(told(&moved("leased", "cancelled")), Some((worker, Verdict::Cancelled)));
        for state in ["ready", "retry_wait", "dead"] {
            assert_eq!(told(&moved("leased", state)), Some((worker, Verdict::Lost)), "{state}");
        }
        assert_eq!(attempt_over(&moved("leased", "ready")).unwrap().1.attempt, 3);
        for (from, state) in [("leased", "done"), ("ready", "cancelled"), ("ready", "leased")] {
            assert_eq!(told(&moved(from, state)), None, "{from} to {state}");
        }
        let of_nobody = event("task.changed", json!({"from": "leased", "state": "cancelled", "attempt": 3}));
        assert_eq!(told(&of_nobody), None);
        assert_eq!(told(&event("task.progress", json!({"attempt": 3}))), None);
    }
}
