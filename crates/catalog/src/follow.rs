//! Events on PostgreSQL: this node hears of what every node stored, itself among them, in the order of their numbers.
//!
//! Started by [`crate::Catalog::connect`], ended with the catalogue. The table is the truth: it is read on from the last
//! number, whenever a notification says that there is something, and once a second without one. So a lost notification,
//! a lost connection or a database that was away costs time and no event. It never gives up and never writes.
//!
//! Passing events (progress) travel as notifications alone and may be lost.

use crate::{
    CatalogError, EventRow, events,
    sql::{Pool, sql},
};
use reelyard_model::{AssetId, TaskId, TenantId, UploadId};
use serde::{Deserialize, Serialize};
use sqlx::{
    Executor,
    postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, broadcast, mpsc, watch},
    task::AbortHandle,
    time::timeout,
};

/// How late an event is when its notification was lost; also between tries while the database is away.
const POLL: Duration = Duration::from_secs(1);
/// After so long without a notification the connection is tried.
const SILENCE: Duration = Duration::from_secs(20);
/// And has to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Events read at once.
const READ_AT_ONCE: u32 = 500;
/// Passing events that wait to be sent; what comes beyond is dropped, as newer ones follow.
const PASSING_IN_FLIGHT: usize = 1_024;
/// PostgreSQL takes less than 8000 bytes in a notification.
const MAX_PASSING_BYTES: usize = 7_999;
/// See `events`, where they are sent.
const STORED: &str = "reelyard_event";
const PASSING: &str = "reelyard_passing";

/// Ends what was started when the last handle of the catalogue goes.
#[derive(Debug)]
pub(crate) struct Follower {
    tasks: [AbortHandle; 3],
    passing: mpsc::Sender<String>,
}

/// Where heard events go.
#[derive(Clone, Debug)]
pub(crate) struct Hearers {
    pub(crate) events: broadcast::Sender<Arc<EventRow>>,
    pub(crate) last_event: watch::Sender<i64>,
}

/// A passing event on its way between nodes.
#[derive(Serialize, Deserialize)]
struct Passing {
    version: u32,
    at_ms: i64,
    tenant: TenantId,
    kind: String,
    upload: Option<UploadId>,
    asset: Option<AssetId>,
    task: Option<TaskId>,
    data: serde_json::Value,
}

/// Raised when an older node could misunderstand a newer one's.
const PASSING_VERSION: u32 = 1;

impl Follower {
    /// From the event after `last` on.
    pub(crate) fn start(pool: &Pool, options: PgConnectOptions, last: i64, hearers: &Hearers) -> Self {
        let news = Arc::new(Notify::new());
        let (passing, to_send) = mpsc::channel(PASSING_IN_FLIGHT);
        let tasks = [
            tokio::spawn(read_on(pool.clone(), last, hearers.clone(), Arc::clone(&news))),
            tokio::spawn(listen_for_ever(options, hearers.events.clone(), news)),
            tokio::spawn(send(pool.clone(), to_send)),
        ];
        Self { tasks: tasks.map(|task| task.abort_handle()), passing }
    }

    pub(crate) fn stop(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }

    /// To all nodes, this one among them.
    pub(crate) fn announce(&self, event: EventRow) {
        let EventRow { at_ms, tenant, kind, upload, asset, task, data, seq: _ } = event;
        let passing = Passing { version: PASSING_VERSION, at_ms, tenant, kind, upload, asset, task, data };
        let Ok(payload) = serde_json::to_string(&passing) else { return };
        if payload.len() <= MAX_PASSING_BYTES {
            // A full queue: the database is slow or away, and newer ones will come.
            let _ = self.passing.try_send(payload);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn read_on(pool: Pool, mut last: i64, hearers: Hearers, news: Arc<Notify>) {
    loop {
        match events::after(&pool, last, READ_AT_ONCE).await {
            Ok(found) if !found.is_empty() => {
                for event in found {
                    last = event.seq;
                    hearers.newest_is(last);
                    // No subscriber is no error.
                    let _ = hearers.events.send(Arc::new(event));
                }
                // There may be more.
                continue;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "events: the table could not be read; trying again"),
        }
        let _ = timeout(POLL, news.notified()).await;
    }
}

impl Hearers {
    pub(crate) fn newest_is(&self, seq: i64) {
        self.last_event.send_if_modified(|last| {
            let newer = seq > *last;
            *last = seq.max(*last);
            newer
        });
    }
}

async fn listen_for_ever(
    options: PgConnectOptions,
    events: broadcast::Sender<Arc<EventRow>>,
    news: Arc<Notify>,
) {
    loop {
        // It only ends with an error.
        if let Err(error) = listen(options.clone(), &events, &news).await {
            tracing::debug!(%error, "events: not listening; the table is read once a second");
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn listen(
    options: PgConnectOptions,
    events: &broadcast::Sender<Arc<EventRow>>,
    news: &Notify,
) -> Result<(), CatalogError> {
    // A connection of its own, which the others' limit does not count.
    let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
    let pool = pool.connect_with(options).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.ignore_pool_close_event(true);
    listener.listen_all([STORED, PASSING]).await?;
    loop {
        // What came before this moment, or while the connection was being made again, was not heard.
        news.notify_one();
        while let Some(notification) = next(&mut listener).await? {
            if notification.channel() == STORED {
                news.notify_one();
            } else if let Ok(passing) = serde_json::from_str::<Passing>(notification.payload())
                && passing.version == PASSING_VERSION
            {
                let _ = events.send(Arc::new(passing.into_event()));
            }
        }
    }
}

/// The next notification; `None`: the connection was lost and made again. A connection that is silent for long is asked
/// whether it still lives: nobody tells a listener that the other side is gone.
async fn next(listener: &mut PgListener) -> Result<Option<PgNotification>, sqlx::Error> {
    loop {
        if let Ok(heard) = timeout(SILENCE, listener.try_recv()).await {
            return heard;
        }
        let asked = timeout(ANSWER, listener.execute("SELECT 1")).await;
        asked.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))?;
    }
}

impl Passing {
    fn into_event(self) -> EventRow {
        let Self { version: _, at_ms, tenant, kind, upload, asset, task, data } = self;
        EventRow { seq: 0, at_ms, tenant, kind, upload, asset, task, data }
    }
}

async fn send(pool: Pool, mut to_send: mpsc::Receiver<String>) {
    while let Some(payload) = to_send.recv().await {
        let sent = sql("SELECT PG_NOTIFY('reelyard_passing', ?)").bind(payload).execute(&pool).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "events: a passing one was not sent");
        }
    }
}
