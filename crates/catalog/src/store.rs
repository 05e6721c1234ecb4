//! Opening the database, and the two ways into it: reading and one write transaction at a time.

use crate::{CatalogError, EventRow, events::NewEvent};
use reelyard_model::TenantId;
use sqlx::{
    Row, Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::{broadcast, watch};

/// Readers beside the one writer: handlers wait for each other only beyond so many reads at a time.
const READERS: u32 = 6;
/// How long a statement waits for a lock held by another process (a backup, somebody's sqlite3 shell).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Events kept for subscribers that read slowly; one that falls further behind reads the table instead.
const EVENTS_IN_FLIGHT: usize = 1024;

/// A handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    writer: SqlitePool,
    pub(crate) reader: SqlitePool,
    events: broadcast::Sender<Arc<EventRow>>,
    last_event: watch::Sender<i64>,
}

/// A write transaction and the events that it will publish once it has committed.
pub(crate) struct Write {
    transaction: Transaction<'static, Sqlite>,
    events: Vec<EventRow>,
}

impl Catalog {
    /// Opens the file (made when missing) and brings its tables up to date.
    pub async fn open(path: &Path) -> Result<Self, CatalogError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await?;
        crate::migrations::migrator().run(&writer).await?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .max_lifetime(None)
            .connect_with(options.pragma("query_only", "1"))
            .await?;
        let last: i64 =
            sqlx::query("SELECT COALESCE(MAX(seq), 0) FROM event").fetch_one(&reader).await?.get(0);
        let catalog = Self {
            writer,
            reader,
            events: broadcast::Sender::new(EVENTS_IN_FLIGHT),
            last_event: watch::Sender::new(last),
        };
        catalog.add_tenant(TenantId::DEFAULT, "default", 0).await?;
        Ok(catalog)
    }

    /// Waits for the write in hand, folds the log into the file and closes it.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Is the database there and answering? For `/readyz`.
    pub async fn ping(&self) -> Result<(), CatalogError> {
        sqlx::query("SELECT 1").execute(&self.reader).await?;
        Ok(())
    }

    /// SQLite's own check of the whole file; for tests and for operators in doubt. Reads everything.
    pub async fn check_integrity(&self) -> Result<(), CatalogError> {
        let found: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&self.reader).await?;
        match found.as_slice() {
            [fine] if fine == "ok" => Ok(()),
            problems => Err(CatalogError::Unreadable { what: "file", reason: problems.join("; ") }),
        }
    }

    /// Every event after its transaction has committed, and passing ones (`seq` 0) from [`Catalog::announce`].
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<EventRow>> {
        self.events.subscribe()
    }

    /// The number of the newest stored event.
    pub fn last_event(&self) -> watch::Receiver<i64> {
        self.last_event.subscribe()
    }

    /// Tells subscribers something that is not worth storing, such as progress.
    pub fn announce(&self, event: EventRow) {
        // No subscriber is no error.
        let _ = self.events.send(Arc::new(event));
    }

    pub(crate) async fn write(&self) -> Result<Write, CatalogError> {
        // IMMEDIATE: take the write lock now, so that what is read in here is what is changed in here.
        let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Write { transaction, events: Vec::new() })
    }

    /// In a task of its own: a caller that goes away in the middle (a client hung up) must not leave a change that is
    /// stored and that nobody in this process hears of.
    ///
    /// Two commits may be announced in the other order than they were stored in; their numbers tell.
    pub(crate) async fn commit(&self, write: Write) -> Result<(), CatalogError> {
        let catalog = self.clone();
        let committing = tokio::spawn(async move {
            write.transaction.commit().await?;
            for event in write.events {
                catalog.last_event.send_if_modified(|last| {
                    let newer = event.seq > *last;
                    *last = event.seq.max(*last);
                    newer
                });
                let _ = catalog.events.send(Arc::new(event));
            }
            Ok::<(), CatalogError>(())
        });
        // The task does not panic; without it the runtime is going down.
        committing.await.unwrap_or(Err(CatalogError::Database(sqlx::Error::WorkerCrashed)))
    }
}

impl Write {
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    pub(crate) async fn emit(&mut self, event: NewEvent) -> Result<(), CatalogError> {
        let row = crate::events::insert(&mut self.transaction, event).await?;
        self.events.push(row);
        Ok(())
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
        write.emit(event).await.unwrap();
        {
            let mut commit = std::pin::pin!(catalog.commit(write));
            // Once: the commit is under way, and nobody waits for it any more.
            let _ = commit.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        tokio::time::timeout(Duration::from_secs(10), newest.changed()).await.expect("announced").unwrap();
        assert_eq!(*newest.borrow(), 1);
    }
}
