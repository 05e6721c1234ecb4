//! The log: on standard error, for people or as JSON lines. `RUST_LOG` chooses what is shown.

use anyhow::Context;
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Statements of the database are of interest to those who ask for them; what the broker's client says of a lost
/// connection, the tickets tell in our words.
const DEFAULT_FILTER: &str = "info,sqlx=warn,hyper=warn,lapin=off";

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Pretty,
    Json,
}

pub(crate) fn start(format: Format) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) => EnvFilter::try_new(&text).with_context(|| format!("RUST_LOG={text}"))?,
        Err(_) => EnvFilter::new(DEFAULT_FILTER),
    };
    let log = tracing_subscriber::registry().with(filter);
    match format {
        Format::Pretty => {
            let colours = std::io::stderr().is_terminal();
            log.with(fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_target(false))
                .try_init()
        }
        Format::Json => {
            let lines = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
            log.with(lines.with_writer(std::io::stderr)).try_init()
        }
    }
    .context("starting the log")
}
