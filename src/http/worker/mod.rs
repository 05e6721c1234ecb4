//! `/v1/worker/`: what `reelyard worker` calls: hello, claim, heartbeat, report, release; in `orders` the stream that it
//! keeps open; in `bytes` the bytes for workers that reach no store; and in `operators` what people see of them.
//!
//! The words are those of `reelyard_model::worker_protocol`, version 1. Every call needs an API key with the scope
//! `worker` and decides nothing here: it becomes a call of `flow::dispatch`. A worker is believed about any attempt whose
//! number it knows: all of them are the operator's own machines. What it tells is held to the attempt (its state, its
//! folder, the names of files). Calls that wait end with the server.

mod bytes;
mod operators;
mod orders;

use super::{
    auth::WorkerCaller,
    extract::Json,
    openapi::ProblemBody,
    problem::{Kind, Problem},
};
use crate::{
    app::App,
    flow::{
        FlowError,
        dispatch::{self, Claim, fleet, orders::something_ready},
    },
};
use axum::extract::{DefaultBodyLimit, State};
use reelyard_model::{
    WorkerId,
    work::{Grant, Offer, TaskKind},
    worker_protocol::{
        ClaimAnswer, ClaimCall, HeartbeatAnswer, HeartbeatCall, HelloAnswer, HelloCall, MAX_ATTEMPTS,
        MAX_CALL_BYTES, MAX_GRANTS, MAX_REPORT_BYTES, MAX_UNHEARD, MAX_WAIT_MS, ReleaseAnswer, ReleaseCall,
        ReportAnswer, ReportCall, WORKER_PROTOCOL,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout_at},
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Longest name of a worker, in letters.
const MAX_NAME_LETTERS: usize = 100;
/// Most offers in one call: one for each shape of slot that a machine has.
const MAX_OFFERS: usize = 64;
/// What a worker is told to wait before it asks a server that ends.
const ENDING_RETRY_SECONDS: u64 = 1;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    let calls = OpenApiRouter::new()
        .routes(routes!(hello))
        .routes(routes!(claim))
        .routes(routes!(heartbeat))
        .routes(routes!(release))
        .routes(routes!(orders::follow_orders))
        .layer(DefaultBodyLimit::max(MAX_CALL_BYTES));
    let reports = OpenApiRouter::new().routes(routes!(report)).layer(DefaultBodyLimit::max(MAX_REPORT_BYTES));
    calls.merge(reports).merge(bytes::routes()).merge(operators::routes())
}

/// A worker says who it is. Safe to repeat; to be repeated when an answer is `worker-unknown`.
#[utoipa::path(post, path = "/v1/worker/hello", tag = "worker",
    request_body(content = Value, description = "`protocol` (1), `worker` (a UUID, new at each start), `name`, `version`, `machine`."),
    responses((status = 200, description = "`version` of the server, `lease_ms`.", body = Value),
              (status = 400, description = "Another version of the protocol.", body = ProblemBody, content_type = "application/problem+json")))]
async fn hello(
    State(app): State<Arc<App>>,
    _: WorkerCaller,
    Json(call): Json<HelloCall>,
) -> Result<axum::Json<HelloAnswer>, Problem> {
    check_version(call.protocol)?;
    let is_name = |name: &str| {
        !name.trim().is_empty()
            && name.chars().count() <= MAX_NAME_LETTERS
            && !name.chars().any(char::is_control)
    };
    if !is_name(&call.name) || call.version.len() > MAX_NAME_LETTERS {
        return Err(Problem::new(
            Kind::BadRequest,
            format!("`name` is a line of 1 to {MAX_NAME_LETTERS} letters, and `version` is no longer."),
        ));
    }
    tracing::info!(worker = %call.worker, name = call.name, version = call.version, "dispatch: a worker says hello");
    if !fleet::hello(&app, call).await? {
        return Err(Problem::new(
            Kind::BadRequest,
            "`worker` is the id of a worker inside a server. Make a new UUID at each start.",
        ));
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(axum::Json(HelloAnswer { version, lease_ms: app.fleet.lease_ms }))
}

/// Get work. Each grant is a lease: keep it by heartbeats, end it by a report. With `max` 0 nothing is granted, and the
/// answer comes when there may be something.
#[utoipa::path(post, path = "/v1/worker/claim", tag = "worker",
    request_body(content = Value, description = "`protocol`, `worker`, `offers` (each with `kinds`, `prefers`, `slots`, `cpu_millicores`, `memory_bytes`), `max` (64 at most), `wait_ms` (25000 at most), `after`, `claim` (a UUID, new for each call), `unheard` (the `claim` of calls whose answers were lost: what they brought goes back in line)."),
    responses((status = 200, description = "`grants`, `seen` (give it back as `after`), `drain`.", body = Value),
              (status = 409, description = "`worker-unknown`: say hello first.", body = ProblemBody, content_type = "application/problem+json")))]
