//! What the commands share that work on the catalogue itself: `keys` and `tenants`.
//!
//! They open the database beside a server that may run, so they only add and change rows, one transaction at a time.
//! Where there is no catalogue they refuse, rather than make one that no server will ever open.

use crate::config;
use anyhow::Context as _;
use reelyard_catalog::{Catalog, TenantRow};
use std::{path::PathBuf, process::ExitCode};

#[derive(clap::Args)]
pub(super) struct Place {
    /// The server's data directory [default: $XDG_DATA_HOME/reelyard, or ~/.local/share/reelyard]
    #[arg(long, value_name = "DIR", env = "REELYARD_DATA_DIR", global = true)]
    data_dir: Option<PathBuf>,
}

pub(super) fn with(
    place: &Place,
    act: impl AsyncFnOnce(Catalog) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let directory = place.data_dir.clone().unwrap_or_else(config::default_data_dir);
    let path = directory.join(config::CATALOG_FILE);
    anyhow::ensure!(
        path.is_file(),
        "there is no {}; start the server once, or say where its data is with --data-dir",
        path.display()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let catalog = Catalog::open(&path).await.with_context(|| format!("cannot use {}", path.display()))?;
        let done = act(catalog.clone()).await;
        catalog.close().await;
        done
    })
}

/// The tenant of this id or name.
pub(super) async fn tenant(catalog: &Catalog, named: &str) -> anyhow::Result<TenantRow> {
    let tenants = catalog.tenants().await?;
    let mut found = tenants.into_iter().filter(|one| one.id.to_string() == named || one.name == named);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => anyhow::bail!("several tenants have the name {named:?}; use the id"),
        (None, _) => anyhow::bail!("there is no tenant {named:?}; see `reelyard tenants list`"),
    }
}

pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
