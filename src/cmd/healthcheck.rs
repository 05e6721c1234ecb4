//! `reelyard healthcheck`: asks a server whether it is ready, for a container's HEALTHCHECK and for scripts.
//!
//! Exit status 0: ready. 1: not, or no answer; the reason is printed on standard output, which is what `docker inspect`
//! keeps. Needs no key, reads no files.

use super::probe::runtime;
use crate::client::http_client_for;
use anyhow::Context;
use reqwest::Url;
use serde_json::Value;
use std::{process::ExitCode, time::Duration};

/// Longer than the server's own patience with its parts.
const LIMIT: Duration = Duration::from_secs(8);
/// The answer is a few hundred bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server
    #[arg(long, value_name = "URL", env = "REELYARD_SERVER", default_value = "http://127.0.0.1:8080")]
    server: Url,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match runtime()?.block_on(ask(&args.server)) {
        Ok(()) => {
            println!("ready");
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            println!("not ready: {reason:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn ask(server: &Url) -> anyhow::Result<()> {
    let http = http_client_for(server).timeout(LIMIT).build()?;
    let mut address = server.clone();
    // A server behind a prefix, as for the other commands.
    address.set_path(&format!("{}/readyz", server.path().trim_end_matches('/')));
    let answer = http.get(address).send().await;
    let mut answer =
        answer.map_err(reqwest::Error::without_url).with_context(|| format!("{server} does not answer"))?;
    let status = answer.status().as_u16();
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        bytes.extend_from_slice(&chunk);
        anyhow::ensure!(bytes.len() <= MAX_ANSWER_BYTES, "the answer of {server} has no end");
    }
    verdict(status, &serde_json::from_slice(&bytes).unwrap_or_default())
}

fn verdict(status: u16, answer: &Value) -> anyhow::Result<()> {
    if status == 200 && answer["ready"] == true {
        return Ok(());
    }
    let Some(checks) = answer["checks"].as_object() else {
        anyhow::bail!("the answer has status {status} and is not that of a Reelyard server");
    };
    let checks: Vec<String> = checks
        .iter()
        .map(|(part, state)| format!("{part} {}", state.as_str().unwrap_or("unknown")))
        .collect();
    anyhow::bail!("{}", checks.join(", "))
}

#[cfg(test)]
mod tests {
    use super::verdict;
    use serde_json::json;

    #[test]
    fn only_a_ready_server_is_ready() {
        assert!(verdict(200, &json!({ "ready": true, "checks": { "database": "ok" } })).is_ok());
        let busy = json!({ "checks": { "data_directory": "failed", "database": "ok", "stopping": "no" } });
        let reason = verdict(503, &busy).unwrap_err().to_string();
        assert_eq!(reason, "data_directory failed, database ok, stopping no");
        for stranger in [json!("hello"), json!({ "ready": "yes" }), json!(null)] {
            assert!(verdict(200, &stranger).is_err(), "{stranger}");
        }
    }
}
