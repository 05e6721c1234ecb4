//! `reelyard jobs watch`: what happens as it happens, over a connection that may break and is made again.

use super::Jobs;
use crate::{
    client::{
        self, ClientError,
        backoff::{Backoff, Next},
        follow::text,
    },
    cmd::output::{one_line, put},
};
use reelyard_model::AssetId;
use reqwest::Method;
use serde_json::Value;
use std::time::Instant;

/// Longest event that is looked at; the server's are below 100 KiB even with the last words of a child.
const MAX_EVENT_BYTES: usize = 1 << 20;

impl Jobs {
    /// Reconnects where it stopped, for as long as the server comes back. Ends well when nobody reads any more.
    pub(super) async fn watch(&self, asset: Option<AssetId>) -> anyhow::Result<()> {
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
