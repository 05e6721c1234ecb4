//! Where the server keeps its data and how it is told so; shared by `serve` and by the commands that talk to a server
//! on the same machine. Reads the environment, never the files.

use std::{env, path::PathBuf};

/// Where things are when nothing else was said: one place for `serve` and `upload`, whatever directory they start in.
pub(crate) fn default_data_dir() -> PathBuf {
    let under = |variable: &str, rest: &str| {
        env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute()).map(|path| path.join(rest))
    };
    // XDG Base Directory Specification: a relative path in the variable is invalid and ignored.
    under("XDG_DATA_HOME", "reelyard")
        .or_else(|| under("HOME", ".local/share/reelyard"))
        .unwrap_or_else(|| PathBuf::from("/var/lib/reelyard"))
}

pub(crate) const ADMIN_KEY_FILE: &str = "admin.key";
pub(crate) const SIGNING_KEYS_FILE: &str = "signing-keys.json";
pub(crate) const UPLOAD_KEYS_FILE: &str = "upload-keys.json";
pub(crate) const CATALOG_FILE: &str = "catalog.sqlite";
/// What this node is called among others on the same catalogue.
pub(crate) const NODE_FILE: &str = "node";
pub(crate) const LOCK_FILE: &str = "lock";
/// Where the server that holds the lock is reached.
pub(crate) const SERVER_URL_FILE: &str = "server.url";
pub(crate) const DEFAULT_PORT: u16 = 8080;
