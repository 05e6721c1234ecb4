//! **desk**: what many workers ask for at the same moment is asked of the catalogue once.
//!
//! Claims and reports of this node wait here while a transaction is under way, and the next transaction takes all that
//! came meanwhile. So nobody waits longer than two transactions, a lone caller does not wait at all, and a hundred
//! callers cost as much as one. Called by `dispatch` and `collect`; it decides nothing.

use super::FlowError;
use reelyard_catalog::{Catalog, CatalogError, ClaimBatch, ClaimWish, Claimed, CompletedTask, Settled};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Callers in one transaction: beyond it statements grow long, and whoever came first waits for those who came last.
const MOST_TOGETHER: usize = 256;
/// Callers that wait; more have to wait outside, which their workers' time limits bound.
const MOST_WAITING: usize = 4_096;
/// Transactions of reports at a time. Two, so that one is prepared while the other is being synced.
const REPORT_CLERKS: usize = 2;

/// The desk is closed (the server stops), or the catalogue did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct DeskError(Arc<str>);

impl From<DeskError> for FlowError {
    fn from(error: DeskError) -> Self {
        Self::Catalog(CatalogError::Unavailable { reason: error.to_string() })
    }
}

#[derive(Clone)]
pub(crate) struct Desk {
    claims: mpsc::Sender<ClaimCall>,
    reports: mpsc::Sender<ReportCall>,
}

struct ClaimCall {
    wishes: Vec<ClaimWish>,
    lease_ms: u64,
    now_ms: i64,
    answer: oneshot::Sender<Result<Vec<Vec<Claimed>>, DeskError>>,
}

struct ReportCall {
    report: CompletedTask,
    answer: oneshot::Sender<Result<Settled, CatalogError>>,
}

impl Desk {
    /// Opens it; it closes when its last handle is dropped. Called inside a tokio runtime.
    pub(crate) fn open(catalog: &Catalog) -> Self {
        let (claims, claim_calls) = mpsc::channel(MOST_WAITING);
        tokio::spawn(serve_claims(catalog.clone(), claim_calls));
        let (reports, report_calls) = mpsc::channel(MOST_WAITING);
        let report_calls = Arc::new(tokio::sync::Mutex::new(report_calls));
        for _ in 0..REPORT_CLERKS {
            tokio::spawn(serve_reports(catalog.clone(), Arc::clone(&report_calls)));
        }
        Self { claims, reports }
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

    pub(crate) async fn complete(&self, report: CompletedTask) -> Result<Settled, CatalogError> {
        let (answer, answered) = oneshot::channel();
        let gone = || CatalogError::Unavailable { reason: closed().to_string() };
        self.reports.send(ReportCall { report, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn closed() -> DeskError {
    DeskError("this node is stopping".into())
}

async fn serve_claims(catalog: Catalog, mut calls: mpsc::Receiver<ClaimCall>) {
    let mut together = Vec::new();
    while calls.recv_many(&mut together, MOST_TOGETHER).await > 0 {
        // Whoever has gone away meanwhile is not to be given tasks.
        together.retain(|call: &ClaimCall| !call.answer.is_closed());
        // Leases of one length make one transaction; there are two lengths, media and publishing.
        while let Some(lease_ms) = together.first().map(|call| call.lease_ms) {
            let (now, later) = together.into_iter().partition(|call| call.lease_ms == lease_ms);
            together = later;
            claim_together(&catalog, now, lease_ms).await;
        }
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

async fn serve_reports(catalog: Catalog, calls: Arc<tokio::sync::Mutex<mpsc::Receiver<ReportCall>>>) {
    loop {
        let mut together = Vec::new();
        if calls.lock().await.recv_many(&mut together, MOST_TOGETHER).await == 0 {
            return;
        }
        let (reports, answers): (Vec<_>, Vec<_>) =
            together.into_iter().map(|call| (call.report, call.answer)).unzip();
        match catalog.complete_tasks(reports.clone()).await {
            Ok(settled) => {
                for (answer, settled) in answers.into_iter().zip(settled) {
                    let _ = answer.send(Ok(settled));
                }
            }
            // Each alone, so that one that cannot be stored does not speak for the others.
            Err(error) => {
                if answers.len() > 1 {
                    tracing::warn!(%error, reports = answers.len(), "desk: reports are stored one by one");
                }
                for (answer, report) in answers.into_iter().zip(reports) {
                    let settled = catalog.complete_tasks(vec![report]).await;
                    let _ =
                        answer.send(settled.map(|settled| settled.first().copied().unwrap_or(Settled::Lost)));
                }
            }
        }
    }
}
