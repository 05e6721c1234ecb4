//! **desk**: what many workers ask for at the same moment is asked of the catalogue once.
//!
//! Claims, reports and questions about API keys of this node wait here while a transaction is under way, and the next
//! transaction takes all that came meanwhile. When many call, a next one also waits for its turn in the desk's pace. So
//! nobody waits longer than two transactions and one pace, a lone caller does not wait at all, and a hundred callers cost
//! as much as one. Called by `dispatch`, `collect` and `http/auth`; it decides nothing.
//! A batch that breaks is told, its callers hear that nobody answered, and the next one is served.

use super::FlowError;
use reelyard_catalog::{
    Catalog, CatalogError, ClaimBatch, ClaimWish, Claimed, CompletedTask, LiveApiKey, Stored,
};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, sleep_until},
};

/// Callers in one transaction: beyond it statements grow long, and whoever came first waits for those who came last.
const MOST_TOGETHER: usize = 256;
/// Callers that wait; more have to wait outside, which their workers' time limits bound.
const MOST_WAITING: usize = 4_096;
/// Between the beginnings of two transactions of claims, and of two of reports. Each has a price beside that of its
/// callers (a dozen statements and a sync of the log), so short ones one after the other would cost a fast farm more than
/// its tasks do; and a task takes minutes.
const PACE: Duration = Duration::from_millis(10);
/// The same of looks for API keys, for which every request waits.
const KEY_PACE: Duration = Duration::from_millis(2);
/// Looks for API keys at a time: one whose connection hangs is not to keep everybody out.
const KEY_LOOKS: usize = 4;

/// The desk is closed (the server stops), or the catalogue did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct DeskError(Arc<str>);

impl From<DeskError> for CatalogError {
    fn from(error: DeskError) -> Self {
        Self::Unavailable { reason: error.to_string() }
    }
}

impl From<DeskError> for FlowError {
    fn from(error: DeskError) -> Self {
        Self::Catalog(error.into())
    }
}

#[derive(Clone)]
pub(crate) struct Desk {
    claims: mpsc::Sender<ClaimCall>,
    reports: mpsc::Sender<ReportCall>,
    keys: mpsc::Sender<KeyCall>,
}

struct ClaimCall {
    wishes: Vec<ClaimWish>,
    lease_ms: u64,
    now_ms: i64,
    answer: oneshot::Sender<Result<Vec<Vec<Claimed>>, DeskError>>,
}

struct ReportCall {
    report: CompletedTask,
    answer: oneshot::Sender<Result<Stored, CatalogError>>,
}

struct KeyCall {
    sha256: String,
    answer: oneshot::Sender<Result<Option<LiveApiKey>, DeskError>>,
}

impl Desk {
    /// Opens it; it closes when its last handle is dropped. Called inside a tokio runtime.
    pub(crate) fn open(catalog: &Catalog) -> Self {
        let (claims, claim_calls) = mpsc::channel(MOST_WAITING);
        let with = catalog.clone();
        tokio::spawn(serve("claims", 1, PACE, claim_calls, move |calls| {
            claim_by_length(with.clone(), calls)
        }));
        let (reports, report_calls) = mpsc::channel(MOST_WAITING);
        // One transaction at a time: a second one would wait for the first at the rows of the same assets, and take the
        // reports that could have gone with the next.
        let with = catalog.clone();
        tokio::spawn(serve("reports", 1, PACE, report_calls, move |calls| {
            complete_together(with.clone(), calls)
        }));
        let (keys, key_calls) = mpsc::channel(MOST_WAITING);
        let with = catalog.clone();
        tokio::spawn(serve("keys", KEY_LOOKS, KEY_PACE, key_calls, move |calls| {
            look_up_together(with.clone(), calls)
        }));
        Self { claims, reports, keys }
    }

