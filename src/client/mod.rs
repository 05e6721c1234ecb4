//! The command line as a client of a server: addresses, keys, requests, and which failures are worth another try.
//!
//! Used by `cmd/upload` and `cmd/jobs`. Everything goes over HTTP, also to a server on the same machine. A failure is
//! either [`ClientError::Unreachable`] (the server is away or in trouble: try again), [`ClientError::Stalled`] or one that trying again does not
//! mend.

pub(crate) mod backoff;
pub(crate) mod display;
pub(crate) mod follow;
mod line;
mod local;
mod mp4;
mod parts;
pub(crate) mod resume;
pub(crate) mod transfer;
mod tus;

use crate::config;
use anyhow::Context as _;
use reqwest::{Method, RequestBuilder, Response, Url, header};
use std::{path::PathBuf, time::Duration};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// For answers that carry no more than a page of JSON.
pub(crate) const SHORT_ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Longest JSON answer that is read: an asset with its stages and renditions is a few KiB.
const MAX_JSON_BYTES: usize = 4 << 20;

/// After "no server answers at ...".
pub(crate) const NO_SERVER_ADVICE: &str = "Is the server running (reelyard serve)? --server names another.";

/// Which server a command talks to; the same for all of them.
#[derive(clap::Args)]
pub(crate) struct ServerArgs {
    /// The server [default: the one that runs on this machine's data directory, else http://127.0.0.1:8080]
    #[arg(long, global = true, value_name = "URL", env = "REELYARD_SERVER")]
    server: Option<String>,
    /// API key [default for the server of this machine: the admin key in its data directory]
    #[arg(long, global = true, value_name = "KEY", env = "REELYARD_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Data directory of the server of this machine, to find its address and key [default: as for `serve`]
    #[arg(long, global = true, value_name = "DIR", env = "REELYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The server is not there, or it is there and in trouble.
    #[error("{reason}")]
    Unreachable {
        reason: String,
        retry_after: Option<Duration>,
        /// It said so itself.
        answered: bool,
    },
    /// A request with a body got on no more, for so long; it may be sent again.
    #[error("the server took nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The server understood and said no.
    #[error("the server refused ({status}): {detail}")]
    Refused { status: u16, detail: String },
    /// The server said something that no Reelyard would say.
    #[error("{0}")]
    Nonsense(String),
    /// The file cannot be read, or is not what it was.
    #[error("{0}")]
    File(String),
}

/// A server and the key for it.
#[derive(Clone)]
pub(crate) struct Server {
    base: Url,
    key: Option<String>,
    http: reqwest::Client,
}

