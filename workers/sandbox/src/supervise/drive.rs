//! The loop that watches one child. It owns the process, reads its pipes, and decides nothing but when to kill; what
//! the end means is `verdict`'s.

use super::{
    Ending, Watch, is_safe_file_name,
    lines::{LineError, Lines, Tail},
    process::{ChildProcess, Started},
    scratch::bytes_on_disk,
    verdict::{Cause, Evidence, Exit, LastWord, Usage, judge},
};
use reelyard_model::child::{MAX_LINE_BYTES, Message, PROTOCOL, Request};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::{mpsc, oneshot},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};

/// Kept of standard error: the last messages of FFmpeg and a backtrace.
const STDERR_TAIL_BYTES: usize = 64 << 10;
/// How often clock, progress, scratch directory and memory are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Warnings passed on; nobody reads more.
const MOST_WARNINGS: u32 = 100;
/// From the last word, or the end of its output, to the end of the process.
const EXIT_GRACE: Duration = Duration::from_secs(5);
/// From the end of the process to the end of its pipes: a grandchild that left the group may hold them.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// From SIGKILL to the end. A process in an uninterruptible disk wait is left behind and reaped later.
const KILL_GRACE: Duration = Duration::from_secs(10);

pub(super) struct Drive {
    pub(super) started: Started,
    pub(super) request: Request,
    pub(super) scratch: PathBuf,
    pub(super) watch: Watch,
    pub(super) messages: mpsc::Sender<Message>,
    /// Fires, or is dropped, when the caller wants no more.
    pub(super) stop_asked: oneshot::Receiver<()>,
}

pub(super) async fn drive(drive: Drive) -> Ending {
    let Drive { started, request, scratch, watch, messages, stop_asked } = drive;
    let Started { mut process, stdin, stdout, stderr } = started;
    let limits = request.limits;
    let kernel_kills_before = kernel_memory_kills();
    let asking = tokio::spawn(send_request(stdin, request));
    let mut stderr_tail = tokio::spawn(collect_tail(stderr));

    let mut session = Session {
        lines: Lines::new(stdout, MAX_LINE_BYTES),
        messages,
        stop_asked,
        watch,
        memory_bytes: limits.address_space_bytes,
        scratch: scratch.into(),
        started_at: Instant::now(),
        moved_at: Instant::now(),
        furthest_us: i64::MIN,
        greeted: false,
        warnings: 0,
        last_word: None,
        exit: None,
        waiting: None,
        waiting_since: Instant::now(),
        output_ended: false,
        patience_ends: None,
    };
    let killed_for = session.run(&mut process).await.err();
    if killed_for.is_some() {
        process.kill_group();
    }
    if session.exit.is_none() {
        session.exit = timeout(KILL_GRACE, process.ended()).await.ok().and_then(Result::ok);
    }
    asking.abort();
    let stderr_text = match timeout(DRAIN_GRACE, &mut stderr_tail).await {
        Ok(text) => text.unwrap_or_default(),
        Err(_) => {
            stderr_tail.abort();
            "(standard error was held open by somebody else)".to_owned()
        }
    };
    let usage = session.exit.map_or_else(Usage::default, |(_, usage)| usage);
    let evidence = Evidence {
        killed_for,
        last_word: session.last_word,
        exit: session.exit.map(|(exit, _)| exit),
        usage,
        limits,
        kernel_ran_out_of_memory: kernel_memory_kills() > kernel_kills_before,
        stderr_tail: stderr_text,
    };
    let outcome = judge(&evidence);
    Ending { outcome, stderr_tail: evidence.stderr_tail, usage }
}

/// What the loop knows so far.
struct Session {
    lines: Lines<pipe::Receiver>,
    messages: mpsc::Sender<Message>,
    stop_asked: oneshot::Receiver<()>,
    watch: Watch,
    memory_bytes: u64,
    scratch: Arc<std::path::Path>,
    started_at: Instant,
    /// When something new was last seen.
    moved_at: Instant,
    furthest_us: i64,
    greeted: bool,
    warnings: u32,
    last_word: Option<LastWord>,
    exit: Option<(Exit, Usage)>,
    /// A message that the agent has not taken yet.
    waiting: Option<Message>,
    waiting_since: Instant,
    output_ended: bool,
    /// Once one of process, output and last word has ended, the others have until then.
    patience_ends: Option<Instant>,
}

enum Event {
    StopAsked,
    Look,
    HandedOver,
    Output(Result<Option<Vec<u8>>, LineError>),
    Exit(std::io::Result<(Exit, Usage)>),
}

impl Session {
    /// Until the child has ended and its output was read to the end. `Err` says why it must be killed.
    async fn run(&mut self, process: &mut ChildProcess) -> Result<(), Cause> {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(self.output_ended && self.waiting.is_none() && self.exit.is_some()) {
            match self.event(process, &mut look).await {
                Event::StopAsked => return Err(Cause::Asked),
                Event::HandedOver => {}
                Event::Look => {
                    if self.waiting.is_some() && self.waiting_since.elapsed() >= LOOK_EVERY {
                        // The agent is busy; that is not the child's fault.
                        self.moved_at = Instant::now();
                        self.patience_ends = self.patience_ends.map(|_| Instant::now() + EXIT_GRACE);
                    }
                    if self.patience_ends.is_some_and(|end| Instant::now() >= end) {
                        // With the process gone, a stranger holds the pipe: what was read is all there is.
                        return if self.exit.is_some() { Ok(()) } else { Err(Cause::Lingered) };
                    }
                    self.look(process).await?;
                }
                Event::Output(Ok(Some(line))) => {
                    self.waiting = self.hear(&line)?;
                    self.waiting_since = Instant::now();
                    if self.exit.is_some() {
                        // Still reading what it left in the pipe.
                        self.patience_ends = Some(Instant::now() + DRAIN_GRACE);
                    } else if self.last_word.is_some() {
                        self.patience_ends.get_or_insert(Instant::now() + EXIT_GRACE);
                    }
                }
                Event::Output(Ok(None)) => {
                    self.output_ended = true;
                    self.patience_ends.get_or_insert(Instant::now() + EXIT_GRACE);
                }
                Event::Output(Err(error)) => return Err(Cause::Protocol(error.to_string())),
                Event::Exit(Ok(ended)) => {
                    self.exit = Some(ended);
                    self.patience_ends = Some(Instant::now() + DRAIN_GRACE);
                }
                Event::Exit(Err(error)) => {
                    return Err(Cause::Protocol(format!("it cannot be waited for: {error}")));
                }
            }
        }
        Ok(())
    }

