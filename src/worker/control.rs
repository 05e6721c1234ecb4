//! The agent's control plane over HTTP.
//!
//! A claim asks for all free slots at once and is sent to one server only. When its answer is lost, the next claim names
//! it, and what it had brought goes back in line first. Everything else is safe to repeat and goes to every server in
//! turn. Between claims the worker waits for a ticket, or in a call that the server holds; and looks again
//! after a while in any case, because tickets may be lost and some work becomes ready without one.

use super::{
    beats::Beats,
    link::{CallError, Link, SHORT_LIMIT},
    news::News,
    waiting::Waiting,
};
use crate::app::random_u32;
use reelyard_agent::control::{ControlPlane, ControlUnavailable};
use reelyard_crash_points::{crash_point, switched_off};
use reelyard_model::{
    TaskId, WorkerId,
    work::{Grant, Offer, Progress, Report, Verdict},
    worker_protocol::{
        Beat, ClaimAnswer, ClaimCall, Held, MAX_GRANTS, MAX_UNHEARD, ReleaseAnswer, ReleaseCall,
        ReportAnswer, ReportCall, WORKER_PROTOCOL,
    },
};
use reelyard_tickets::RabbitTickets;
use serde::Deserialize as _;
use serde_json::Value;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// A report can be 17 MiB long.
const REPORT_LIMIT: Duration = Duration::from_secs(60);
/// An idle worker looks this often without having been told: a tenant's turn comes without a ticket. A quarter of it
/// is by chance.
const LOOK_EVERY_MS: u64 = 5_000;
/// The same where tickets come from a broker, which may lose some with its disk.
const LOOK_EVERY_WITH_TICKETS_MS: u64 = 20_000;
/// A claim of many slots is as many transactions.
const CLAIM_LIMIT: Duration = Duration::from_secs(20);
/// A claim that was given up here may still be carried out over there, so it is named for so long: a lease and what a
/// claim may take.
const UNHEARD_FOR: Duration = Duration::from_secs(60);
/// `seen` of nobody.
const NOTHING_SEEN: i64 = -1;

pub(crate) struct HttpControl {
    link: Arc<Link>,
    worker: WorkerId,
    beats: Beats,
    news: News,
    /// `None`: the server tells when there is something.
    tickets: Option<Waiting>,
    /// How far the server had looked at the last claim.
    seen: AtomicI64,
    drained: Arc<AtomicBool>,
    /// Claims without an answer (yet), and since when.
    unheard: Mutex<VecDeque<(Uuid, Instant)>>,
}

impl HttpControl {
    /// Inside a tokio runtime: two loops run beside it until it is dropped.
    pub(crate) fn start(link: Arc<Link>, worker: WorkerId, tickets: Option<RabbitTickets>) -> Self {
        let drained = Arc::new(AtomicBool::new(false));
        Self {
            tickets: tickets.map(Waiting::new),
            beats: Beats::start(link.clone(), worker),
            news: News::start(link.clone(), worker, drained.clone()),
            link,
            worker,
            seen: AtomicI64::new(NOTHING_SEEN),
            drained,
            unheard: Mutex::default(),
        }
    }

    /// The last word: nothing is held, and this worker does not come back.
    pub(crate) async fn goodbye(&self) -> Result<(), CallError> {
        self.release_all(Vec::new(), true).await
    }

    async fn release_all(&self, held: Vec<Held>, goodbye: bool) -> Result<(), CallError> {
        let call = ReleaseCall { protocol: WORKER_PROTOCOL, worker: self.worker, held, goodbye };
        let _: ReleaseAnswer = self.link.call("release", &call, SHORT_LIMIT).await?;
        Ok(())
    }

    /// To a worker that can read them. What fails here is found when the leases run out.
    async fn give_back(&self, unreadable: Vec<Held>) {
        let tasks = unreadable.len();
        tracing::error!(
            tasks,
            "the server grants tasks that this version of the program cannot read; they go back"
        );
        if let Err(error) = self.release_all(unreadable, false).await {
            tracing::warn!(tasks, %error, "they could not be given back and wait for their leases");
        }
    }

    fn claim_call(&self, offers: &[Offer]) -> ClaimCall {
        let seen = self.seen.load(Ordering::Relaxed);
        ClaimCall {
            protocol: WORKER_PROTOCOL,
            worker: self.worker,
            offers: offers.to_vec(),
            max: 0,
            wait_ms: 0,
            after: (seen != NOTHING_SEEN).then_some(seen),
            claim: None,
            unheard: Vec::new(),
        }
    }

    /// The grants are still to be read: a server of another version may know jobs that this program does not.
    async fn ask_for_work(&self, call: &ClaimCall) -> Result<ClaimAnswer<Value>, CallError> {
        let limit = CLAIM_LIMIT + Duration::from_millis(call.wait_ms);
        let answer: ClaimAnswer<Value> = self.link.call_once("claim", call, limit).await?;
        if answer.drain != self.drained.swap(answer.drain, Ordering::Relaxed) {
            tracing::info!(drain = answer.drain, "an operator told this worker whether to take new work");
        }
        Ok(answer)
    }

    /// A name for the claim that begins now, and the names of those before it that nobody answered.
    fn name_claim(&self) -> (Uuid, Vec<Uuid>) {
        let mut unheard = self.unheard();
        unheard.retain(|(_, since)| since.elapsed() < UNHEARD_FOR);
        let surplus = unheard.len().saturating_sub(MAX_UNHEARD);
        unheard.drain(..surplus);
        let before = unheard.iter().map(|(name, _)| *name).collect();
        let name = Uuid::now_v7();
        // Now, because the claim may be dropped before its answer has come.
        unheard.push_back((name, Instant::now()));
        (name, before)
    }

