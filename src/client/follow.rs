//! Follows an asset until it is ready or has failed.

use super::{ClientError, Server, backoff::Backoff, display::Display};
use serde_json::Value;
use std::time::{Duration, Instant};

/// The server answers this from a few rows; people see no finer steps.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The asset in its last state, as the server shows it.
pub(crate) async fn until_settled(
    server: &Server,
    asset: &str,
    display: &mut Display,
) -> Result<Value, ClientError> {
    let address = format!("v1/assets/{asset}");
    let mut backoff = Backoff::default();
    let mut in_trouble = false;
    loop {
        let pause = match server.json(&address).await {
            Ok(shown) => {
                backoff.progress();
                in_trouble = false;
                show_stages(&shown, display);
                if matches!(text(&shown, "state"), "ready" | "failed" | "cancelled" | "deleted") {
                    if text(&shown, "state") == "ready" {
                        display.all_done();
                    }
                    display.end();
                    return Ok(shown);
                }
                LOOK_INTERVAL
            }
            Err(ClientError::Unreachable { reason, retry_after }) => {
                if !std::mem::replace(&mut in_trouble, true) {
                    display.say(&format!("{reason}; trying again"));
                }
                let pause = backoff.pause(Instant::now(), retry_after, crate::app::random_u32());
                pause.ok_or(ClientError::Unreachable { reason, retry_after })?
            }
            Err(other) => return Err(other),
        };
        tokio::time::sleep(pause).await;
    }
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
