//! **sweep**: what nobody else does: leases that ran out, back-offs that ended, uploads that nobody came back for, and
//! files that are not needed any more.
//!
//! Runs at start and from time to time. Everything it removes is named by rows in a state from which they do not come
//! back, so a sweep that is broken off is simply done again. Sources and publications of living assets are never
//! touched. Events are kept for [`EVENTS_KEPT_MS`].

use super::{FlowError, publish, receive, same_content};
use crate::app::{App, random_u32};
use futures::FutureExt as _;
use reelyard_catalog::{AssetRow, Condition, TaskRow, UploadRow};
use reelyard_model::{TaskState, UploadKind, UploadState, work::TaskKind};
use std::{sync::Arc, time::Duration};

/// Lost leases and ended back-offs are looked for so often; both are one indexed question.
const LEASES_EVERY: Duration = Duration::from_secs(2);
/// Nodes that share a catalogue leave files and expired uploads to one of them; after so many rounds without a sign of it
/// another takes over.
const FILES_DUTY: &str = "sweep files";
const FILES_DUTY_ROUNDS: u32 = 3;
/// Workers in this process are said to be alive so often: a third of the time after which they would be shown as silent.
const ALIVE_EVERY: Duration = Duration::from_secs(20);
/// Files and expired uploads.
const FILES_EVERY: Duration = Duration::from_secs(30);
/// How long events stay readable: for somebody who comes back from a holiday. Rows of assets and tasks stay for good.
const EVENTS_KEPT_MS: i64 = 30 * 24 * 3600 * 1000;
/// Leases are times, given by one node and judged by another. Clocks that are kept at all agree within a second.
const CLOCKS_DIFFER_MS: u64 = 5_000;
/// How long a worker that nobody hears of any more is shown: for whoever asks on Monday what ran on Friday.
const WORKERS_KEPT_MS: i64 = 7 * 24 * 3600 * 1000;
/// A pause of [`LEASES_EVERY`] that takes so long means that this process, or the whole machine, stood still (a laptop
/// that slept). Then so did the workers in it, and their silence tells nothing.
const STOOD_STILL_MS: i64 = 10_000;
/// A child that was cancelled may still hand in files until its next heartbeat: the last sweep of an asset comes so
/// long after its last change.
const SETTLED_AFTER_MS: i64 = 60_000;

/// Leases alone: work must go on while a store is slow.
pub(crate) async fn run(app: Arc<App>) {
    let mut pauses = Pauses::of_leases(app.fleet.lease_ms);
    // Workers elsewhere may have lived all the time that nobody heard them: each gets the chance to be heard first.
    pauses.nobody_was_heard(app.now_ms());
    let mut alive = tokio::time::interval(ALIVE_EVERY);
    while !app.shutdown.is_cancelled() {
        if alive.tick().now_or_never().is_some()
            && let Err(error) = app.catalog.node_seen(&app.node, app.now_ms()).await
        {
            tracing::warn!(%error, "sweep: the workers of this node are not shown as alive; trying again later");
        }
        if let Err(error) = leases(&app, &pauses).await {
            tracing::error!(%error, "sweep: leases; trying again");
            pauses.nobody_was_heard(app.now_ms());
        }
        let pause_began_ms = app.now_ms();
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(LEASES_EVERY) => {}
        }
        pauses.took(pause_began_ms, app.now_ms());
    }
}

/// Files, and uploads that came to nothing.
pub(crate) async fn run_files(app: Arc<App>) {
    while !app.shutdown.is_cancelled() {
        if is_ours(&app).await {
            files(&app).await;
        }
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = app.swept_ticket.notified() => {}
            () = tokio::time::sleep(FILES_EVERY) => {}
        }
    }
}

/// Whether this node sweeps for all. When nobody knows, it does: sweeping twice harms nothing.
async fn is_ours(app: &App) -> bool {
    if !app.catalog.is_shared() {
        return true;
    }
    let now_ms = app.now_ms();
    let until_ms = now_ms + (FILES_EVERY * FILES_DUTY_ROUNDS).as_millis() as i64;
    app.catalog.take_duty(FILES_DUTY, &app.node, now_ms, until_ms).await.unwrap_or(true)
}

/// Whether heartbeats could be sent lately.
pub(crate) struct Pauses {
    lease_ms: u64,
    /// Until then every worker gets the chance to be heard. A lease that ran out before is one that could not be renewed.
    patient_until_ms: i64,
}

impl Pauses {
    pub(crate) const fn of_leases(lease_ms: u64) -> Self {
        Self { lease_ms, patient_until_ms: 0 }
    }

    /// Until now no heartbeat could be stored, or this process was not there.
    fn nobody_was_heard(&mut self, now_ms: i64) {
        self.patient_until_ms = now_ms.saturating_add_unsigned(self.lease_ms);
    }

