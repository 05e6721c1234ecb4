//! `reelyard queues`: what waits for workers, by kind of work; and the brake on a kind that should not be taken up now.
//!
//! A client of the API with an admin key. Exit status as for `jobs`; with `--json` the API's own objects.

use super::{
    operator::{Why, post, run_client},
    output::{one_line, print},
};
use crate::client::{ServerArgs, follow::text};
use clap::Subcommand;
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
    /// List the queues (what happens without a subcommand)
    List,
    /// Let no worker take up this kind of work any more; what runs goes on
    Pause {
        /// probe, encode, audio, stills or publish
        #[arg(value_name = "KIND")]
        kind: String,
        #[command(flatten)]
        why: Why,
    },
    /// Let workers take up this kind of work again
    Resume {
        /// probe, encode, audio, stills or publish
        #[arg(value_name = "KIND")]
        kind: String,
        #[command(flatten)]
        why: Why,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    run_client(act(args))
}

async fn act(args: Args) -> anyhow::Result<ExitCode> {
    let server = args.server.server()?;
    let (verb, kind, why) = match args.action.unwrap_or(Action::List) {
        Action::List => {
            let list = server.json("v1/queues").await?;
            return print(&if args.json { format!("{list}\n") } else { table(&list)? });
        }
        Action::Pause { kind, why } => ("pause", kind, why),
        Action::Resume { kind, why } => ("resume", kind, why),
    };
    // An address has no room for what is no name.
    anyhow::ensure!(
        kind.chars().all(|letter| letter.is_ascii_lowercase()),
        "there is no queue {kind:?}; there are probe, encode, audio, stills and publish"
    );
    let queue = post(&server, &format!("v1/queues/{kind}/{verb}"), &why.body()).await?;
    if args.json {
        return print(&format!("{queue}\n"));
    }
    print(&match paused(&queue) {
        Some(paused) => format!("queue {kind} is {paused}; {} running go on\n", queue["running"]),
        None => format!("queue {kind} is not paused\n"),
    })
}

fn table(list: &Value) -> anyhow::Result<String> {
    let mut table = format!(
        "{:8}  {:>7}  {:>7}  {:>7}  {:>8}  {:>7}  {:>8}  {:>5}  {:>9}  {:>7}  STATE\n",
        "QUEUE", "URGENT", "NORMAL", "BULK", "OLDEST", "RUNNING", "BACK-OFF", "DEAD", "WORKERS", "TICKETS"
    );
    for queue in list.get("items").and_then(Value::as_array).into_iter().flatten() {
        let number = |name: &str| queue.get(name).and_then(Value::as_u64).unwrap_or(0);
        let waiting = |tier: &str| queue["waiting"].get(tier).and_then(Value::as_u64).unwrap_or(0);
        let workers = match number("workers_draining") {
            0 => number("workers").to_string(),
            draining => format!("{} (-{draining})", number("workers")),
        };
        let all_waiting = waiting("urgent") + waiting("normal") + waiting("bulk");
        let state = match paused(queue) {
            Some(paused) => paused,
            None if all_waiting > 0 && number("workers") == 0 => "NOBODY TAKES IT".to_owned(),
            None if all_waiting > 0 && number("workers") == number("workers_draining") => {
                "all its workers are drained".to_owned()
            }
            None => "open".to_owned(),
        };
        writeln!(
            table,
            "{:8}  {:>7}  {:>7}  {:>7}  {:>8}  {:>7}  {:>8}  {:>5}  {:>9}  {:>7}  {state}",
            text(queue, "kind"),
            waiting("urgent"),
            waiting("normal"),
            waiting("bulk"),
            queue["oldest_wait_seconds"].as_f64().map_or_else(|| "-".to_owned(), duration),
            number("running"),
            number("backing_off"),
            number("dead"),
            workers,
            queue["tickets"].as_u64().map_or_else(|| "-".to_owned(), |tickets| tickets.to_string()),
        )?;
    }
    match text(list, "broker") {
        "none" | "ok" => {}
        trouble => {
            writeln!(table, "the broker does not answer: {} (work goes on without it)", one_line(trouble))?
        }
    }
    Ok(table)
}

fn paused(queue: &Value) -> Option<String> {
    let paused = queue.get("paused").filter(|paused| paused.is_object())?;
    let reason = match text(paused, "reason") {
        "" => String::new(),
        reason => format!(": {}", one_line(reason)),
    };
    Some(format!("PAUSED since {} by {}{reason}", text(paused, "at"), one_line(text(paused, "by"))))
}

/// Short, for a column: 45 s, 12 min, 3 h, 2 d.
fn duration(seconds: f64) -> String {
    match seconds as u64 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, table};
    use serde_json::json;

    #[test]
    fn a_wait_is_told_in_the_unit_that_fits_a_column() {
        let told: Vec<String> = [0.4, 119.0, 120.0, 7_199.0, 7_200.0, 200_000.0].map(duration).to_vec();
        assert_eq!(told, ["0 s", "119 s", "2 min", "119 min", "2 h", "2 d"]);
    }

    #[test]
    fn a_queue_that_stands_still_says_why() {
        let queue = |kind: &str, workers: u32, paused: serde_json::Value| {
            json!({
                "kind": kind, "waiting": { "urgent": 0, "normal": 3, "bulk": 0 }, "oldest_wait_seconds": 700.0,
                "running": 0, "backing_off": 0, "dead": 0, "workers": workers, "workers_draining": 0,
                "paused": paused, "tickets": null,
            })
        };
        let pause = json!({ "by": "key \"on-call\"", "reason": "disk full", "at": "2026-11-20T03:00:00Z" });
        let items =
            [queue("encode", 2, pause), queue("audio", 0, json!(null)), queue("stills", 1, json!(null))];
        let shown = table(&json!({ "items": items, "broker": "ok" })).unwrap();
        let states: Vec<&str> = shown.lines().skip(1).map(|line| line.rsplit("  ").next().unwrap()).collect();
        assert_eq!(
            states,
            ["PAUSED since 2026-11-20T03:00:00Z by key \"on-call\": disk full", "NOBODY TAKES IT", "open"]
        );
        assert!(shown.contains("11 min"), "{shown}");
    }
}
