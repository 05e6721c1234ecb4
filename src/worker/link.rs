//! The way to the servers: one of them at a time, another when it fails, and patience when all do.
//!
//! A server that does not answer, or answers 5xx, is left alone for a while that grows and is shortened by chance, or
//! for as long as it says (`Retry-After`). A refused token (401, 403) ends the worker: trying again does not mend it.
//! A server that has not met the worker (`worker-unknown`) gets its hello and the call again.

use crate::{app::random_u32, client};
use anyhow::Context as _;
use reelyard_agent::control::ControlUnavailable;
use reelyard_model::worker_protocol::{HelloAnswer, HelloCall};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

/// A server on the same network answers in milliseconds; one that is gone should cost little of a lease.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Below the lease by much: a heartbeat that hangs must leave time for another server.
pub(crate) const SHORT_LIMIT: Duration = Duration::from_secs(6);
/// After a failure, doubled up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A server may ask for more patience, up to this: more would cost leases.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(10);
/// Longest answer that is read: 64 grants with the plan of a long film in each.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Longest problem document that is read.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

/// Why a call came to nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody answered, or whoever did is in trouble.
    #[error("{0}")]
    Away(String),
    /// It was understood and refused; `problem` is the slug of its type.
    #[error("{detail}")]
    Refused { status: u16, problem: String, detail: String },
    /// The token is not good. The program ends.
    #[error("{0}")]
    Denied(String),
}

impl From<CallError> for ControlUnavailable {
    fn from(error: CallError) -> Self {
        Self(error.to_string())
    }
}

impl From<CallError> for std::io::Error {
    fn from(error: CallError) -> Self {
        match &error {
            CallError::Refused { status: 404, .. } => Self::new(std::io::ErrorKind::NotFound, error),
            _ => Self::other(error),
        }
    }
}

struct Place {
    base: Url,
    http: reqwest::Client,
    trouble: Mutex<Trouble>,
}

struct Trouble {
    failures: u32,
    not_before: Instant,
}

pub(crate) struct Link {
    places: Vec<Place>,
    /// The one that answered last.
    current: AtomicUsize,
    token: Option<String>,
    hello: HelloCall,
    denied: watch::Sender<Option<String>>,
}

impl Link {
    /// Contacts nobody yet.
    pub(crate) fn new(servers: &[Url], token: Option<String>, hello: HelloCall) -> anyhow::Result<Self> {
        let place = |base: &Url| {
            let http = client::http_client_for(base)
                .connect_timeout(CONNECT_LIMIT)
                .tcp_nodelay(true)
                .user_agent(concat!("reelyard-worker/", env!("CARGO_PKG_VERSION")))
                .build()
                .context("HTTPS needs the certificates of this machine (Debian: ca-certificates)")?;
            let trouble = Mutex::new(Trouble { failures: 0, not_before: Instant::now() });
            anyhow::Ok(Place { base: base.clone(), http, trouble })
        };
        Ok(Self {
            places: servers.iter().map(place).collect::<anyhow::Result<_>>()?,
            current: AtomicUsize::new(0),
            token,
            hello,
            denied: watch::Sender::new(None),
        })
    }

    /// Returns when a server has refused the token, with what to do about it.
    pub(crate) async fn denied(&self) -> String {
        let mut denied = self.denied.subscribe();
        loop {
            let found = denied.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
            if let Some(why) = found {
                return why;
            }
        }
    }

    pub(crate) async fn hello(&self) -> Result<HelloAnswer, CallError> {
        self.call("hello", &self.hello, SHORT_LIMIT).await
    }

