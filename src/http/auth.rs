//! Who is asking: [`Caller`] on the API, [`Uploader`] on the upload routes, and the guard of a server without keys.
//!
//! With keys (the default), every handler needs `Authorization: Bearer KEY`, and asks for the scope that it takes. Only
//! SHA-256 digests of keys are stored and looked up: how long a lookup takes tells something about a digest, from which
//! nobody gets to a key of 256 random bits. Browsers never send this header on their own, so cross-site requests have
//! nothing to ride on. On the upload routes, an upload token (a JWT) stands in for a key: it acts as its tenant, within
//! what it says, and opens nothing else. Both are looked at anew on every request, so what was revoked ends at once;
//! a body that has begun may end.
//!
//! Without keys (`--insecure-open`, loopback only), everybody who reaches the socket is the default tenant. A web page
//! in a browser on this machine can reach it too, by DNS rebinding or plainly across sites: [`loopback_guard`]
//! refuses both by looking at `Host` and `Origin`.

use super::{
    limits::{Allowed, OneOf, Seat},
    problem::{Kind, Problem},
    uploads::sentence,
};
use crate::app::App;
use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::Response,
};
use http::{Extensions, HeaderMap, Uri, header, request::Parts};
use reelyard_catalog::{Actor, Scope, Scopes, TenantLimits, UploadGrant, UploadRow};
use reelyard_model::{TenantId, Tier};
use reelyard_sign::upload_token::{
    Denied, MAX_UPLOAD_TOKEN_BYTES, UploadToken, UploadTokenError, Use, Wish, looks_like_token,
};
use sha2::{Digest, Sha256};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest key that is looked at; ours have 64 characters or fewer.
const MAX_KEY_BYTES: usize = 512;

/// Where a request came from; `connections` puts it into every one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Who is asking; everything a handler reads or writes is this tenant's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) tenant: TenantId,
    scopes: Scopes,
    /// `None`: the server has none.
    key: Option<Uuid>,
}

/// Who is uploading: a key that may, or an upload token.
#[derive(Clone, Debug)]
pub(crate) struct Uploader {
    pub(crate) tenant: TenantId,
    limits: TenantLimits,
    by: By,
}

#[derive(Clone, Debug)]
enum By {
    /// The server has no keys.
    Everybody,
    Key {
        id: Uuid,
        scopes: Scopes,
    },
    Token(Arc<UploadToken>),
}

/// What an upload may be that somebody wants to begin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Permit {
    pub(crate) grant: UploadGrant,
    /// Where the token chooses it.
    pub(crate) preset: Option<String>,
    /// Of the tier that was asked for.
    pub(crate) priority: i32,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let Uploader { tenant, by, .. } =
            Uploader::of_request(app, &parts.headers, &parts.extensions).await?;
        match by {
            By::Everybody => Ok(Self { tenant, scopes: Scopes::of(&[Scope::Admin]), key: None }),
            By::Key { id, scopes } => Ok(Self { tenant, scopes, key: Some(id) }),
            By::Token(_) => Err(Problem::new(
                Kind::OutsideUploadToken,
                "An upload token opens the upload routes (`/uploads`) alone; this address needs an API key.",
            )),
        }
    }
}

/// A worker of the fleet: a key with the scope `worker`, which works for all tenants. Its calls follow from the work
/// that there is, so they do not count against the rate of its key's tenant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerCaller {
    /// `None`: the server has none.
    pub(crate) key: Option<Uuid>,
}

impl FromRequestParts<Arc<App>> for WorkerCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let caller = Uploader::authenticated_from(app, &parts.headers, &parts.extensions).await?;
        match caller.by {
            By::Everybody => Ok(Self { key: None }),
            By::Key { id, scopes } if scopes.contain(Scope::Worker) => Ok(Self { key: Some(id) }),
            By::Key { .. } => Err(missing_scope(Scope::Worker)),
            By::Token(_) => Err(Problem::new(
                Kind::OutsideUploadToken,
                "An upload token opens the upload routes (`/uploads`) alone; a worker needs an API key with the scope `worker`.",
            )),
        }
    }
}

