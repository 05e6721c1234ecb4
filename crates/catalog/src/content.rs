//! The same bytes twice in one tenant: assets that share what was made of them.
//!
//! Of all assets with one content, one is the owner: its id names the source, the tasks, media info, plan, renditions
//! and published files. The others point at it (`content_of`, never at each other) and have nothing but their own row,
//! upload and publication. What happens to the work happens to every asset of the content that is still open (waiting
//! or processing); what a person does to an asset happens to that one alone. So the work goes on while any asset waits
//! for it, and the files stay while any asset that is not deleted uses them, the owner's own tombstone or not.
//!
//! Who uses a content is counted from the rows, inside the transaction that asks: there is no counter to be wrong.
//! Once nobody uses it, nobody ever will again: only assets that wait, are at work or are ready are joined, and nothing
//! comes back from being deleted.

use crate::sql::{Connection, sql};
use crate::{
    AssetRow, Catalog, CatalogError, EventKind, assets, publications,
    rows::{ASSET_SELECT, optional_json, optional_number, signed},
    store::Write,
};
use reelyard_model::{AssetId, AssetState, TenantId, asset_state::AssetEvent};
use serde_json::json;

/// Where all assets of one content stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Somebody waits for it.
    InTheMaking,
    /// It plays under at least one asset.
    Published,
    /// It failed or was cancelled; somebody may ask for another try.
    Stopped,
    /// All assets of it are deleted: its files may go.
    Gone,
}

impl Condition {
    pub fn of(states: impl IntoIterator<Item = AssetState>) -> Self {
        states.into_iter().fold(Self::Gone, |condition, state| {
            let one = match state {
                AssetState::Waiting | AssetState::Processing => Self::InTheMaking,
                AssetState::Ready => Self::Published,
                AssetState::Failed | AssetState::Cancelled => Self::Stopped,
                AssetState::Deleted => Self::Gone,
            };
            if one.rank() > condition.rank() { one } else { condition }
        })
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Gone => 0,
            Self::Stopped => 1,
            Self::Published => 2,
            Self::InTheMaking => 3,
        }
    }
}

/// What a tenant is asked for.
#[derive(Clone, Copy, Debug)]
pub struct ContentQuery<'text> {
    pub tenant: TenantId,
    pub byte_len: u64,
    /// Lower-case hexadecimal.
    pub sha256: &'text str,
    pub preset: &'text str,
    /// What that preset makes, as a digest.
    pub recipe: &'text str,
}

/// What plays, whoever's publication row tells it.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) attempt: u32,
    pub(crate) prefix: String,
    pub(crate) summary: Option<serde_json::Value>,
}

impl AssetRow {
    /// The asset whose files it uses: its own id, or that of the first with these bytes.
    pub fn content(&self) -> AssetId {
        self.content_of.unwrap_or(self.id)
    }
}

impl Catalog {
    /// The owner of such a content of this tenant, where the tenant has it and it did not fail.
    pub async fn find_content(&self, query: &ContentQuery<'_>) -> Result<Option<AssetRow>, CatalogError> {
        let mut connection = self.reader.acquire().await?;
        find(&mut connection, query).await
    }

    /// Where the assets that use the files of this owner stand together.
    pub async fn content_condition(&self, owner: AssetId) -> Result<Condition, CatalogError> {
        let mut connection = self.reader.acquire().await?;
        condition(&mut connection, owner).await
    }

    /// Bytes of uploads whose asset uses another's: the asset, and the key to remove.
    pub async fn spare_sources(&self) -> Result<Vec<(AssetId, String)>, CatalogError> {
        let found = sql("SELECT id, spare_source_key FROM asset WHERE spare_source_key IS NOT NULL")
            .fetch_all(&self.reader)
            .await?;
        found.iter().map(|row| Ok((crate::rows::text(row, "id")?, row.get("spare_source_key")?))).collect()
    }

    /// They were removed. Safe to repeat.
    pub async fn spare_source_removed(&self, asset: AssetId) -> Result<(), CatalogError> {
        let mut write = self.write().await?;
        sql("UPDATE asset SET spare_source_key = NULL WHERE id = ?")
            .bind(asset.to_string())
            .execute(write.connection())
            .await?;
        self.commit(write).await
    }
}

pub(crate) const fn is_open(state: AssetState) -> bool {
    matches!(state, AssetState::Waiting | AssetState::Processing)
}

