//! `reelyard jobs`: what runs, what waits and for what, what was given up and why; and what to do about it.
//!
//! A client of the API like any other. Exit status: 0 done, 1 refused or not reachable, 2 the command line was wrong,
//! 130 `watch` was interrupted. Results go to standard output; with `--json` they are the API's own objects.

use super::output::{one_line, print, put};
use crate::client::{
    self, ClientError, NO_SERVER_ADVICE, SHORT_ANSWER_LIMIT, Server, ServerArgs,
    backoff::{Backoff, Next},
    follow::text,
};
use anyhow::Context as _;
use clap::Subcommand;
use reelyard_model::{AssetId, TaskId};
use reqwest::Method;
use serde_json::Value;
use std::{fmt::Write as _, process::ExitCode, time::Instant};

/// Longest event that is looked at; the server's are below 100 KiB even with the last words of a child.
const MAX_EVENT_BYTES: usize = 1 << 20;
const EXIT_INTERRUPTED: u8 = 130;
/// Longest reason in a table; `show` prints all of it.
const MAX_REASON_LETTERS: usize = 60;

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
    },
    /// Try a job again that was given up, was cancelled, or waits for its next try
    Retry {
        #[arg(value_name = "ID")]
        id: TaskId,
    },
    /// Print what happens as it happens, until Ctrl-C
    Watch {
        /// Only what happens to this video
        #[arg(long, value_name = "ID")]
        asset: Option<AssetId>,
    },
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(act(args)).map_err(|error| match error.downcast_ref() {
        Some(ClientError::Unreachable { answered: false, .. }) => {
            anyhow::anyhow!("{error}. {NO_SERVER_ADVICE}")
        }
        _ => error,
    })
}

async fn act(args: Args) -> anyhow::Result<ExitCode> {
    let jobs = Jobs { server: args.server.server()?, json: args.json };
    match args.action.unwrap_or(Action::List(ListArgs { limit: 50, ..ListArgs::default() })) {
        Action::List(list) => print(&jobs.list(&list).await?),
        Action::Show { id } => print(&jobs.show(&jobs.server.json(&format!("v1/jobs/{id}")).await?)),
        Action::Cancel { id } => print(&jobs.post(id, "cancel").await?),
        Action::Retry { id } => print(&jobs.post(id, "retry").await?),
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
    async fn list(&self, list: &ListArgs) -> anyhow::Result<String> {
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
        let page =
            self.server.json(address.as_str().strip_prefix(self.server.base().as_str()).unwrap_or("v1/jobs"));
        let page = page.await?;
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
            "{:36}  {:8}  {:10}  {:>3}  {:>5}  {:36}  REASON",
            "JOB", "KIND", "STATE", "TRY", "DONE", "ASSET"
        )?;
        for job in &jobs {
            let reason: String = text(&job["failure"], "detail").chars().take(MAX_REASON_LETTERS).collect();
            let number = |name: &str| job.get(name).and_then(Value::as_u64).unwrap_or(0);
            let kind = match (text(job, "kind"), number("ordinal")) {
                ("encode", ordinal) => format!("encode {ordinal}"),
                (kind, _) => kind.to_owned(),
            };
            writeln!(
                table,
                "{:36}  {:8}  {:10}  {:>3}  {:>3} %  {:36}  {}",
                text(job, "id"),
                kind,
                text(job, "state"),
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
            ("kind", format!("{} {}", text(job, "kind"), number("ordinal"))),
            ("state", text(job, "state").to_owned()),
            ("waits", text(job, "waiting_for").to_owned()),
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
        let tail = text(failure, "stderr_tail");
        if !tail.is_empty() {
            lines.push("last words of the media program:".to_owned());
            lines.extend(tail.lines().map(|line| format!("  {}", one_line(line))));
        }
        lines.join("\n") + "\n"
    }

    async fn post(&self, id: TaskId, verb: &str) -> anyhow::Result<String> {
        let address = self.server.address(&format!("v1/jobs/{id}/{verb}"))?;
        let sent = self.server.request(Method::POST, address).timeout(SHORT_ANSWER_LIMIT).send().await;
        let answer = client::answered(sent).await?;
        let job: Value = answer.json().await.context("the answer is not the JSON of a job")?;
        Ok(if self.json { format!("{job}\n") } else { format!("job {id} is now {}\n", text(&job, "state")) })
    }

    /// Reconnects where it stopped, for as long as the server comes back. Ends well when nobody reads any more.
    async fn watch(&self, asset: Option<AssetId>) -> anyhow::Result<()> {
        let filter = asset.map_or_else(String::new, |asset| format!("?asset={asset}"));
        let mut last_seen: Option<String> = None;
        let mut backoff = Backoff::default();
        loop {
            let failed = match self.follow(&filter, &mut last_seen, &mut backoff).await {
                Ok(Stream::NobodyReads) => return Ok(()),
                // The server ends streams when it stops.
                Ok(Stream::Ended) => {
                    let reason = "the server ended the stream".to_owned();
                    ClientError::Unreachable { reason, retry_after: None, answered: true }
                }
                Err(error) => error,
            };
            let ClientError::Unreachable { reason, retry_after, answered } = failed else {
                return Err(failed.into());
            };
            if answered {
                backoff.answered();
            }
            match backoff.next(Instant::now(), retry_after, crate::app::random_u32()) {
                Next::Wait { pause, notice } => {
                    if let Some(notice) = notice {
                        eprintln!("{reason}; {notice}");
                    }
                    tokio::time::sleep(pause).await;
                }
                Next::GiveUp { after } => anyhow::bail!("{reason}; given up after {after}"),
            }
        }
    }

    async fn follow(
        &self,
        filter: &str,
        last_seen: &mut Option<String>,
        backoff: &mut Backoff,
    ) -> Result<Stream, ClientError> {
        let mut request =
            self.server.request(Method::GET, self.server.address(&format!("v1/events{filter}"))?);
        if let Some(number) = last_seen.as_ref() {
            request = request.header("Last-Event-ID", number);
        }
        let mut answer = client::answered(request.send().await).await?;
        let mut events = EventReader::default();
        while let Some(chunk) = answer.chunk().await.map_err(client::unreachable)? {
            backoff.progress();
            for event in events.push(&chunk)? {
                if let Some(number) = event.get("id").and_then(Value::as_i64) {
                    *last_seen = Some(number.to_string());
                }
                let line = if self.json { event.to_string() } else { describe(&event) };
                let unwritable = |error| ClientError::File(format!("standard output: {error}"));
                if !put(&format!("{line}\n")).map_err(unwritable)? {
                    return Ok(Stream::NobodyReads);
                }
            }
        }
        Ok(Stream::Ended)
    }
}

/// How a stream of events ended, when it ended well.
enum Stream {
    Ended,
    NobodyReads,
}

/// Takes server-sent events apart (WHATWG HTML, section 9.2.6), as far as ours go: one `data` line each.
#[derive(Default)]
struct EventReader {
    rest: Vec<u8>,
}

impl EventReader {
    /// The `data` of the events that are whole now.
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<Value>, ClientError> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            let event = serde_json::from_slice(data).map_err(|error| {
                ClientError::Nonsense(format!("an event of the server is not JSON: {error}"))
            })?;
            events.push(event);
        }
        if self.rest.len() > MAX_EVENT_BYTES {
            return Err(ClientError::Nonsense("an event of the server has no end".to_owned()));
        }
        Ok(events)
    }
}