    fn unheard(&self) -> MutexGuard<'_, VecDeque<(Uuid, Instant)>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those that this program understands, and the others.
fn read_grants(grants: Vec<Value>) -> (Vec<Grant>, Vec<Held>) {
    let (mut read, mut unreadable) = (Vec::with_capacity(grants.len()), Vec::new());
    for grant in grants {
        let held = Held::deserialize(&grant);
        match serde_json::from_value(grant) {
            Ok(grant) => read.push(grant),
            Err(error) => {
                tracing::debug!(%error, "a grant that cannot be read");
                unreadable.extend(held);
            }
        }
    }
    (read, unreadable)
}

/// As if nobody had answered.
fn injected(injected: reelyard_crash_points::Injected) -> ControlUnavailable {
    ControlUnavailable(injected.to_string())
}

impl ControlPlane for HttpControl {
    async fn claim(&self, offers: &[Offer]) -> Result<Vec<Grant>, ControlUnavailable> {
        let wanted = offers.iter().map(|offer| offer.slots).fold(0, u32::saturating_add);
        let since = self.news.claiming();
        let (name, unheard) = self.name_claim();
        let call =
            ClaimCall { max: wanted.min(MAX_GRANTS), claim: Some(name), unheard, ..self.claim_call(offers) };
        let answer = self.ask_for_work(&call).await?;
        if !answer.grants.is_empty() {
            crash_point!("worker-after-claim").map_err(injected)?;
        }
        self.unheard().retain(|(unheard, _)| *unheard != name);
        self.seen.store(answer.seen, Ordering::Relaxed);
        let (grants, unreadable) = read_grants(answer.grants);
        let held = |grant: &Grant| Held { task: grant.task, attempt: grant.attempt };
        self.news.granted(since, &grants.iter().map(held).collect::<Vec<_>>());
        if !unreadable.is_empty() {
            self.give_back(unreadable).await;
            if grants.is_empty() {
                let why =
                    "it granted only tasks that this version of the program cannot read; bring it up to date";
                return Err(ControlUnavailable(why.to_owned()));
            }
        }
        if let Some(tickets) = &self.tickets {
            tickets.claimed(grants.len() >= wanted as usize).await;
        }
        metrics::counter!("reelyard_worker_granted_total").increment(grants.len() as u64);
        Ok(grants)
    }

    async fn heartbeat(
        &self,
        task: TaskId,
        attempt: u32,
        progress: Progress,
    ) -> Result<Verdict, ControlUnavailable> {
        self.beats.send(Beat { task, attempt, progress }).await
    }

    async fn report(
        &self,
        task: TaskId,
        attempt: u32,
        report: Report,
    ) -> Result<Verdict, ControlUnavailable> {
        let outcome = match &report {
            Report::Completed { .. } => "completed",
            Report::Failed { .. } => "failed",
        };
        let call = ReportCall { protocol: WORKER_PROTOCOL, worker: self.worker, task, attempt, report };
        crash_point!("worker-before-report").map_err(injected)?;
        let answered: Result<ReportAnswer, CallError> = self.link.call("report", &call, REPORT_LIMIT).await;
        crash_point!("worker-after-report").map_err(injected)?;
        let verdict = match answered {
            Ok(answer) => answer.verdict,
            // It will not be taken the next time either; the lease runs out and the loss is counted.
            Err(error @ CallError::Refused { .. }) => {
                tracing::error!(%task, attempt, %error, "the report is refused; the task is let go");
                Verdict::Lost
            }
            Err(error) => return Err(error.into()),
        };
        metrics::counter!("reelyard_worker_reports_total", "outcome" => outcome).increment(1);
        Ok(verdict)
    }

    async fn release(&self, task: TaskId, attempt: u32) -> Result<(), ControlUnavailable> {
        Ok(self.release_all(vec![Held { task, attempt }], false).await?)
    }

    async fn called_off(&self, task: TaskId, attempt: u32) -> Verdict {
        self.news.over(Held { task, attempt }).await
    }

    async fn wait_for_ticket(&self, offers: &[Offer]) {
        let look_every_ms = if self.tickets.is_some() { LOOK_EVERY_WITH_TICKETS_MS } else { LOOK_EVERY_MS };
        let wait_ms = look_every_ms - u64::from(random_u32()) % (look_every_ms / 4);
        if let Some(tickets) = &self.tickets {
            let wait_ms = if switched_off!("without-safety-net") { u64::from(u32::MAX) } else { wait_ms };
            return tickets.wait(offers, Duration::from_millis(wait_ms)).await;
        }
        // What it says is asked for again by the claim that follows; that it failed is told by that claim too.
        if self.ask_for_work(&ClaimCall { wait_ms, ..self.claim_call(offers) }).await.is_err() {
            sleep(Duration::from_millis(wait_ms / 10)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::read_grants;
    use serde_json::json;

    #[test]
    fn a_grant_of_a_later_version_is_told_apart_from_those_that_can_be_read() {
        let grant = |attempt: u32, job: &str| {
            json!({
                "task": "0198c0de-0000-7000-8000-000000000002", "asset": "0198c0de-0000-7000-8000-000000000003",
                "kind": "probe", "attempt": attempt, "job": { "kind": job }, "limits": reelyard_model::child::Limits::default(),
                "source_key": "sources/a", "source": { "byte_len": 1, "pieces": [] },
                "output_prefix": "renditions/a", "lease_ms": 9_000, "traceparent": "",
            })
        };
        let (read, unreadable) = read_grants(vec![grant(1, "probe"), grant(2, "upscale"), json!("no grant")]);
        assert_eq!(read.iter().map(|grant| grant.attempt).collect::<Vec<_>>(), [1]);
        assert_eq!(unreadable.iter().map(|held| held.attempt).collect::<Vec<_>>(), [2]);
    }
}
