//! `reelyard audit`: who did what to jobs, videos, queues, workers, tenants and keys, and why.
//!
//! A client of the API with an admin key. Exit status as for `jobs`; with `--json` the API's own objects.

use super::{
    operator::run_client,
    output::{one_line, print},
};
use crate::client::{ServerArgs, follow::text};
use serde_json::Value;
use std::{fmt::Write as _, process::ExitCode};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only lines about this: the id of a job, video, worker or tenant, or the name of a queue
    #[arg(value_name = "SUBJECT")]
    subject: Option<String>,
    /// Only lines with a smaller number
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,
    /// At most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    run_client(act(args))
}

async fn act(args: Args) -> anyhow::Result<ExitCode> {
    let server = args.server.server()?;
    let mut address = server.address("v1/audit")?;
    {
        let mut query = address.query_pairs_mut();
        query.append_pair("limit", &args.limit.to_string());
        if let Some(subject) = &args.subject {
            query.append_pair("subject", subject);
        }
        if let Some(before) = args.before {
            query.append_pair("before", &before.to_string());
        }
    }
    let page =
        server.json(address.as_str().strip_prefix(server.base().as_str()).unwrap_or("v1/audit")).await?;
    if args.json {
        return print(&format!("{page}\n"));
    }
    let lines = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    if lines.is_empty() {
        return print("nothing was done by anybody\n");
    }
    let mut shown = String::new();
    for line in &lines {
        let reason = match text(line, "reason") {
            "" => String::new(),
            reason => format!(": {}", one_line(reason)),
        };
        writeln!(
            shown,
            "{:>6}  {}  {:17}  {:36}  by {}{reason}",
            line["number"].to_string(),
            text(line, "at"),
            text(line, "action"),
            one_line(text(line, "subject")),
            one_line(text(line, "actor")),
        )?;
    }
    if let Some(before) = page.get("next_before").and_then(Value::as_i64) {
        writeln!(shown, "(there are older ones: --before {before})")?;
    }
    print(&shown)
}