    /// A pause between two rounds took from here to there by the clock on the wall.
    fn took(&mut self, from_ms: i64, to_ms: i64) {
        if to_ms - from_ms > STOOD_STILL_MS {
            tracing::warn!(for_ms = to_ms - from_ms, "sweep: this process stood still; leases get time");
            self.nobody_was_heard(to_ms);
        }
    }

    /// False for the length of a lease after everything stood still.
    fn silence_tells(&self, now_ms: i64) -> bool {
        now_ms >= self.patient_until_ms
    }
}

/// Takes up where the last process ended: its in-process workers are gone, and so are their leases.
pub(crate) async fn at_start(app: &App) -> Result<(), FlowError> {
    for task in app.catalog.end_in_process_leases(&app.node, app.now_ms(), random_u32()).await? {
        let state = task.state.as_str();
        if task.state == TaskState::Ready {
            tracing::info!(task = %task.id, asset = %task.asset, "sweep: a task of the last process is up for grabs again");
        } else {
            tracing::warn!(task = %task.id, asset = %task.asset, state, restarts = task.restart_count, "sweep: this task was at work each time when the server ended; counted as lost");
        }
    }
    Ok(())
}

/// Lost leases and ended back-offs.
pub(crate) async fn leases(app: &App, pauses: &Pauses) -> Result<(), FlowError> {
    let (now_ms, random) = (app.now_ms(), random_u32());
    let clock_is_right = app.catalog.clock_differs_by_ms(now_ms).await?.unsigned_abs() <= CLOCKS_DIFFER_MS;
    if !clock_is_right {
        tracing::error!(
            "sweep: the clock of this node and that of the database differ by more than {CLOCKS_DIFFER_MS} ms; this node ends no leases until they agree (is NTP running on both?)"
        );
    }
    let mut lost = Vec::new();
    if clock_is_right && pauses.silence_tells(now_ms) {
        lost = app.catalog.forgive_expired_leases(pauses.patient_until_ms, now_ms, random).await?;
        lost.extend(app.catalog.lose_expired_leases(now_ms, random).await?);
    }
    for task in &lost {
        tracing::warn!(task = %task.id, asset = %task.asset, trace_id = receive::trace_id(&task.traceparent), state = task.state.as_str(), "sweep: lease lost");
    }
    let ended = app.catalog.end_back_offs(app.now_ms()).await?;
    if ended > 0 || !lost.is_empty() {
        app.ring();
    }
    Ok(())
}

/// Expired uploads, left-over files. Each failure is told and holds up nothing else.
pub(crate) async fn files(app: &App) {
    told("uploads", uploads(app).await);
    told("events", events(app).await);
    told("workers", app.catalog.forget_workers(app.now_ms() - WORKERS_KEPT_MS).await);
    let assets = match app.catalog.assets_to_sweep().await {
        Ok(assets) => assets,
        Err(error) => {
            tracing::error!(%error, "sweep: assets; trying again later");
            return;
        }
    };
    for asset in assets {
        told(&format!("files of asset {}", asset.id), sweep_asset(app, &asset).await);
    }
}

async fn events(app: &App) -> Result<(), FlowError> {
    let mut removed = 0;
    loop {
        match app.catalog.prune_events(app.now_ms() - EVENTS_KEPT_MS).await? {
            0 => break,
            some => removed += some,
        }
    }
    if removed > 0 {
        tracing::info!(removed, "sweep: old events removed");
    }
    Ok(())
}

async fn uploads(app: &App) -> Result<(), FlowError> {
    told("uploads that were interrupted at their end", receive::finish_interrupted(app).await);
    told("sources that nobody needs", same_content::remove_spares(app).await);
    let now_ms = app.now_ms();
    for state in [UploadState::Created, UploadState::Receiving] {
        for upload in app.catalog.uploads_in_state(state, Some(now_ms)).await? {
            told(&format!("upload {}", upload.id), expire(app, &upload, now_ms).await);
        }
    }
    // What a crash between the row and the bytes left of one that was given up; and the journals of finished ones,
    // which nobody reads any more once the asset is there.
    for id in app.uploads.list_uploads().await? {
        let Some(upload) = app.catalog.upload(id).await? else {
            tracing::warn!(upload = %id, "sweep: bytes of an upload that the catalogue does not know; left as they are");
            continue;
        };
        match upload.state {
            UploadState::Terminated | UploadState::Expired | UploadState::Rejected => {
                told(&format!("upload {id}"), receive::forget(app, id).await);
            }
            // In pieces, it is `assemble` that tidies up: it alone knows which objects it is making.
            UploadState::Finished if !app.sources_in_pieces => {
                told(&format!("upload {id}"), app.uploads.forget_upload(id).await);
            }
            _ => {}
        }
    }
    Ok(())
}

