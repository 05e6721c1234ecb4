//! The catalogue as the ledger of a store that cannot decide between two nodes (see `reelyard_storage::ledger`).

use async_trait::async_trait;
use reelyard_catalog::{Catalog, CatalogError, LedgerError};
use reelyard_model::UploadId;
use reelyard_storage::{
    StoreError,
    ledger::{Ledger, LedgerChange, LedgerState},
};

#[derive(Clone, Debug)]
pub(crate) struct CatalogLedger(pub(crate) Catalog);

#[async_trait]
impl Ledger for CatalogLedger {
    async fn load(&self, upload: UploadId) -> Result<LedgerState, StoreError> {
        self.0.load_ledger(upload).await.map_err(|error| unavailable("reading the ledger", upload, error))
    }

    async fn commit(
        &self,
        upload: UploadId,
        fence: Option<u64>,
        change: LedgerChange,
    ) -> Result<(), StoreError> {
        self.0.commit_ledger(upload, fence, &change).await.map_err(|error| match error {
            LedgerError::Fenced => StoreError::Fenced { what: format!("upload {upload}") },
            LedgerError::Conflict { .. } | LedgerError::Replaced { .. } => {
                StoreError::Conflict { what: error.to_string() }
            }
            LedgerError::Catalog(error) => unavailable("writing the ledger", upload, error),
        })
    }
}

fn unavailable(doing: &str, upload: UploadId, error: CatalogError) -> StoreError {
    match error {
        CatalogError::NotFound { .. } => StoreError::NotFound { what: format!("upload {upload}") },
        CatalogError::Unreadable { .. } => {
            StoreError::Damaged { what: format!("the ledger of upload {upload}"), problem: error.to_string() }
        }
        _ => StoreError::Unavailable {
            doing: format!("{doing} of upload {upload}"),
            reason: error.to_string(),
        },
    }
}
