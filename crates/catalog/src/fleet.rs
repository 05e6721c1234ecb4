//! What the nodes of a fleet share beside the work: keys that all must have, and chores that one does for all.

use crate::{Catalog, CatalogError, sql::sql};

impl Catalog {
    /// The value under this name: `new` when there was none, else what the first node has stored. Safe when several
    /// nodes start at once: all of them get the same.
    pub async fn shared_secret(&self, name: &str, new: &str, now_ms: i64) -> Result<String, CatalogError> {
        let mut write = self.write().await?;
        sql("INSERT INTO secret (name, value, created_ms) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(new)
            .bind(now_ms)
            .execute(write.connection())
            .await?;
        let value =
            sql("SELECT value FROM secret WHERE name = ?").bind(name).scalar(write.connection()).await?;
        self.commit(write).await?;
        Ok(value)
    }

    /// How much later this clock is than the database's, in milliseconds; 0 where the database has no clock of its own.
    pub async fn clock_differs_by_ms(&self, now_ms: i64) -> Result<i64, CatalogError> {
        if !self.is_shared() {
            return Ok(0);
        }
        let theirs_ms: i64 = sql("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)")
            .scalar(&self.reader)
            .await?;
        Ok(now_ms.saturating_sub(theirs_ms))
    }

    /// Whether this node does the chore until `until_ms`: it did so before, nobody does, or whoever did is silent. Saves
    /// work and promises nothing: a node that was stopped may believe that it still has it.
    pub async fn take_duty(
        &self,
        name: &str,
        node: &str,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<bool, CatalogError> {
        let held_by_other = sql("SELECT 1 FROM duty WHERE name = ? AND node <> ? AND until_ms > ?")
            .bind(name)
            .bind(node)
            .bind(now_ms);
        if held_by_other.fetch_optional(&self.reader).await?.is_some() {
            return Ok(false);
        }
        let mut write = self.write().await?;
        let taken = sql("INSERT INTO duty (name, node, until_ms) VALUES (?1, ?2, ?3)
                         ON CONFLICT (name) DO UPDATE SET node = ?2, until_ms = ?3
                         WHERE duty.node = ?2 OR duty.until_ms <= ?4")
        .bind(name)
        .bind(node)
        .bind(until_ms)
        .bind(now_ms)
        .execute(write.connection())
        .await?;
        self.commit(write).await?;
        Ok(taken > 0)
    }
}
