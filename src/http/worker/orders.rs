//! `POST /v1/worker/orders`: one stream of lines to each worker, kept open for its whole life.
//!
//! What is told, and to whom, is `flow::dispatch::orders`'; here it becomes lines, with others between them that show
//! that the connection lives. A stream ends with the server, with the key that opened it, and after some hour; the worker
//! opens it anew. It counts as one connection and against no other limit.

use super::{MAX_ATTEMPTS, check_count, check_version, known};
use crate::{
    app::{App, random_u32},
    flow::dispatch::orders::{self, Listening},
    http::{auth::WorkerCaller, extract::Json, openapi::ProblemBody, problem::Problem},
};
use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use http::header;
use reelyard_model::worker_protocol::{ORDERS_KEEP_ALIVE_MS, OrdersCall, OrdersLine};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Then it is opened anew, wherever a balancer wants it by then. A quarter of it is by chance: workers that came together
/// are not to come back together.
const LIFETIME: Duration = Duration::from_secs(3600);
const KEEP_ALIVE: Duration = Duration::from_millis(ORDERS_KEEP_ALIVE_MS);

/// Orders for a worker, as they come: attempts that were cancelled or lost, and whether it is to take nothing new. One
/// stream for each worker: keep it open, and open it again when it ends, each time with what is in hand then. A new one
/// ends the one before.
#[utoipa::path(post, path = "/v1/worker/orders", tag = "worker",
    request_body(content = Value, description = "`protocol`, `worker`, `held`: each `task`, `attempt`. What is over of these is told at once; what is claimed later need not be named."),
    responses((status = 200, description = "Lines of JSON, the first with `drain`. `over` (`task`, `attempt`, `verdict`): that attempt is the worker's no more; `drain`: whether to take nothing new; `{}` at least each 15 s. It ends when the server stops, when the key is revoked, after about an hour, and when the server cannot say that it told everything.",
                  body = String, content_type = "application/x-ndjson",
                  example = "{\"drain\":false}\n{\"over\":{\"task\":\"0198c0de-0000-7000-8000-000000000002\",\"attempt\":1,\"verdict\":\"cancelled\"}}\n{}\n"),
              (status = 409, description = "`worker-unknown`: say hello first.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn follow_orders(
    State(app): State<Arc<App>>,
    caller: WorkerCaller,
    Json(call): Json<OrdersCall>,
) -> Result<Response, Problem> {
    check_version(call.protocol)?;
    check_count("held", call.held.len(), MAX_ATTEMPTS)?;
    let drain = known(&app, call.worker).await?;
    let listening = orders::open(&app, call.worker, caller.key, &call.held, drain).await?;
    let by_chance = f64::from(random_u32()) / f64::from(u32::MAX);
    let following = Following {
        listening,
        shutdown: app.shutdown.clone(),
        until: Instant::now() + LIFETIME.mul_f64(1.0 - by_chance / 4.0),
    };
    let lines = stream::unfold(following, |mut following| async move {
        let line = following.next().await?;
        Some((Ok::<_, Infallible>(written(&line)), following))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CACHE_CONTROL, "no-store"),
        // nginx would otherwise hold lines back until its buffer is full.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}

struct Following {
    listening: Listening,
    shutdown: CancellationToken,
    until: Instant,
}

impl Following {
    async fn next(&mut self) -> Option<OrdersLine> {
        tokio::select! {
            () = self.shutdown.cancelled() => None,
            () = sleep_until(self.until) => None,
            line = timeout(KEEP_ALIVE, self.listening.next()) => line.unwrap_or_else(|_| Some(OrdersLine::default())),
        }
    }
}

/// Three numbers and two words in a line: it can always be written.
fn written(line: &OrdersLine) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}
