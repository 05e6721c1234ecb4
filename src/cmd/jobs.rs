//! `reelyard jobs`: what runs, what waits and for what, what was given up and why; and what to do about it.
//!
//! A client of the API like any other. Exit status: 0 done, 1 refused or not reachable, 2 the command line was wrong,
//! 130 `watch` was interrupted. Results go to standard output; with `--json` they are the API's own objects.

mod watch;

use super::{
    operator::{Why, post, run_client},
    output::{one_line, print},
};
use crate::client::{Server, ServerArgs, follow::text};
use clap::Subcommand;
use reelyard_model::{AssetId, TaskId};
use serde_json::{Value, json};
use std::{fmt::Write as _, process::ExitCode};

const EXIT_INTERRUPTED: u8 = 130;
/// Longest reason in a table; `show` prints all of it.
const MAX_REASON_LETTERS: usize = 160;

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
    /// List jobs, newest first (what happens without a subcommand)
    List(ListArgs),
    /// Show one job: what it waits for, or why it failed
    Show {
        #[arg(value_name = "ID")]
        id: TaskId,
    },
    /// Stop a job; when its video cannot do without it, all work on the video stops
    Cancel {
        #[arg(value_name = "ID")]
        id: TaskId,
        #[command(flatten)]
        why: Why,
    },
    /// Try a job again that was given up, was cancelled, or waits for its next try
    Retry {
        #[arg(value_name = "ID")]
        id: TaskId,
        #[command(flatten)]
        why: Why,
    },
    /// Try again what makes one rendition of a video and was given up or cancelled
    RetryRendition {
        /// The video
        #[arg(value_name = "ASSET")]
        asset: AssetId,
        /// The rendition, such as 480p
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        why: Why,
    },
    /// List the jobs that were given up, each with its reason and the last words of the media program
    Dead {
        /// Only jobs of this video
        #[arg(long, value_name = "ID")]
        asset: Option<AssetId>,
        /// At most so many
        #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
    },
    /// Try many jobs again that were given up; safe to repeat
    Replay(ReplayArgs),
    /// Print what happens as it happens, until Ctrl-C
    Watch {
        /// Only what happens to this video
        #[arg(long, value_name = "ID")]
        asset: Option<AssetId>,
    },
}

#[derive(clap::Args)]
struct ReplayArgs {
    #[command(flatten)]
    which: Which,
    /// At most so many; the rest by the same command again
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: Option<u32>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    why: Why,
}

/// At least one of these: nobody should bring everything back by forgetting a filter.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
struct Which {
    /// Only jobs given up for these codes, separated by commas, such as storage_failed
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    code: Vec<String>,
    /// Only these kinds, separated by commas: probe, encode, audio, stills, publish
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    kind: Vec<String>,
    /// Only jobs given up at this time or later, such as 2026-11-20T03:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only jobs of this video
    #[arg(long, value_name = "ID")]
    asset: Option<AssetId>,
    /// All that were given up
    #[arg(long)]
    all: bool,
}

#[derive(clap::Args, Default)]
struct ListArgs {
    /// Only these states, separated by commas: blocked, ready, leased, retry_wait, done, dead, cancelled
    #[arg(long, value_name = "STATES")]
    state: Option<String>,
    /// Only these kinds, separated by commas: probe, encode, audio, stills, publish
    #[arg(long, value_name = "KINDS")]
    kind: Option<String>,
    /// Only jobs of this video
    #[arg(long, value_name = "ID")]
    asset: Option<AssetId>,
    /// At most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    run_client(act(args))
}

async fn act(args: Args) -> anyhow::Result<ExitCode> {
    let jobs = Jobs { server: args.server.server()?, json: args.json };
    match args.action.unwrap_or(Action::List(ListArgs { limit: 50, ..ListArgs::default() })) {
        Action::List(list) => print(&jobs.list(&list).await?),
        Action::Show { id } => print(&jobs.show(&jobs.server.json(&format!("v1/jobs/{id}")).await?)),
        Action::Cancel { id, why } => print(&jobs.change(id, "cancel", &why).await?),
        Action::Retry { id, why } => print(&jobs.change(id, "retry", &why).await?),
        Action::RetryRendition { asset, name, why } => {
            print(&jobs.retry_rendition(asset, &name, &why).await?)
        }
        Action::Dead { asset, limit } => print(&jobs.dead(asset, limit).await?),
        Action::Replay(replay) => print(&jobs.replay(&replay).await?),
        Action::Watch { asset } => tokio::select! {
            outcome = jobs.watch(asset) => outcome.map(|()| ExitCode::SUCCESS),
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(EXIT_INTERRUPTED)),
        },
    }
}

