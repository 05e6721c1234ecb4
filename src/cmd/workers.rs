//! `reelyard workers`: which machines take work, and which of them are to take no more.
//!
//! A client of the API with an admin key. Exit status as for `jobs`; with `--json` the API's own objects.

use super::{
    operator::{Why, post, run_client},
    output::{one_line, print},
};
use crate::client::{ServerArgs, follow::text};
use clap::Subcommand;
use reelyard_model::WorkerId;
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
        #[command(flatten)]
        why: Why,
    },
    /// Let a drained worker take work again
    Resume {
        #[arg(value_name = "ID")]
        id: WorkerId,
        #[command(flatten)]
        why: Why,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    run_client(act(args))
}

async fn act(args: Args) -> anyhow::Result<ExitCode> {
    let server = args.server.server()?;
    let found = match args.action.unwrap_or(Action::List) {
        Action::List => server.json("v1/workers").await?,
        Action::Drain { id, why } => post(&server, &format!("v1/workers/{id}/drain"), &why.body()).await?,
        Action::Resume { id, why } => post(&server, &format!("v1/workers/{id}/resume"), &why.body()).await?,
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
