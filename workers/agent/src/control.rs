//! The two things an agent needs from the world, as traits: the control plane and the depot of bytes.
//!
//! On one machine both are function calls into the server (`src/app.rs`); in a fleet they are HTTP and S3. The
//! agent imports neither the catalogue nor the storage.

use crate::source::SourceBytes;
use reelyard_model::{
    TaskId,
    work::{Grant, Offer, Progress, Report, Verdict},
};
use std::{future::Future, path::Path};

/// The control plane could not be reached or refused to answer: wait and try again.
#[derive(Debug, thiserror::Error)]
#[error("the control plane did not answer: {0}")]
pub struct ControlUnavailable(pub String);

/// Claim, heartbeat, report.
pub trait ControlPlane: Send + Sync + 'static {
    /// Tasks that fit these offers, each under a fresh lease; none when there is nothing to do now. Answers without
    /// waiting for any. One claim of an agent is under way at a time, and it speaks for all free slots.
    fn claim(&self, offers: &[Offer]) -> impl Future<Output = Result<Vec<Grant>, ControlUnavailable>> + Send;
    /// Prolongs the lease and stores the progress.
    fn heartbeat(
        &self,
        task: TaskId,
        attempt: u32,
        progress: Progress,
    ) -> impl Future<Output = Result<Verdict, ControlUnavailable>> + Send;
    /// Ends the attempt. Safe to repeat: a second report of the same attempt gets the first one's verdict. `Lost`
    /// means that nothing was written.
    fn report(
        &self,
        task: TaskId,
        attempt: u32,
        report: Report,
    ) -> impl Future<Output = Result<Verdict, ControlUnavailable>> + Send;
    /// Gives the task back unharmed because this program ends: it need not wait for the lease to run out, and nothing
    /// is counted against it. Safe to repeat.
    fn release(
        &self,
        task: TaskId,
        attempt: u32,
    ) -> impl Future<Output = Result<(), ControlUnavailable>> + Send;
    /// Returns `Cancelled` or `Lost` when the control plane hears of it, without waiting for the next heartbeat. May
    /// never return: the heartbeats tell it too.
    fn called_off(&self, task: TaskId, attempt: u32) -> impl Future<Output = Verdict> + Send;
    /// Returns when there may be something to claim for these offers (a ticket came), or after a while of its own
    /// choosing. Dropped when a slot becomes free meanwhile.
    fn wait_for_ticket(&self, offers: &[Offer]) -> impl Future<Output = ()> + Send;
}

/// Where sources come from and outputs go.
pub trait Depot: Send + Sync + 'static {
    /// The source of a grant. `NotFound` means that it is gone; every other error that it cannot be reached now.
    fn open_source(&self, grant: &Grant) -> impl Future<Output = std::io::Result<SourceBytes>> + Send;
    /// Moves a finished file out of the scratch directory to `key`. On return it is durable. Safe to repeat.
    fn keep(&self, scratch_file: &Path, key: &str) -> impl Future<Output = std::io::Result<()>> + Send;
}