struct Jobs {
    server: Server,
    json: bool,
}

impl Jobs {
    async fn page(&self, list: &ListArgs) -> anyhow::Result<Value> {
        let mut address = self.server.address("v1/jobs")?;
        {
            let mut query = address.query_pairs_mut();
            query.append_pair("limit", &list.limit.to_string());
            if let Some(state) = &list.state {
                query.append_pair("state", state);
            }
            if let Some(kind) = &list.kind {
                query.append_pair("kind", kind);
            }
            if let Some(asset) = list.asset {
                query.append_pair("asset", &asset.to_string());
            }
        }
        let path = address.as_str().strip_prefix(self.server.base().as_str()).unwrap_or("v1/jobs");
        Ok(self.server.json(path).await?)
    }

    async fn list(&self, list: &ListArgs) -> anyhow::Result<String> {
        let page = self.page(list).await?;
        if self.json {
            return Ok(format!("{page}\n"));
        }
        let jobs = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        if jobs.is_empty() {
            return Ok("no jobs\n".to_owned());
        }
        let mut table = String::new();
        writeln!(
            table,
            "{:36}  {:9}  {:10}  {:6}  {:>3}  {:>5}  {:36}  WHY",
            "JOB", "KIND", "STATE", "TIER", "TRY", "DONE", "ASSET"
        )?;
        for job in &jobs {
            let why = match text(job, "waiting_for") {
                "" => text(&job["failure"], "detail"),
                waits => waits,
            };
            let reason: String = why.chars().take(MAX_REASON_LETTERS).collect();
            let number = |name: &str| job.get(name).and_then(Value::as_u64).unwrap_or(0);
            writeln!(
                table,
                "{:36}  {:9}  {:10}  {:6}  {:>3}  {:>3} %  {:36}  {}",
                text(job, "id"),
                kind_of(job),
                text(job, "state"),
                text(job, "tier"),
                number("attempt"),
                percent(job),
                text(job, "asset"),
                one_line(&reason),
            )?;
        }
        if page.get("next_cursor").is_some_and(Value::is_string) {
            table.push_str("(there are more: raise --limit, or filter with --state, --kind, --asset)\n");
        }
        Ok(table)
    }