    /// What happens next. While the agent has not taken a message no further output is read: the child then waits at
    /// a full pipe, and memory stays bounded.
    async fn event(&mut self, process: &mut ChildProcess, look: &mut Interval) -> Event {
        tokio::select! {
            biased;
            // Asked, or the caller dropped its half.
            _ = &mut self.stop_asked => Event::StopAsked,
            _ = look.tick() => Event::Look,
            place = self.messages.reserve(), if self.waiting.is_some() => {
                // Without a place the caller listens no more, but has not asked for a stop: it only wants the end.
                if let (Ok(place), Some(message)) = (place, self.waiting.take()) {
                    place.send(message);
                }
                Event::HandedOver
            }
            line = self.lines.next(), if self.waiting.is_none() && !self.output_ended => Event::Output(line),
            ended = process.ended(), if self.exit.is_none() => Event::Exit(ended),
        }
    }

    /// One line of output: what goes on to the agent.
    fn hear(&mut self, line: &[u8]) -> Result<Option<Message>, Cause> {
        let protocol = |what: &str| Cause::Protocol(what.to_owned());
        if self.last_word.is_some() {
            return Err(protocol("it spoke after its last word"));
        }
        let message: Message = serde_json::from_slice(line).map_err(|error| {
            let start: String = String::from_utf8_lossy(line).chars().take(80).collect();
            Cause::Protocol(format!("a line that is no message ({error}): {start:?}"))
        })?;
        let greeting = matches!(message, Message::Hello { .. } | Message::Failed { .. });
        if !self.greeted && !greeting {
            return Err(protocol("its first line is not a greeting"));
        }
        let moved = match &message {
            Message::Hello { .. } if self.greeted => return Err(protocol("a second greeting")),
            Message::Hello { protocol, .. } if *protocol != PROTOCOL => {
                return Err(Cause::Protocol(format!("it speaks version {protocol}, this is {PROTOCOL}")));
            }
            Message::Progress { done_us, .. } => *done_us > self.furthest_us,
            Message::Warning { .. } => false,
            Message::File { file, .. } if !is_safe_file_name(file) => {
                return Err(Cause::Protocol(format!(
                    "the file name {:?}",
                    file.chars().take(80).collect::<String>()
                )));
            }
            _ => true,
        };
        if let Message::Progress { done_us, .. } = &message {
            self.furthest_us = self.furthest_us.max(*done_us);
        }
        if moved {
            self.moved_at = Instant::now();
        }
        self.greeted = true;
        match message {
            // A flood of words that say nothing new stops here: the agent does not have to take them.
            Message::Progress { .. } if !moved => return Ok(None),
            Message::Warning { .. } if self.warnings == MOST_WARNINGS => return Ok(None),
            Message::Warning { .. } => self.warnings += 1,
            _ => {}
        }
        match message {
            Message::Done => self.last_word = Some(LastWord::Done),
            Message::Failed { failure } => self.last_word = Some(LastWord::Failed(failure)),
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    /// The limits that the kernel does not keep.
    async fn look(&self, process: &ChildProcess) -> Result<(), Cause> {
        if self.started_at.elapsed() >= self.watch.wall_clock {
            return Err(Cause::WallClock { limit: self.watch.wall_clock });
        }
        if self.exit.is_some() {
            return Ok(());
        }
        let silent = self.moved_at.elapsed();
        if silent >= self.watch.no_progress {
            return Err(Cause::NoProgress { silent });
        }
        // The address space is bounded by the kernel, except for jobs on a graphics card.
        let resident_bytes = process.resident_bytes().unwrap_or(0);
        if resident_bytes > self.memory_bytes {
            return Err(Cause::Memory { resident_bytes, limit: self.memory_bytes });
        }
        let scratch = Arc::clone(&self.scratch);
        let bytes = tokio::task::spawn_blocking(move || bytes_on_disk(&scratch)).await.unwrap_or(0);
        if bytes > self.watch.scratch_bytes {
            return Err(Cause::ScratchFull { bytes, limit: self.watch.scratch_bytes });
        }
        Ok(())
    }
}

/// Writes the request and closes the pipe. A child that does not listen shows by what it does (or does not) next.
async fn send_request(mut stdin: pipe::Sender, request: Request) {
    if let Ok(text) = serde_json::to_vec(&request) {
        let _ = stdin.write_all(&text).await;
    }
}

async fn collect_tail(mut stderr: pipe::Receiver) -> String {
    let mut tail = Tail::new(STDERR_TAIL_BYTES);
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        tail.push(&buffer[..read]);
    }
    tail.text()
}

/// How many processes the kernel has killed for want of memory since it booted; 0 where it does not tell.
fn kernel_memory_kills() -> u64 {
    let counters = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    counters
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}
