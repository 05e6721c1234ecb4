//! `/openapi.json`: the description of the API, made from the handlers' own annotations.
//!
//! What holds for every operation is added here once: the key it needs, and the problem that it may answer instead of
//! what it promises. A test holds the routes of the router against it.

mod parts;
mod possession;
mod uploads;

use super::{
    playback,
    problem::{self, Kind},
};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::{OpenApi, ToSchema};

/// RFC 9457 problem details: the body of every refusal. `type` is a stable relative address that explains itself.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    #[schema(example = "/problems/not-found")]
    r#type: String,
    #[schema(example = "There is nothing here")]
    title: String,
    #[schema(example = 404)]
    status: u16,
    #[schema(example = "There is no asset with this id.")]
    detail: String,
    /// Leads to the log lines of this request.
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    trace_id: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Reelyard",
        description = "A self-hosted video platform: resumable uploads in, signed adaptive streams out.\n\n\
            Every refusal is RFC 9457 problem details; its `type` explains itself at its address. \
            Send `Authorization: Bearer KEY`; a server started with `--insecure-open` needs no key. \
            Lists are pages: give `next_cursor` back as `cursor`. \
            Times are RFC 3339 in UTC, ids are UUIDs, sizes are bytes.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")
    ),
    components(schemas(ProblemBody)),
    paths(
        uploads::create_upload,
        uploads::upload_options,
        uploads::upload_offset,
        uploads::append_to_upload,
        uploads::end_upload,
        uploads::download_upload,
        parts::begin_parts,
        parts::send_part,
        parts::list_parts,
        parts::give_up_parts,
        parts::complete_parts,
        possession::ask_for_possession,
        possession::show_possession,
        playback::serve,
    ),
    tags(
        (name = "uploads", description = "Resumable uploads: tus 1.0.0, Resumable Uploads for HTTP, and parts."),
        (name = "assets", description = "What was uploaded and what became of it."),
        (name = "jobs", description = "The single pieces of work."),
        (name = "operations", description = "For those who run it: the queues, and the log of what people did."),
        (name = "worker", description = "For the workers of a fleet, and for those who run them."),
        (name = "presets", description = "The recipes."),
        (name = "events", description = "What happens, as it happens."),
        (name = "playback", description = "Signed streams and the page where they play."),
        (name = "health", description = "For the people and programs that run it."),
    )
)]
pub(super) struct Api;

/// The finished text.
pub(super) fn document(described: utoipa::openapi::OpenApi) -> Result<Arc<str>, serde_json::Error> {
    let mut document = serde_json::to_value(described)?;
    document["components"]["securitySchemes"] = json!({
        "key": { "type": "http", "scheme": "bearer", "description": "An API key with the scope that the address needs; the first is in `admin.key` of the data directory. On `/uploads` an upload token as well." }
    });
    document["security"] = json!([{ "key": [] }]);
    document["components"]["responses"] = json!({
        "Problem": {
            "description": "What went wrong, by its `type`. All types: ".to_owned()
                + &Kind::ALL.iter().map(|kind| format!("`{}` ({})", kind.type_uri(), kind.status_code())).collect::<Vec<_>>().join(", "),
            "content": { problem::MEDIA_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } }
        }
    });
    if let Some(paths) = document["paths"].as_object_mut() {
        for operation in
            paths.values_mut().filter_map(Value::as_object_mut).flat_map(|item| item.values_mut())
        {
            // A path item has other members than operations; only these have responses.
            if operation.get("responses").is_some() {
                complete(operation);
            }
        }
    }
    serde_json::to_string_pretty(&document).map(Arc::from)
}

/// What holds for every operation.
fn complete(operation: &mut Value) {
    let needs_key = operation.get("security").is_none();
    let problem = json!({ "$ref": "#/components/responses/Problem" });
    if needs_key {
        operation["responses"]["401"] = problem.clone();
    }
    operation["responses"]["default"] = problem;
}

pub(super) fn answer(document: Arc<str>) -> Response {
    let mut response = document.to_string().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
