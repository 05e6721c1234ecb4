//! `/v1/events`: what happens, as server-sent events (WHATWG HTML, section 9.2).
//!
//! Every stored event has its number as `id`, so a client that reconnects with `Last-Event-ID` misses nothing and
//! sees nothing twice. Progress passes without a number: it is not stored, and a newer one follows. The client's pace
//! rules: a reader that falls behind the in-memory queue is served from the table, never from a growing buffer.
//!
//! Old events are removed in time (`flow/sweep`). A client that asks for such ones is told so first, by an event
//! `events.removed` without a number, and knows that it has to read the lists anew.

use super::{
    auth::Caller,
    extract::{Query, id},
    links,
    openapi::ProblemBody,
    problem::{Kind, Problem},
};
use crate::app::App;
use axum::{
    extract::State,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reelyard_catalog::{EventKind, EventRow, Scope};
use reelyard_model::{AssetId, TenantId};
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use utoipa::{IntoParams, ToSchema};

/// Open streams at a time: each holds a socket and a place in the queue.
const MAX_STREAMS: usize = 512;
/// Events read from the table at once while a client catches up.
const CATCH_UP_ROWS: u32 = 200;
/// A comment this often, so that proxies and clients can tell silence from a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client waits before it connects again.
const RECONNECT_AFTER: Duration = Duration::from_secs(2);

static STREAMS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_STREAMS)));

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventQuery {
    /// Only events of this asset.
    asset: Option<String>,
    /// Begin after this event number; 0 is the oldest that is kept. The header `Last-Event-ID` comes before it. Without
    /// both, the stream begins now.
    after: Option<i64>,
}

/// The `data` of one event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventView {
    /// Null: passing (progress), not stored.
    id: Option<i64>,
    at: String,
    /// Also the event's name: `asset.ready`, `asset.failed`, `task.changed`, `task.progress`, ...
    #[schema(example = "task.changed")]
    kind: String,
    upload: Option<String>,
    asset: Option<String>,
    task: Option<String>,
    data: serde_json::Value,
}

impl From<&EventRow> for EventView {
    fn from(row: &EventRow) -> Self {
        Self {
            id: (row.seq > 0).then_some(row.seq),
            at: links::rfc3339(row.at_ms),
            kind: row.kind.clone(),
            upload: row.upload.map(|id| id.to_string()),
            asset: row.asset.map(|id| id.to_string()),
            task: row.task.map(|id| id.to_string()),
            data: row.data.clone(),
        }
    }
}

/// Follow what happens as server-sent events. Reconnect with `Last-Event-ID` to go on without a gap. Events are kept for
/// 30 days; when some after that number are gone, the first event is `events.removed` (its `data` has `after`, the number
/// given, and `oldest`, the first that is kept): read the lists anew then.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(EventQuery,
        ("Last-Event-ID" = Option<i64>, Header, description = "Number of the last event that was seen.")),
    responses((status = 200, description = "A stream that ends when the server stops. Each `data` is an EventView.", body = EventView, content_type = "text/event-stream",
                  example = "id: 42\nevent: asset.ready\ndata: {\"id\":42,\"kind\":\"asset.ready\"}\n\n"),
              (status = 400, description = "The number is not one.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 503, description = "Too many streams are open.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn follow_events(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<EventQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::AssetsRead)?;
    let asset = query.asset.map(|asset| id::<AssetId>(&asset, "asset")).transpose()?;
    let last_seen = match headers.get("last-event-id") {
        Some(value) => {
            Some(value.to_str().ok().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
                Problem::new(Kind::BadRequest, "`Last-Event-ID` is not the number of an event.")
            })?)
        }
        None => query.after,
    };
    let permit = STREAMS.clone().try_acquire_owned().map_err(|_| {
        Problem::unavailable(format!("{MAX_STREAMS} event streams are open, which is all there are."), 10)
    })?;
    // Subscribed before the number is read: what is stored in between arrives by the queue.
    let live = app.catalog.subscribe();
    let known = *app.catalog.last_event().borrow();
    // A reader that comes from another node may be ahead of this one.
    let is_ahead = last_seen.is_some_and(|seen: i64| seen > known);
    let newest = if is_ahead { app.catalog.newest_event().await? } else { known };
    // A number from the future belongs to another database: begin now.
    let after = last_seen.unwrap_or(newest).clamp(0, newest);
    let oldest = app.catalog.oldest_event().await?;
    let removed = (after + 1 < oldest).then(|| removed_notice(caller.tenant, after, oldest));
    let follower = Follower {
        after,
        filter: Filter { tenant: caller.tenant, asset },
        behind: last_seen.is_some(),
        waiting: removed.into_iter().collect(),
        live,
        app,
        _permit: permit,
    };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("still here");
    let mut response = Sse::new(into_stream(follower)).keep_alive(keep_alive).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would otherwise hold events back until its buffer is full.
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

