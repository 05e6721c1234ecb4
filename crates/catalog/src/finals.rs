//! Final uploads (tus concatenation) that are asked for again: which one a repeated creation means, and whether a piece
//! has gone into one.
//!
//! Called by the tus shell. Only reads.

use crate::{Catalog, CatalogError, UploadRow, rows::UPLOAD_SELECT};
use reelyard_model::{TenantId, UploadId};
use sqlx::AssertSqlSafe;

impl Catalog {
    /// The oldest final upload of this tenant with this list of partials and this metadata that has not come to
    /// nothing. Only later ones than `partial`, one of its pieces, are looked at: ids are in the order of time.
    pub async fn final_like(
        &self,
        tenant: TenantId,
        concat_header: &str,
        metadata: &str,
        partial: UploadId,
    ) -> Result<Option<UploadRow>, CatalogError> {
        let found = sqlx::query(AssertSqlSafe(format!(
            "{UPLOAD_SELECT} WHERE upload.id > ? AND upload.kind = 'final' AND upload.tenant = ?
             AND upload.concat_header = ? AND upload.metadata = ?
             AND upload.state IN ('created', 'receiving', 'finishing', 'finished')
             ORDER BY upload.id LIMIT 1"
        )))
        .bind(partial.to_string())
        .bind(tenant.to_string())
        .bind(concat_header)
        .bind(metadata)
        .fetch_optional(&self.reader)
        .await?;
        found.as_ref().map(UploadRow::read).transpose()
    }

    /// Whether a final upload with this partial is finished.
    pub async fn is_joined(&self, partial: UploadId) -> Result<bool, CatalogError> {
        let found = sqlx::query(
            "SELECT 1 FROM upload WHERE id > ?1 AND kind = 'final' AND state = 'finished'
             AND EXISTS (SELECT 1 FROM json_each(upload.partials) WHERE json_each.value = ?1) LIMIT 1",
        )
        .bind(partial.to_string())
        .fetch_optional(&self.reader)
        .await?;
        Ok(found.is_some())
    }
}
