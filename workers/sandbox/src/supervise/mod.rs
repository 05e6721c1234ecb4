//! One child, from start to end, as the agent sees it: start it, hear it, end it, and say how it ended.
//!
//! [`start`] gives a [`Running`] child: its messages come out of [`Running::next`], its [`Ending`] out of
//! [`Running::ended`]. A task of its own watches the clock, the progress, the scratch directory and the memory, so a
//! caller that is busy storing a file never delays a kill. Dropping a [`Running`] kills the child and all it started.
//!
//! The child is not trusted: lines are bounded, file names are checked, standard error is kept as a short tail, and
//! the process group is killed whatever the last word was. The only error is that the program could not be started.

mod drive;
mod lines;
mod process;
mod scratch;
mod verdict;

pub use lines::is_safe_file_name;
pub use process::{ChildStart, PASSED_ENVIRONMENT};
pub use scratch::{ScratchFileError, bytes_on_disk, finished_file};
pub use verdict::{Outcome, Usage};

use reelyard_model::child::{Message, Request};
use std::{os::fd::OwnedFd, path::PathBuf, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// Messages that wait for the agent before the child has to wait: a few seconds of progress.
const MESSAGES_WAITING: usize = 64;

/// What to run, on what, and where.
#[derive(Debug)]
pub struct ChildCommand {
    /// The media program, by full path.
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub request: Request,
    /// Becomes descriptor 3: a file, or the child's end of a socket (see [`crate::source`]). `None` for jobs that
    /// read no source.
    pub source: Option<OwnedFd>,
    /// Its working directory, which must exist and be empty. The caller removes it afterwards.
    pub scratch: PathBuf,
    pub watch: Watch,
}

/// When the supervisor loses patience. These hold even where the kernel's own limits do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    pub wall_clock: Duration,
    /// Longest time without anything new: progress that moved, a file, a result.
    pub no_progress: Duration,
    /// Most that may lie in the scratch directory at a time. Files that were kept have left it.
    pub scratch_bytes: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            // As long as the default CPU limit: with even one thread busy, that one comes first.
            wall_clock: Duration::from_secs(6 * 3600),
            // A child says something each second of work. A minute lets a swapping machine catch its breath.
            no_progress: Duration::from_secs(60),
            // Some segments of every rung of a chunk, when storage is slow: a hundred 50 MiB segments and more.
            scratch_bytes: 16 << 30,
        }
    }
}

/// How it ended, with the evidence.
#[derive(Clone, Debug)]
pub struct Ending {
    pub outcome: Outcome,
    /// The last of its standard error, also part of the failure.
    pub stderr_tail: String,
    pub usage: Usage,
}

/// A child at work.
#[derive(Debug)]
pub struct Running {
    process_id: i32,
    messages: mpsc::Receiver<Message>,
    stop: Option<oneshot::Sender<()>>,
    driver: JoinHandle<Ending>,
}

/// Starts the child. The error says that the program could not be started at all: missing, not executable, no memory.
pub async fn start(command: ChildCommand) -> std::io::Result<Running> {
    let started = process::start(ChildStart {
        program: command.program,
        arguments: command.arguments,
        source: command.source,
        scratch: command.scratch.clone(),
    })
    .await?;
    let process_id = started.process.id();
    let (message_sender, messages) = mpsc::channel(MESSAGES_WAITING);
    let (stop, stop_asked) = oneshot::channel();
    let driver = tokio::spawn(drive::drive(drive::Drive {
        started,
        request: command.request,
        scratch: command.scratch,
        watch: command.watch,
        messages: message_sender,
        stop_asked,
    }));
    Ok(Running { process_id, messages, stop: Some(stop), driver })
}

impl Running {
    /// For the log. Do not signal by it: once the child has ended the number may be another's.
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// The next message, or `None` when there will be no more: then ask [`Running::ended`]. The last words `Done` and
    /// `Failed` are not among them, they are the outcome. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<Message> {
        self.messages.recv().await
    }

    /// Kills the child with all it started. The outcome becomes `Stopped`.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The driver may be gone: then the child is too.
            let _ = stop.send(());
        }
    }

    /// Waits until the child is gone. Messages not taken yet are lost.
    pub async fn ended(mut self) -> Ending {
        self.messages.close();
        while self.messages.recv().await.is_some() {}
        match (&mut self.driver).await {
            Ok(ending) => ending,
            Err(error) => Ending::without_driver(&error.to_string()),
        }
    }
}

impl Ending {
    fn without_driver(reason: &str) -> Self {
        let detail = format!("the supervisor of the child stopped early ({reason}); the child was killed");
        let failure = reelyard_model::Failure::new(reelyard_model::FailureCode::Internal, detail);
        Self { outcome: Outcome::Failed(failure), stderr_tail: String::new(), usage: Usage::default() }
    }
}
