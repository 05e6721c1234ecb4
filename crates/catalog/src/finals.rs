//! Final uploads (tus concatenation): which one a repeated creation means, which ones wait for a piece, and whether a piece
//! has gone into one.
//!
//! Called by the tus shell and by `concatenate`. Only reads. Rows of uploads are kept for good, so each question goes
//! through an index of its own; a test looks at the plans.

use crate::sql::either;
use crate::{Catalog, CatalogError, UploadRow, rows::UPLOAD_SELECT};
use reelyard_model::{TenantId, UploadId};

// `+` keeps SQLite from walking along the ids or states instead of using the index of the lists.
const LIKE: &str = "WHERE +upload.id > ? AND upload.kind = 'final' AND upload.tenant = ?
     AND upload.concat_header = ? AND upload.metadata = ?
     AND +upload.state IN ('created', 'receiving', 'finishing', 'finished')
     ORDER BY +upload.id LIMIT 1";
const JOINED: &str =
    "SELECT 1 FROM upload WHERE kind = 'final' AND tenant = ?1 AND id > ?2 AND +state = 'finished'
     AND EXISTS (SELECT 1 FROM json_each(upload.partials) WHERE json_each.value = ?2) LIMIT 1";
/// PostgreSQL needs no such hints, and has its own words for what is in a list.
const JOINED_ON_POSTGRES: &str =
    "SELECT 1 FROM upload WHERE kind = 'final' AND tenant = ?1 AND id > ?2 AND state = 'finished'
     AND EXISTS (SELECT 1 FROM JSON_ARRAY_ELEMENTS_TEXT(CAST(upload.partials AS JSON)) AS piece (id)
                 WHERE piece.id = ?2) LIMIT 1";
// Left alone, SQLite takes the index of all states.
const OPEN: &str = "SELECT upload.*, asset.id AS asset
     FROM upload INDEXED BY upload_final_open LEFT JOIN asset ON asset.upload = upload.id
     WHERE upload.kind = 'final' AND upload.state IN ('created', 'receiving')";
/// A final upload and its pieces are of one tenant.
const WITH: &str = "AND upload.tenant = (SELECT piece.tenant FROM upload AS piece WHERE piece.id = ?1)
     AND EXISTS (SELECT 1 FROM json_each(upload.partials) WHERE json_each.value = ?1)";
const WITH_ON_POSTGRES: &str =
    "AND upload.tenant = (SELECT piece.tenant FROM upload AS piece WHERE piece.id = ?1)
     AND EXISTS (SELECT 1 FROM JSON_ARRAY_ELEMENTS_TEXT(CAST(upload.partials AS JSON)) AS piece (id)
                 WHERE piece.id = ?1)";
const IN_ORDER: &str = "ORDER BY upload.tenant, upload.id";

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
        let found =
            either(format!("{UPLOAD_SELECT} {LIKE}"), format!("{UPLOAD_SELECT} {}", without_hints(LIKE)))
                .bind(partial.to_string())
                .bind(tenant.to_string())
                .bind(concat_header)
                .bind(metadata)
                .fetch_optional(&self.reader)
                .await?;
        found.as_ref().map(UploadRow::read).transpose()
    }

    /// Whether a final upload of this tenant with this partial is finished.
    pub async fn is_joined(&self, tenant: TenantId, partial: UploadId) -> Result<bool, CatalogError> {
        let found = either(JOINED, JOINED_ON_POSTGRES)
            .bind(tenant.to_string())
            .bind(partial.to_string())
            .fetch_optional(&self.reader)
            .await?;
        Ok(found.is_some())
    }

    /// Final uploads in the making, each tenant's oldest first; of this partial only, where one is given.
    pub async fn unfinished_finals(&self, with: Option<UploadId>) -> Result<Vec<UploadRow>, CatalogError> {
        let found = match with {
            None => either(format!("{OPEN} {IN_ORDER}"), format!("{} {IN_ORDER}", without_hints(OPEN))),
            Some(partial) => either(
                format!("{OPEN} {WITH} {IN_ORDER}"),
                format!("{} {WITH_ON_POSTGRES} {IN_ORDER}", without_hints(OPEN)),
            )
            .bind(partial),
        };
        let found = found.fetch_all(&self.reader).await?;
        found.iter().map(UploadRow::read).collect()
    }
}

/// What is there for SQLite's planner only: PostgreSQL does not know it.
fn without_hints(sqlite: &str) -> String {
    sqlite.replace("+upload.", "upload.").replace("INDEXED BY upload_final_open ", "")
}

#[cfg(test)]
mod tests {
    use super::{IN_ORDER, JOINED, LIKE, OPEN, WITH};
    use crate::{Catalog, rows::UPLOAD_SELECT, sql::sql};

    /// How SQLite goes through the uploads: the lines of its plan that name them.
    async fn plan(catalog: &Catalog, text: &str) -> String {
        let rows = sql(format!("EXPLAIN QUERY PLAN {text}")).fetch_all(&catalog.reader).await.unwrap();
        let lines = rows.iter().map(|row| row.get::<String>("detail").unwrap());
        lines.filter(|line| line.contains(" upload")).collect::<Vec<_>>().join("; ")
    }

    #[tokio::test]
    async fn every_question_about_final_uploads_goes_through_its_index() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&directory.path().join("catalog.sqlite")).await.unwrap();
        for (sql, expected) in [
            (
                format!("{UPLOAD_SELECT} {LIKE}"),
                "USING INDEX upload_final_by_header (tenant=? AND concat_header=?)",
            ),
            (JOINED.to_owned(), "USING INDEX upload_final_by_age (tenant=? AND id>?)"),
            (format!("{OPEN} {IN_ORDER}"), "USING INDEX upload_final_open"),
            (format!("{OPEN} {WITH} {IN_ORDER}"), "USING INDEX upload_final_open (tenant=?)"),
        ] {
            let plan = plan(&catalog, &sql).await;
            assert!(plan.contains(expected), "{sql}\n{plan}");
        }
    }
}