impl Caller {
    pub(crate) fn require(self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contain(scope) { Ok(()) } else { Err(missing_scope(scope)) }
    }

    /// As the audit log names it.
    pub(crate) async fn actor(self, app: &App, reason: Option<String>) -> Result<Actor, Problem> {
        let name = match self.key {
            Some(key) => app.catalog.name_of_key(key).await?,
            None => "somebody on this machine (the server runs without keys)".to_owned(),
        };
        Ok(Actor { name, reason })
    }
}

impl Caller {
    /// For what is about the whole farm: queues, workers. Admin keys of other tenants are about those tenants.
    pub(crate) fn require_operator(self) -> Result<(), Problem> {
        self.require(Scope::Admin)?;
        if self.tenant == TenantId::DEFAULT {
            return Ok(());
        }
        let detail = "This address is about the whole farm, all tenants of it: it needs an admin key of the tenant \
                      `default`.";
        Err(Problem::new(Kind::MissingScope, detail))
    }
}

fn missing_scope(scope: Scope) -> Problem {
    let scope = scope.as_str();
    Problem::new(
        Kind::MissingScope,
        format!("This API key has no scope `{scope}`, which this address needs."),
    )
    .with("scope", scope)
}

impl Uploader {
    /// Whoever sent this request, counted against its rate. What it may do is asked for each thing: [`Self::may_begin`],
    /// [`Self::may_use`], [`Self::may_read_source`].
    pub(crate) async fn of_request(
        app: &App,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Self, Problem> {
        let uploader = Self::authenticated_from(app, headers, extensions).await?;
        let one = match &uploader.by {
            By::Everybody => OneOf::Everybody,
            By::Key { id, .. } => OneOf::Key(*id),
            By::Token(token) => OneOf::Token(token.jti.as_str().into()),
        };
        let allowed =
            Allowed { tenant: uploader.tenant, requests_per_second: uploader.limits.requests_per_second };
        app.limits.rates.request(allowed, one, app.limits.now_ms())?;
        Ok(uploader)
    }

    /// Who it is; an address that cannot show it is held up when it tries too often.
    async fn authenticated_from(
        app: &App,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Self, Problem> {
        let found = Self::authenticated(app, headers).await;
        if let Err(problem) = &found
            && problem.kind().status_code() == 401
        {
            let Peer(address) = extensions.get().copied().unwrap_or(Peer(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
            app.limits.rates.failure(address, app.limits.now_ms())?;
        }
        found
    }

    async fn authenticated(app: &App, headers: &HeaderMap) -> Result<Self, Problem> {
        if app.insecure_open {
            let limits = app.catalog.tenant_limits(TenantId::DEFAULT).await?.unwrap_or_default();
            return Ok(Self { tenant: TenantId::DEFAULT, limits, by: By::Everybody });
        }
        let text = bearer(headers)?;
        if looks_like_token(text) {
            let now = super::links::now_unix_seconds();
            let token = app.upload_keys.verify(text, now).map_err(|error| token_problem(&error))?;
            let limits = app.catalog.tenant_limits(token.tenant).await?.ok_or_else(|| {
                Problem::new(
                    Kind::UploadTokenNotValid,
                    "The upload token is of a tenant that does not exist here.",
                )
            })?;
            return Ok(Self { tenant: token.tenant, limits, by: By::Token(Arc::new(token)) });
        }
        let unknown = || Problem::new(Kind::UnknownKey, "This API key is not known here.");
        if text.len() > MAX_KEY_BYTES {
            return Err(unknown());
        }
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let live = app.desk.live_api_key(hex::encode(digest)).await?.ok_or_else(unknown)?;
        let id = live.key.id.parse().map_err(Problem::internal)?;
        Ok(Self { tenant: live.key.tenant, limits: live.limits, by: By::Key { id, scopes: live.key.scopes } })
    }

    /// For what a token never opens; `why` tells its bearer what to do instead.
    pub(crate) fn require_key(&self, why: &'static str) -> Result<(), Problem> {
        match &self.by {
            By::Everybody | By::Key { .. } => Ok(()),
            By::Token(_) => Err(Problem::new(Kind::OutsideUploadToken, why)),
        }
    }

    /// The key that asks; `None`: the server has none, or it is a token.
    pub(crate) fn key(&self) -> Option<Uuid> {
        match &self.by {
            By::Key { id, .. } => Some(*id),
            By::Everybody | By::Token(_) => None,
        }
    }

    /// May it begin uploads at all? Asked before anything is read or looked up for it; [`Self::may_begin`] follows.
    pub(crate) fn may_create(&self) -> Result<(), Problem> {
        match &self.by {
            By::Everybody => Ok(()),
            By::Key { scopes, .. } if scopes.contain(Scope::UploadsWrite) => Ok(()),
            By::Key { .. } => Err(missing_scope(Scope::UploadsWrite)),
            By::Token(token) => token.check_use(Use::Create).map_err(denied),
        }
    }

    /// May such an upload be begun? Counts against the rate of creations.
    pub(crate) fn may_begin(&self, app: &App, wish: Wish<'_>) -> Result<Permit, Problem> {
        let mut permit = match &self.by {
            By::Everybody => Permit::default(),
            By::Key { scopes, .. } if scopes.contain(Scope::UploadsWrite) => Permit::default(),
            By::Key { .. } => return Err(missing_scope(Scope::UploadsWrite)),
            By::Token(token) => {
                token.check_creation(wish).map_err(denied)?;
                let grant = UploadGrant {
                    token: Some((token.jti.clone(), token.max_uploads)),
                    max_byte_len: token.max_length,
                    ..UploadGrant::default()
                };
                Permit { grant, preset: token.preset.clone(), ..Permit::default() }
            }
        };
        permit.grant.open_uploads = Some(app.limits.open_uploads);
        app.limits.rates.creation(self.tenant, app.limits.now_ms())?;
        Ok(permit)
    }

    /// The permit with the tier that the metadata asks for. What is urgent keeps everybody else waiting, so that takes
    /// the scope `admin`.
    pub(crate) fn within_tier(&self, permit: Permit, tier: Option<&str>) -> Result<Permit, Problem> {
        let Some(name) = tier else { return Ok(permit) };
        let Ok(tier) = name.parse::<Tier>() else {
            let known = Tier::ALL.iter().map(|tier| tier.as_str()).collect::<Vec<_>>().join(", ");
            let detail = format!("There is no tier {name:?}; there are {known}.");
            return Err(Problem::new(Kind::BadRequest, detail).with("parameter", "tier"));
        };
        if tier == Tier::Urgent {
            match &self.by {
                By::Everybody => {}
                By::Key { scopes, .. } if scopes.contain(Scope::Admin) => {}
                By::Key { .. } => {
                    let detail = "Only a key with the scope `admin` may ask for the tier `urgent`; leave the tier out, \
                                  or ask for `normal` or `bulk`.";
                    return Err(Problem::new(Kind::MissingScope, detail).with("scope", "admin"));
                }
                By::Token(_) => {
                    let detail = "No upload token may ask for the tier `urgent`; leave the tier out, or ask for `normal` or `bulk`.";
                    return Err(Problem::new(Kind::OutsideUploadToken, detail));
                }
            }
        }
        Ok(Permit { priority: tier.priority(), ..permit })
    }

    /// May this be done with an upload of its tenant? Whose tenant it is was looked at before.
    pub(crate) fn may_use(&self, row: &UploadRow, wanted: Use) -> Result<(), Problem> {
        match &self.by {
            By::Everybody => Ok(()),
            By::Key { scopes, .. } if scopes.contain(Scope::UploadsWrite) => Ok(()),
            By::Key { .. } => Err(missing_scope(Scope::UploadsWrite)),
            By::Token(token) => {
                token.check_use(wanted).map_err(denied)?;
                token.check_upload(row.id, row.token.as_deref()).map_err(denied)
            }
        }
    }

    /// Longest upload that it may send to, where a token says so.
    pub(crate) fn max_length(&self) -> Option<u64> {
        match &self.by {
            By::Everybody | By::Key { .. } => None,
            By::Token(token) => token.max_length,
        }
    }

    /// May it send to an upload that is so long?
    pub(crate) fn check_length(&self, byte_len: u64) -> Result<(), Problem> {
        match &self.by {
            By::Everybody | By::Key { .. } => Ok(()),
            By::Token(token) => token.check_length(byte_len).map_err(denied),
        }
    }

    /// May it have the bytes back? An upload token sends and never gets.
    pub(crate) fn may_read_source(&self) -> Result<(), Problem> {
        match &self.by {
            By::Everybody => Ok(()),
            By::Key { scopes, .. } if scopes.contain(Scope::AssetsRead) => Ok(()),
            By::Key { .. } => Err(missing_scope(Scope::AssetsRead)),
            By::Token(_) => Err(Problem::new(
                Kind::OutsideUploadToken,
                "An upload token does not open what was uploaded; use an API key with the scope `assets:read`.",
            )),
        }
    }

    /// Again before an asset is made: a key may have been revoked while the body came. A token that expired meanwhile is
    /// no reason to throw its last bytes away; its length is looked at again, here and by the catalogue.
    pub(crate) async fn may_finish(&self, app: &App, byte_len: u64) -> Result<(), Problem> {
        match &self.by {
            By::Everybody => Ok(()),
            By::Key { id, .. } => {
                if app.catalog.api_key_lives(&id.to_string()).await? {
                    return Ok(());
                }
                Err(Problem::new(
                    Kind::UnknownKey,
                    "This API key was revoked while the body came. The bytes are kept; nothing was made of them.",
                ))
            }
            By::Token(_) => self.check_length(byte_len),
        }
    }

    /// A seat for one body of its tenant, at once or after some waiting.
    pub(crate) async fn sit(&self, app: &App, stop: &CancellationToken) -> Result<Seat, Problem> {
        app.limits.transfers.sit(self.tenant, self.limits.concurrent_transfers, stop).await
    }
}

fn token_problem(error: &UploadTokenError) -> Problem {
    let kind = match error {
        UploadTokenError::Expired { .. } => Kind::UploadTokenExpired,
        _ => Kind::UploadTokenNotValid,
    };
    Problem::new(kind, sentence(&error.to_string()))
}

fn denied(denied: Denied) -> Problem {
    let problem = Problem::new(Kind::OutsideUploadToken, sentence(&denied.to_string()));
    match denied {
        Denied::TooLong { max_length, .. } => problem.with("max_bytes", max_length),
        _ => problem,
    }
}

/// What stands behind `Authorization: Bearer` (RFC 6750 section 2.1); the scheme's case does not matter.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || {
        Problem::new(
            Kind::MissingKey,
            "This address needs an API key, or for uploads an upload token: send `Authorization: Bearer KEY`.",
        )
    };
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let text = value.to_str().map_err(|_| missing())?;
    let (scheme, key) = text.split_once(' ').ok_or_else(missing)?;
    let key = key.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || key.is_empty() {
        return Err(missing());
    }
    if key.len() > MAX_UPLOAD_TOKEN_BYTES {
        return Err(Problem::new(Kind::UnknownKey, "This is longer than any API key or upload token."));
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
    use super::{bearer, check_loopback, is_loopback_authority};
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
            bearer(&headers).map(str::to_owned).map_err(|problem| problem.kind())
        };
        assert_eq!(key_of("Bearer abc"), Ok("abc".into()));
        assert_eq!(key_of("bearer  abc "), Ok("abc".into()));
        assert_eq!(key_of("Basic abc"), Err(Kind::MissingKey));
        assert_eq!(key_of("Bearer "), Err(Kind::MissingKey));
        assert_eq!(bearer(&HeaderMap::new()).unwrap_err().kind(), Kind::MissingKey);
    }
}
