//! The pages' own files at `/console/...`: our scripts and styles, and the libraries that the console build made.
//!
//! Everything is embedded in the program, so a page loads from this server alone. The libraries (`console/dist`) are
//! there when the console was built before the program; without them a page says so and falls back to what the
//! browser can do. Each page goes out with a policy that lets it load nothing from elsewhere.

use super::problem::{Kind, Problem};
use crate::app::App;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use rust_embed::{EmbeddedFile, RustEmbed};
use serde_json::json;
use std::{borrow::Cow, sync::Arc};

/// Written by hand: always there.
#[derive(RustEmbed)]
#[folder = "console/pages/"]
struct Pages;

/// Built by `npm run build` in `console/`: perhaps there.
#[derive(RustEmbed)]
#[folder = "console/dist/"]
#[allow_missing = true]
struct Libraries;

/// Nothing from elsewhere, no inline script, no inline style, no frame around it from another site. `blob:` is how a
/// `<video>` is fed through Media Source Extensions.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
     media-src 'self' blob:; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'self'";

/// `GET /console/{file}`
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    // Pages are templates and have addresses of their own.
    if name.ends_with(".html") {
        return Err(Problem::new(Kind::NotFound, "The console has no such file."));
    }
    let accepts_gzip = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(',').any(|one| one.trim().split(';').next() == Some("gzip")));
    let compressed = accepts_gzip.then(|| Libraries::get(&format!("{name}.gz"))).flatten();
    let encoding = compressed.is_some().then_some("gzip");
    let found = compressed.or_else(|| Pages::get(&name)).or_else(|| Libraries::get(&name)).ok_or_else(|| {
        Problem::new(
            Kind::NotFound,
            "The console has no such file. Its libraries are there when `scripts/setup player` ran before the build.",
        )
    })?;
    let media_type = match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("txt") => "text/plain; charset=utf-8",
        _ => return Err(Problem::new(Kind::NotFound, "The console has no such file.")),
    };
    let etag = format!("\"{}\"", hex::encode(&found.metadata.sha256_hash()[..12]));
    let unchanged = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|value| value.to_str().is_ok_and(|list| list.split(',').any(|one| one.trim() == etag)));
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        body_of(found.data).into_response()
    };
    let answer_headers = response.headers_mut();
    answer_headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    // Names carry no version, so browsers ask each time; the answer is 304 until the next release.
    answer_headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer_headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    answer_headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        answer_headers.insert(header::ETAG, etag);
    }
    if let Some(encoding) = encoding {
        answer_headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    Ok(response)
}

/// Embedded files are sent from where they lie in the program, without a copy.
fn body_of(data: Cow<'static, [u8]>) -> Bytes {
    match data {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    }
}

/// `GET /`: the operator's page. It loads its data through the API, with the key that the operator types in.
pub(super) async fn operator_page(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let setup = json!({ "needs_key": !app.insecure_open });
    page("index.html", StatusCode::OK, &[("setup", Value::Json(&setup))])
}

/// `GET /docs`: the API for people, laid out from `/openapi.json`.
pub(super) async fn docs_page() -> Result<Response, Problem> {
    page("docs.html", StatusCode::OK, &[])
}

/// A page with its `{{name}}` places filled; values are escaped for HTML here.
pub(super) fn page(
    name: &str,
    status: StatusCode,
    values: &[(&str, Value<'_>)],
) -> Result<Response, Problem> {
    let EmbeddedFile { data, .. } =
        Pages::get(name).ok_or_else(|| Problem::internal(format!("the page {name} is not embedded")))?;
    let mut text = String::from_utf8(data.into_owned()).map_err(Problem::internal)?;
    for (place, value) in values {
        text = text.replace(&format!("{{{{{place}}}}}"), &value.escaped());
    }
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    Ok((status, headers, text).into_response())
}

/// What goes into a place of a page.
pub(super) enum Value<'text> {
    Text(&'text str),
    /// For a `<script type="application/json">`: only `<` can end that early, and JSON can spell it otherwise.
    Json(&'text serde_json::Value),
}

impl Value<'_> {
    fn escaped(&self) -> String {
        match self {
            Self::Text(text) => text
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;")
                // A place filled once is not filled again from its own text.
                .replace("{{", "&#123;&#123;"),
            Self::Json(value) => value.to_string().replace('<', "\\u003c").replace("{{", "{\\u007b"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, page};
    use http::StatusCode;
    use serde_json::json;

    #[tokio::test]
    async fn a_title_cannot_break_out_of_its_page() {
        let title = "</title><script>alert(1)</script>{{status}}";
        let status = json!({ "title": "</script><script>alert(2)</script>" });
        let values =
            [("title", Value::Text(title)), ("text", Value::Text("")), ("status", Value::Json(&status))];
        let response = page("watch.html", StatusCode::OK, &values).unwrap();
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("script-src 'self';"), "{policy}");
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(!text.contains("<script>alert"), "{text}");
        assert!(!text.contains("{{"), "{text}");
    }
}