impl ServerArgs {
    /// Contacts nobody yet.
    pub(crate) fn server(&self) -> anyhow::Result<Server> {
        let data_dir = self.data_dir.clone().unwrap_or_else(config::default_data_dir);
        let local = local::running_server(&data_dir);
        // Set and empty is how scripts leave a variable out.
        let told = |text: &Option<String>| {
            text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let base = match (told(&self.server), &local) {
            (Some(told), _) => parse_base(&told)?,
            (None, Some(local)) => local.clone(),
            (None, None) => parse_base(&format!("http://127.0.0.1:{}", config::DEFAULT_PORT))?,
        };
        let key = match told(&self.key) {
            Some(key) => Some(key),
            None if local.as_ref().is_some_and(|local| local::is_same_server(&base, local)) => {
                local::admin_key(&data_dir)?
            }
            None => None,
        };
        anyhow::ensure!(
            key.as_deref().is_none_or(|key| key.bytes().all(|byte| byte.is_ascii_graphic())),
            "the key holds characters that no key has; was it copied whole?"
        );
        Server::new(base, key)
    }
}

pub(crate) fn parse_base(told: &str) -> anyhow::Result<Url> {
    let mut base = Url::parse(told)
        .with_context(|| format!("--server {told} is not a URL; write it like http://127.0.0.1:8080"))?;
    anyhow::ensure!(
        matches!(base.scheme(), "http" | "https") && base.host().is_some(),
        "--server {told}: this is neither http nor https; write it like http://127.0.0.1:8080"
    );
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    Ok(base)
}

impl Server {
    fn new(base: Url, key: Option<String>) -> anyhow::Result<Self> {
        let http = http_client_for(&base)
            .connect_timeout(CONNECT_LIMIT)
            .tcp_nodelay(true)
            .user_agent(concat!("reelyard/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("HTTPS needs the certificates of this machine (Debian: ca-certificates)")?;
        Ok(Self { base, key, http })
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// `address`: of this server, absolute or relative.
    pub(crate) fn address(&self, address: &str) -> Result<Url, ClientError> {
        // A server behind a prefix (`https://example/video/`) gives absolute paths of its own; they are meant from
        // its root as it sees it.
        let relative = address.strip_prefix('/').unwrap_or(address);
        let joined = self.base.join(relative);
        let joined =
            joined.map_err(|error| ClientError::Nonsense(format!("{address:?} is no address: {error}")))?;
        if joined.origin() != self.base.origin() {
            return Err(ClientError::Nonsense(format!("{joined} is not on the server {}", self.base)));
        }
        Ok(joined)
    }

    pub(crate) fn request(&self, method: Method, address: Url) -> RequestBuilder {
        let request = self.http.request(method, address);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub(crate) async fn json(&self, address: &str) -> Result<serde_json::Value, ClientError> {
        let request = self.request(Method::GET, self.address(address)?).timeout(SHORT_ANSWER_LIMIT);
        let mut answer = answered(request.send().await).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > MAX_JSON_BYTES {
                return Err(ClientError::Nonsense(format!("the answer of {address} has no end")));
            }
            bytes.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| ClientError::Nonsense(format!("the answer of {address} is not JSON: {error}")))
    }
}

/// What clients of a server at this address have in common. They follow no redirects: the key is for this server alone.
pub(crate) fn http_client_for(address: &Url) -> reqwest::ClientBuilder {
    // Refused when it was chosen before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    // A container without certificates can talk plain HTTP, so they are looked for only where they are needed.
    let client = if address.scheme() == "https" { client } else { client.tls_certs_only(std::iter::empty()) };
    // `http_proxy` is for the world: a proxy neither reaches this machine's loopback nor should see its key.
    if local::is_loopback(address) { client.no_proxy() } else { client }
}

/// A good answer, or why there is none.
pub(crate) async fn answered(answer: reqwest::Result<Response>) -> Result<Response, ClientError> {
    let answer = answer.map_err(unreachable)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    if let Some(elsewhere) = answer.headers().get(header::LOCATION).filter(|_| status.is_redirection()) {
        let detail = format!("it sends us to {elsewhere:?}; if that is the server, give it as --server");
        return Err(ClientError::Refused { status: status.as_u16(), detail });
    }
    let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let detail = answer.bytes().await.ok().and_then(|body| problem_detail(&body));
    let detail = detail.unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_owned());
    // 408 timeout, 423 another request holds it, 425 too early, 429 too many: all pass.
    if status.is_server_error() || matches!(status.as_u16(), 408 | 423 | 425 | 429) {
        let reason = format!("the server answers {}: {detail}", status.as_u16());
        return Err(ClientError::Unreachable { reason, retry_after, answered: true });
    }
    let advice = if status.as_u16() == 401 {
        " Give the key with --key or REELYARD_KEY; on the server's own machine, --data-dir lets this command find it."
    } else {
        ""
    };
    Err(ClientError::Refused { status: status.as_u16(), detail: format!("{detail}{advice}") })
}

fn problem_detail(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = problem.get("detail").or_else(|| problem.get("title"))?.as_str()?;
    // Text from elsewhere must not move the cursor of a terminal.
    Some(text.replace(char::is_control, " "))
}

pub(crate) fn unreachable(error: reqwest::Error) -> ClientError {
    let place = error.url().map_or_else(|| "the server".to_owned(), |url| url.origin().ascii_serialization());
    // reqwest says "error sending request"; the reason people can use is at the end of the chain.
    let mut reason: &dyn std::error::Error = &error;
    loop {
        match tls_error(reason) {
            Some(rustls::Error::InvalidMessage(_)) => {
                return ClientError::Nonsense(format!(
                    "what answers at {place} speaks no TLS; is it http://?"
                ));
            }
            // Trying again does not make a certificate better.
            Some(tls @ rustls::Error::InvalidCertificate(_)) => {
                return ClientError::Nonsense(format!("this machine does not trust {place} ({tls})"));
            }
            _ => {}
        }
        match reason.source() {
            Some(source) => reason = source,
            None => break,
        }
    }
    let reason = if error.is_connect() {
        format!("no server answers at {place} ({reason})")
    } else {
        format!("the connection to {place} broke ({reason})")
    };
    ClientError::Unreachable { reason, retry_after: None, answered: false }
}

fn text<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name).and_then(|value| value.to_str().ok())
}

/// An error of TLS travels inside errors of input and output, which hide it from `source`.
fn tls_error<'error>(error: &'error (dyn std::error::Error + 'static)) -> Option<&'error rustls::Error> {
    let mut inner = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    while let Some(wrapped) = inner.downcast_ref::<std::io::Error>() {
        inner = wrapped.get_ref()?;
    }
    inner.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::{Server, ServerArgs, parse_base};
    use rustix::fs::{FlockOperation, flock};

    #[test]
    fn the_local_key_goes_to_the_server_of_its_data_directory_only() {
        let directory = tempfile::tempdir().unwrap();
        let at = |server: Option<&str>| {
            let arguments = ServerArgs {
                server: server.map(str::to_owned),
                key: None,
                data_dir: Some(directory.path().to_owned()),
            };
            let Server { base, key, .. } = arguments.server().unwrap();
            (base.to_string(), key)
        };
        std::fs::write(directory.path().join("admin.key"), "secret\n").unwrap();
        std::fs::write(directory.path().join("server.url"), "http://127.0.0.1:8099\n").unwrap();
        let lock = std::fs::File::create(directory.path().join("lock")).unwrap();
        assert_eq!(at(None), ("http://127.0.0.1:8080/".into(), None), "no server runs on it");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(at(None), ("http://127.0.0.1:8099/".into(), Some("secret".into())));
        assert_eq!(at(Some("http://localhost:8099")).1.as_deref(), Some("secret"));
        assert_eq!(at(Some(" ")), at(None), "set and empty is not set");
        for elsewhere in ["http://127.0.0.1:8080", "http://video.example:8099", "https://127.0.0.1:8099"] {
            assert_eq!(at(Some(elsewhere)).1, None, "{elsewhere}");
        }
    }

    #[test]
    fn a_key_that_fits_into_no_header_is_told_before_anything_is_sent() {
        let arguments = |key: &str| ServerArgs {
            server: Some("http://127.0.0.1:1".into()),
            key: Some(key.to_owned()),
            data_dir: Some("/nonexistent".into()),
        };
        assert_eq!(arguments(" abc\n").server().unwrap().key.as_deref(), Some("abc"));
        for wrong in ["a\nb", "a b", "schl\u{fc}ssel"] {
            assert!(arguments(wrong).server().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn addresses_stay_on_the_server() {
        let server = Server::new(parse_base("http://127.0.0.1:8080/video").unwrap(), None).unwrap();
        assert_eq!(server.address("/uploads/x").unwrap().as_str(), "http://127.0.0.1:8080/video/uploads/x");
        assert!(server.address("http://evil.example/x").is_err());
        assert!(server.address("//evil.example/x").is_ok_and(|url| url.host_str() == Some("127.0.0.1")));
        for wrong in ["127.0.0.1:8080", "ftp://127.0.0.1/", "video"] {
            assert!(parse_base(wrong).is_err(), "{wrong}");
        }
    }
}