fn removed_notice(tenant: TenantId, after: i64, oldest: i64) -> EventRow {
    EventRow {
        seq: 0,
        at_ms: links::now_ms(),
        tenant,
        kind: EventKind::EVENTS_REMOVED.0.to_owned(),
        upload: None,
        asset: None,
        task: None,
        data: serde_json::json!({
            "after": after, "oldest": oldest,
            "message": "Events after that number were removed, because they were old. Read the lists anew.",
        }),
    }
}

#[derive(Clone, Copy)]
struct Filter {
    tenant: TenantId,
    asset: Option<AssetId>,
}

impl Filter {
    fn lets_pass(&self, row: &EventRow) -> bool {
        row.tenant == self.tenant && (self.asset.is_none() || self.asset == row.asset)
    }
}

/// One client's place in the story.
struct Follower {
    app: Arc<App>,
    filter: Filter,
    /// Number of the last event that was looked at.
    after: i64,
    /// There may be stored events after it that the queue will not bring.
    behind: bool,
    waiting: VecDeque<EventRow>,
    live: broadcast::Receiver<Arc<EventRow>>,
    _permit: OwnedSemaphorePermit,
}

fn into_stream(follower: Follower) -> impl Stream<Item = Result<Event, Infallible>> {
    // Sent at once, so that a client sees that it is connected although nothing happens.
    let hello = stream::iter([Ok(Event::default().retry(RECONNECT_AFTER).comment("connected"))]);
    hello.chain(stream::unfold(follower, |mut follower| async move {
        let row = follower.next().await?;
        Some((Ok(to_event(&row)), follower))
    }))
}

impl Follower {
    /// The next event for this client; `None` when the server stops or cannot read its table (the client reconnects).
    async fn next(&mut self) -> Option<EventRow> {
        loop {
            if let Some(row) = self.waiting.pop_front() {
                return Some(row);
            }
            if self.behind {
                self.catch_up().await?;
                continue;
            }
            let received = tokio::select! {
                received = self.live.recv() => received,
                () = self.app.shutdown.cancelled() => return None,
            };
            match received {
                // Seen already while catching up.
                Ok(row) if row.seq > 0 && row.seq <= self.after => {}
                // One before it was stored and is announced later, or never (by another process): the table has it.
                Ok(row) if row.seq > self.after + 1 => self.behind = true,
                Ok(row) => {
                    self.after = self.after.max(row.seq);
                    if self.filter.lets_pass(&row) {
                        return Some(row.as_ref().clone());
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => self.behind = true,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    async fn catch_up(&mut self) -> Option<()> {
        if self.app.shutdown.is_cancelled() {
            return None;
        }
        let rows = self
            .app
            .catalog
            .events_after(self.after, CATCH_UP_ROWS)
            .await
            .inspect_err(|error| tracing::error!(%error, "an event stream ended: the events cannot be read"))
            .ok()?;
        match rows.last() {
            Some(last) => self.after = last.seq,
            None => self.behind = false,
        }
        self.waiting.extend(rows.into_iter().filter(|row| self.filter.lets_pass(row)));
        Some(())
    }
}

fn to_event(row: &EventRow) -> Event {
    let view = EventView::from(row);
    let mut event = Event::default().event(&view.kind);
    if let Some(number) = view.id {
        event = event.id(number.to_string());
    }
    match serde_json::to_string(&view) {
        Ok(text) => event.data(text),
        Err(_) => event.comment("an event that cannot be written"),
    }
}
