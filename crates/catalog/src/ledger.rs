//! The ledger of uploads whose bytes lie in a store that cannot decide between two nodes (S3): what is durable.
//!
//! `src/app/ledger.rs` hands it to the store. One commit is one transaction, refused as a whole under an old fencing
//! token, when the upload takes no more bytes, or when its part is there already.

use crate::sql::{Connection, Row, sql};
use crate::{
    Catalog, CatalogError,
    rows::{number, signed},
    store::Write,
};
use reelyard_model::UploadId;
use reelyard_upload::ledger::{Extent, LedgerChange, LedgerPart, LedgerState};

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("the upload has been taken over, or takes no more bytes")]
    Fenced,
    #[error("part {number} is there already, or overlaps one that is")]
    Conflict { number: u32 },
    #[error("the object at byte {start} was replaced by somebody else")]
    Replaced { start: u64 },
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Catalog {
    /// Not found: nobody knows the upload, or it was given up and there is no asset of it, so that nobody needs its
    /// bytes any more.
    pub async fn load_ledger(&self, upload: UploadId) -> Result<LedgerState, CatalogError> {
        // One transaction: a commit between two of these questions would show half of it.
        let mut read = self.reader.snapshot().await?;
        let id = upload.to_string();
        let known =
            sql("SELECT COALESCE(upload_ledger.byte_offset, 0) AS byte_offset, upload_ledger.hash_state
             FROM upload LEFT JOIN upload_ledger ON upload_ledger.upload = upload.id
             WHERE upload.id = ? AND (upload.state NOT IN ('terminated', 'expired', 'rejected')
                                      OR EXISTS (SELECT 1 FROM asset WHERE asset.upload = upload.id))")
            .bind(&id)
            .fetch_optional(read.connection())
            .await?;
        let known = known.ok_or_else(|| CatalogError::not_found("upload", upload))?;
        let extents = sql("SELECT * FROM upload_extent WHERE upload = ? ORDER BY start_byte")
            .bind(&id)
            .fetch_all(read.connection())
            .await?;
        let parts = sql("SELECT * FROM upload_part WHERE upload = ? ORDER BY number")
            .bind(&id)
            .fetch_all(read.connection())
            .await?;
        Ok(LedgerState {
            offset: number(&known, "byte_offset")?,
            hash: known.get("hash_state")?,
            extents: extents.iter().map(read_extent).collect::<Result<_, _>>()?,
            parts: parts.iter().map(read_part).collect::<Result<_, _>>()?,
        })
    }

    /// `fence`: of a writer that must still hold the upload; `None`: of steps that anybody may make.
    pub async fn commit_ledger(
        &self,
        upload: UploadId,
        fence: Option<u64>,
        change: &LedgerChange,
    ) -> Result<(), LedgerError> {
        let mut write = self.write().await?;
        check_fence(&mut write, upload, fence, change).await?;
        let (connection, id) = (write.connection(), upload.to_string());
        if let Some(part) = &change.part {
            insert_part(connection, &id, part).await?;
        }
        for start in &change.remove {
            let removed = sql("DELETE FROM upload_extent WHERE upload = ? AND start_byte = ?")
                .bind(&id)
                .bind(signed(*start))
                .execute(&mut *connection)
                .await?;
            // Who replaces what is not there any more has read an older state: its other changes may be wrong, too.
            if removed == 0 {
                return Err(LedgerError::Replaced { start: *start });
            }
        }
        for extent in &change.insert {
            sql("INSERT INTO upload_extent (upload, start_byte, end_byte, object_key) VALUES (?, ?, ?, ?)")
                .bind(&id)
                .bind(signed(extent.start))
                .bind(signed(extent.end))
                .bind(&extent.key)
                .execute(&mut *connection)
                .await?;
        }
        if let Some((offset, hash)) = &change.checkpoint {
            sql("INSERT INTO upload_ledger (upload, byte_offset, hash_state) VALUES (?1, ?2, ?3)
                 ON CONFLICT (upload) DO UPDATE SET byte_offset = ?2, hash_state = ?3
                 WHERE upload_ledger.byte_offset <= ?2")
            .bind(&id)
            .bind(signed(*offset))
            .bind(hash)
            .execute(&mut *connection)
            .await?;
        }
        self.commit(write).await?;
        Ok(())
    }

    /// The upload was given up and its bytes are gone: so are its rows here. One that is an asset keeps them, because
    /// they name its source.
    pub async fn forget_ledger(&self, upload: UploadId) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        write.lock_upload(upload).await?;
        for table in ["upload_extent", "upload_part", "upload_ledger"] {
            sql(format!(
                "DELETE FROM {table} WHERE upload = ?1 AND NOT EXISTS (SELECT 1 FROM asset WHERE upload = ?1)
                 AND EXISTS (SELECT 1 FROM upload WHERE id = ?1 AND state IN ('terminated', 'expired', 'rejected'))"
            ))
            .bind(upload.to_string())
            .execute(write.connection())
            .await?;
        }
        self.commit(write).await
    }
}

/// New bytes come only from the holder, and only while the upload takes any; what is there may be rearranged later.
async fn check_fence(
    write: &mut Write,
    upload: UploadId,
    fence: Option<u64>,
    change: &LedgerChange,
) -> Result<(), LedgerError> {
    let row = sql("SELECT fence, state FROM upload WHERE id = ?")
        .bind(upload)
        .for_update()
        .fetch_optional(write.connection())
        .await?
        .ok_or_else(|| CatalogError::not_found("upload", upload))?;
    let (newest, state): (i64, String) = (row.get("fence")?, row.get("state")?);
    let takes_bytes = matches!(state.as_str(), "created" | "receiving");
    let is_newest = fence.is_none_or(|fence| signed(fence) == newest);
    let brings_bytes = fence.is_some() || change.part.is_some();
    if is_newest && (takes_bytes || !brings_bytes) { Ok(()) } else { Err(LedgerError::Fenced) }
}

async fn insert_part(
    connection: &mut Connection,
    upload: &str,
    part: &LedgerPart,
) -> Result<(), LedgerError> {
    let there = sql(
        "SELECT 1 FROM upload_part WHERE upload = ? AND (number = ? OR (start_byte < ? AND end_byte > ?))",
    )
    .bind(upload)
    .bind(part.number)
    .bind(signed(part.end))
    .bind(signed(part.start))
    .fetch_optional(&mut *connection)
    .await?;
    if there.is_some() {
        return Err(LedgerError::Conflict { number: part.number });
    }
    sql("INSERT INTO upload_part (upload, number, start_byte, end_byte, sha256) VALUES (?, ?, ?, ?, ?)")
        .bind(upload)
        .bind(part.number)
        .bind(signed(part.start))
        .bind(signed(part.end))
        .bind(part.sha256.as_slice())
        .execute(connection)
        .await?;
    Ok(())
}

fn read_extent(row: &Row) -> Result<Extent, CatalogError> {
    Ok(Extent {
        start: number(row, "start_byte")?,
        end: number(row, "end_byte")?,
        key: row.get("object_key")?,
    })
}

fn read_part(row: &Row) -> Result<LedgerPart, CatalogError> {
    let sha256: Vec<u8> = row.get("sha256")?;
    let sha256 = sha256.try_into().map_err(|_| CatalogError::Unreadable {
        what: "sha256",
        reason: "it does not have 32 bytes".to_owned(),
    })?;
    Ok(LedgerPart {
        number: number(row, "number")?,
        start: number(row, "start_byte")?,
        end: number(row, "end_byte")?,
        sha256,
    })
}
