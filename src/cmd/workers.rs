//! `reelyard workers`: which machines take work, and which of them are to take no more.
//!
//! A client of the API with an admin key. Exit status as for `jobs`; with `--json` the API's own objects.

use super::output::{one_line, print};
use crate::client::{
    self, ClientError, NO_SERVER_ADVICE, SHORT_ANSWER_LIMIT, Server, ServerArgs, follow::text,
};
use clap::Subcommand;
use reelyard_model::WorkerId;
use reqwest::Method;
use serde_json::Value;
use std::{fmt::Write as _, process::ExitCode};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Action {
    /// List the workers, newest first (what happens without a subcommand)
    List,
    /// Let a worker finish what it has and take nothing new
    Drain {
        #[arg(value_name = "ID")]
        id: WorkerId,
    },
    /// Let a drained worker take work again
    Resume {
        #[arg(value_name = "ID")]
        id: WorkerId,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(act(args)).map_err(|error| match error.downcast_ref() {
        Some(ClientError::Unreachable { answered: false, .. }) => {
            anyhow::anyhow!("{error}. {NO_SERVER_ADVICE}")
        }
        _ => error,
    })
}

async fn act(args: Args) -> anyhow::Result<ExitCode> {
    let server = args.server.server()?;
    let found = match args.action.unwrap_or(Action::List) {
        Action::List => server.json("v1/workers").await?,
        Action::Drain { id } => post(&server, id, "drain").await?,
        Action::Resume { id } => post(&server, id, "resume").await?,
    };
    if args.json {
        return print(&format!("{found}\n"));
    }
    let workers = match found.get("items").and_then(Value::as_array) {
        Some(items) => items.clone(),
        None => vec![found],
    };
    if workers.is_empty() {
        return print("no workers (start one with `reelyard worker`)\n");
    }
    print(&table(&workers)?)
}

async fn post(server: &Server, id: WorkerId, verb: &str) -> anyhow::Result<Value> {
    let address = server.address(&format!("v1/workers/{id}/{verb}"))?;
    let sent = server.request(Method::POST, address).timeout(SHORT_ANSWER_LIMIT).send().await;
    let answer = client::answered(sent).await?;
    Ok(answer.json().await.map_err(client::unreachable)?)
}

fn table(workers: &[Value]) -> anyhow::Result<String> {
    let mut table = format!(
        "{:36}  {:20}  {:8}  {:>5}  {:>5}  {:24}  GPUS\n",
        "WORKER", "NAME", "STATE", "SLOTS", "CORES", "SEEN"
    );
    for worker in workers {
        let number = |name: &str| worker.get(name).and_then(Value::as_u64).unwrap_or(0);
        let gpus = worker.get("gpus").and_then(Value::as_array).cloned().unwrap_or_default();
        let gpus: Vec<&str> = gpus.iter().filter_map(Value::as_str).collect();
        writeln!(
            table,
            "{:36}  {:20}  {:8}  {:>5}  {:>5}  {:24}  {}",
            text(worker, "id"),
            one_line(text(worker, "name")),
            text(worker, "state"),
            format!("{}+{}", number("heavy_slots"), number("light_slots")),
            number("cores"),
            text(worker, "last_seen"),
            one_line(&gpus.join(", ")),
        )?;
    }
    Ok(table)
}
