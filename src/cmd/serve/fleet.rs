//! What makes one server a node of a fleet: a catalogue on PostgreSQL, tickets on RabbitMQ, keys that all nodes share.
//!
//! Everything here is optional and off: without it the server is alone, and needs no other. Nodes hold nothing that is
//! not in the catalogue or the store, but a name, by which a node that starts again knows what it held before.

use crate::config;
use anyhow::Context;
use reelyard_catalog::{Catalog, PostgresSettings};
use reelyard_tickets::{RabbitSettings, RabbitTickets, Tickets};
use std::{fs, io::ErrorKind, path::Path, sync::Arc};
use uuid::Uuid;

#[derive(clap::Args)]
pub(crate) struct FleetArgs {
    /// Keep the catalogue in PostgreSQL, for several nodes: postgres://user:password@host/database
    /// [default: SQLite in the data directory]
    #[arg(long, value_name = "URL", env = "REELYARD_DATABASE_URL", hide_env_values = true)]
    pub(super) database_url: Option<String>,
    /// Wake workers through RabbitMQ: amqp://user:password@host/vhost [default: they ask the server]
    #[arg(long, value_name = "URL", env = "REELYARD_TICKETS_URL", hide_env_values = true)]
    pub(super) tickets_url: Option<String>,
}

impl FleetArgs {
    /// Before anything is opened: what cannot work is said at once.
    pub(super) fn check(&self, has_shared_storage: bool) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.database_url.is_none() || has_shared_storage,
            "--database-url makes this server one of several, and the others cannot read its disk: say with --storage-url \
             where all of them keep their bytes (s3://bucket/prefix?endpoint=URL)"
        );
        anyhow::ensure!(
            self.tickets_url.is_none() || self.database_url.is_some(),
            "--tickets-url wakes workers of a fleet, whose catalogue is in PostgreSQL: give --database-url too, or leave \
             both out"
        );
        Ok(())
    }

    pub(super) const fn is_fleet(&self) -> bool {
        self.database_url.is_some()
    }

    pub(super) async fn open_catalog(&self, directory: &Path) -> anyhow::Result<Catalog> {
        let Some(url) = &self.database_url else {
            let path = directory.join(config::CATALOG_FILE);
            return Catalog::open(&path).await.with_context(|| format!("cannot use {}", path.display()));
        };
        let catalog = Catalog::connect(url, &PostgresSettings::default())
            .await
            .context("cannot use the database of --database-url")?;
        Ok(if self.tickets_url.is_some() { catalog.with_outbox() } else { catalog })
    }

    /// `None`: there is no broker, and workers ask by themselves. A broker that is away now is waited for later.
    pub(super) fn open_tickets(&self) -> anyhow::Result<Option<Arc<dyn Tickets>>> {
        let Some(url) = &self.tickets_url else { return Ok(None) };
        let tickets = RabbitTickets::new(RabbitSettings::new(url)).context("--tickets-url")?;
        Ok(Some(Arc::new(tickets)))
    }
}

/// The name of this node: made once, then the same for as long as the data directory lives.
pub(super) fn node_name(directory: &Path) -> anyhow::Result<String> {
    let path = directory.join(config::NODE_FILE);
    match fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot read {}", path.display()))
        }
        _ => {
            let name = Uuid::now_v7().to_string();
            super::data_dir::write_whole(&path, format!("{name}\n").as_bytes(), 0o600)?;
            Ok(name)
        }
    }
}
