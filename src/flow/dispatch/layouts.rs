//! Where sources lie, remembered for a moment: the chunks of a video are granted one after the other, and all of them
//! have one source, whose whereabouts take several questions.
//!
//! A layout that has become old is no harm: an assembly replaces the pieces that it names, and whoever meets a piece
//! that is gone asks for the layout again, which is not answered from here.

use reelyard_model::work::SourceLayout;
use reelyard_storage::{StoreError, UploadStore};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Long enough for the chunks of one claim after the other, and short beside a task.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Beyond that all are looked up anew.
const MOST_REMEMBERED: usize = 1_024;

#[derive(Default)]
pub(crate) struct Layouts(Mutex<HashMap<String, (Instant, Arc<SourceLayout>)>>);

impl Layouts {
    pub(super) async fn of(&self, uploads: &dyn UploadStore, key: &str) -> Result<SourceLayout, StoreError> {
        let known = self.remembered().get(key).filter(|(since, _)| since.elapsed() < REMEMBERED).cloned();
        if let Some((_, layout)) = known {
            return Ok(SourceLayout::clone(&layout));
        }
        let layout = uploads.layout(key).await?;
        let mut remembered = self.remembered();
        if remembered.len() >= MOST_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key.to_owned(), (Instant::now(), Arc::new(layout.clone())));
        Ok(layout)
    }

    /// Whoever panicked with it left whole entries.
    fn remembered(&self) -> MutexGuard<'_, HashMap<String, (Instant, Arc<SourceLayout>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
