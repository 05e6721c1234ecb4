//! Who is working on an upload: one request at a time, and a new one takes over from the one that is sending.
//!
//! A client that lost its connection comes back while the server still believes in the old one. So a new request
//! tells the old one to stop; that one keeps what has arrived, makes it durable, and lets go; the new one then goes on
//! at exactly that offset. Within one process this is a matter of memory. Where several nodes share a store, the
//! catalogue knows which node holds an upload: [`Holders::run`] looks for wishes of other nodes and keeps what this one
//! holds. Waiting has an end: [`HAND_OVER_LIMIT`].

use reelyard_catalog::{Catalog, CatalogError, Taken};
use reelyard_model::UploadId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::OwnedMutexGuard, time::Instant};
use tokio_util::sync::CancellationToken;

/// A holder that was told to stop needs one sync of what it has; disks that take longer are in trouble.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(20);
/// A node that wants an upload asks again so often, and a holder looks for such wishes so often: both together stay
/// well below the two seconds that a hand-over between nodes may take.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A node that was silent for so long has lost what it held. Long enough for a pause of a few seconds, short enough for
/// a creator who waits.
const HELD_FOR_MS: i64 = 10_000;
/// Holds are extended so often: a third of the time.
const EXTEND_EVERY: Duration = Duration::from_millis(3_333);

#[derive(Clone)]
pub(crate) struct Holders {
    places: Arc<Mutex<HashMap<Work, Place>>>,
    /// Where other nodes are heard of; `None` when the store is this process's alone.
    shared: Option<Arc<Shared>>,
}

struct Shared {
    catalog: Catalog,
    node: String,
}

/// An upload, or one part of it.
type Work = (UploadId, Option<u32>);

/// One piece of work that somebody holds or waits for.
struct Place {
    gate: Arc<tokio::sync::Mutex<()>>,
    /// Of the one that came last.
    stop: CancellationToken,
    /// Holder and waiters.
    users: usize,
}

/// The right to work on an upload, until it is dropped.
pub(crate) struct Hold {
    stop: CancellationToken,
    /// Between nodes; 0 where there is only this one.
    pub(crate) fence: u64,
    _lease: Option<Lease>,
    _gate: OwnedMutexGuard<()>,
    _seat: Seat,
}

struct Seat {
    holders: Holders,
    work: Work,
}

/// The row says that this node holds it.
struct Lease {
    shared: Arc<Shared>,
    upload: UploadId,
    fence: u64,
}

