//! Which node works on an upload, where several nodes share one store.
//!
//! A node takes an upload for a short time and extends it while it lives. A node that wants an upload which another one
//! holds says so in the row; the holder looks for such wishes a few times a second, lets go, and the other takes it.
//! Each change of hands raises the upload's fencing token, so that a holder that slept through its time can commit
//! nothing any more (see `ledger`).

use crate::sql::{either, sql};
use crate::{
    Catalog, CatalogError,
    rows::{number, signed, text},
};
use reelyard_model::UploadId;

/// What came of wanting an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is this node's, under this fencing token.
    Held { fence: u64 },
    /// Another node has it and has been asked to let go: ask again soon.
    Busy,
}

impl Catalog {
    /// Takes the upload, or asks its holder for it. Taking what one holds already makes a new token too: requests of
    /// one node do not trust each other's either.
    pub async fn take_upload(
        &self,
        id: UploadId,
        node: &str,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<Taken, CatalogError> {
        let mut write = self.write().await?;
        let taken =
            sql("UPDATE upload SET holder = ?2, held_until_ms = ?4, fence = fence + 1, wanted_by = NULL
             WHERE id = ?1 AND (holder IS NULL OR holder = ?2 OR held_until_ms <= ?3)
             RETURNING fence")
            .bind(id.to_string())
            .bind(node)
            .bind(now_ms)
            .bind(until_ms)
            .fetch_optional(write.connection())
            .await?;
        let answer = match taken {
            Some(row) => Taken::Held { fence: row.get::<i64>("fence")?.cast_unsigned() },
            None => {
                let wished = sql("UPDATE upload SET wanted_by = ? WHERE id = ?")
                    .bind(node)
                    .bind(id.to_string())
                    .execute(write.connection())
                    .await?;
                if wished == 0 {
                    return Err(CatalogError::not_found("upload", id));
                }
                Taken::Busy
            }
        };
        self.commit(write).await?;
        Ok(answer)
    }

    /// Lets go, if it is still held under this token.
    pub async fn release_upload(&self, id: UploadId, node: &str, fence: u64) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        sql("UPDATE upload SET holder = NULL, wanted_by = NULL WHERE id = ? AND holder = ? AND fence = ?")
            .bind(id.to_string())
            .bind(node)
            .bind(signed(fence))
            .execute(write.connection())
            .await?;
        self.commit(write).await
    }

    /// This node lives: what it holds stays its own until then.
    pub async fn extend_holds(&self, node: &str, until_ms: i64) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        // On PostgreSQL several rows are locked in one order only.
        either(
            "UPDATE upload SET held_until_ms = ? WHERE holder = ?",
            "UPDATE upload SET held_until_ms = ? WHERE id IN
             (SELECT id FROM upload WHERE holder = ? ORDER BY id FOR NO KEY UPDATE)",
        )
        .bind(until_ms)
        .bind(node)
        .execute(write.connection())
        .await?;
        self.commit(write).await
    }

    /// The process that is starting is the only one on this catalogue: whatever an earlier one held is free.
    pub async fn forget_holders(&self) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        either(
            "UPDATE upload SET holder = NULL, wanted_by = NULL WHERE holder IS NOT NULL",
            "UPDATE upload SET holder = NULL, wanted_by = NULL WHERE id IN
             (SELECT id FROM upload WHERE holder IS NOT NULL ORDER BY id FOR NO KEY UPDATE)",
        )
        .execute(write.connection())
        .await?;
        self.commit(write).await
    }

    /// This node starts anew: whatever its last process held is free. Others keep what they hold.
    pub async fn forget_holders_of(&self, node: &str) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        sql("UPDATE upload SET holder = NULL, wanted_by = NULL WHERE holder = ?")
            .bind(node)
            .execute(write.connection())
            .await?;
        self.commit(write).await
    }

    /// Uploads of this node that another one wants, with the token that this node has.
    pub async fn wanted_uploads(&self, node: &str) -> Result<Vec<(UploadId, u64)>, CatalogError> {
        let found = sql("SELECT id, fence FROM upload WHERE holder = ? AND wanted_by IS NOT NULL")
            .bind(node)
            .fetch_all(&self.reader)
            .await?;
        found.iter().map(|row| Ok((text(row, "id")?, number(row, "fence")?))).collect()
    }
}