async fn claim(
    State(app): State<Arc<App>>,
    _: WorkerCaller,
    Json(call): Json<ClaimCall>,
) -> Result<axum::Json<ClaimAnswer>, Problem> {
    check_version(call.protocol)?;
    check_count("offers", call.offers.len(), MAX_OFFERS)?;
    check_count("unheard", call.unheard.len(), MAX_UNHEARD)?;
    dispatch::release_unheard(&app, call.worker, &call.unheard).await.map_err(flow_problem)?;
    let until = wait_until(call.wait_ms);
    let kinds: Vec<TaskKind> = call.offers.iter().flat_map(|offer| offer.kinds.iter().copied()).collect();
    // Whoever asks speaks for itself.
    let offers: Vec<Offer> =
        call.offers.into_iter().map(|offer| Offer { worker: call.worker, ..offer }).collect();
    let most = call.max.min(MAX_GRANTS) as usize;
    let claim = Claim { offers, most, told_lease_ms: app.fleet.lease_ms, name: call.claim };
    let mut after = call.after;
    loop {
        let drain = known(&app, call.worker).await?;
        let seen = *app.catalog.last_event().borrow();
        let mut grants = Vec::new();
        if call.max > 0 && !drain {
            grants = claim_for_whoever_listens(&app, &claim).await?;
        }
        let answer = axum::Json(ClaimAnswer { grants, seen, drain });
        let from = after.take().unwrap_or(seen);
        if !answer.grants.is_empty() || Instant::now() >= until {
            return Ok(answer);
        }
        let woken = tokio::select! {
            () = app.shutdown.cancelled() => return Err(ending()),
            _ = fleet::drain_is_not(&app, call.worker, drain) => true,
            ready = timeout_at(until, something_ready(&app, &kinds, from)), if !drain => ready.is_ok(),
            () = sleep_until(until), if drain => false,
        };
        if !woken || call.max == 0 {
            return Ok(answer);
        }
    }
}

/// The claim is not broken off when the worker goes away in the middle, and what nobody hears of goes back.
async fn claim_for_whoever_listens(app: &Arc<App>, claim: &Claim) -> Result<Vec<Grant>, Problem> {
    let (answer, heard) = oneshot::channel();
    let (app, claim) = (app.clone(), claim.clone());
    tokio::spawn(async move {
        let claimed = dispatch::claim(&app, &claim).await;
        let Err(Ok(unheard)) = answer.send(claimed) else { return };
        for grant in unheard {
            let held = reelyard_model::worker_protocol::Held { task: grant.task, attempt: grant.attempt };
            if let Err(error) = dispatch::release(&app, held).await {
                tracing::warn!(%error, task = %held.task, "dispatch: a grant that nobody heard of waits for its lease");
            }
        }
    });
    heard.await.map_err(|_| Problem::internal("a claim ended without an answer"))?.map_err(flow_problem)
}

/// Keep leases. Send it at a third of `lease_ms`, for all attempts at once.
#[utoipa::path(post, path = "/v1/worker/heartbeat", tag = "worker",
    request_body(content = Value, description = "`protocol`, `worker`, `beats`: each `task`, `attempt`, `progress`."),
    responses((status = 200, description = "`verdicts`, in the order of the beats: `continue`, `cancelled`, `lost`, or null where it could not be asked.", body = Value)))]
