//! What the commands share that work on the catalogue itself: `keys` and `tenants`.
//!
//! They open the database beside a server that may run, so they only add and change rows, one transaction at a time.
//! Where there is no catalogue they refuse, rather than make one that no server will ever open.

use crate::config;
use anyhow::Context as _;
use reelyard_catalog::{Actor, Catalog, PostgresSettings, TenantRow};
use std::{path::PathBuf, process::ExitCode};

#[derive(clap::Args)]
pub(super) struct Place {
    /// The server's data directory [default: $XDG_DATA_HOME/reelyard, or ~/.local/share/reelyard]
    #[arg(long, value_name = "DIR", env = "REELYARD_DATA_DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// The catalogue of a fleet, as its servers are told it: postgres://user:password@host/database
    /// [default: the one in the data directory]
    #[arg(long, value_name = "URL", env = "REELYARD_DATABASE_URL", hide_env_values = true, global = true)]
    database_url: Option<String>,
}

pub(super) fn with(
    place: &Place,
    act: impl AsyncFnOnce(Catalog) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let catalog = open(place).await?;
        let done = act(catalog.clone()).await;
        catalog.close().await;
        done
    })
}

async fn open(place: &Place) -> anyhow::Result<Catalog> {
    if let Some(url) = &place.database_url {
        let connected = Catalog::connect(url, &PostgresSettings::default()).await;
        return connected.context("cannot use the database of --database-url");
    }
    let directory = place.data_dir.clone().unwrap_or_else(config::default_data_dir);
    let path = directory.join(config::CATALOG_FILE);
    anyhow::ensure!(
        path.is_file(),
        "there is no {}; start the server once, or say where its data is with --data-dir, or with --database-url when it is \
         in PostgreSQL",
        path.display()
    );
    Catalog::open(&path).await.with_context(|| format!("cannot use {}", path.display()))
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

/// As the audit log names who changes something here.
pub(super) fn actor(reason: Option<String>) -> Actor {
    Actor { name: format!("command line, user {}", rustix::process::getuid().as_raw()), reason }
}

pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
