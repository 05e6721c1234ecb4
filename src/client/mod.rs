//! The command line as a client of a server: addresses, keys, requests, and which failures are worth another try.
//!
//! Used by `cmd/upload`. Everything goes over HTTP, also to a server on the same machine. A failure is either
//! [`ClientError::Unreachable`] (the server is away or in trouble: try again) or one that trying again does not mend.

pub(crate) mod backoff;
pub(crate) mod display;
pub(crate) mod follow;
pub(crate) mod resume;
pub(crate) mod tus;

use anyhow::Context as _;
use reqwest::{Method, RequestBuilder, Response, Url, header};
use std::{fs, io, net::IpAddr, path::Path, time::Duration};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// For answers that carry no more than a page of JSON.
pub(crate) const SHORT_ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Longest key file that is read: keys are one short line.
const MAX_KEY_BYTES: u64 = 1024;
/// Longest JSON answer that is read: an asset with its stages and renditions is a few KiB.
const MAX_JSON_BYTES: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The server is not there, or it is there and in trouble.
    #[error("{reason}")]
    Unreachable { reason: String, retry_after: Option<Duration> },
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

impl Server {
    /// `key`: as given. Without one, the admin key of a server on this very machine is taken from its data directory;
    /// it is never sent anywhere else.
    pub(crate) fn new(base: &str, key: Option<String>, data_dir: &Path) -> anyhow::Result<Self> {
        let mut base = Url::parse(base)
            .with_context(|| format!("--server {base} is not a URL; write it like http://127.0.0.1:8080"))?;
        anyhow::ensure!(
            base.scheme() == "http",
            "--server {base}: this program speaks http only; for https put a local proxy or an SSH tunnel before it"
        );
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let key = match key {
            Some(key) => Some(key.trim().to_owned()),
            None if is_loopback(&base) => local_key(data_dir)?,
            None => None,
        };
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("reelyard/", env!("CARGO_PKG_VERSION")))
            .build()?;
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

/// A good answer, or why there is none.
pub(crate) async fn answered(answer: reqwest::Result<Response>) -> Result<Response, ClientError> {
    let answer = answer.map_err(unreachable)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let detail = answer.bytes().await.ok().and_then(|body| problem_detail(&body));
    let detail = detail.unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_owned());
    // 408 timeout, 423 another request holds it, 425 too early, 429 too many: all pass.
    if status.is_server_error() || matches!(status.as_u16(), 408 | 423 | 425 | 429) {
        let reason = format!("the server answers {}: {detail}", status.as_u16());
        return Err(ClientError::Unreachable { reason, retry_after });
    }
    Err(ClientError::Refused { status: status.as_u16(), detail })
}

fn problem_detail(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = problem.get("detail").or_else(|| problem.get("title"))?.as_str()?;
    Some(text.to_owned())
}

pub(crate) fn unreachable(error: reqwest::Error) -> ClientError {
    // reqwest says "error sending request"; the reason people can use is at the end of the chain.
    let mut reason: &dyn std::error::Error = &error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    ClientError::Unreachable { reason: format!("the server cannot be reached: {reason}"), retry_after: None }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `None` when there is no key file: the server may run without keys.
fn local_key(data_dir: &Path) -> anyhow::Result<Option<String>> {
    let path = data_dir.join(crate::config::ADMIN_KEY_FILE);
    match fs::metadata(&path) {
        Ok(facts) if facts.len() <= MAX_KEY_BYTES => {
            let key = fs::read_to_string(&path)
                .with_context(|| format!("reading the key in {}", path.display()))?;
            Ok(Some(key.trim().to_owned()))
        }
        Ok(_) => anyhow::bail!("{} is too long to be a key", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading the key in {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::{Server, is_loopback};
    use reqwest::Url;

    #[test]
    fn the_local_key_goes_to_this_machine_only() {
        for yes in ["http://127.0.0.1:1", "http://localhost", "http://[::1]:8080"] {
            assert!(is_loopback(&Url::parse(yes).unwrap()), "{yes}");
        }
        for no in ["http://example.com", "http://10.0.0.1", "http://localhost.example.com"] {
            assert!(!is_loopback(&Url::parse(no).unwrap()), "{no}");
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("admin.key"), "secret\n").unwrap();
        let key_for = |url: &str| Server::new(url, None, directory.path()).unwrap().key;
        assert_eq!(key_for("http://127.0.0.1:8080").as_deref(), Some("secret"));
        assert_eq!(key_for("http://video.example:8080"), None);
    }

    #[test]
    fn addresses_stay_on_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::new("http://127.0.0.1:8080/video", None, directory.path()).unwrap();
        assert_eq!(server.address("/uploads/x").unwrap().as_str(), "http://127.0.0.1:8080/video/uploads/x");
        assert!(server.address("http://evil.example/x").is_err());
        assert!(server.address("//evil.example/x").is_ok_and(|url| url.host_str() == Some("127.0.0.1")));
    }
}
