//! **same content**: bytes that the tenant has already become a new asset on the files of the old one, with no work.
//!
//! Called by `receive` at the end of an upload, by `sweep`, and by the possession routes, where a client shows that it
//! has the bytes and sends none. The catalogue decides inside the finishing transaction whether the tenant has the
//! content; here are the edges: what "the same recipe" means, and the removal of bytes that nobody needs twice. A crash
//! before that removal leaves a row that names them, and the sweep removes them then.

use super::FlowError;
use crate::app::App;
use reelyard_model::{AssetId, plan::PLAN_VERSION};
use reelyard_planner::Policy;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// What this server makes of a source with this preset now, as a digest: presets are files that operators change, and
/// nobody who uploads anew wants what the old one made. A preset that is gone has a recipe of its own.
pub(crate) fn recipe(app: &App, preset: &str) -> String {
    let made_of = json!({
        "plan": PLAN_VERSION,
        "policy": format!("{:?}", Policy::default()),
        "preset": app.presets.get(preset),
    });
    hex::encode(Sha256::digest(made_of.to_string()))
}

/// The bytes of an upload whose asset uses another's. Failing is no harm: the row names them until they are gone.
pub(crate) async fn remove_spare(app: &App, asset: AssetId, key: &str) {
    let removed = async {
        app.uploads.delete_source(key).await?;
        app.catalog.spare_source_removed(asset).await?;
        Ok::<(), FlowError>(())
    };
    if let Err(error) = removed.await {
        tracing::warn!(%asset, key, %error, "same content: the second copy of the bytes stays until the next sweep");
    }
}

/// What a crash or a failure left.
pub(crate) async fn remove_spares(app: &App) -> Result<(), FlowError> {
    for (asset, key) in app.catalog.spare_sources().await? {
        remove_spare(app, asset, &key).await;
    }
    Ok(())
}
