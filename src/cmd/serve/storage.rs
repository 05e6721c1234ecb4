//! Where uploads, sources, renditions and publications lie: in the data directory, or in S3 when a URL says so.
//!
//! What is in the making lies in the data directory's `scratch/` either way. Credentials come from the environment variables
//! that all S3 tools read.

use crate::{holders::Holders, ledger::CatalogLedger};
use anyhow::Context;
use reelyard_catalog::Catalog;
use reelyard_storage::{
    LocalStore, Objects, UploadStore,
    s3::{DEFAULT_MEMORY_BYTES, S3Config, S3Credentials, S3Settings, S3Store},
};
use std::{env, sync::Arc};

#[derive(clap::Args)]
pub(crate) struct StorageArgs {
    /// Keep uploads, sources, renditions and publications in S3: s3://bucket/prefix?endpoint=URL&region=NAME&path_style=true, with the
    /// credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY [default: in the data directory]
    #[arg(long, value_name = "URL", env = "REELYARD_STORAGE_URL")]
    storage_url: Option<String>,
    /// Memory for the bytes of all uploads on their way to S3
    #[arg(long, value_name = "BYTES", env = "REELYARD_UPLOAD_MEMORY_BYTES", default_value_t = DEFAULT_MEMORY_BYTES)]
    upload_memory_bytes: u64,
}

/// What the app needs to know of it.
pub(super) struct Storage {
    pub(super) uploads: Arc<dyn UploadStore>,
    /// Renditions and publications.
    pub(super) objects: Arc<dyn Objects>,
    pub(super) holders: Holders,
    /// Finished uploads lie in pieces until they are assembled.
    pub(super) in_pieces: bool,
}

impl StorageArgs {
    /// Whether other machines can reach it.
    pub(super) const fn is_shared(&self) -> bool {
        self.storage_url.is_some()
    }

    /// `node`: who holds uploads here. In a fleet others hold some too; alone, whatever an earlier process held is free.
    pub(super) async fn open(
        &self,
        local: &LocalStore,
        catalog: &Catalog,
        node: &str,
        is_fleet: bool,
    ) -> anyhow::Result<Storage> {
        let Some(url) = &self.storage_url else {
            let (uploads, objects) = (Arc::new(local.clone()), Arc::new(local.clone()));
            return Ok(Storage { uploads, objects, holders: Holders::alone(), in_pieces: false });
        };
        let config = S3Config::parse(url)?;
        let ledger = Arc::new(CatalogLedger(catalog.clone()));
        let settings =
            S3Settings { memory_bytes: self.upload_memory_bytes, ..S3Settings::new(local.scratch()) };
        let store = S3Store::open(&config, credentials()?, ledger, settings)
            .await
            .with_context(|| format!("--storage-url {url}"))?;
        if is_fleet {
            catalog.forget_holders_of(node).await?;
        } else {
            // The lock of the data directory, where the catalogue lies, is held.
            catalog.forget_holders().await?;
        }
        let holders = Holders::among_nodes(catalog.clone(), node.to_owned());
        let objects = Arc::new(store.objects());
        Ok(Storage { uploads: Arc::new(store), objects, holders, in_pieces: true })
    }
}

fn credentials() -> anyhow::Result<S3Credentials> {
    let wanted = |name: &str| {
        env::var(name)
            .with_context(|| format!("--storage-url needs credentials: set {name} in the environment"))
    };
    Ok(S3Credentials {
        access_key_id: wanted("AWS_ACCESS_KEY_ID")?,
        secret_access_key: wanted("AWS_SECRET_ACCESS_KEY")?,
        session_token: env::var("AWS_SESSION_TOKEN").ok().filter(|token| !token.is_empty()),
    })
}
