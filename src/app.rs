//! The one place where traits meet backends: everything a request handler or a flow step may reach.
//!
//! Made once by `cmd/serve`, after everything was validated; shared as `Arc<App>`. Holds no request state.

use crate::{
    flow::{
        FlowError,
        desk::Desk,
        dispatch::{fleet::Fleet, layouts::Layouts, orders::Orders},
    },
    holders::Holders,
    http::limits::Limits,
};
use reelyard_catalog::Catalog;
use reelyard_model::WorkerId;
use reelyard_planner::{DEFAULT_PRESET, Presets};
use reelyard_sign::{Keyring, upload_token::UploadKeys};
use reelyard_storage::{Objects, UploadStore};
use reelyard_tickets::Tickets;
use std::{any::Any, path::PathBuf, sync::Arc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) struct App {
    pub(crate) catalog: Catalog,
    /// Claims and reports on their way to the catalogue.
    pub(crate) desk: Desk,
    /// What this node is called among those that share the catalogue; the same after a restart.
    pub(crate) node: String,
    /// Renditions and publications: on this disk, or in S3.
    pub(crate) store: Arc<dyn Objects>,
    /// Where sources lie, as of a moment ago.
    pub(crate) layouts: Layouts,
    /// The streams of orders to workers elsewhere.
    pub(crate) orders: Orders,
    /// Uploads in progress and sources: on this disk, or in S3.
    pub(crate) uploads: Arc<dyn UploadStore>,
    /// Finished uploads lie in pieces there until `flow::assemble` has been at them.
    pub(crate) sources_in_pieces: bool,
    /// Who works on which upload.
    pub(crate) holders: Holders,
    /// For playback links.
    pub(crate) keyring: Keyring,
    /// For upload tokens.
    pub(crate) upload_keys: UploadKeys,
    /// How much one caller may have at a time.
    pub(crate) limits: Limits,
    pub(crate) presets: Presets,
    pub(crate) data_dir: PathBuf,
    /// No keys needed: only ever on loopback.
    pub(crate) insecure_open: bool,
    /// How the world reaches this server (`https://video.example`), where it was told; else the request's host counts.
    pub(crate) public_url: Option<String>,
    pub(crate) max_upload_bytes: u64,
    /// The media child.
    pub(crate) media_program: PathBuf,
    /// The workers elsewhere, and how long leases are.
    pub(crate) fleet: Fleet,
    /// The control plane as a worker: what it leases itself (publish).
    pub(crate) control_worker: WorkerId,
    /// The broker that wakes workers elsewhere, where there is one.
    pub(crate) tickets: Option<Arc<dyn Tickets>>,
    /// Rung when there may be something to claim: for workers, and for the publisher.
    pub(crate) ticket: Notify,
    pub(crate) publish_ticket: Notify,
    /// Rung when there are tickets for the broker.
    pub(crate) relay_ticket: Notify,
    /// Rung when there are files to remove.
    pub(crate) swept_ticket: Notify,
    /// Rung when a piece of a final upload has become whole.
    pub(crate) concatenate_ticket: Notify,
    /// Rung when there is a source in pieces.
    pub(crate) assemble_ticket: Notify,
    /// Cancelled when the server is to stop: nothing new is begun from then on. Long answers (events) end.
    pub(crate) shutdown: CancellationToken,
}

impl App {
    pub(crate) fn now_ms(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond()
    }

    /// The preset of this name, or the default one, as it is stored with an upload.
    pub(crate) fn preset_name(&self, wanted: Option<&str>) -> Result<String, FlowError> {
        let name = wanted.unwrap_or(DEFAULT_PRESET);
        match self.presets.get(name) {
            Some(preset) => Ok(preset.name.clone()),
            None => Err(FlowError::UnknownPreset {
                name: name.to_owned(),
                known: self.presets.names().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// A name for a file in the making, in the folder that each start empties.
    pub(crate) fn scratch_file(&self, name: uuid::Uuid) -> PathBuf {
        self.data_dir.join("scratch").join(format!("file-{name}"))
    }

    /// Something may be ready, for workers or for the publisher: everybody who waits looks again.
    pub(crate) fn ring(&self) {
        self.ring_workers();
        self.publish_ticket.notify_one();
    }

    /// The same where it is no publishing: the publisher's look is a transaction.
    pub(crate) fn ring_workers(&self) {
        self.ticket.notify_waiters();
        // One permit stays for whoever is about to wait.
        self.ticket.notify_one();
        self.relay_ticket.notify_one();
    }
}

/// From the operating system's random source, which fails only on machines that could not serve anyway.
pub(crate) fn random_u32() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without text")
}
