//! The keys that a server needs at start: for playback links, for upload tokens, and the admin's.
//!
//! A server alone keeps them as files in its data directory. Nodes of a fleet share them through the catalogue: the
//! first node to start makes them, and the others read what it made. A file in the data directory (a secret that
//! somebody mounted) is taken before the catalogue's.

use super::{data_dir, fleet::FleetArgs};
use crate::config::{SIGNING_KEYS_FILE, UPLOAD_KEYS_FILE};
use anyhow::Context;
use reelyard_catalog::Catalog;
use reelyard_sign::{Keyring, SECRET_BYTES, upload_token::UploadKeys};
use std::path::Path;

/// Names in the catalogue.
const PLAYBACK_KEYS: &str = "playback signing keys";
const UPLOAD_KEYS: &str = "upload token keys";
const ADMIN_KEY_MADE_BY: &str = "node that made the admin key";

pub(super) struct Keys {
    pub(super) playback: Keyring,
    pub(super) uploads: UploadKeys,
}

pub(super) async fn open(fleet: &FleetArgs, directory: &Path, catalog: &Catalog) -> anyhow::Result<Keys> {
    let shared = |file: &str| fleet.is_fleet() && !directory.join(file).exists();
    let playback = if shared(SIGNING_KEYS_FILE) {
        let text = shared_text(catalog, PLAYBACK_KEYS, &Keyring::new(new_secret()?).to_json()).await?;
        Keyring::from_json(&text).context("the playback signing keys in the catalogue")?
    } else {
        data_dir::signing_keys(directory)?
    };
    let uploads = if shared(UPLOAD_KEYS_FILE) {
        let text = shared_text(catalog, UPLOAD_KEYS, &UploadKeys::new(new_secret()?).to_json()).await?;
        UploadKeys::from_json(&text).context("the keys of upload tokens in the catalogue")?
    } else {
        data_dir::upload_keys(directory)?
    };
    Ok(Keys { playback, uploads })
}

/// The admin key where it is new, to be shown once. In a fleet one node makes it: the first, once and for all. More are
/// made with `reelyard keys add`.
pub(super) async fn admin(
    fleet: &FleetArgs,
    directory: &Path,
    catalog: &Catalog,
    node: &str,
) -> anyhow::Result<Option<String>> {
    let has_file = directory.join(crate::config::ADMIN_KEY_FILE).exists();
    if fleet.is_fleet() && !has_file {
        // By its name: one that was killed before it had made the key makes it at its next start.
        if shared_text(catalog, ADMIN_KEY_MADE_BY, node).await? != node {
            return Ok(None);
        }
    }
    data_dir::admin_key(directory, catalog).await
}

async fn shared_text(catalog: &Catalog, name: &str, new: &str) -> anyhow::Result<String> {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    Ok(catalog.shared_secret(name, new, now_ms).await?)
}

fn new_secret() -> anyhow::Result<[u8; SECRET_BYTES]> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).context("the operating system gives no random numbers")?;
    Ok(secret)
}
