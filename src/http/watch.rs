//! `/watch/{playback_id}`: the page where a video plays, or says why it does not.
//!
//! The page needs a signed token in its query (`?token=...`), the same that opens the playback origin; a server
//! without keys needs none. The page can be handed out as soon as the plan exists: until the video plays it shows the
//! progress. Viewers see creator's text only, never ids of assets, paths or operator's details.

use super::{
    asset_view::{self, Stage},
    console::{self, Value},
    extract::{Path, Query},
    links::{self, PlaybackLinks},
    openapi::ProblemBody,
    playback,
    problem::{Kind, Problem},
};
use crate::app::App;
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use reelyard_model::{AssetState, PublicationState};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct WatchQuery {
    /// The signed right to watch; not needed on a server without keys.
    token: Option<String>,
}

/// What the page shows.
#[derive(Serialize, ToSchema)]
pub(super) struct WatchStatus {
    /// `waiting`, `processing`, `ready`, `failed`, `cancelled`, `deleted`, `expired` or `refused`.
    #[schema(example = "processing")]
    state: &'static str,
    title: String,
    /// A sentence for the viewer.
    text: String,
    /// From 0 to 1.
    progress: f64,
    stages: Vec<Stage>,
    /// Of the largest rendition; null for sound alone.
    width: Option<u32>,
    height: Option<u32>,
    /// Null unless `state` is `ready`.
    playback: Option<PlaybackLinks>,
}

/// `GET /watch/{playback_id}`
pub(super) async fn page(
    State(app): State<Arc<App>>,
    Path(playback_id): Path<String>,
    Query(query): Query<WatchQuery>,
) -> Result<Response, Problem> {
    let (code, status) = match look(&app, &playback_id, query.token.as_deref()).await {
        Ok(status) => (StatusCode::OK, status),
        Err(problem) => (problem.kind().status(), refusal(&problem)),
    };
    let json = serde_json::to_value(&status).map_err(Problem::internal)?;
    let values = [
        ("title", Value::Text(&status.title)),
        ("text", Value::Text(&status.text)),
        ("status", Value::Json(&json)),
    ];
    console::page("watch.html", code, &values)
}

/// Where a video stands, for its watch page. Refusals have the same form, with `state` `expired` or `refused`.
#[utoipa::path(get, path = "/watch/{playback_id}/status", tag = "playback", security(()),
    params(("playback_id" = String, Path, description = "The playback id."), WatchQuery),
    responses((status = 200, description = "Where it stands.", body = WatchStatus),
              (status = 403, description = "The token is not valid for this video.", body = WatchStatus),
              (status = 404, description = "There is no such video.", body = WatchStatus),
              (status = 410, description = "The token has expired.", body = WatchStatus),
              (status = 500, description = "The server's fault.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn status(
    State(app): State<Arc<App>>,
    Path(playback_id): Path<String>,
    Query(query): Query<WatchQuery>,
) -> Response {
    let (code, status) = match look(&app, &playback_id, query.token.as_deref()).await {
        Ok(status) => (StatusCode::OK, status),
        Err(problem) if problem.kind().status().is_server_error() => return problem.into_response(),
        Err(problem) => (problem.kind().status(), refusal(&problem)),
    };
    let mut response = (code, Json(status)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn look(app: &App, playback_id: &str, token: Option<&str>) -> Result<WatchStatus, Problem> {
    let id = playback::parse_playback_id(playback_id)?;
    let expiry = match token {
        Some(token) => playback::verify(app, token, id)?.expires_at_unix_seconds,
        None if app.insecure_open => links::default_expiry(),
        None => {
            return Err(Problem::new(
                Kind::LinkNotValid,
                "This page needs its whole link, with the token at the end. Ask for the link again.",
            ));
        }
    };
    let publication =
        app.catalog.publication_by_playback_id(id).await?.ok_or_else(|| Problem::not_found("video"))?;
    let asset = app.catalog.asset(publication.asset).await?.ok_or_else(|| Problem::not_found("video"))?;
    let tasks = match asset.state {
        AssetState::Waiting | AssetState::Processing => super::assets::tasks_in_brief(app, &asset).await?,
        _ => Vec::new(),
    };
    let progress = asset_view::progress(asset.state, &tasks);
    let renditions = app.catalog.renditions(asset.id).await?;
    let largest = renditions.iter().find(|rendition| rendition.kind == "video");
    let plays = asset.state == AssetState::Ready && publication.state == PublicationState::Live;
    let playback = if plays {
        let has_pictures = super::assets::has_stills(app, &asset, &renditions).await?;
        // Relative to this server: the page may be behind a proxy whose name we do not know.
        Some(links::playback_links(app, "", id, expiry, has_pictures))
    } else {
        None
    };
    Ok(WatchStatus {
        state: asset.state.as_str(),
        text: sentence(asset.state, &asset),
        title: asset.title,
        progress: progress.fraction,
        stages: progress.stages,
        width: largest.and_then(|rendition| rendition.width),
        height: largest.and_then(|rendition| rendition.height),
        playback,
    })
}

fn sentence(state: AssetState, asset: &reelyard_catalog::AssetRow) -> String {
    match state {
        AssetState::Waiting => "The video has arrived and waits its turn.".to_owned(),
        AssetState::Processing => {
            "The video is being made ready. This page shows it as soon as it plays.".to_owned()
        }
        AssetState::Ready => asset
            .media_info
            .as_ref()
            .map(|info| {
                format!("{} long", links::roughly((info.duration_us.max(0) as u64 + 500_000) / 1_000_000))
            })
            .unwrap_or_default(),
        AssetState::Failed => asset.failure.as_ref().map_or_else(
            || "The video could not be processed.".to_owned(),
            |failure| failure.code.for_creator_at_last(),
        ),
        AssetState::Cancelled => "The processing of this video was cancelled.".to_owned(),
        AssetState::Deleted => "This video was deleted.".to_owned(),
    }
}

fn refusal(problem: &Problem) -> WatchStatus {
    let (state, title) = match problem.kind() {
        Kind::LinkExpired => ("expired", "This link has expired"),
        Kind::NotFound => ("refused", "There is no such video"),
        _ if problem.kind().status().is_server_error() => ("refused", "The server has a problem"),
        _ => ("refused", "This link does not open this video"),
    };
    WatchStatus {
        state,
        title: title.to_owned(),
        text: problem.detail().to_owned(),
        progress: 0.0,
        stages: Vec::new(),
        width: None,
        height: None,
        playback: None,
    }
}
