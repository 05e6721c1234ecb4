//! Opening the database, and the two ways into it: reading, and write transactions.
//!
//! SQLite has one write transaction at a time. PostgreSQL has many, of many nodes, and what one of them reads it must
//! lock before it may conclude anything from it. The order, so that nobody waits in a circle: the tenant, the upload,
//! the asset that owns the content, its tasks. Heartbeats, claims and back-offs lock tasks only, and wait for no asset.
//! Events come last ([`crate::events::store`]).

use crate::{
    CatalogError, EventRow, PostgresSettings,
    events::{self, NewEvent},
    follow::{Follower, Hearers},
    remembered_plans::RememberedPlans,
    sql::{self, Connection, Engine, Pool, Transaction},
    unreadable::Unreadable,
};
use reelyard_crash_points::{crash_point, site};
use reelyard_model::TenantId;
use std::{path::Path, sync::Arc};
use tokio::sync::{broadcast, watch};

/// Events kept for subscribers that read slowly; one that falls further behind reads the table instead.
const EVENTS_IN_FLIGHT: usize = 1024;
/// How often a transaction is begun that the database took back in favour of another one. The order of locks makes that
/// rare, so the second try meets it hardly ever again.
const TRIES: u32 = 4;

/// A handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    writer: Pool,
    pub(crate) reader: Pool,
    hearers: Hearers,
    /// Of a database that other nodes write too.
    follower: Option<Arc<Follower>>,
    /// Wake-ups are given to a broker, so they are written down first.
    has_outbox: bool,
    pub(crate) plans: Arc<RememberedPlans>,
    pub(crate) unreadable: Arc<Unreadable>,
}

/// A write transaction and the events that it will store and publish with its commit.
pub(crate) struct Write {
    transaction: Transaction,
    events: Vec<NewEvent>,
    pub(crate) has_outbox: bool,
}

impl Catalog {
    /// Opens the file (made when missing) and brings its tables up to date.
    pub async fn open(path: &Path) -> Result<Self, CatalogError> {
        let (writer, reader) = sql::sqlite::open(path).await?;
        let hearers = hearers(&reader).await?;
        let catalog = Self {
            writer,
            reader,
            hearers,
            follower: None,
            has_outbox: false,
            plans: Arc::default(),
            unreadable: Arc::default(),
        };
        catalog.add_tenant(TenantId::DEFAULT, "default", 0).await?;
        Ok(catalog)
    }

    /// Connects to PostgreSQL and brings its tables up to date. Several nodes may do so at once.
    pub async fn connect(url: &str, settings: &PostgresSettings) -> Result<Self, CatalogError> {
        let options = sql::postgres::options(url, settings)?;
        let pool = sql::postgres::connect(options.clone(), settings).await?;
        let hearers = hearers(&pool).await?;
        let last = *hearers.last_event.borrow();
        let follower = Follower::start(&pool, options, last, &hearers);
        let catalog = Self {
            writer: pool.clone(),
            reader: pool,
            hearers,
            follower: Some(Arc::new(follower)),
            has_outbox: false,
            plans: Arc::default(),
            unreadable: Arc::default(),
        };
        catalog.add_tenant(TenantId::DEFAULT, "default", 0).await?;
        Ok(catalog)
    }

    /// Every task that becomes ready leaves a ticket for the broker ([`Catalog::take_tickets`]).
    #[must_use]
    pub fn with_outbox(self) -> Self {
        Self { has_outbox: true, ..self }
    }

    /// Whether other processes write it too.
    pub const fn is_shared(&self) -> bool {
        self.follower.is_some()
    }

    /// Waits for the write in hand and lets the database go; SQLite folds the log into the file.
    pub async fn close(&self) {
        if let Some(follower) = &self.follower {
            follower.stop();
        }
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Is the database there and answering? For `/readyz`.
    pub async fn ping(&self) -> Result<(), CatalogError> {
        sql::sql("SELECT 1").fetch_one(&self.reader).await?;
        Ok(())
    }

    /// SQLite's own check of the whole file; for tests and for operators in doubt. Reads everything. PostgreSQL checks
    /// its pages by itself, and has tools of its own.
    pub async fn check_integrity(&self) -> Result<(), CatalogError> {
        if self.reader.engine() == Engine::Postgres {
            return self.ping().await;
        }
        let found: Vec<String> = sql::sql("PRAGMA integrity_check").scalars(&self.reader).await?;
        match found.as_slice() {
            [fine] if fine == "ok" => Ok(()),
            problems => Err(CatalogError::Unreadable { what: "file", reason: problems.join("; ") }),
        }
    }

    /// Every event after its transaction has committed, and passing ones (`seq` 0) from [`Catalog::announce`]. On
    /// PostgreSQL those of all nodes, in the order of their numbers.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<EventRow>> {
        self.hearers.events.subscribe()
    }