    /// For each wish its tasks. Of whoever goes away before the answer has come they are given back.
    pub(crate) async fn claim(
        &self,
        wishes: Vec<ClaimWish>,
        lease_ms: u64,
        now_ms: i64,
    ) -> Result<Vec<Vec<Claimed>>, DeskError> {
        let (answer, answered) = oneshot::channel();
        let call = ClaimCall { wishes, lease_ms, now_ms, answer };
        self.claims.send(call).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    pub(crate) async fn complete(&self, report: CompletedTask) -> Result<Stored, CatalogError> {
        let (answer, answered) = oneshot::channel();
        self.reports.send(ReportCall { report, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// The key with this hash, unless it was revoked. It is looked up after this call has begun, so a key that was
    /// revoked before is never good.
    pub(crate) async fn live_api_key(&self, sha256: String) -> Result<Option<LiveApiKey>, CatalogError> {
        let (answer, answered) = oneshot::channel();
        self.keys.send(KeyCall { sha256, answer }).await.map_err(|_| closed())?;
        Ok(answered.await.map_err(|_| closed())??)
    }
}

fn closed() -> DeskError {
    DeskError("nobody answered: this node is stopping, or broke at it (its log says so)".into())
}

/// Serves what comes, all of it that is there at once, in so many batches at a time, and none sooner after the one before
/// than the pace.
async fn serve<Call: Send + 'static, Served: Future<Output = ()> + Send + 'static>(
    what: &'static str,
    at_a_time: usize,
    pace: Duration,
    mut calls: mpsc::Receiver<Call>,
    work: impl Fn(Vec<Call>) -> Served,
) {
    let places = Arc::new(Semaphore::new(at_a_time));
    let mut together = Vec::new();
    let mut next = Instant::now();
    while let Ok(place) = places.clone().acquire_owned().await {
        sleep_until(next).await;
        if calls.recv_many(&mut together, MOST_TOGETHER).await == 0 {
            return;
        }
        next = Instant::now() + pace;
        let served = tokio::spawn(work(std::mem::take(&mut together)));
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(what, %error, "desk: a batch broke; the next is served");
            }
            drop(place);
        });
    }
}

/// Leases of one length make one transaction; there are two lengths, media and publishing.
async fn claim_by_length(catalog: Catalog, mut calls: Vec<ClaimCall>) {
    // Whoever has gone away meanwhile is not to be given tasks.
    calls.retain(|call| !call.answer.is_closed());
    while let Some(lease_ms) = calls.first().map(|call| call.lease_ms) {
        let (now, later) = calls.into_iter().partition(|call| call.lease_ms == lease_ms);
        calls = later;
        claim_together(&catalog, now, lease_ms).await;
    }
}

async fn claim_together(catalog: &Catalog, calls: Vec<ClaimCall>, lease_ms: u64) {
    let now_ms = calls.iter().map(|call| call.now_ms).max().unwrap_or_default();
    let wishes = calls.iter().flat_map(|call| call.wishes.iter().cloned()).collect();
    match catalog.claim_many(&ClaimBatch { wishes, lease_ms, now_ms }).await {
        Ok(claimed) => {
            let mut claimed = claimed.into_iter();
            for call in calls {
                let its = claimed.by_ref().take(call.wishes.len()).collect();
                if let Err(Ok(unwanted)) = call.answer.send(Ok(its)) {
                    tokio::spawn(give_back(catalog.clone(), unwanted, now_ms));
                }
            }
        }
        Err(error) => {
            let error = DeskError(error.to_string().into());
            for call in calls {
                let _ = call.answer.send(Err(error.clone()));
            }
        }
    }
}

/// Whoever asked went away in the last moment. What fails here is found when the leases run out.
async fn give_back(catalog: Catalog, unwanted: Vec<Vec<Claimed>>, now_ms: i64) {
    for Claimed { task, .. } in unwanted.into_iter().flatten() {
        if let Err(error) = catalog.release(task.id, task.attempt, now_ms).await {
            tracing::warn!(task = %task.id, %error, "desk: a task that nobody waits for keeps its lease until that is over");
        }
    }
}

async fn complete_together(catalog: Catalog, calls: Vec<ReportCall>) {
    let (reports, answers): (Vec<_>, Vec<_>) =
        calls.into_iter().map(|call| (call.report, call.answer)).unzip();
    match catalog.complete_tasks(reports.clone()).await {
        Ok(stored) => {
            for (answer, stored) in answers.into_iter().zip(stored) {
                let _ = answer.send(Ok(stored));
            }
        }
        // Each alone, so that one that cannot be stored does not speak for the others.
        Err(error) => {
            if answers.len() > 1 {
                tracing::warn!(%error, reports = answers.len(), "desk: reports are stored one by one");
            }
            for (answer, report) in answers.into_iter().zip(reports) {
                let _ = answer.send(complete_one(&catalog, report).await);
            }
        }
    }
}

async fn complete_one(catalog: &Catalog, report: CompletedTask) -> Result<Stored, CatalogError> {
    let id = report.task.to_string();
    let stored = catalog.complete_tasks(vec![report]).await?;
    stored.into_iter().next().ok_or(CatalogError::NotFound { what: "task", id })
}

/// Every request asks; what is asked during one look is answered by the next, once for each key.
async fn look_up_together(catalog: Catalog, calls: Vec<KeyCall>) {
    let keys: HashSet<&str> = calls.iter().map(|call| call.sha256.as_str()).collect();
    let keys: Vec<&str> = keys.into_iter().collect();
    let found = catalog.live_api_keys(&keys).await.map_err(|error| DeskError(error.to_string().into()));
    for call in calls {
        let its = found.as_ref().map(|found| found.get(&call.sha256).cloned());
        let _ = call.answer.send(its.map_err(Clone::clone));
    }
}
