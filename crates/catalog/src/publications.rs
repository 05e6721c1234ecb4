//! Publication rows: one for each asset, named by its playback id.

use crate::sql::{Connection, sql};
use crate::{Catalog, CatalogError, PublicationRow, content::Published, store::Write};
use reelyard_model::{
    AssetId, PlaybackId, PublicationState,
    publication_state::{self, PublicationEvent},
};

impl Catalog {
    pub async fn publication(&self, asset: AssetId) -> Result<Option<PublicationRow>, CatalogError> {
        let mut connection = self.reader.acquire().await?;
        find(&mut connection, asset).await
    }

    /// What plays under this id, in whatever state.
    pub async fn publication_by_playback_id(
        &self,
        playback_id: PlaybackId,
    ) -> Result<Option<PublicationRow>, CatalogError> {
        let found = sql("SELECT * FROM publication WHERE playback_id = ?")
            .bind(playback_id.to_string())
            .fetch_optional(&self.reader)
            .await?;
        found.as_ref().map(PublicationRow::read).transpose()
    }
}

pub(crate) async fn prepare(
    write: &mut Write,
    asset: AssetId,
    playback_id: PlaybackId,
    now_ms: i64,
) -> Result<(), CatalogError> {
    sql("INSERT INTO publication (asset, playback_id, state, created_ms) VALUES (?, ?, ?, ?)
         ON CONFLICT (asset) DO NOTHING")
    .bind(asset.to_string())
    .bind(playback_id.to_string())
    .bind(PublicationState::Preparing.as_str())
    .bind(now_ms)
    .execute(write.connection())
    .await?;
    Ok(())
}

pub(crate) async fn go_live(
    write: &mut Write,
    asset: AssetId,
    published: &Published,
    now_ms: i64,
) -> Result<PlaybackId, CatalogError> {
    let publication = find(write.connection(), asset)
        .await?
        .ok_or_else(|| CatalogError::not_found("publication of asset", asset))?;
    let state = publication_state::next(publication.state, PublicationEvent::GoLive)?;
    sql(
        "UPDATE publication SET state = ?, attempt = ?, prefix = ?, summary = ?, live_ms = ? WHERE asset = ?",
    )
    .bind(state.as_str())
    .bind(published.attempt)
    .bind(&published.prefix)
    .bind(published.summary.as_ref().map(serde_json::Value::to_string))
    .bind(now_ms)
    .bind(asset.to_string())
    .execute(write.connection())
    .await?;
    Ok(publication.playback_id)
}

pub(crate) async fn withdraw(write: &mut Write, asset: AssetId, now_ms: i64) -> Result<(), CatalogError> {
    let Some(publication) = find(write.connection(), asset).await? else {
        return Ok(());
    };
    let state = publication_state::next(publication.state, PublicationEvent::Withdraw)?;
    sql("UPDATE publication SET state = ?, withdrawn_ms = COALESCE(withdrawn_ms, ?) WHERE asset = ?")
        .bind(state.as_str())
        .bind(now_ms)
        .bind(asset.to_string())
        .execute(write.connection())
        .await?;
    Ok(())
}

async fn find(connection: &mut Connection, asset: AssetId) -> Result<Option<PublicationRow>, CatalogError> {
    let found = sql("SELECT * FROM publication WHERE asset = ?")
        .bind(asset.to_string())
        .fetch_optional(connection)
        .await?;
    found.as_ref().map(PublicationRow::read).transpose()
}