    fn show(&self, job: &Value) -> String {
        if self.json {
            return format!("{job}\n");
        }
        let number = |name: &str| job.get(name).and_then(Value::as_u64).unwrap_or(0);
        let mut rows = vec![
            ("job", text(job, "id").to_owned()),
            ("asset", text(job, "asset").to_owned()),
            ("kind", kind_of(job)),
            ("state", text(job, "state").to_owned()),
            ("tier", text(job, "tier").to_owned()),
            ("why waiting", text(job, "waiting_for").to_owned()),
            ("done", format!("{} %", percent(job))),
            (
                "tries",
                format!(
                    "{} ({} failed, {} lost)",
                    number("attempt"),
                    number("failed_count"),
                    number("lost_count")
                ),
            ),
        ];
        for (name, member) in [
            ("created", "created_at"),
            ("started", "started_at"),
            ("finished", "finished_at"),
            ("next try", "not_before"),
            ("worker", "worker"),
            ("trace", "trace_id"),
        ] {
            rows.push((name, text(job, member).to_owned()));
        }
        let failure = &job["failure"];
        if failure.is_object() {
            rows.push(("failure", format!("{} ({})", text(failure, "code"), text(failure, "class"))));
            rows.push(("creator", text(failure, "message").to_owned()));
            rows.push(("detail", text(failure, "detail").to_owned()));
        }
        let mut lines: Vec<String> = rows
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name:12} {}", one_line(value)))
            .collect();
        lines.extend(last_words(failure));
        // The last of them is the failure above, unless somebody brought the job back.
        for attempt in job.get("attempts").and_then(Value::as_array).into_iter().flatten() {
            let failure = &attempt["failure"];
            lines.push(format!(
                "attempt {:<4} {} {} on {}: {}: {}",
                attempt["attempt"].to_string(),
                text(attempt, "outcome"),
                text(attempt, "ended_at"),
                match text(attempt, "worker") {
                    "" => "an unknown worker",
                    worker => worker,
                },
                text(failure, "code"),
                one_line(text(failure, "detail")),
            ));
        }
        lines.join("\n") + "\n"
    }

    async fn dead(&self, asset: Option<AssetId>, limit: u32) -> anyhow::Result<String> {
        let list = ListArgs { state: Some("dead".to_owned()), asset, limit, kind: None };
        let page = self.page(&list).await?;
        if self.json {
            return Ok(format!("{page}\n"));
        }
        let jobs = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        if jobs.is_empty() {
            return Ok("no dead letters\n".to_owned());
        }
        let mut lines = Vec::new();
        for job in &jobs {
            let failure = &job["failure"];
            lines.push(format!(
                "{}  {}  {}  asset {}",
                text(job, "id"),
                text(job, "finished_at"),
                kind_of(job),
                text(job, "asset")
            ));
            let (code, class) = (text(failure, "code"), text(failure, "class"));
            lines.push(format!("  {code} ({class}): {}", one_line(text(failure, "detail"))));
            lines.extend(last_words(failure).into_iter().map(|line| format!("  {line}")));
        }
        if page.get("next_cursor").is_some_and(Value::is_string) {
            lines.push("(there are more: raise --limit, or filter with --asset)".to_owned());
        }
        lines.push(
            "try again: `reelyard jobs retry ID`, or many with `reelyard jobs replay --code CODE --dry-run`"
                .to_owned(),
        );
        Ok(lines.join("\n") + "\n")
    }

    async fn replay(&self, replay: &ReplayArgs) -> anyhow::Result<String> {
        let ReplayArgs { which, limit, dry_run, why } = replay;
        let body = json!({
            "kinds": which.kind, "codes": which.code, "since": which.since, "asset": which.asset, "limit": limit,
            "dry_run": dry_run, "reason": why.reason,
        });
        let done = self.post("v1/jobs/replay", &body).await?;
        if self.json {
            return Ok(format!("{done}\n"));
        }
        let number = |name: &str| done.get(name).and_then(Value::as_u64).unwrap_or(0);
        let (count, with) = (number("count"), number("back_already"));
        let mut said = match (dry_run, count) {
            (_, 0) => "no job that was given up fits, or all came back already\n".to_owned(),
            (true, count) => format!("{count} job(s) would be tried again:\n"),
            (false, count) => format!("{count} job(s) are back in line:\n"),
        };
        for id in done.get("jobs").and_then(Value::as_array).into_iter().flatten() {
            writeln!(said, "  {}", id.as_str().unwrap_or_default())?;
        }
        if with > 0 {
            writeln!(said, "{with} more came back with these, because their whole video is tried again")?;
        }
        if done["more"] == true {
            said.push_str("there are more: repeat the command\n");
        }
        Ok(said)
    }

    async fn retry_rendition(&self, asset: AssetId, name: &str, why: &Why) -> anyhow::Result<String> {
        let mut address = self.server.address(&format!("v1/assets/{asset}/renditions"))?;
        if let Ok(mut path) = address.path_segments_mut() {
            path.push(name).push("retry");
        }
        let path = address.as_str().strip_prefix(self.server.base().as_str()).unwrap_or_default().to_owned();
        let shown = self.post(&path, &why.body()).await?;
        if self.json {
            return Ok(format!("{shown}\n"));
        }
        Ok(format!("asset {asset} is now {}\n", text(&shown, "state")))
    }

    async fn change(&self, id: TaskId, verb: &str, why: &Why) -> anyhow::Result<String> {
        let job = self.post(&format!("v1/jobs/{id}/{verb}"), &why.body()).await?;
        Ok(if self.json { format!("{job}\n") } else { format!("job {id} is now {}\n", text(&job, "state")) })
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        post(&self.server, path, body).await
    }
}

/// With its chunk.
fn kind_of(job: &Value) -> String {
    match text(job, "kind") {
        "encode" => format!("encode {}", job["ordinal"]),
        kind => kind.to_owned(),
    }
}

fn last_words(failure: &Value) -> Vec<String> {
    let tail = text(failure, "stderr_tail");
    if tail.is_empty() {
        return Vec::new();
    }
    let mut lines = vec!["last words of the media program:".to_owned()];
    lines.extend(tail.lines().map(|line| format!("  {}", one_line(line))));
    lines
}

fn percent(job: &Value) -> u64 {
    (job.get("progress").and_then(Value::as_f64).unwrap_or(0.0) * 100.0) as u64
}
