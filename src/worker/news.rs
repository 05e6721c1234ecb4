//! Orders that come without being asked for: one call that the server holds until one of this worker's attempts is over
//! or an operator wants it idle. So a cancel stops a child in moments, not at its next heartbeat.
//!
//! Nothing depends on it: a call that fails is made again, and the heartbeats tell the same.

use super::link::{CallError, Link};
use reelyard_model::{
    WorkerId,
    work::Verdict,
    worker_protocol::{Held, MAX_WAIT_MS, OrdersAnswer, OrdersCall, WORKER_PROTOCOL},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Above what the server holds the call for.
const LIMIT: Duration = Duration::from_millis(MAX_WAIT_MS + 5_000);
/// Attempts begin and end in groups: the call is made again once for all of them.
const SETTLE: Duration = Duration::from_millis(20);

type Told = watch::Sender<Option<Verdict>>;

#[derive(Default)]
pub(super) struct News {
    held: Mutex<HashMap<Held, Told>>,
    changed: Notify,
}

/// An attempt that is listened for as long as this lives.
struct Listening<'news> {
    news: &'news News,
    held: Held,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.news.held().remove(&self.held);
        self.news.changed.notify_one();
    }
}

impl News {
    pub(super) fn start(link: Arc<Link>, worker: WorkerId) -> Arc<Self> {
        let news = Arc::new(Self::default());
        let listening = Arc::downgrade(&news);
        tokio::spawn(async move {
            let mut drain = false;
            while let Some(news) = listening.upgrade() {
                news.listen_once(&link, worker, &mut drain).await;
            }
        });
        news
    }

    /// Returns when this attempt is over, as far as the servers tell.
    pub(super) async fn over(&self, held: Held) -> Verdict {
        let (sender, mut told) = watch::channel(None);
        self.held().insert(held, sender);
        let _listening = Listening { news: self, held };
        self.changed.notify_one();
        loop {
            let verdict = told.wait_for(Option::is_some).await.ok().and_then(|verdict| *verdict);
            match verdict {
                Some(verdict) => return verdict,
                // The same attempt was listened for anew: the other one hears it.
                None => std::future::pending().await,
            }
        }
    }

    async fn listen_once(&self, link: &Link, worker: WorkerId, drain: &mut bool) {
        let held: Vec<Held> = self.held().keys().copied().collect();
        if held.is_empty() {
            return self.changed.notified().await;
        }
        let call =
            OrdersCall { protocol: WORKER_PROTOCOL, worker, held, drain: *drain, wait_ms: MAX_WAIT_MS };
        let changed = async {
            self.changed.notified().await;
            tokio::time::sleep(SETTLE).await;
        };
        let answer: Result<OrdersAnswer, CallError> = tokio::select! {
            answer = link.call("orders", &call, LIMIT) => answer,
            () = changed => return,
        };
        match answer {
            Ok(answer) => {
                if answer.drain != *drain {
                    *drain = answer.drain;
                    tracing::info!(drain, "an operator told this worker whether to take new work");
                }
                for over in answer.over {
                    // Told once: its child takes a moment to end, and the next call is not to be about it.
                    let told = self.held().remove(&Held { task: over.task, attempt: over.attempt });
                    if let Some(told) = told {
                        told.send_replace(Some(over.verdict));
                    }
                }
            }
            // The link waits before it asks that server again.
            Err(error @ CallError::Away(_)) => tracing::debug!(%error, "no orders; asking again"),
            Err(error) => {
                tracing::warn!(%error, "orders are refused; heartbeats tell the same");
                self.changed.notified().await;
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Held, Told>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
