//! Which rows a transaction holds while it reads, decides and writes: on PostgreSQL, where others do the same at the
//! same time. On SQLite all of it is nothing.
//!
//! The order is said in `store`: tenant, upload, content, task. A method takes what it needs from left to right and none
//! of it later, so nobody waits in a circle. A content is locked by the row of the asset that owns it, whichever of its
//! assets the method is about, because what happens to one of them depends on the others.

use crate::{CatalogError, sql::sql, store::Write};
use reelyard_model::{AssetId, TaskId, TenantId, UploadId};

impl Write {
    /// Nobody else counts or adds to what this tenant has.
    pub(crate) async fn lock_tenant(&mut self, tenant: TenantId) -> Result<(), CatalogError> {
        self.connection().lock(sql("SELECT id FROM tenant WHERE id = ?").bind(tenant)).await
    }

    /// The same, by an upload, whose tenant never changes.
    pub(crate) async fn lock_tenant_of_upload(&mut self, upload: UploadId) -> Result<(), CatalogError> {
        let select = sql("SELECT id FROM tenant WHERE id = (SELECT tenant FROM upload WHERE id = ?)");
        self.connection().lock(select.bind(upload)).await
    }

    pub(crate) async fn lock_upload(&mut self, upload: UploadId) -> Result<(), CatalogError> {
        self.connection().lock(sql("SELECT id FROM upload WHERE id = ?").bind(upload)).await
    }

    /// All assets of the content that this one is of. Which content that is never changes.
    pub(crate) async fn lock_content_of(&mut self, asset: AssetId) -> Result<(), CatalogError> {
        let select = sql(
            "SELECT id FROM asset WHERE id = (SELECT COALESCE(content_of, id) FROM asset AS one WHERE one.id = ?)",
        );
        self.connection().lock(select.bind(asset)).await
    }

    /// The content that a task makes; before the task itself is locked.
    pub(crate) async fn lock_content_of_task(&mut self, task: TaskId) -> Result<(), CatalogError> {
        let select = sql("SELECT id FROM asset WHERE id = (SELECT asset FROM task WHERE task.id = ?)");
        self.connection().lock(select.bind(task)).await
    }
}

#[cfg(test)]
mod tests {
    use crate::{Actor, Catalog, CatalogError, PostgresSettings, TenantLimits};
    use reelyard_model::TenantId;
    use reelyard_testkit::PostgresServer;

    #[tokio::test]
    async fn a_node_that_stands_still_in_a_transaction_loses_it_and_the_others_go_on() {
        let Some(server) = PostgresServer::start_without_fsync() else { return };
        let (url, settings) = (server.new_database(), PostgresSettings::default());
        let stopped = Catalog::connect(&url, &settings).await.unwrap();
        let other = Catalog::connect(&url, &settings).await.unwrap();
        let mut write = stopped.write().await.unwrap();
        write.lock_tenant(TenantId::DEFAULT).await.unwrap();
        let somebody = Actor { name: "somebody".into(), reason: None };
        // It takes the seconds after which the database takes the lock back.
        other.set_tenant_limits(TenantId::DEFAULT, TenantLimits::default(), &somebody, 1).await.unwrap();
        let late = stopped.commit(write).await;
        assert!(matches!(late, Err(CatalogError::Unavailable { .. })), "{late:?}");
        stopped.ping().await.unwrap();
    }
}
