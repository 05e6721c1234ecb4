//! **assemble**: a source that lies in pieces becomes one object, by copies inside the store.
//!
//! Nobody waits for it: a source can be read from the moment its upload is finished, in pieces or whole. Runs beside
//! the server, after each finished upload and from time to time for what was interrupted; each step is safe to repeat.

use super::FlowError;
use crate::app::App;
use reelyard_storage::source_key;
use std::{sync::Arc, time::Duration};

/// What failed (the store was away) is tried again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

pub(crate) async fn run(app: Arc<App>) {
    while !app.shutdown.is_cancelled() {
        if let Err(error) = assemble_all(&app).await {
            tracing::error!(%error, "assemble: trying again in a minute");
        }
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = app.assemble_ticket.notified() => {}
            () = tokio::time::sleep(AGAIN_AFTER) => {}
        }
    }
}

/// One that fails holds up no other.
pub(crate) async fn assemble_all(app: &App) -> Result<(), FlowError> {
    for upload in app.catalog.uploads_to_assemble().await? {
        match app.uploads.assemble_source(&source_key(upload)).await {
            Ok(_) => {
                app.catalog.upload_assembled(upload).await?;
                // What earlier tries have left.
                app.uploads.forget_upload(upload).await?;
            }
            Err(error) => {
                tracing::warn!(%upload, %error, "assemble: the source stays in pieces for now");
            }
        }
    }
    Ok(())
}