    /// The number of the newest stored event, as far as this node knows: it knows its own at once, others' when it hears
    /// of them.
    pub fn last_event(&self) -> watch::Receiver<i64> {
        self.hearers.last_event.subscribe()
    }

    /// Tells subscribers something that is not worth storing, such as progress.
    pub fn announce(&self, event: EventRow) {
        match &self.follower {
            Some(follower) => follower.announce(event),
            // No subscriber is no error.
            None => drop(self.hearers.events.send(Arc::new(event))),
        }
    }

    pub(crate) async fn write(&self) -> Result<Write, CatalogError> {
        let transaction = self.writer.begin().await?;
        Ok(Write { transaction, events: Vec::new(), has_outbox: self.has_outbox })
    }

    /// In a task of its own: a caller that goes away in the middle (a client hung up) must not leave a change that is
    /// stored and that nobody in this process hears of.
    ///
    /// On SQLite two commits may be announced in the other order than they were stored in; their numbers tell.
    #[track_caller]
    pub(crate) fn commit(&self, write: Write) -> impl Future<Output = Result<(), CatalogError>> + use<> {
        // For tests that end the program at this very commit.
        let site = site!();
        let catalog = self.clone();
        async move {
            let committing = tokio::spawn(async move {
                let Write { mut transaction, events, .. } = write;
                let stored = events::store(transaction.connection(), events).await?;
                crash_point!("catalogue-before-commit", site)?;
                transaction.commit().await?;
                crash_point!("catalogue-after-commit", site)?;
                if let Some(newest) = stored.last() {
                    catalog.hearers.newest_is(newest.seq);
                }
                if catalog.follower.is_none() {
                    for event in stored {
                        let _ = catalog.hearers.events.send(Arc::new(event));
                    }
                }
                Ok::<(), CatalogError>(())
            });
            // The task does not panic; without it the runtime is going down.
            committing.await.unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into()))
        }
    }

    /// Runs a whole transaction again when PostgreSQL took it back in favour of another one (a deadlock): nothing of it
    /// was stored, for certain. Nothing else is tried again, above all no commit whose answer was lost: it may have
    /// happened. The caller is told `Unavailable` then and may repeat the call, because methods name what they expect
    /// (a state, an attempt) or come to the same the second time.
    pub(crate) async fn until_not_taken_back<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, CatalogError>
    where
        F: Future<Output = Result<T, CatalogError>>,
    {
        let mut tries = 1;
        loop {
            match attempt().await {
                Err(error) if error.was_taken_back() => {
                    tracing::debug!(%error, tries, "catalogue: a transaction was taken back");
                    if tries == TRIES {
                        return Err(CatalogError::Unavailable { reason: error.to_string() });
                    }
                    tries += 1;
                }
                other => return other,
            }
        }
    }
}

async fn hearers(reader: &Pool) -> Result<Hearers, CatalogError> {
    let last: i64 = sql::sql("SELECT COALESCE(MAX(seq), 0) FROM event").scalar(reader).await?;
    Ok(Hearers { events: broadcast::Sender::new(EVENTS_IN_FLIGHT), last_event: watch::Sender::new(last) })
}

impl Write {
    pub(crate) const fn connection(&mut self) -> &mut Connection {
        self.transaction.connection()
    }

    /// Stored with the commit, after all else.
    pub(crate) fn emit(&mut self, event: NewEvent) {
        self.events.push(event);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Catalog, EventKind, events::NewEvent};
    use reelyard_model::TenantId;
    use std::{
        future::Future,
        task::{Context, Waker},
        time::Duration,
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_is_announced_although_its_caller_went_away() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&directory.path().join("catalog.sqlite")).await.unwrap();
        let mut newest = catalog.last_event();
        let mut write = catalog.write().await.unwrap();
        let event = NewEvent {
            at_ms: 1,
            tenant: TenantId::DEFAULT,
            kind: EventKind::ASSET_DELETED,
            upload: None,
            asset: None,
            task: None,
            data: serde_json::json!({}),
        };
        write.emit(event);
        {
            let mut commit = std::pin::pin!(catalog.commit(write));
            // Once: the commit is under way, and nobody waits for it any more.
            let _ = commit.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        tokio::time::timeout(Duration::from_secs(10), newest.changed()).await.expect("announced").unwrap();
        assert_eq!(*newest.borrow(), 1);
    }
}
