//! Who is working on an upload: one request at a time, and a new one takes over from the one that is sending.
//!
//! A client that lost its connection comes back while the server still believes in the old one. So a new request
//! tells the old one to stop; that one keeps what has arrived, makes it durable, and lets go; the new one then goes on
//! at exactly that offset. Waiting has an end: [`HAND_OVER_LIMIT`].

use crate::http::problem::{Kind, Problem};
use reelyard_model::UploadId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

/// A holder that was told to stop needs one sync of what it has; disks that take longer are in trouble.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
pub(super) struct Holders(Arc<Mutex<HashMap<UploadId, Place>>>);

/// One upload that somebody holds or waits for.
struct Place {
    gate: Arc<tokio::sync::Mutex<()>>,
    /// Of the one that came last.
    stop: CancellationToken,
    /// Holder and waiters.
    users: usize,
}

/// The right to work on an upload, until it is dropped.
pub(super) struct Hold {
    stop: CancellationToken,
    _gate: OwnedMutexGuard<()>,
    _seat: Seat,
}

struct Seat {
    holders: Holders,
    upload: UploadId,
}

impl Hold {
    /// Somebody newer wants the upload: finish quickly.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}

impl Holders {
    pub(super) async fn take_over(&self, upload: UploadId) -> Result<Hold, Problem> {
        let (gate, stop, seat) = self.sit_down(upload);
        match tokio::time::timeout(HAND_OVER_LIMIT, gate.lock_owned()).await {
            Ok(gate) => Ok(Hold { stop, _gate: gate, _seat: seat }),
            Err(_) => Err(Problem::new(
                Kind::Locked,
                "Another request is still storing bytes of this upload; try again soon.",
            )),
        }
    }

    fn sit_down(&self, upload: UploadId) -> (Arc<tokio::sync::Mutex<()>>, CancellationToken, Seat) {
        let mut places = self.places();
        let place = places.entry(upload).or_insert_with(|| Place {
            gate: Arc::default(),
            stop: CancellationToken::new(),
            users: 0,
        });
        place.users += 1;
        let stop = CancellationToken::new();
        std::mem::replace(&mut place.stop, stop.clone()).cancel();
        (place.gate.clone(), stop, Seat { holders: self.clone(), upload })
    }

    fn places(&self) -> MutexGuard<'_, HashMap<UploadId, Place>> {
        // Nothing in here can panic half-way, so a poisoned map is a good map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut places = self.holders.places();
        if let Some(place) = places.get_mut(&self.upload) {
            place.users -= 1;
            if place.users == 0 {
                places.remove(&self.upload);
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
        let (holders, upload) = (Holders::default(), UploadId::from_uuid(Uuid::from_u128(1)));
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
        let holders = Holders::default();
        let first = holders.take_over(UploadId::from_uuid(Uuid::from_u128(1))).await.unwrap();
        let _second = holders.take_over(UploadId::from_uuid(Uuid::from_u128(2))).await.unwrap();
        assert!(!first.stop().is_cancelled());
    }
}
