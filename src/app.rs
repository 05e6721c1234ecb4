//! The one place where traits meet backends: everything a request handler or a flow step may reach.

use reelyard_catalog as _;

/// Everything a request handler or a flow step may reach.
pub(crate) struct App {
    /// Started with `--insecure-open`: no keys, loopback only.
    pub(crate) insecure_open: bool,
}
