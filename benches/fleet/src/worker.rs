//! A simulated worker: as `reelyard worker` speaks to its server, without an encoder.
//!
//! One claimer asks for all free slots when a ticket has come, and acknowledges the ticket when the answer is there. Each
//! task is held for its time (with heartbeats, should that be long) and reported. One stream of orders is kept open. Unlike the
//! real one it keeps its subscription while it is busy, so that every ticket goes through the broker and is taken.

use anyhow::{Context as _, Result, bail};
use reelyard_model::{
    TaskId, WorkerId,
    work::{Offer, Report, TaskKind, Verdict},
    worker_protocol::{Beat, ClaimCall, Held, HelloCall, MachineFacts, OrdersCall, WORKER_PROTOCOL},
};
use reelyard_tickets::{Delivery, RabbitSettings, RabbitTickets, Subscription, Tickets as _};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Notify, task::JoinSet};
use uuid::Uuid;

/// As the real worker: a look without a ticket.
const LOOK_EVERY: Duration = Duration::from_secs(20);
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// Above the life of a stream of orders.
const STREAM_LIMIT: Duration = Duration::from_secs(2 * 3600);

/// What all workers count together, between two resets.
#[derive(Default)]
pub(crate) struct Counters {
    /// In milliseconds: claims that brought tasks, and reports.
    pub(crate) claims_ms: Mutex<Vec<f64>>,
    pub(crate) reports_ms: Mutex<Vec<f64>>,
    pub(crate) granted: AtomicUsize,
    pub(crate) empty_claims: AtomicUsize,
    pub(crate) tickets: AtomicUsize,
    pub(crate) beats: AtomicUsize,
    pub(crate) orders: AtomicUsize,
    pub(crate) completed: AtomicUsize,
}

/// What is the same for all workers.
pub(crate) struct Farm {
    pub(crate) url: String,
    pub(crate) key: String,
    pub(crate) tickets_url: String,
    pub(crate) slots: u32,
    pub(crate) work_ms: u64,
    pub(crate) with_orders: bool,
    /// A report's last member, written once: a real worker writes its own, on a machine of its own.
    pub(crate) report: String,
    pub(crate) counters: Counters,
    /// Of the lengths of tasks.
    pub(crate) chance: AtomicU64,
}

/// As much of an answer as is needed here.
#[derive(Deserialize)]
struct Grants {
    grants: Vec<Granted>,
}

#[derive(Clone, Copy, Deserialize)]
pub(crate) struct Granted {
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) lease_ms: u64,
}

#[derive(Deserialize)]
struct Answered {
    verdict: Verdict,
}

/// The way to the server, with connections of its own.
#[derive(Clone)]
pub(crate) struct Link {
    http: reqwest::Client,
    farm: Arc<Farm>,
    pub(crate) worker: WorkerId,
}

impl Link {
    /// And says hello.
    pub(crate) async fn open(farm: Arc<Farm>, number: usize) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(std::iter::empty())
            .tcp_nodelay(true)
            .timeout(CALL_LIMIT)
            .build()?;
        let link = Self { http, farm, worker: WorkerId::from_uuid(Uuid::now_v7()) };
        let hello = HelloCall {
            protocol: WORKER_PROTOCOL,
            worker: link.worker,
            name: format!("bench {number}"),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: MachineFacts { heavy_slots: link.farm.slots, ..MachineFacts::default() },
        };
        link.call("hello", &hello).await?;
        Ok(link)
    }

    async fn call<Q: Serialize>(&self, name: &str, call: &Q) -> Result<Vec<u8>> {
        self.call_with(name, serde_json::to_vec(call)?).await
    }

    async fn call_with(&self, name: &str, body: Vec<u8>) -> Result<Vec<u8>> {
        let answer = self.post(name).body(body).send().await.with_context(|| name.to_owned())?;
        let status = answer.status();
        let bytes = answer.bytes().await?;
        if !status.is_success() {
            bail!("{name} is answered {status}: {}", String::from_utf8_lossy(&bytes));
        }
        Ok(bytes.to_vec())
    }

    fn post(&self, name: &str) -> reqwest::RequestBuilder {
        let request = self.http.post(format!("{}/v1/worker/{name}", self.farm.url));
        request.bearer_auth(&self.farm.key).header("Content-Type", "application/json")
    }

    pub(crate) async fn claim(&self, kind: TaskKind, slots: u32) -> Result<Vec<Granted>> {
        let offer = Offer {
            worker: self.worker,
            kinds: vec![kind],
            prefers: vec![kind],
            slots,
            cpu_millicores: 4_000,
            memory_bytes: 8 << 30,
        };
        let call = ClaimCall {
            protocol: WORKER_PROTOCOL,
            worker: self.worker,
            offers: vec![offer],
            max: slots,
            wait_ms: 0,
            after: None,
            claim: Some(Uuid::now_v7()),
            unheard: Vec::new(),
        };
        let answer = self.call("claim", &call).await?;
        Ok(serde_json::from_slice::<Grants>(&answer)?.grants)
    }

    /// `report`: as JSON.
    pub(crate) async fn report(&self, granted: Granted, report: &str) -> Result<()> {
        let Granted { task, attempt, .. } = granted;
        let worker = self.worker;
        let body = format!(
            r#"{{"protocol":{WORKER_PROTOCOL},"worker":"{worker}","task":"{task}","attempt":{attempt},"report":{report}}}"#
        );
        let answer = self.call_with("report", body.into_bytes()).await?;
        let Answered { verdict } = serde_json::from_slice(&answer)?;
        if verdict != Verdict::Continue {
            bail!("the report of task {task} is answered {verdict:?}");
        }
        Ok(())
    }

    pub(crate) async fn beat(&self, held: &[Granted]) -> Result<()> {
        let beats: Vec<Beat> = held
            .iter()
            .map(|held| Beat { task: held.task, attempt: held.attempt, progress: Default::default() })
            .collect();
        let call = reelyard_model::worker_protocol::HeartbeatCall {
            protocol: WORKER_PROTOCOL,
            worker: self.worker,
            beats,
        };
        self.call("heartbeat", &call).await?;
        self.farm.counters.beats.fetch_add(held.len(), Ordering::Relaxed);
        Ok(())
    }
}

