//! How many bodies of one upload are received at a time: those of an upload in parts, which come side by side.
//!
//! `uploads/parts` enters with each body. Whoever comes beyond the limit is told to come back at once: the bodies before
//! him are his own.

use crate::http::problem::Problem;
use reelyard_model::UploadId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Clients send four to sixteen at a time; more than this makes no upload faster and takes the seats of others.
const MOST_OF_UPLOAD: u32 = 64;
/// When to come back: one of the others has ended then.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Uploads that have any; as many entries as there are seats at most.
#[derive(Clone, Default)]
pub(crate) struct Bodies(Arc<Mutex<HashMap<UploadId, u32>>>);

/// One of them, until it is dropped.
pub(crate) struct OneBody {
    bodies: Bodies,
    upload: UploadId,
}

impl Bodies {
    pub(crate) fn enter(&self, upload: UploadId) -> Result<OneBody, Problem> {
        let mut inside = self.inside();
        let count = inside.entry(upload).or_insert(0);
        if *count >= MOST_OF_UPLOAD {
            let detail = format!(
                "{MOST_OF_UPLOAD} parts of this upload are being received, and no more are at a time. Nothing of this request was taken; try again in a moment."
            );
            return Err(Problem::unavailable(detail, RETRY_AFTER_SECONDS));
        }
        *count += 1;
        drop(inside);
        Ok(OneBody { bodies: self.clone(), upload })
    }

    fn inside(&self) -> MutexGuard<'_, HashMap<UploadId, u32>> {
        // Nothing in here can panic half-way, so a poisoned map is a good map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OneBody {
    fn drop(&mut self) {
        let mut inside = self.bodies.inside();
        if let Some(count) = inside.get_mut(&self.upload) {
            *count -= 1;
            if *count == 0 {
                inside.remove(&self.upload);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bodies, MOST_OF_UPLOAD};
    use crate::http::problem::Kind;
    use reelyard_model::UploadId;
    use uuid::Uuid;

    #[test]
    fn an_upload_has_so_many_bodies_at_a_time_and_others_are_not_held_up() {
        let (bodies, upload) = (Bodies::default(), UploadId::from_uuid(Uuid::from_u128(1)));
        let mut inside: Vec<_> = (0..MOST_OF_UPLOAD).map(|_| bodies.enter(upload).unwrap()).collect();
        assert_eq!(bodies.enter(upload).map(drop).unwrap_err().kind(), Kind::Unavailable);
        assert!(bodies.enter(UploadId::from_uuid(Uuid::from_u128(2))).is_ok());
        inside.pop();
        inside.push(bodies.enter(upload).unwrap());
        inside.clear();
        assert!(bodies.inside().is_empty());
    }
}
