//! Follows an asset until it is ready or has failed.

use super::{
    ClientError, Server,
    backoff::{Backoff, Next},
    display::Display,
};
use serde_json::Value;
use std::time::{Duration, Instant};

/// The server answers this from a few rows; people see no finer steps.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// When nobody has begun with any of it for so long, people want to know why.
const NO_WORKER_NOTICE: Duration = Duration::from_secs(60);

/// The asset in its last state, as the server shows it.
pub(crate) async fn until_settled(
    server: &Server,
    asset: &str,
    display: &mut Display,
) -> Result<Value, ClientError> {
    let address = format!("v1/assets/{asset}");
    let mut backoff = Backoff::default();
    // It took the upload.
    backoff.answered();
    let mut idle_since = Some(Instant::now());
    loop {
        let pause = match server.json(&address).await {
            Ok(shown) => {
                backoff.progress();
                show_stages(&shown, display);
                if matches!(text(&shown, "state"), "ready" | "failed" | "cancelled" | "deleted") {
                    if text(&shown, "state") == "ready" {
                        display.all_done();
                    }
                    display.end();
                    return Ok(shown);
                }
                if !nobody_works(&shown) {
                    idle_since = None;
                } else if idle_since.is_some_and(|since| since.elapsed() >= NO_WORKER_NOTICE) {
                    idle_since = None;
                    display.warn("no worker has begun with it yet; `reelyard jobs` shows what it waits for");
                }
                LOOK_INTERVAL
            }
            Err(ClientError::Unreachable { reason, retry_after, answered }) => {
                if answered {
                    backoff.answered();
                }
                match backoff.next(Instant::now(), retry_after, crate::app::random_u32()) {
                    Next::Wait { pause, notice } => {
                        if let Some(notice) = notice {
                            display.warn(&format!("{reason}; {notice}"));
                        }
                        pause
                    }
                    Next::GiveUp { after } => {
                        display.end();
                        let reason = format!(
                            "{reason}; given up after {after}. The server goes on with the video when it is back"
                        );
                        return Err(ClientError::Unreachable { reason, retry_after, answered });
                    }
                }
            }
            Err(other) => return Err(other),
        };
        tokio::time::sleep(pause).await;
    }
}

/// Nothing of it was begun.
fn nobody_works(asset: &Value) -> bool {
    let stages = asset.pointer("/progress/stages").and_then(Value::as_array);
    stages.into_iter().flatten().all(|stage| text(stage, "state") == "waiting")
}

fn show_stages(asset: &Value, display: &mut Display) {
    for stage in asset.pointer("/progress/stages").and_then(Value::as_array).into_iter().flatten() {
        let number = |name: &str| stage.get(name).and_then(Value::as_u64).unwrap_or(0);
        let fraction = stage.get("progress").and_then(Value::as_f64).unwrap_or(0.0);
        let state = text(stage, "state");
        let note = if number("jobs") > 1 {
            format!("{state}, {} of {} jobs done", number("jobs_done"), number("jobs"))
        } else {
            state.to_owned()
        };
        display.stage(text(stage, "kind"), state, fraction, &note);
    }
}

pub(crate) fn text<'a>(object: &'a Value, member: &str) -> &'a str {
    object.get(member).and_then(Value::as_str).unwrap_or_default()
}