/// The tasks in hand, and who waits for one to end.
#[derive(Default)]
struct InHand {
    held: Mutex<HashSet<Held>>,
    freed: Notify,
}

impl InHand {
    fn count(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn add(&self, held: Held) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(held);
    }

    fn remove(&self, held: Held) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&held);
        self.freed.notify_one();
    }
}

/// For ever; an error ends the run.
pub(crate) async fn work(farm: Arc<Farm>, number: usize) -> Result<()> {
    let link = Link::open(farm.clone(), number).await?;
    let tickets = RabbitTickets::new(RabbitSettings::new(&farm.tickets_url))?;
    let prefetch = u16::try_from(farm.slots).unwrap_or(u16::MAX);
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], prefetch);
    let in_hand = Arc::new(InHand::default());
    let mut running = JoinSet::new();
    if farm.with_orders {
        running.spawn(listen(link.clone(), in_hand.clone()));
    }
    loop {
        let free = loop {
            while let Some(ended) = running.try_join_next() {
                ended??;
            }
            let free = (farm.slots as usize).saturating_sub(in_hand.count());
            if free > 0 {
                break free;
            }
            in_hand.freed.notified().await;
        };
        let deliveries = tickets_for(&mut subscription, free).await;
        let begin = Instant::now();
        let granted = link.claim(TaskKind::Encode, u32::try_from(free)?).await?;
        let counters = &farm.counters;
        if granted.is_empty() {
            counters.empty_claims.fetch_add(1, Ordering::Relaxed);
        } else {
            keep(&counters.claims_ms, begin.elapsed());
            counters.granted.fetch_add(granted.len(), Ordering::Relaxed);
        }
        counters.tickets.fetch_add(deliveries.len(), Ordering::Relaxed);
        for delivery in deliveries {
            delivery.acknowledge().await?;
        }
        for granted in granted {
            let held = Held { task: granted.task, attempt: granted.attempt };
            in_hand.add(held);
            let (link, in_hand) = (link.clone(), in_hand.clone());
            running.spawn(async move {
                let ended = hold(&link, granted).await;
                in_hand.remove(held);
                ended
            });
        }
    }
}

/// At least one, unless the time for a look has come; and those that are here already, up to the free slots.
async fn tickets_for(subscription: &mut Subscription, free: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    if let Ok(first) = tokio::time::timeout(LOOK_EVERY, subscription.next()).await {
        deliveries.push(first);
        while deliveries.len() < free
            && let Some(more) = futures::FutureExt::now_or_never(subscription.next())
        {
            deliveries.push(more);
        }
    }
    deliveries
}

async fn hold(link: &Link, granted: Granted) -> Result<()> {
    let farm = &link.farm;
    let until = Instant::now() + work_time(farm);
    let beat = Duration::from_millis(granted.lease_ms / 3);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        tokio::time::sleep(left.min(beat)).await;
        if Instant::now() >= until {
            break;
        }
        link.beat(&[granted]).await?;
    }
    let begin = Instant::now();
    link.report(granted, &farm.report).await?;
    keep(&farm.counters.reports_ms, begin.elapsed());
    farm.counters.completed.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Half of what it takes on average to one and a half times of it.
fn work_time(farm: &Farm) -> Duration {
    // Multiplicative hashing (Knuth): spread enough for a length.
    let step = farm.chance.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    Duration::from_millis(farm.work_ms / 2 + farm.work_ms * step / (1 << 24))
}

/// One stream for the worker's whole life.
async fn listen(link: Link, in_hand: Arc<InHand>) -> Result<()> {
    loop {
        let held = in_hand.held.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let call = OrdersCall { protocol: WORKER_PROTOCOL, worker: link.worker, held };
        let request = link.post("orders").timeout(STREAM_LIMIT).body(serde_json::to_vec(&call)?);
        let mut answer = request.send().await.context("orders")?.error_for_status()?;
        link.farm.counters.orders.fetch_add(1, Ordering::Relaxed);
        // Nobody cancels anything here: what comes keeps the connection alive.
        while answer.chunk().await?.is_some() {}
    }
}

fn keep(to: &Mutex<Vec<f64>>, took: Duration) {
    to.lock().unwrap_or_else(PoisonError::into_inner).push(took.as_secs_f64() * 1000.0);
}

/// The report of a film as it is sent.
pub(crate) fn written(report: &Report) -> Result<String> {
    Ok(serde_json::to_string(report)?)
}
