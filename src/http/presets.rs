//! `/v1/presets`: the recipes that an upload can name.

use super::{auth::Caller, extract::Path, openapi::ProblemBody, problem::Problem};
use crate::app::App;
use axum::{Json, extract::State};
use reelyard_planner::Preset;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// All presets of this server.
#[derive(Serialize, ToSchema)]
pub(super) struct PresetList {
    /// Each as at `/v1/presets/{name}`.
    #[schema(value_type = Vec<Object>)]
    items: Vec<Preset>,
    /// What an upload gets that names none.
    #[schema(example = "web-h264")]
    default: &'static str,
}

/// List the presets.
#[utoipa::path(get, path = "/v1/presets", tag = "presets",
    responses((status = 200, description = "All presets; few enough for one page.", body = PresetList)))]
pub(super) async fn list_presets(State(app): State<Arc<App>>, _caller: Caller) -> Json<PresetList> {
    Json(PresetList {
        items: app.presets.iter().cloned().collect(),
        default: reelyard_planner::DEFAULT_PRESET,
    })
}

/// Show one preset.
#[utoipa::path(get, path = "/v1/presets/{name}", tag = "presets", params(("name" = String, Path, description = "The preset's name.")),
    responses((status = 200, description = "The preset, as in its file.", body = serde_json::Value),
              (status = 404, description = "There is none of this name.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn show_preset(
    State(app): State<Arc<App>>,
    _caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Preset>, Problem> {
    app.presets.get(&name).cloned().map(Json).ok_or_else(|| Problem::not_found("preset"))
}