    /// A call that does no harm when it arrives twice: tried at each server once.
    pub(crate) async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        name: &str,
        call: &Q,
        limit: Duration,
    ) -> Result<A, CallError> {
        let mut last = None;
        for _ in &self.places {
            match self.call_once(name, call, limit).await {
                Err(away @ CallError::Away(_)) => last = Some(away),
                settled => return settled,
            }
        }
        Err(last.unwrap_or_else(|| CallError::Away("no server is named".to_owned())))
    }

    /// A call to one server.
    pub(crate) async fn call_once<Q: Serialize, A: DeserializeOwned>(
        &self,
        name: &str,
        call: &Q,
        limit: Duration,
    ) -> Result<A, CallError> {
        let body = serde_json::to_vec(call).map_err(|error| CallError::Away(error.to_string()))?;
        let path = format!("v1/worker/{name}");
        let build = |request: RequestBuilder| {
            request.header(header::CONTENT_TYPE, "application/json").body(body.clone()).timeout(limit)
        };
        match self.ask(Method::POST, &path, build).await {
            Err(CallError::Refused { problem, .. }) if problem == "worker-unknown" && name != "hello" => {
                tracing::info!("the server has not met this worker; saying hello");
                // Boxed: a hello is a call too.
                let _: HelloAnswer = Box::pin(self.call_once("hello", &self.hello, SHORT_LIMIT)).await?;
                let answer = self.ask(Method::POST, &path, build).await?;
                self.read(answer).await
            }
            answer => self.read(answer?).await,
        }
    }

    /// A call whose answer lasts: its head must come soon, and its body is read by the caller, who bounds that.
    pub(crate) async fn open<Q: Serialize>(&self, name: &str, call: &Q) -> Result<Response, CallError> {
        let body = serde_json::to_vec(call).map_err(|error| CallError::Away(error.to_string()))?;
        let path = format!("v1/worker/{name}");
        let build = |request: RequestBuilder| {
            request.header(header::CONTENT_TYPE, "application/json").body(body.clone())
        };
        match self.ask_within(SHORT_LIMIT, Method::POST, &path, build).await {
            Err(CallError::Refused { problem, .. }) if problem == "worker-unknown" => {
                self.hello().await?;
                self.ask_within(SHORT_LIMIT, Method::POST, &path, build).await
            }
            answer => answer,
        }
    }

    /// A request to the server whose turn it is, once it is time. The answer is a good one.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        build: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, CallError> {
        self.ask_within(Duration::MAX, method, path, build).await
    }

    /// The same, for callers who wait only so long for the head of the answer.
    async fn ask_within(
        &self,
        head: Duration,
        method: Method,
        path: &str,
        build: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, CallError> {
        if let Some(why) = self.denied.borrow().clone() {
            return Err(CallError::Denied(why));
        }
        let (index, not_before) = self.choose();
        sleep_until(not_before).await;
        let place = &self.places[index];
        let address = place.base.join(path).map_err(|error| CallError::Away(error.to_string()))?;
        let mut request = place.http.request(method, address);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        match timeout(head, build(request).send()).await {
            Ok(Ok(answer)) if answer.status().is_success() => {
                self.answered(index);
                Ok(answer)
            }
            Ok(Ok(answer)) => Err(self.refused(index, answer).await),
            Err(_) => {
                self.failed(index, None);
                Err(CallError::Away(format!("{} does not answer", place.base)))
            }
            Ok(Err(error)) => {
                self.failed(index, None);
                Err(CallError::Away(client::unreachable(error).to_string()))
            }
        }
    }

    async fn read<A: DeserializeOwned>(&self, mut answer: Response) -> Result<A, CallError> {
        let bytes = whole(&mut answer, MAX_ANSWER_BYTES).await.map_err(CallError::Away)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| CallError::Away(format!("the server's answer cannot be read: {error}")))
    }

    /// The one that answered last where it may be asked now, else another one, else the first that may be asked again.
    fn choose(&self) -> (usize, Instant) {
        let now = Instant::now();
        let current = self.current.load(Ordering::Relaxed);
        let count = self.places.len();
        let in_turn = (0..count).map(|step| (current + step) % count);
        let when = |index: usize| self.trouble(index).not_before;
        match in_turn.clone().find(|&index| when(index) <= now) {
            Some(index) => (index, now),
            None => in_turn.map(|index| (index, when(index))).min_by_key(|(_, at)| *at).unwrap_or((0, now)),
        }
    }

    /// Is the server that was asked last in order?
    pub(crate) fn has_answered(&self) -> bool {
        self.trouble(self.current.load(Ordering::Relaxed)).failures == 0
    }

    fn answered(&self, index: usize) {
        self.current.store(index, Ordering::Relaxed);
        *self.trouble(index) = Trouble { failures: 0, not_before: Instant::now() };
    }

    fn failed(&self, index: usize, asked: Option<Duration>) {
        let mut trouble = self.trouble(index);
        let full = FIRST_PAUSE.saturating_mul(1 << trouble.failures.min(10)).min(LONGEST_PAUSE);
        // By chance, so that a fleet does not come back all at once.
        let pause = full.mul_f64(0.5 + 0.5 * f64::from(random_u32()) / f64::from(u32::MAX));
        trouble.failures += 1;
        trouble.not_before = Instant::now() + pause.max(asked.unwrap_or_default().min(LONGEST_ASKED_PAUSE));
        drop(trouble);
        metrics::counter!("reelyard_worker_failed_calls_total").increment(1);
    }

    async fn refused(&self, index: usize, mut answer: Response) -> CallError {
        let status = answer.status();
        let seconds = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = seconds.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let problem = match whole(&mut answer, MAX_PROBLEM_BYTES).await {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or(serde_json::Value::Null),
            Err(_) => serde_json::Value::Null,
        };
        let text = |name: &str| problem.get(name).and_then(serde_json::Value::as_str);
        // Text from elsewhere must not move the cursor of a terminal.
        let detail = text("detail").or_else(|| status.canonical_reason()).unwrap_or("no reason given");
        let detail = detail.replace(char::is_control, " ");
        let slug = text("type").and_then(|kind| kind.rsplit('/').next()).unwrap_or_default().to_owned();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let why = format!(
                "{} refuses this worker's token ({}): {detail} Make one there with `reelyard keys add --label NAME \
                 --scopes worker` and give it with --token-file or REELYARD_WORKER_TOKEN.",
                self.places[index].base,
                status.as_u16()
            );
            self.denied.send_if_modified(|denied| denied.replace(why.clone()).is_none());
            return CallError::Denied(why);
        }
        if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) {
            self.failed(index, retry_after);
            return CallError::Away(format!("the server answers {}: {detail}", status.as_u16()));
        }
        self.answered(index);
        CallError::Refused { status: status.as_u16(), problem: slug, detail }
    }

    fn trouble(&self, index: usize) -> MutexGuard<'_, Trouble> {
        self.places[index].trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn whole(answer: &mut Response, most: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| error.to_string())? {
        if bytes.len() + piece.len() > most {
            return Err(format!("the answer is longer than {most} bytes"));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