async fn heartbeat(
    State(app): State<Arc<App>>,
    _: WorkerCaller,
    Json(call): Json<HeartbeatCall>,
) -> Result<axum::Json<HeartbeatAnswer>, Problem> {
    check_version(call.protocol)?;
    check_count("beats", call.beats.len(), MAX_ATTEMPTS)?;
    note(&app, call.worker).await;
    let verdicts = dispatch::heartbeats(&app, &call.beats).await.map_err(flow_problem)?;
    Ok(axum::Json(HeartbeatAnswer { verdicts }))
}

/// End an attempt. Asked again, it is answered as the first time.
#[utoipa::path(post, path = "/v1/worker/report", tag = "worker",
    request_body(content = Value, description = "`protocol`, `worker`, `task`, `attempt`, `report`. 17 MiB at most: the list of keyframes of a probe."),
    responses((status = 200, description = "`verdict`: `continue` when it was taken, now or before; `cancelled`; `lost` when it came too late and nothing was written.", body = Value)))]
async fn report(
    State(app): State<Arc<App>>,
    _: WorkerCaller,
    Json(call): Json<ReportCall>,
) -> Result<axum::Json<ReportAnswer>, Problem> {
    check_version(call.protocol)?;
    note(&app, call.worker).await;
    let verdict = dispatch::report(&app, call.task, call.attempt, call.report).await.map_err(flow_problem)?;
    Ok(axum::Json(ReportAnswer { verdict }))
}

/// Give tasks back unharmed: they are ready again at once.
#[utoipa::path(post, path = "/v1/worker/release", tag = "worker",
    request_body(content = Value, description = "`protocol`, `worker`, `held`: each `task`, `attempt`; `goodbye`: the worker ends."),
    responses((status = 200, description = "`released`, in the order of `held`: false where it was not the worker's any more.", body = Value)))]
async fn release(
    State(app): State<Arc<App>>,
    _: WorkerCaller,
    Json(call): Json<ReleaseCall>,
) -> Result<axum::Json<ReleaseAnswer>, Problem> {
    check_version(call.protocol)?;
    check_count("held", call.held.len(), MAX_ATTEMPTS)?;
    let mut released = Vec::with_capacity(call.held.len());
    for held in &call.held {
        released.push(dispatch::release(&app, *held).await.map_err(flow_problem)?);
    }
    if call.goodbye {
        tracing::info!(worker = %call.worker, "dispatch: a worker says good-bye");
        fleet::goodbye(&app, call.worker).await?;
    }
    Ok(axum::Json(ReleaseAnswer { released }))
}

fn check_version(protocol: u32) -> Result<(), Problem> {
    if protocol == WORKER_PROTOCOL {
        return Ok(());
    }
    Err(Problem::new(
        Kind::BadRequest,
        format!(
            "This server speaks version {WORKER_PROTOCOL} of the worker protocol, and this call is of version \
             {protocol}. Bring the older of the two programs up to date."
        ),
    )
    .with("protocol", WORKER_PROTOCOL))
}

fn check_count(member: &str, count: usize, most: usize) -> Result<(), Problem> {
    if count <= most {
        return Ok(());
    }
    Err(Problem::new(
        Kind::TooLarge,
        format!("`{member}` has {count} entries; {most} is the limit of one call."),
    ))
}

/// Being heard is for people, and fails no call.
async fn note(app: &App, worker: WorkerId) {
    if let Err(error) = fleet::heard(app, worker).await {
        tracing::debug!(%error, %worker, "dispatch: that a worker was heard is not noted");
    }
}

/// Whether it is to take nothing new; the problem when this server has not met it.
async fn known(app: &App, worker: WorkerId) -> Result<bool, Problem> {
    fleet::heard(app, worker).await?.ok_or_else(|| {
        Problem::new(Kind::WorkerUnknown, "This server has not met this worker: say hello, then call again.")
    })
}

fn wait_until(wait_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(wait_ms.min(MAX_WAIT_MS))
}

fn ending() -> Problem {
    Problem::unavailable("This server ends; ask again, or ask another one.", ENDING_RETRY_SECONDS)
}

fn flow_problem(error: FlowError) -> Problem {
    match error {
        FlowError::Catalog(error) => error.into(),
        FlowError::Store(error) => {
            Problem::unavailable("The store does not answer at the moment.", 2).with_log(error)
        }
        other => Problem::internal(other),
    }
}
