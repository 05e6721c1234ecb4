//! What the child says to its parent: one JSON line each on standard output.
//!
//! Used from every thread of the child. Nothing else writes to standard output. When the parent is gone there is
//! nobody to work for: the process ends.

use reelyard_model::child::Message;
use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Progress at most so often: ten times a second, as the protocol says.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Warnings beyond these say nothing new to a creator.
const MAX_WARNINGS: usize = 20;
const PARENT_GONE: i32 = 3;

#[derive(Clone)]
pub(crate) struct Messages(Arc<Mutex<State>>);

struct State {
    last_progress: Option<Instant>,
    warnings: Vec<String>,
}

impl Messages {
    pub(crate) fn to_standard_output() -> Self {
        Self(Arc::new(Mutex::new(State { last_progress: None, warnings: Vec::new() })))
    }

    pub(crate) fn send(&self, message: &Message) {
        let _in_turn = self.0.lock();
        write_line(message);
    }

    /// Left out when another one was sent just now.
    pub(crate) fn progress(&self, done_us: i64, total_us: i64) {
        let Ok(mut state) = self.0.lock() else { return };
        let now = Instant::now();
        if state.last_progress.is_some_and(|last| now.duration_since(last) < PROGRESS_INTERVAL) {
            return;
        }
        state.last_progress = Some(now);
        write_line(&Message::Progress { done_us, total_us });
    }

    /// The same warning is sent once.
    pub(crate) fn warn(&self, text: &str) {
        let Ok(mut state) = self.0.lock() else { return };
        if state.warnings.len() >= MAX_WARNINGS || state.warnings.iter().any(|known| known == text) {
            return;
        }
        state.warnings.push(text.to_owned());
        write_line(&Message::Warning { text: text.to_owned() });
    }
}

fn write_line(message: &Message) {
    let mut line = match serde_json::to_vec(message) {
        Ok(line) => line,
        Err(error) => {
            eprintln!("a message could not be written as JSON: {error}");
            return;
        }
    };
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    if output.write_all(&line).and_then(|()| output.flush()).is_err() {
        std::process::exit(PARENT_GONE);
    }
}
