//! What the commands of operators share: they are clients of the API with an admin key, they change something, and they
//! may say why.

use crate::client::{self, ClientError, NO_SERVER_ADVICE, SHORT_ANSWER_LIMIT, Server};
use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

/// For the audit log.
#[derive(clap::Args)]
pub(super) struct Why {
    /// Why, in your words; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

impl Why {
    pub(super) fn body(&self) -> Value {
        json!({ "reason": self.reason })
    }
}

pub(super) async fn post(server: &Server, path: &str, body: &Value) -> anyhow::Result<Value> {
    let address = server.address(path)?;
    let request = server.request(Method::POST, address).timeout(SHORT_ANSWER_LIMIT).json(body);
    let answer = client::answered(request.send().await).await?;
    answer.json().await.context("the answer is not JSON")
}

/// Runs a command against a server; one that is not there is told with what to do about it.
pub(super) fn run_client(act: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(act).map_err(|error| match error.downcast_ref() {
        Some(ClientError::Unreachable { answered: false, .. }) => {
            anyhow::anyhow!("{error}. {NO_SERVER_ADVICE}")
        }
        _ => error,
    })
}
