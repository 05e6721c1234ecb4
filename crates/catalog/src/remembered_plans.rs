//! Plans, remembered: every chunk of a film is granted with its plan, which is long JSON to fetch and to read.
//!
//! Used by claims. A plan is known by its asset and by when it was stored, which the claim reads anew each time, so one
//! that was replaced is not taken for the new one. Nothing here fails; what is forgotten is read again.

use reelyard_model::{AssetId, Plan};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Films that are at work at the same time on a large farm. A plan of a thousand chunks is some tens of kilobytes.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct RememberedPlans(Mutex<HashMap<AssetId, (i64, Arc<Plan>)>>);

impl RememberedPlans {
    pub(crate) fn get(&self, asset: AssetId, planned_ms: i64) -> Option<Arc<Plan>> {
        // Whoever panicked with it left whole entries.
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known_ms, plan) = all.get(&asset)?;
        (*known_ms == planned_ms).then(|| plan.clone())
    }

    pub(crate) fn remember(&self, asset: AssetId, planned_ms: i64, plan: &Arc<Plan>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(asset, (planned_ms, plan.clone()));
    }
}
