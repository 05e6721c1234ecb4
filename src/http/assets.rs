//! `/v1/assets`: what was uploaded, how far it is, where it plays.

use super::{
    asset_view::{Asset, Parts, Playback},
    auth::Caller,
    extract::{Json, Path, Query, cursor, id, names, page_rows},
    links::{self, PlaybackLinks},
    openapi::ProblemBody,
    problem::{Kind, Problem},
    reason::{Reason, ReasonBody},
};
use crate::app::App;
use axum::{Json as JsonBody, extract::State, http::HeaderMap};
use http::StatusCode;
use reelyard_catalog::{AssetFilter, AssetRow, RenditionRow, Scope, TaskFilter, TaskRow};
use reelyard_model::{AssetId, AssetState};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Rows read at once; a video of three hours has as many tasks.
const TASKS_AT_ONCE: u32 = 500;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only these states, separated by commas: `waiting`, `processing`, `ready`, `failed`, `cancelled`, `deleted`.
    /// Without it: all but the deleted.
    #[param(example = "ready,failed")]
    state: Option<String>,
    /// Only titles that hold this text, in any case.
    title: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Rows on the page: 50 unless asked otherwise, 200 at most.
    limit: Option<u32>,
}

/// A page of assets, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct AssetPage {
    items: Vec<Asset>,
    /// Give it as `cursor` to get the next page; null on the last.
    next_cursor: Option<String>,
}

