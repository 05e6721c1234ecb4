//! A client of the fleet's API that keeps nothing to itself: every answer goes to whoever asked.

use crate::support::header;
use serde_json::Value;
use std::time::Duration;

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Shorter than a black hole lasts; an answer that takes longer is asked for again.
const IMPATIENCE: Duration = Duration::from_secs(8);

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// 0: none came.
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        header(&self.headers, name)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.parse().ok()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    key: String,
}

impl Client {
    /// For whoever asks once.
    pub(crate) fn new(key: &str) -> Self {
        Self::with_patience(key, PATIENCE)
    }

    /// For whoever asks again.
    pub(crate) fn that_asks_again(key: &str) -> Self {
        Self::with_patience(key, IMPATIENCE)
    }

    fn with_patience(key: &str, patience: Duration) -> Self {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(patience))
            // A connection of each request's own: the lines are cut all the time.
            .max_idle_connections(0)
            .build()
            .into();
        Self { agent, key: key.to_owned() }
    }

    pub(crate) fn ask(&self, method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let none = Answer { status: 0, headers: Vec::new(), body: Vec::new() };
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(url)
            .header("Authorization", format!("Bearer {}", self.key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let Ok(mut answer) = self.agent.run(request.body(body.to_vec()).expect("a request")) else {
            return none;
        };
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned()))
            .collect();
        let status = answer.status().as_u16();
        match answer.body_mut().with_config().limit(1 << 30).read_to_vec() {
            Ok(body) => Answer { status, headers, body },
            Err(_) => none,
        }
    }

    pub(crate) fn get(&self, url: &str) -> Answer {
        self.ask("GET", url, &[], &[])
    }

    pub(crate) fn tus_create(&self, base: &str, byte_len: usize, metadata: &str) -> Answer {
        let length = byte_len.to_string();
        let headers = [("Tus-Resumable", "1.0.0"), ("Upload-Length", &length), ("Upload-Metadata", metadata)];
        self.ask("POST", &format!("{base}/uploads"), &headers, &[])
    }

    pub(crate) fn tus_head(&self, base: &str, upload: &str) -> Answer {
        self.ask("HEAD", &format!("{base}/uploads/{upload}"), &[("Tus-Resumable", "1.0.0")], &[])
    }

    pub(crate) fn tus_patch(&self, base: &str, upload: &str, offset: u64, bytes: &[u8]) -> Answer {
        let offset = offset.to_string();
        let headers = [
            ("Tus-Resumable", "1.0.0"),
            ("Upload-Offset", offset.as_str()),
            ("Content-Type", "application/offset+octet-stream"),
        ];
        self.ask("PATCH", &format!("{base}/uploads/{upload}"), &headers, bytes)
    }

    /// All of it, in a fleet where nothing breaks; the asset's id.
    pub(crate) fn upload(&self, base: &str, bytes: &[u8], metadata: &str) -> String {
        let created = self.tus_create(base, bytes.len(), metadata);
        assert_eq!(created.status, 201, "{}", created.text());
        let location = created.header("location").expect("201 has a Location");
        let upload = location.rsplit('/').next().unwrap();
        let done = self.tus_patch(base, upload, 0, bytes);
        assert_eq!(done.status, 204, "{}", done.text());
        done.header("reelyard-asset")
            .or_else(|| self.tus_head(base, upload).header("reelyard-asset"))
            .expect("the asset of a finished upload")
    }
}
