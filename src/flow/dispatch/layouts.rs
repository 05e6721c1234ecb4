//! Where sources lie, remembered for a moment: the chunks of a video are granted one after the other, and all of them
//! have one source, whose whereabouts take several questions.
//!
//! A layout that has become old is no harm: an assembly replaces the pieces that it names, and whoever meets a piece
//! that is gone asks for the layout again, which is not answered from here.

use reelyard_model::work::SourceLayout;
use reelyard_storage::{StoreError, UploadStore};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::OnceCell;

/// Long enough for the chunks of one claim after the other, and short beside a task.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Beyond that all are looked up anew.
const MOST_REMEMBERED: usize = 1_024;

#[derive(Default)]
pub(crate) struct Layouts(Mutex<HashMap<String, Remembered>>);

#[derive(Clone)]
struct Remembered {
    since: Instant,
    /// Whoever asks first looks, and the others wait for what it finds.
    layout: Arc<OnceCell<SourceLayout>>,
}

impl Layouts {
    pub(super) async fn of(&self, uploads: &dyn UploadStore, key: &str) -> Result<SourceLayout, StoreError> {
        let layout = self.entry(key);
        Ok(layout.get_or_try_init(|| uploads.layout(key)).await?.clone())
    }

    fn entry(&self, key: &str) -> Arc<OnceCell<SourceLayout>> {
        // Whoever panicked with it left whole entries.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(key).filter(|known| known.since.elapsed() < REMEMBERED) {
            return known.layout.clone();
        }
        if all.len() >= MOST_REMEMBERED {
            all.clear();
        }
        let new = Remembered { since: Instant::now(), layout: Arc::default() };
        all.insert(key.to_owned(), new.clone());
        new.layout
    }
}