/// One that plays before one that is still made, then the oldest.
pub(crate) async fn find(
    connection: &mut Connection,
    query: &ContentQuery<'_>,
) -> Result<Option<AssetRow>, CatalogError> {
    let owner: Option<String> = sql("SELECT COALESCE(content_of, id) FROM asset
         WHERE tenant = ? AND sha256 = ? AND byte_len = ? AND state IN ('waiting', 'processing', 'ready')
           AND preset = ? AND recipe = ?
         ORDER BY state <> 'ready', id LIMIT 1")
    .bind(query.tenant.to_string())
    .bind(query.sha256)
    .bind(signed(query.byte_len))
    .bind(query.preset)
    .bind(query.recipe)
    .scalar_optional(&mut *connection)
    .await?;
    let Some(owner) = owner else { return Ok(None) };
    let found =
        sql(format!("{ASSET_SELECT} WHERE asset.id = ?")).bind(owner).fetch_optional(connection).await?;
    found.as_ref().map(AssetRow::read).transpose()
}

/// All assets of a content, oldest first, tombstones among them.
pub(crate) async fn members(
    connection: &mut Connection,
    owner: AssetId,
) -> Result<Vec<AssetRow>, CatalogError> {
    let found = sql(format!("{ASSET_SELECT} WHERE asset.id = ?1 OR asset.content_of = ?1 ORDER BY asset.id"))
        .bind(owner.to_string())
        .fetch_all(connection)
        .await?;
    found.iter().map(AssetRow::read).collect()
}

/// Those that wait for the work.
pub(crate) async fn open_members(
    connection: &mut Connection,
    owner: AssetId,
) -> Result<Vec<AssetRow>, CatalogError> {
    let mut members = members(connection, owner).await?;
    members.retain(|member| is_open(member.state));
    Ok(members)
}

pub(crate) async fn condition(
    connection: &mut Connection,
    owner: AssetId,
) -> Result<Condition, CatalogError> {
    let found = sql("SELECT state FROM asset WHERE id = ?1 OR content_of = ?1")
        .bind(owner.to_string())
        .fetch_all(connection)
        .await?;
    let states = found.iter().map(|row| crate::rows::text(row, "state"));
    Ok(Condition::of(states.collect::<Result<Vec<AssetState>, _>>()?))
}

/// Whether the work is for anybody but this asset.
pub(crate) async fn others_wait(connection: &mut Connection, asset: &AssetRow) -> Result<bool, CatalogError> {
    Ok(open_members(connection, asset.content()).await?.iter().any(|member| member.id != asset.id))
}

/// What plays of it; none as long as it was never published. Withdrawn rows know it too.
pub(crate) async fn published(
    connection: &mut Connection,
    owner: AssetId,
) -> Result<Option<Published>, CatalogError> {
    let found = sql("SELECT attempt, prefix, summary FROM publication
         WHERE prefix IS NOT NULL AND asset IN (SELECT id FROM asset WHERE id = ?1 OR content_of = ?1)
         ORDER BY attempt DESC LIMIT 1")
    .bind(owner.to_string())
    .fetch_optional(connection)
    .await?;
    let Some(row) = found else { return Ok(None) };
    Ok(Some(Published {
        attempt: optional_number(&row, "attempt")?.unwrap_or_default(),
        prefix: row.get("prefix")?,
        summary: optional_json(&row, "summary")?,
    }))
}

/// An open asset of a published content plays.
pub(crate) async fn make_ready(
    write: &mut Write,
    asset: &mut AssetRow,
    published: &Published,
    now_ms: i64,
) -> Result<(), CatalogError> {
    if asset.state == AssetState::Waiting {
        assets::move_asset(write, asset, AssetEvent::Planned, None, json!({}), now_ms).await?;
    }
    let playback_id = publications::go_live(write, asset.id, published, now_ms).await?;
    sql("UPDATE asset SET ready_ms = ?, failure = NULL WHERE id = ?")
        .bind(now_ms)
        .bind(asset.id.to_string())
        .execute(write.connection())
        .await?;
    asset.ready_ms = Some(now_ms);
    let data = json!({ "playback_id": playback_id });
    assets::move_asset(write, asset, AssetEvent::Published, Some(EventKind::ASSET_READY), data, now_ms).await
}

/// A new asset of a content comes to where that stands.
pub(crate) async fn catch_up(
    write: &mut Write,
    asset: &mut AssetRow,
    now_ms: i64,
) -> Result<(), CatalogError> {
    match published(write.connection(), asset.content()).await? {
        Some(published) => make_ready(write, asset, &published, now_ms).await,
        None if asset.media_info.is_some() && asset.state == AssetState::Waiting => {
            assets::move_asset(write, asset, AssetEvent::Planned, None, json!({}), now_ms).await
        }
        None => Ok(()),
    }
}

/// What another asset of the content did may leave files to remove, and files are removed with their owner: it has to
/// be swept again. The time changes too, because a sweep that has begun must not mark it as done. An owner that is
/// open or ready moves by itself before its files may go.
pub(crate) async fn sweep_owner_again(
    write: &mut Write,
    owner: AssetId,
    now_ms: i64,
) -> Result<(), CatalogError> {
    sql("UPDATE asset SET swept_ms = NULL, updated_ms = ?
         WHERE id = ? AND state IN ('failed', 'cancelled', 'deleted')")
    .bind(now_ms)
    .bind(owner.to_string())
    .execute(write.connection())
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Condition;
    use reelyard_model::AssetState;

    #[test]
    fn a_content_stands_where_the_asset_stands_that_needs_most_of_it() {
        use AssetState as S;
        for (states, expected) in [
            (vec![S::Deleted], Condition::Gone),
            (vec![S::Deleted, S::Deleted], Condition::Gone),
            (vec![S::Deleted, S::Cancelled], Condition::Stopped),
            (vec![S::Failed, S::Deleted], Condition::Stopped),
            (vec![S::Ready, S::Cancelled], Condition::Published),
            (vec![S::Deleted, S::Ready], Condition::Published),
            (vec![S::Deleted, S::Waiting], Condition::InTheMaking),
            (vec![S::Cancelled, S::Processing], Condition::InTheMaking),
            (vec![S::Ready, S::Waiting], Condition::InTheMaking),
        ] {
            assert_eq!(Condition::of(states.clone()), expected, "{states:?}");
        }
    }
}
