//! Where a worker's bytes lie: with the server, or in the store that the servers use.

use super::{http_depot::HttpDepot, link::Link, s3_depot::S3Depot};
use anyhow::Context as _;
use reelyard_storage::s3::{Patience, S3Config, S3Credentials, S3Objects};
use std::{env, sync::Arc};

#[derive(clap::Args)]
pub(crate) struct BytesArgs {
    /// The servers' store, as they are told it: s3://bucket/prefix?endpoint=URL&region=NAME&path_style=true, with the
    /// credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY [default: all bytes go through the server]
    #[arg(long, value_name = "URL", env = "REELYARD_STORAGE_URL")]
    storage_url: Option<String>,
}

pub(crate) enum Bytes {
    Server(HttpDepot),
    Store(S3Depot),
}

impl Bytes {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Server(_) => "through the server",
            Self::Store(_) => "in the store",
        }
    }
}

impl BytesArgs {
    /// The store is reached, and may be written to.
    pub(crate) async fn open(&self, link: &Arc<Link>) -> anyhow::Result<Bytes> {
        let Some(url) = &self.storage_url else {
            return Ok(Bytes::Server(HttpDepot { link: link.clone() }));
        };
        let config = S3Config::parse(url)?;
        let objects = S3Objects::open(&config, credentials()?, Patience::default())
            .await
            .with_context(|| format!("--storage-url {url}"))?;
        Ok(Bytes::Store(S3Depot { link: link.clone(), objects: Arc::new(objects) }))
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