/// Why an upload cannot be worked on now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HoldError {
    /// Whoever holds it does not let go.
    #[error("another request is still storing bytes of this upload")]
    Busy,
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Hold {
    /// Somebody newer wants the upload: finish quickly.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}

impl Holders {
    /// For a store that only this process uses.
    pub(crate) fn alone() -> Self {
        Self { places: Arc::default(), shared: None }
    }

    /// For a store that other nodes use too; `node` is this one's name, unlike any other's. [`Self::run`] must run.
    pub(crate) fn among_nodes(catalog: Catalog, node: String) -> Self {
        Self { places: Arc::default(), shared: Some(Arc::new(Shared { catalog, node })) }
    }

    pub(crate) async fn take_over(&self, upload: UploadId) -> Result<Hold, HoldError> {
        let until = Instant::now() + HAND_OVER_LIMIT;
        let (gate, stop, seat) = self.sit_down((upload, None));
        let gate = tokio::time::timeout_at(until, gate.lock_owned()).await.map_err(|_| HoldError::Busy)?;
        let lease = match &self.shared {
            Some(shared) => Some(take_lease(shared, upload, until).await?),
            None => None,
        };
        let fence = lease.as_ref().map_or(0, |lease| lease.fence);
        Ok(Hold { stop, fence, _lease: lease, _gate: gate, _seat: seat })
    }

    /// One part of an upload in parts. Between nodes this is not kept apart: a store that several of them share stores
    /// one of two such parts and refuses the other.
    pub(crate) async fn take_over_part(&self, upload: UploadId, number: u32) -> Result<Hold, HoldError> {
        let until = Instant::now() + HAND_OVER_LIMIT;
        let (gate, stop, seat) = self.sit_down((upload, Some(number)));
        let gate = tokio::time::timeout_at(until, gate.lock_owned()).await.map_err(|_| HoldError::Busy)?;
        Ok(Hold { stop, fence: 0, _lease: None, _gate: gate, _seat: seat })
    }

    /// The upload ends: whoever receives a part of it stops.
    pub(crate) fn stop_parts(&self, upload: UploadId) {
        let places = self.places();
        let parts = places.iter().filter(|((of, number), _)| *of == upload && number.is_some());
        parts.for_each(|(_, place)| place.stop.cancel());
    }

    /// Keeps what this node holds and lets go of what others want. Returns when `shutdown` is cancelled, or at once
    /// where there are no other nodes.
    pub(crate) async fn run(&self, shutdown: CancellationToken, now_ms: impl Fn() -> i64) {
        let Some(shared) = &self.shared else { return };
        let mut extended = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            match shared.catalog.wanted_uploads(&shared.node).await {
                Ok(wanted) => {
                    for (upload, fence) in wanted {
                        self.hand_over(shared, upload, fence).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "holders: wishes of other nodes cannot be read"),
            }
            if extended.elapsed() >= EXTEND_EVERY {
                extended = Instant::now();
                let until_ms = now_ms().saturating_add(HELD_FOR_MS);
                if let Err(error) = shared.catalog.extend_holds(&shared.node, until_ms).await {
                    tracing::warn!(%error, "holders: uploads of this node cannot be kept");
                }
            }
        }
    }

    /// Somebody in this process works on it or waits for it.
    pub(crate) fn is_busy(&self, upload: UploadId) -> bool {
        self.places().contains_key(&(upload, None))
    }

    /// Whoever works on it here is asked to stop. Where nobody does (the answer to a taking was lost, or giving back
    /// failed), the row is wrong, and is put right.
    async fn hand_over(&self, shared: &Shared, upload: UploadId, fence: u64) {
        if let Some(place) = self.places().get(&(upload, None)) {
            place.stop.cancel();
            return;
        }
        if let Err(error) = shared.catalog.release_upload(upload, &shared.node, fence).await {
            tracing::warn!(%upload, %error, "holders: an upload that nobody here works on is not given back yet");
        }
    }

    fn sit_down(&self, work: Work) -> (Arc<tokio::sync::Mutex<()>>, CancellationToken, Seat) {
        let mut places = self.places();
        let place = places.entry(work).or_insert_with(|| Place {
            gate: Arc::default(),
            stop: CancellationToken::new(),
            users: 0,
        });
        place.users += 1;
        let stop = CancellationToken::new();
        std::mem::replace(&mut place.stop, stop.clone()).cancel();
        (place.gate.clone(), stop, Seat { holders: self.clone(), work })
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Work, Place>> {
        // Nothing in here can panic half-way, so a poisoned map is a good map.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take_lease(shared: &Arc<Shared>, upload: UploadId, until: Instant) -> Result<Lease, HoldError> {
    loop {
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let taken = shared.catalog.take_upload(upload, &shared.node, now_ms, now_ms + HELD_FOR_MS).await?;
        if let Taken::Held { fence } = taken {
            return Ok(Lease { shared: shared.clone(), upload, fence });
        }
        if Instant::now() + LOOK_EVERY > until {
            return Err(HoldError::Busy);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Drop for Lease {
    /// In the background: whoever waits on another node looks again soon, and a lease that was not given back ends by
    /// itself.
    fn drop(&mut self) {
        let (shared, upload, fence) = (self.shared.clone(), self.upload, self.fence);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = shared.catalog.release_upload(upload, &shared.node, fence).await {
                    tracing::debug!(%upload, %error, "holders: not given back; it ends by itself");
                }
            });
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut places = self.holders.places();
        if let Some(place) = places.get_mut(&self.work) {
            place.users -= 1;
            if place.users == 0 {
                places.remove(&self.work);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Holders;
    use reelyard_model::UploadId;
    use uuid::Uuid;

    #[tokio::test]
    async fn a_new_request_stops_the_old_one_and_waits_for_it() {
        let (holders, upload) = (Holders::alone(), UploadId::from_uuid(Uuid::from_u128(1)));
        let first = holders.take_over(upload).await.unwrap();
        assert!(!first.stop().is_cancelled());
        let newer = tokio::spawn({
            let holders = holders.clone();
            async move { holders.take_over(upload).await.map(|hold| hold.stop().is_cancelled()) }
        });
        first.stop().cancelled().await;
        assert!(!newer.is_finished());
        drop(first);
        assert!(!newer.await.unwrap().unwrap(), "the newest is not told to stop");
        assert!(holders.places().is_empty(), "nothing is kept of uploads that nobody works on");
    }

    #[tokio::test]
    async fn other_uploads_are_left_alone() {
        let holders = Holders::alone();
        let first = holders.take_over(UploadId::from_uuid(Uuid::from_u128(1))).await.unwrap();
        let _second = holders.take_over(UploadId::from_uuid(Uuid::from_u128(2))).await.unwrap();
        assert!(!first.stop().is_cancelled());
    }

    #[tokio::test]
    async fn parts_of_one_upload_are_held_side_by_side_and_stopped_together() {
        let (holders, upload) = (Holders::alone(), UploadId::from_uuid(Uuid::from_u128(1)));
        let whole = holders.take_over(upload).await.unwrap();
        let first = holders.take_over_part(upload, 1).await.unwrap();
        let second = holders.take_over_part(upload, 2).await.unwrap();
        assert!(!first.stop().is_cancelled());
        holders.stop_parts(upload);
        assert!(first.stop().is_cancelled() && second.stop().is_cancelled() && !whole.stop().is_cancelled());
    }
}