/// What fails holds up nothing else.
fn told<T, E: Into<FlowError>>(what: &str, outcome: Result<T, E>) {
    if let Err(error) = outcome.map_err(Into::into) {
        tracing::error!(what, %error, "sweep: could not be tidied up; trying again later");
    }
}

/// Its time is over, unless somebody came back for it meanwhile, or all of it is here and only the last word was missing.
async fn expire(app: &App, upload: &UploadRow, now_ms: i64) -> Result<(), FlowError> {
    if receive::finish_if_whole(app, upload).await != receive::Ending::NotWhole {
        return Ok(());
    }
    let is_needed = upload.kind == UploadKind::Partial
        && !app.catalog.unfinished_finals(Some(upload.id)).await?.is_empty();
    if is_needed {
        return Ok(());
    }
    let row = app.catalog.expire_upload(upload.id, now_ms).await?;
    if row.state == UploadState::Expired {
        receive::forget(app, upload.id).await?;
        tracing::info!(upload = %upload.id, "sweep: upload expired");
    }
    Ok(())
}

/// The files of one asset that has come to an end. They may be those of other assets with the same bytes too: what goes
/// is what none of them needs.
async fn sweep_asset(app: &App, asset: &AssetRow) -> Result<(), FlowError> {
    let condition = app.catalog.content_condition(asset.content()).await?;
    sweep_as(app, asset, condition).await
}

/// As all that use the asset's files stood a moment ago.
pub(crate) async fn sweep_as(app: &App, asset: &AssetRow, condition: Condition) -> Result<(), FlowError> {
    let renditions = format!("renditions/{}", asset.id);
    match condition {
        // It has no files of its own.
        _ if asset.content_of.is_some() => {}
        Condition::InTheMaking => return Ok(()),
        Condition::Published => {
            remove_losers(app, asset).await?;
            app.store.delete_prefix(&renditions).await?;
        }
        // A retry goes on from what is done, so winners stay.
        Condition::Stopped => remove_losers(app, asset).await?,
        Condition::Gone => {
            app.store.delete_prefix(&publish::publication_folder(asset.id)).await?;
            app.store.delete_prefix(&renditions).await?;
            app.uploads.delete_source(&asset.source_key).await?;
        }
    }
    let now_ms = app.now_ms();
    if now_ms - asset.updated_ms > SETTLED_AFTER_MS {
        app.catalog.asset_swept(asset, now_ms).await?;
    }
    Ok(())
}

/// The outputs of attempts that count for nothing any more.
///
/// Somebody may ask for another try while this runs, so the rows are read first and only attempts are removed that
/// were over by then: those that begin later have higher numbers.
async fn remove_losers(app: &App, asset: &AssetRow) -> Result<(), FlowError> {
    let tasks = app.catalog.tasks_of_asset(asset.id).await?;
    let renditions = format!("renditions/{}", asset.id);
    for name in app.store.list_folders(&renditions).await? {
        if let Some(task) = tasks.iter().find(|row| row.id.to_string() == name) {
            remove_ended(app, &format!("{renditions}/{name}"), task).await?;
        }
    }
    match tasks.iter().find(|task| task.kind == TaskKind::Publish) {
        Some(publish) => remove_ended(app, &publish::publication_folder(asset.id), publish).await,
        None => Ok(()),
    }
}

/// The folders of a task's attempts that are over.
async fn remove_ended(app: &App, folder: &str, task: &TaskRow) -> Result<(), FlowError> {
    for name in app.store.list_folders(folder).await? {
        if attempt_number(&name).is_some_and(|attempt| is_over(task, attempt)) {
            app.store.delete_prefix(&format!("{folder}/{name}")).await?;
        }
    }
    Ok(())
}

/// Neither the winner nor at work.
fn is_over(task: &TaskRow, attempt: u32) -> bool {
    let at_work = attempt == task.attempt && task.state == TaskState::Leased;
    attempt <= task.attempt && !at_work && Some(attempt) != task.done_attempt
}

/// `a7` -> 7.
fn attempt_number(folder: &str) -> Option<u32> {
    folder.strip_prefix('a')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Pauses, STOOD_STILL_MS};
    use crate::flow::dispatch::STORED_LEASE_MS;

    #[test]
    fn after_standing_still_every_worker_gets_the_length_of_a_lease() {
        let mut pauses = Pauses::of_leases(STORED_LEASE_MS);
        pauses.took(10_000, 12_000);
        assert!(pauses.silence_tells(12_000));
        let woken_ms = 12_000 + STOOD_STILL_MS + 1;
        pauses.took(12_000, woken_ms);
        let lease_ms = STORED_LEASE_MS.cast_signed();
        assert!(!pauses.silence_tells(woken_ms));
        pauses.took(woken_ms, woken_ms + 2_000);
        assert!(!pauses.silence_tells(woken_ms + lease_ms - 1));
        assert!(pauses.silence_tells(woken_ms + lease_ms));
    }
}