/// One event as one line.
fn describe(event: &Value) -> String {
    let data = &event["data"];
    let what = match text(event, "kind") {
        "task.changed" => {
            let failure = match text(data, "failure") {
                "" => String::new(),
                code => format!(" ({code})"),
            };
            format!(
                "{} {} {} -> {}{failure}",
                text(data, "kind"),
                data["ordinal"],
                or_new(text(data, "from")),
                text(data, "state")
            )
        }
        "task.progress" => {
            let number = |name: &str| data.get(name).and_then(Value::as_i64).unwrap_or(0);
            let percent = number("done_us").saturating_mul(100) / number("total_us").max(1);
            format!("{} {} {percent} %", text(data, "kind"), data["ordinal"])
        }
        kind => {
            let message = text(data, "message");
            if message.is_empty() { kind.to_owned() } else { format!("{kind}: {message}") }
        }
    };
    let asset = text(event, "asset");
    let subject = if asset.is_empty() { text(event, "upload") } else { asset };
    format!("{}  {:36}  {}", text(event, "at"), subject, one_line(&what))
}

fn or_new(state: &str) -> &str {
    if state.is_empty() { "new" } else { state }
}

fn percent(job: &Value) -> u64 {
    (job.get("progress").and_then(Value::as_f64).unwrap_or(0.0) * 100.0) as u64
}

#[cfg(test)]
mod tests {
    use super::{EventReader, MAX_EVENT_BYTES, describe, one_line};
    use serde_json::json;

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let stream = b"event: asset.ready\nretry: 2000\nid: 7\ndata: {\"id\":7}\n\n: still here\n\ndata: {\"id\":8}\n\n";
        for size in 1..stream.len() {
            let mut reader = EventReader::default();
            let mut ids = Vec::new();
            for chunk in stream.chunks(size) {
                ids.extend(
                    reader.push(chunk).unwrap().into_iter().map(|event| event["id"].as_i64().unwrap()),
                );
            }
            assert_eq!(ids, [7, 8], "cut every {size} bytes");
        }
        assert!(EventReader::default().push(&vec![b'x'; MAX_EVENT_BYTES + 1]).is_err());
        assert!(EventReader::default().push(b"data: nonsense\n").is_err());
    }

    #[test]
    fn an_event_is_one_line() {
        let event = json!({
            "at": "2026-11-20T06:20:57.367Z", "kind": "task.changed", "asset": "01a1f79d-8287-70ee-801e-81468ecdd80f",
            "data": { "kind": "encode", "ordinal": 3, "from": "leased", "state": "retry_wait", "failure": "child_hung" },
        });
        assert_eq!(
            describe(&event),
            "2026-11-20T06:20:57.367Z  01a1f79d-8287-70ee-801e-81468ecdd80f  encode 3 leased -> retry_wait (child_hung)"
        );
        let event = json!({
            "at": "2026-11-20T06:26:27.116Z", "kind": "task.progress", "asset": "01a1f79d-8287-70ee-801e-81468ecdd80f",
            "data": { "attempt": 1, "done_us": 5_000_000, "total_us": 20_000_000, "kind": "encode", "ordinal": 0 },
        });
        assert_eq!(
            describe(&event),
            "2026-11-20T06:26:27.116Z  01a1f79d-8287-70ee-801e-81468ecdd80f  encode 0 25 %"
        );
        assert_eq!(one_line("a\u{1b}[2J\nb"), "a [2J b");
    }
}