/// List the assets, newest first.
#[utoipa::path(get, path = "/v1/assets", tag = "assets", params(ListQuery),
    responses((status = 200, description = "A page of assets.", body = AssetPage),
              (status = 400, description = "A filter or the cursor is not known.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list_assets(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Result<JsonBody<AssetPage>, Problem> {
    caller.require(Scope::AssetsRead)?;
    let filter = AssetFilter {
        tenant: caller.tenant,
        states: names::<AssetState>(query.state.as_deref(), "state")?,
        title_contains: query.title.filter(|title| !title.is_empty()),
        after: cursor(query.cursor.as_deref())?,
        limit: page_rows(query.limit),
    };
    let page = app.catalog.list_assets(&filter).await?;
    let base = links::base_url(&app, &headers);
    let mut items = Vec::with_capacity(page.rows.len());
    for row in page.rows {
        items.push(show(&app, &base, row).await?);
    }
    Ok(JsonBody(AssetPage { items, next_cursor: page.next.map(|next| next.to_string()) }))
}

/// Show one asset: its state, progress by stage, facts about the source, renditions, and where it plays.
#[utoipa::path(get, path = "/v1/assets/{id}", tag = "assets", params(("id" = String, Path, description = "The asset's id.")),
    responses((status = 200, description = "The asset.", body = Asset),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn show_asset(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(asset): Path<String>,
    headers: HeaderMap,
) -> Result<JsonBody<Asset>, Problem> {
    caller.require(Scope::AssetsRead)?;
    let row = owned(&app, caller, &asset).await?;
    Ok(JsonBody(show(&app, &links::base_url(&app, &headers), row).await?))
}

/// Delete an asset: work on it stops, it is taken off the air at once, and its files are removed.
#[utoipa::path(delete, path = "/v1/assets/{id}", tag = "assets", params(("id" = String, Path, description = "The asset's id.")),
    responses((status = 204, description = "It is gone. Deleting it again gives the same answer."),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn delete_asset(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(asset): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.require(Scope::AssetsWrite)?;
    let row = owned(&app, caller, &asset).await?;
    if row.state != AssetState::Deleted {
        let actor = caller.actor(&app, None).await?;
        app.catalog.delete_asset(row.id, &actor, links::now_ms()).await?;
        app.swept_ticket.notify_one();
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Stop all work on an asset. Refused once it is ready or has failed.
#[utoipa::path(post, path = "/v1/assets/{id}/cancel", tag = "assets", params(("id" = String, Path, description = "The asset's id.")),
    request_body = Option<ReasonBody>,
    responses((status = 200, description = "The asset, cancelled.", body = Asset),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 409, description = "Its state does not allow it.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn cancel_asset(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(asset): Path<String>,
    headers: HeaderMap,
    Reason(reason): Reason,
) -> Result<JsonBody<Asset>, Problem> {
    caller.require(Scope::AssetsWrite)?;
    let row = owned(&app, caller, &asset).await?;
    let actor = caller.actor(&app, reason).await?;
    let row = app.catalog.cancel_asset(row.id, &actor, links::now_ms()).await?;
    app.swept_ticket.notify_one();
    Ok(JsonBody(show(&app, &links::base_url(&app, &headers), row).await?))
}

/// Try a failed or cancelled asset again. What was done stays done.
#[utoipa::path(post, path = "/v1/assets/{id}/retry", tag = "assets", params(("id" = String, Path, description = "The asset's id.")),
    request_body = Option<ReasonBody>,
    responses((status = 200, description = "The asset, back at work.", body = Asset),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 409, description = "It has neither failed nor been cancelled.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn retry_asset(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(asset): Path<String>,
    headers: HeaderMap,
    Reason(reason): Reason,
) -> Result<JsonBody<Asset>, Problem> {
    caller.require(Scope::AssetsWrite)?;
    let row = owned(&app, caller, &asset).await?;
    let actor = caller.actor(&app, reason).await?;
    let row = app.catalog.retry_asset(row.id, &actor, links::now_ms()).await?;
    app.ring();
    Ok(JsonBody(show(&app, &links::base_url(&app, &headers), row).await?))
}

/// Try again what makes one rendition: of the sound its one job, of a video rendition the chunks that were given up or
/// cancelled (each chunk makes all video renditions at once). Where the asset was given up, all that is not done is
/// tried again.
#[utoipa::path(post, path = "/v1/assets/{id}/renditions/{name}/retry", tag = "assets",
    params(("id" = String, Path, description = "The asset's id."),
           ("name" = String, Path, description = "The rendition's name, as the asset shows it.", example = "480p")),
    request_body = Option<ReasonBody>,
    responses((status = 200, description = "The asset, back at work.", body = Asset),
              (status = 404, description = "There is no such asset or rendition, or it is not yours.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 409, description = "Nothing of it was given up or cancelled, or it was published without it.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn retry_rendition(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((asset, name)): Path<(String, String)>,
    headers: HeaderMap,
    Reason(reason): Reason,
) -> Result<JsonBody<Asset>, Problem> {
    caller.require(Scope::AssetsWrite)?;
    let row = owned(&app, caller, &asset).await?;
    let actor = caller.actor(&app, reason).await?;
    let tried = app.catalog.retry_rendition(row.id, &name, &actor, links::now_ms()).await?;
    if tried.is_empty() {
        let detail =
            "Nothing that makes this rendition was given up or cancelled, so there is nothing to try again.";
        return Err(Problem::new(Kind::StateConflict, detail).with("state", row.state.as_str()));
    }
    app.ring();
    let row = owned(&app, caller, &asset).await?;
    Ok(JsonBody(show(&app, &links::base_url(&app, &headers), row).await?))
}

/// Show what is made of an asset, with the reason for each decision.
#[utoipa::path(get, path = "/v1/assets/{id}/plan", tag = "assets", params(("id" = String, Path, description = "The asset's id.")),
    responses((status = 200, description = "The plan: see `decisions` for the reasons.", body = serde_json::Value),
              (status = 404, description = "There is no such asset, or no plan of it yet.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn show_plan(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(asset): Path<String>,
) -> Result<JsonBody<reelyard_model::Plan>, Problem> {
    caller.require(Scope::AssetsRead)?;
    let row = owned(&app, caller, &asset).await?;
    let plan = app.catalog.plan(row.id).await?;
    plan.map(JsonBody).ok_or_else(|| {
        Problem::new(Kind::NotFound, "This asset has no plan yet: its source has not been looked at.")
    })
}

#[derive(Deserialize, ToSchema)]
pub(super) struct LinkRequest {
    /// How long the links shall work: 60 seconds to 30 days.
    #[schema(example = 3600)]
    ttl_seconds: u64,
}

/// Signed addresses, and the page.
#[derive(Serialize, ToSchema)]
pub(super) struct LinkAnswer {
    watch: String,
    #[serde(flatten)]
    links: PlaybackLinks,
}

/// Make playback links that work for a time of your choice.
#[utoipa::path(post, path = "/v1/assets/{id}/links", tag = "assets", params(("id" = String, Path, description = "The asset's id.")),
    request_body = LinkRequest,
    responses((status = 200, description = "The links.", body = LinkAnswer),
              (status = 400, description = "The time is too short or too long.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 404, description = "There is no such asset, or it does not play.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn make_links(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(asset): Path<String>,
    headers: HeaderMap,
    Json(request): Json<LinkRequest>,
) -> Result<JsonBody<LinkAnswer>, Problem> {
    caller.require(Scope::PlaybackSign)?;
    if !(links::MIN_TTL_SECONDS..=links::MAX_TTL_SECONDS).contains(&request.ttl_seconds) {
        return Err(Problem::new(
            Kind::BadRequest,
            format!("`ttl_seconds` is from {} to {}.", links::MIN_TTL_SECONDS, links::MAX_TTL_SECONDS),
        )
        .with("parameter", "ttl_seconds"));
    }
    let row = owned(&app, caller, &asset).await?;
    let Some(playback_id) = row.playback_id.filter(|_| row.state == AssetState::Ready) else {
        return Err(Problem::new(Kind::NotPublished, "This asset does not play (yet).")
            .with("state", row.state.as_str()));
    };
    let expiry = links::now_unix_seconds() + request.ttl_seconds;
    let base = links::base_url(&app, &headers);
    let has_pictures = has_stills(&app, &row, &app.catalog.renditions(row.id).await?).await?;
    Ok(JsonBody(LinkAnswer {
        watch: links::watch_url(&app, &base, playback_id, expiry),
        links: links::playback_links(&app, &base, playback_id, expiry, has_pictures),
    }))
}

/// The asset of the path, if it is the caller's. Somebody else's does not exist for them.
pub(super) async fn owned(app: &App, caller: Caller, text: &str) -> Result<AssetRow, Problem> {
    let asset: AssetId = id(text, "asset")?;
    app.catalog
        .asset(asset)
        .await?
        .filter(|row| row.tenant == caller.tenant)
        .ok_or_else(|| Problem::not_found("asset"))
}

/// All that is shown of an asset.
async fn show(app: &App, base_url: &str, row: AssetRow) -> Result<Asset, Problem> {
    let tasks = tasks_in_brief(app, &row).await?;
    let renditions = app.catalog.renditions(row.id).await?;
    let playback = match row.playback_id.filter(|_| row.state != AssetState::Deleted) {
        None => None,
        Some(playback_id) => {
            let expiry = links::default_expiry();
            let links = if row.state == AssetState::Ready {
                let has_pictures = has_stills(app, &row, &renditions).await?;
                Some(links::playback_links(app, base_url, playback_id, expiry, has_pictures))
            } else {
                None
            };
            let watch = links::watch_url(app, base_url, playback_id, expiry);
            Some(Playback::new(playback_id, watch, links))
        }
    };
    Ok(Asset::from(Parts { row, tasks, renditions, playback }))
}

/// The asset's tasks without their results, which are as long as the video.
pub(super) async fn tasks_in_brief(app: &App, row: &AssetRow) -> Result<Vec<TaskRow>, Problem> {
    let mut filter = TaskFilter {
        tenant: row.tenant,
        asset: Some(row.id),
        states: Vec::new(),
        kinds: Vec::new(),
        after: None,
        limit: TASKS_AT_ONCE,
    };
    let mut tasks = Vec::new();
    loop {
        let page = app.catalog.list_tasks(&filter).await?;
        tasks.extend(page.rows);
        filter.after = page.next;
        if filter.after.is_none() {
            return Ok(tasks);
        }
    }
}

/// Whether poster and preview pictures were published: sound alone has none, and a video can be published without.
pub(super) async fn has_stills(
    app: &App,
    row: &AssetRow,
    renditions: &[RenditionRow],
) -> Result<bool, Problem> {
    if !renditions.iter().any(|rendition| rendition.kind == "video") {
        return Ok(false);
    }
    // Publishing has said so: no question to a store that may be far away.
    let summary = app.catalog.publication(row.id).await?.and_then(|publication| publication.summary);
    Ok(summary.is_some_and(|summary| summary["has_stills"] == true))
}
