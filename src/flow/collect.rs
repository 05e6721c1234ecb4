//! **collect**: a worker's report becomes stored state, and what follows from it, in one transaction.
//!
//! Called by `dispatch`. A probe's report brings the plan and its tasks; an encode's, audio's or stills' may unblock
//! publishing; a failure is tried again or buries the task, as the retry policy says. A report that comes twice gets
//! the first one's verdict; one of an attempt that is not current any more changes nothing.

use super::{FlowError, plan, receive, same_content};
use crate::app::{App, random_u32};
use reelyard_catalog::{CatalogError, CompletedProbe, CompletedTask, FailedTask, Settled, Stored};
use reelyard_model::{
    Failure, FailureCode, MediaInfo, PlaybackId, TaskId,
    work::{Report, TaskKind, TaskResult, Verdict},
};
use uuid::Uuid;

pub(crate) async fn collect(
    app: &App,
    id: TaskId,
    attempt: u32,
    report: Report,
) -> Result<Verdict, FlowError> {
    let mut rings = true;
    let settled = match report {
        Report::Completed { result: TaskResult::Probed { info } } => probed(app, id, attempt, &info).await?,
        Report::Completed { result } => {
            let done = completed(app, id, attempt, result).await?;
            rings = done.rings;
            done.settled
        }
        // The worker was stopped with this server: that says nothing about the task.
        Report::Failed { failure }
            if failure.code == FailureCode::ChildKilled && app.shutdown.is_cancelled() =>
        {
            match app.catalog.release(id, attempt, app.now_ms()).await? {
                true => Settled::Now,
                false => Settled::Lost,
            }
        }
        Report::Failed { failure } => failed(app, id, attempt, failure).await?,
    };
    if settled == Settled::Now && rings {
        // Whatever became ready; also what was cancelled with a failed asset is news to waiting workers.
        app.ring();
    }
    Ok(verdict(settled))
}

pub(crate) fn verdict(settled: Settled) -> Verdict {
    match settled {
        Settled::Now | Settled::Before => Verdict::Continue,
        Settled::Cancelled => Verdict::Cancelled,
        Settled::Lost | Settled::OtherEncoder | Settled::OtherKind => Verdict::Lost,
    }
}

struct Done {
    settled: Settled,
    /// Something else may have become ready. Most chunks bring nothing, and every ring costs several questions.
    rings: bool,
}

async fn completed(app: &App, id: TaskId, attempt: u32, result: TaskResult) -> Result<Done, FlowError> {
    let warnings = match &result {
        TaskResult::Encoded { warnings, .. } => warnings.clone(),
        _ => Vec::new(),
    };
    let done = CompletedTask { task: id, attempt, result, warnings, now_ms: app.now_ms() };
    let Stored { settled, task, unblocked } = app.desk.complete(done).await?;
    let failure = match settled {
        Settled::OtherEncoder => {
            // Two chunks were begun before either was done, and one found the graphics card busy. The next attempt is
            // told which encoder to use.
            let detail = "this chunk was made with another encoder than the first that was done, and they would not \
                          play one after the other; it is made again";
            Failure::new(FailureCode::EncoderUnavailable, detail)
        }
        Settled::OtherKind => other_kind(task.kind),
        Settled::Now => {
            tracing::info!(asset = %task.asset, task = %id, trace_id = receive::trace_id(&task.traceparent), kind = task.kind.as_str(), ordinal = task.ordinal, "collect: task done");
            return Ok(Done { settled, rings: unblocked });
        }
        Settled::Before | Settled::Cancelled | Settled::Lost => return Ok(Done { settled, rings: false }),
    };
    Ok(Done { settled: failed(app, id, attempt, failure).await?, rings: true })
}

fn other_kind(kind: TaskKind) -> Failure {
    let kind = kind.as_str();
    let detail = format!("the worker answered a task of kind {kind} with another kind's result");
    Failure::new(FailureCode::Internal, detail)
}

async fn probed(app: &App, id: TaskId, attempt: u32, info: &MediaInfo) -> Result<Settled, FlowError> {
    let task = app
        .catalog
        .task(id)
        .await?
        .ok_or_else(|| CatalogError::NotFound { what: "task", id: id.to_string() })?;
    if task.kind != TaskKind::Probe {
        return failed(app, id, attempt, other_kind(task.kind)).await;
    }
    let asset = app.catalog.asset(task.asset).await?.ok_or_else(|| FlowError::Inconsistent {
        asset: task.asset,
        what: "its row is missing".to_owned(),
    })?;
    let planned = match plan::plan(app, &asset.preset, info) {
        Ok(planned) => planned,
        Err(failure) => return failed(app, task.id, attempt, failure).await,
    };
    let duration_us = planned.plan.duration_us;
    let tasks = planned.tasks.len();
    let settled = app
        .catalog
        .complete_probe(CompletedProbe {
            task: task.id,
            attempt,
            info: info.clone(),
            plan: planned.plan,
            tasks: planned.tasks,
            renditions: planned.renditions,
            playback_id: new_playback_id(),
            recipe: same_content::recipe(app, &asset.preset),
            now_ms: app.now_ms(),
        })
        .await?;
    if settled == Settled::Now {
        tracing::info!(asset = %task.asset, trace_id = receive::trace_id(&task.traceparent), duration_us, tasks, "plan: asset planned");
    }
    Ok(settled)
}

pub(crate) async fn failed(
    app: &App,
    task: TaskId,
    attempt: u32,
    failure: Failure,
) -> Result<Settled, FlowError> {
    tracing::warn!(%task, attempt, code = ?failure.code, detail = failure.detail, "collect: attempt failed");
    let failed = FailedTask { task, attempt, failure, random: random_u32(), now_ms: app.now_ms() };
    Ok(app.catalog.fail_task(failed).await?)
}

/// Random, not version 7: viewers need not learn when a video was made.
pub(crate) fn new_playback_id() -> PlaybackId {
    let mut bytes = [0u8; 16];
    PlaybackId::from_uuid(match getrandom::fill(&mut bytes) {
        // RFC 9562 section 5.4: the version and variant bits over random ones.
        Ok(()) => uuid::Builder::from_random_bytes(bytes).into_uuid(),
        Err(_) => Uuid::now_v7(),
    })
}
