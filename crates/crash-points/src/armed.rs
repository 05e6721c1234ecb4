//! What the places do when they are there. A line of `FAILPOINTS` that cannot be read ends the program at the first
//! place: a test that believes to have broken something must not go on.

use crate::Injected;
use std::{
    fs::File,
    io::Write as _,
    panic::Location,
    sync::{Mutex, OnceLock},
    time::Duration,
};

static SCENARIO: OnceLock<()> = OnceLock::new();
static TRACE: OnceLock<Option<Mutex<File>>> = OnceLock::new();

/// The place `name`.
pub async fn reach(name: &'static str) -> Result<(), Injected> {
    act(name, name).await
}

/// The place `name`, told apart by who called; told to act under its own name or under both.
pub async fn reach_at(name: &'static str, caller: &'static Location<'static>) -> Result<(), Injected> {
    let file = caller.file().rsplit('/').next().unwrap_or_default();
    let full = format!("{name}@{file}:{}", caller.line());
    act(name, &full).await
}

/// Whether this promise is off.
pub fn is_switched_off(name: &'static str) -> bool {
    told(name).is_some()
}

async fn act(name: &'static str, full: &str) -> Result<(), Injected> {
    let action = if full == name { told(name) } else { told(full).or_else(|| told(name)) };
    let action = action.map(Option::unwrap_or_default);
    note(full, action.as_deref().unwrap_or("-"));
    let Some(action) = action else { return Ok(()) };
    match action.split_once(' ').unwrap_or((&action, "")) {
        ("kill", _) => {
            // As by `kill -9`: nothing is flushed, nobody is told.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            std::future::pending().await
        }
        ("delay", milliseconds) => {
            tokio::time::sleep(Duration::from_millis(milliseconds.parse().unwrap_or(1000))).await;
            Ok(())
        }
        _ => Err(Injected(name)),
    }
}

fn told(name: &str) -> Option<Option<String>> {
    SCENARIO.get_or_init(|| {
        // It stands for as long as the program does.
        std::mem::forget(fail::FailScenario::setup());
    });
    fail::eval(name, |argument| argument)
}

fn note(full: &str, action: &str) {
    let trace = TRACE.get_or_init(|| {
        let path = std::env::var_os("REELYARD_CRASH_POINTS_TRACE")?;
        File::options().create(true).append(true).open(path).ok().map(Mutex::new)
    });
    let Some(Ok(mut file)) = trace.as_ref().map(Mutex::lock) else { return };
    // One write, so that a kill leaves whole lines.
    let _ = file.write_all(format!("{full} {action}\n").as_bytes());
}
