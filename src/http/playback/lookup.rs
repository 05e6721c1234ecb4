//! From a playback id to where its files lie, remembered between requests.
//!
//! A viewer asks for hundreds of segments of one video; the catalogue is asked once. What is remembered counts only
//! while no event was stored since: the catalogue stores an event with every change, so a withdrawn video stops at
//! once. A busy server looks up more often, and that is a read of one row by its key.

use super::super::problem::{Kind, Problem};
use reelyard_catalog::Catalog;
use reelyard_model::{PlaybackId, PublicationState};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Videos remembered at a time, some 200 bytes each; when full, all are forgotten.
const MAX_REMEMBERED: usize = 10_000;

/// A video that plays.
#[derive(Clone, Debug)]
pub(in crate::http) struct Live {
    /// Storage prefix of its files.
    pub(in crate::http) prefix: String,
}

#[derive(Default)]
pub(in crate::http) struct Publications {
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    as_of_event: i64,
    live: HashMap<PlaybackId, Arc<Live>>,
}

impl Publications {
    /// The live publication, or a problem that says why there is none.
    pub(in crate::http) async fn live(
        &self,
        catalog: &Catalog,
        id: PlaybackId,
    ) -> Result<Arc<Live>, Problem> {
        // Before the row is read: a change in between makes the next request ask again.
        let as_of_event = *catalog.last_event().borrow();
        if let Some(live) = self.recall(as_of_event, id) {
            return Ok(live);
        }
        let row = catalog.publication_by_playback_id(id).await?.ok_or_else(|| Problem::not_found("video"))?;
        let prefix = match (row.state, row.prefix) {
            (PublicationState::Live, Some(prefix)) => prefix,
            (PublicationState::Withdrawn, _) => {
                return Err(Problem::new(Kind::Gone, "This video was withdrawn."));
            }
            _ => {
                return Err(Problem::new(Kind::NotPublished, "This video is not ready to play yet.")
                    .with("state", row.state.as_str()));
            }
        };
        let live = Arc::new(Live { prefix });
        self.remember(as_of_event, id, live.clone());
        Ok(live)
    }

    fn recall(&self, as_of_event: i64, id: PlaybackId) -> Option<Arc<Live>> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        (remembered.as_of_event == as_of_event).then(|| remembered.live.get(&id).cloned()).flatten()
    }

    fn remember(&self, as_of_event: i64, id: PlaybackId, live: Arc<Live>) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.as_of_event > as_of_event {
            return;
        }
        if remembered.as_of_event < as_of_event || remembered.live.len() >= MAX_REMEMBERED {
            remembered.live.clear();
            remembered.as_of_event = as_of_event;
        }
        remembered.live.insert(id, live);
    }
}
