//! Who is asking: the [`Caller`] of a request, and the guard of a server without keys.
//!
//! With keys (the default), every handler that takes a `Caller` needs `Authorization: Bearer KEY`. Only SHA-256
//! digests of keys are stored and looked up: how long a lookup takes tells something about a digest, from which nobody
//! gets to a key of 256 random bits. Browsers never send this header on their own, so cross-site requests
//! have nothing to ride on.
//!
//! Without keys (`--insecure-open`, loopback only), everybody who reaches the socket is the default tenant. A web page
//! in a browser on this machine can reach it too, by DNS rebinding or plainly across sites: [`loopback_guard`]
//! refuses both by looking at `Host` and `Origin`.

use super::problem::{Kind, Problem};
use crate::app::App;
use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, Uri, header, request::Parts};
use reelyard_model::TenantId;
use sha2::{Digest, Sha256};
use std::{net::IpAddr, sync::Arc};

/// Longest key that is looked at; ours have 64 characters or fewer.
const MAX_KEY_BYTES: usize = 512;

/// Who is asking; everything a handler reads or writes is this tenant's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) tenant: TenantId,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        Self::of_headers(app, &parts.headers).await
    }
}

impl Caller {
    /// The caller by the request's headers.
    pub(crate) async fn of_headers(app: &App, headers: &HeaderMap) -> Result<Self, Problem> {
        if app.insecure_open {
            return Ok(Self { tenant: TenantId::DEFAULT });
        }
        let key = bearer_key(headers)?;
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let found = app.catalog.live_api_key(&hex::encode(digest)).await?;
        found
            .map(|live| Self { tenant: live.key.tenant })
            .ok_or_else(|| Problem::new(Kind::UnknownKey, "This API key is not known here."))
    }
}

/// The key of `Authorization: Bearer KEY` (RFC 6750 section 2.1); the scheme's case does not matter.
fn bearer_key(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing =
        || Problem::new(Kind::MissingKey, "This address needs an API key: send `Authorization: Bearer KEY`.");
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let text = value.to_str().map_err(|_| missing())?;
    let (scheme, key) = text.split_once(' ').ok_or_else(missing)?;
    let key = key.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || key.is_empty() {
        return Err(missing());
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(Problem::new(Kind::UnknownKey, "This API key is not known here."));
    }
    Ok(key)
}

/// For a server without keys: only requests that name this machine as their host, from no other origin.
///
/// Playback (`/p/`) is excepted from the origin rule: its links are signed, and other pages may embed the video.
pub(super) async fn loopback_guard(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if app.insecure_open {
        check_loopback(request.headers(), request.uri())?;
    }
    Ok(next.run(request).await)
}

fn check_loopback(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| uri.authority().map(|authority| authority.as_str()));
    if !host.is_some_and(is_loopback_authority) {
        return Err(Problem::new(
            Kind::WrongHost,
            "This server runs without keys and answers loopback names only (localhost, 127.0.0.1, [::1]).",
        ));
    }
    if uri.path().starts_with("/p/") {
        return Ok(());
    }
    let origins = headers.get_all(header::ORIGIN);
    let foreign = origins.iter().any(|origin| {
        let authority = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")));
        !authority.is_some_and(is_loopback_authority)
    });
    if foreign {
        return Err(Problem::new(
            Kind::CrossSite,
            "This server runs without keys and refuses requests from pages that are not of this machine.",
        ));
    }
    Ok(())
}

/// `localhost`, `127.0.0.1:8080`, `[::1]:8080`; not `localhost.evil.example`.
fn is_loopback_authority(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) if port.is_empty() || is_port(port) => host,
            _ => return false,
        },
        None => match authority.split_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            Some(_) => return false,
            None => authority,
        },
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::{bearer_key, check_loopback, is_loopback_authority};
    use crate::http::problem::Kind;
    use http::{HeaderMap, HeaderValue, Uri, header};

    #[test]
    fn loopback_names_and_only_these() {
        for yes in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.1.2.3:1", "[::1]", "[::1]:8080"] {
            assert!(is_loopback_authority(yes), "{yes}");
        }
        for no in [
            "",
            "localhost.evil.example",
            "evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "evil.example:127",
            "localhost:80@evil.example",
            "[::1].evil.example",
            "192.168.1.5:8080",
            "0.0.0.0",
            "2130706433",
        ] {
            assert!(!is_loopback_authority(no), "{no}");
        }
    }

    #[test]
    fn a_foreign_origin_is_refused_but_for_signed_playback() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:8080"));
        let api = Uri::from_static("/v1/assets");
        assert!(check_loopback(&headers, &api).is_ok());
        headers.insert(header::ORIGIN, HeaderValue::from_static("http://localhost:8080"));
        assert!(check_loopback(&headers, &api).is_ok());
        for foreign in ["https://evil.example", "null", "http://localhost.evil.example"] {
            headers.insert(header::ORIGIN, HeaderValue::from_static(foreign));
            assert_eq!(check_loopback(&headers, &api).unwrap_err().kind(), Kind::CrossSite);
            assert!(check_loopback(&headers, &Uri::from_static("/p/x/y/master.m3u8")).is_ok());
        }
        headers.insert(header::HOST, HeaderValue::from_static("evil.example"));
        let refused = check_loopback(&headers, &Uri::from_static("/p/x/y/master.m3u8"));
        assert_eq!(refused.unwrap_err().kind(), Kind::WrongHost);
    }

    #[test]
    fn the_key_is_read_as_rfc_6750_writes_it() {
        let key_of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            bearer_key(&headers).map(str::to_owned).map_err(|problem| problem.kind())
        };
        assert_eq!(key_of("Bearer abc"), Ok("abc".into()));
        assert_eq!(key_of("bearer  abc "), Ok("abc".into()));
        assert_eq!(key_of("Basic abc"), Err(Kind::MissingKey));
        assert_eq!(key_of("Bearer "), Err(Kind::MissingKey));
        assert_eq!(bearer_key(&HeaderMap::new()).unwrap_err().kind(), Kind::MissingKey);
    }
}
