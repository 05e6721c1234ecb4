//! Between the body and the store: bytes of an upload of unknown length are counted against the tenant's quota before
//! they are written.
//!
//! A known length was reserved whole when it was told, and passes untouched. What was let in before a refusal is kept.

use super::body::Sink;
use crate::{app::App, http::problem::Problem};
use bytes::Bytes;
use reelyard_catalog::{DEFERRED_STEP_BYTES, UploadRow};
use reelyard_model::UploadId;
use reelyard_storage::{Receive, ReceiveError};
use reelyard_upload::ChunkRequest;

pub(super) struct Metered<'a> {
    receiving: &'a mut Box<dyn Receive>,
    app: &'a App,
    upload: UploadId,
    /// Where the next byte goes.
    offset: u64,
    /// How far it was let in; no end for a known length.
    let_in: u64,
}

pub(super) enum MeterError {
    Store(ReceiveError),
    /// The quota, or the catalogue that keeps it.
    NoRoom(Problem),
}

impl From<ReceiveError> for MeterError {
    fn from(error: ReceiveError) -> Self {
        Self::Store(error)
    }
}

impl<'a> Metered<'a> {
    /// What the request announces was let in already.
    pub(super) fn new(
        app: &'a App,
        row: &UploadRow,
        chunk: &ChunkRequest,
        receiving: &'a mut Box<dyn Receive>,
    ) -> Self {
        let let_in = match (row.byte_len, chunk.body_len) {
            (None, None) => chunk.offset,
            _ => u64::MAX,
        };
        Self { receiving, app, upload: row.id, offset: chunk.offset, let_in }
    }
}

impl Sink for Metered<'_> {
    type Error = MeterError;

    async fn write(&mut self, batch: Vec<Bytes>) -> Result<(), MeterError> {
        let byte_len: u64 = batch.iter().map(|piece| piece.len() as u64).sum();
        let end = self.offset.saturating_add(byte_len);
        if end > self.let_in {
            let up_to = end.saturating_add(DEFERRED_STEP_BYTES);
            let catalog = &self.app.catalog;
            // The last bytes before the limit are taken as well, where a whole step does not fit any more.
            let up_to = match catalog.reserve_up_to(self.upload, up_to).await {
                Ok(()) => up_to,
                Err(_) => {
                    catalog
                        .reserve_up_to(self.upload, end)
                        .await
                        .map_err(|error| MeterError::NoRoom(error.into()))?;
                    end
                }
            };
            self.let_in = up_to;
        }
        self.offset = end;
        self.receiving.as_mut().write(batch).await.map_err(MeterError::Store)
    }

    fn wants_checkpoint(&self) -> bool {
        self.receiving.as_ref().wants_checkpoint()
    }

    fn durable_offset(&self) -> u64 {
        self.receiving.as_ref().durable_offset()
    }
}
