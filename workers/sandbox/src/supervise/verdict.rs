//! How a child ended, from the evidence: a pure function, so that each rule is a line in a test.
//!
//! The order of trust: what we did to it, then its own last word, then how the kernel says it ended. A child that ends
//! without a last word has crashed, whatever its exit status says.

use reelyard_model::{Failure, FailureCode, child::Limits};
use std::time::Duration;

/// What a child used, as the kernel counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time together.
    pub cpu: Duration,
    pub peak_resident_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its last word was `Done`.
    Done,
    Failed(Failure),
    /// The caller asked for the end.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(i32),
}

/// Why the supervisor killed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Asked,
    NoProgress {
        silent: Duration,
    },
    WallClock {
        limit: Duration,
    },
    ScratchFull {
        bytes: u64,
        limit: u64,
    },
    Memory {
        resident_bytes: u64,
        limit: u64,
    },
    /// Something on the pipe that is not in the protocol.
    Protocol(String),
    /// It closed its output, or said its last word, and did not end.
    Lingered,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LastWord {
    Done,
    Failed(Failure),
}

#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub(super) killed_for: Option<Cause>,
    pub(super) last_word: Option<LastWord>,
    /// `None` when it could not be waited for.
    pub(super) exit: Option<Exit>,
    pub(super) usage: Usage,
    pub(super) limits: Limits,
    /// Whether the kernel killed anything for want of memory while the child ran.
    pub(super) kernel_ran_out_of_memory: bool,
    pub(super) stderr_tail: String,
}

/// Longest detail taken over from a child, in characters.
const DETAIL_CHARACTERS: usize = 2000;

pub(super) fn judge(evidence: &Evidence) -> Outcome {
    let failed = |mut failure: Failure| {
        failure.stderr_tail.clone_from(&evidence.stderr_tail);
        Outcome::Failed(failure)
    };
    match (&evidence.killed_for, &evidence.last_word) {
        (Some(Cause::Asked), _) => Outcome::Stopped,
        // The result was complete before it had to be killed, or crashed on its way out.
        (Some(Cause::Lingered) | None, Some(LastWord::Done)) => Outcome::Done,
        (Some(Cause::Lingered) | None, Some(LastWord::Failed(failure))) => {
            let mut failure = failure.clone();
            failure.detail = failure.detail.chars().take(DETAIL_CHARACTERS).collect();
            failed(failure)
        }
        (Some(cause), _) => failed(of_cause(cause)),
        (None, None) => failed(of_exit(evidence)),
    }
}

fn of_cause(cause: &Cause) -> Failure {
    match cause {
        Cause::Asked => Failure::new(FailureCode::Cancelled, "stopped by the caller"),
        Cause::NoProgress { silent } => {
            Failure::new(FailureCode::ChildHung, format!("no progress for {} s; killed", silent.as_secs()))
        }
        Cause::WallClock { limit } => {
            Failure::new(FailureCode::TimeLimit, format!("not done after {} s; killed", limit.as_secs()))
        }
        Cause::ScratchFull { bytes, limit } => Failure::new(
            FailureCode::OutputLimit,
            format!("{bytes} bytes in the scratch directory, the limit is {limit}; killed"),
        ),
        Cause::Memory { resident_bytes, limit } => Failure::new(
            FailureCode::MemoryLimit,
            format!("{resident_bytes} bytes of memory in use, the limit is {limit}; killed"),
        ),
        Cause::Protocol(what) => {
            Failure::new(FailureCode::Internal, format!("the child broke the protocol: {what}; killed"))
        }
        Cause::Lingered => Failure::new(
            FailureCode::Internal,
            "the child closed its output without a last word and did not end; killed",
        ),
    }
}

/// It ended by itself without a last word.
fn of_exit(evidence: &Evidence) -> Failure {
    let cpu_seconds = evidence.usage.cpu.as_secs();
    match evidence.exit {
        Some(Exit::Signal(libc::SIGXCPU)) => Failure::new(
            FailureCode::TimeLimit,
            format!("used {cpu_seconds} s of processor time, the limit is {}", evidence.limits.cpu_seconds),
        ),
        // The hard processor limit kills outright, when the soft one's signal was ignored.
        Some(Exit::Signal(libc::SIGKILL)) if cpu_seconds >= evidence.limits.cpu_seconds => Failure::new(
            FailureCode::TimeLimit,
            format!("used {cpu_seconds} s of processor time, the limit is {}", evidence.limits.cpu_seconds),
        ),
        Some(Exit::Signal(libc::SIGXFSZ)) => Failure::new(
            FailureCode::OutputLimit,
            format!("wrote a file longer than {} bytes", evidence.limits.file_bytes),
        ),
        Some(Exit::Signal(libc::SIGKILL)) if evidence.kernel_ran_out_of_memory => Failure::new(
            FailureCode::MemoryLimit,
            format!(
                "killed while the kernel was out of memory; it had used {} bytes",
                evidence.usage.peak_resident_bytes
            ),
        ),
        Some(Exit::Signal(signal @ (libc::SIGKILL | libc::SIGTERM | libc::SIGINT | libc::SIGHUP))) => {
            Failure::new(FailureCode::ChildKilled, format!("ended by {} from outside", signal_name(signal)))
        }
        Some(Exit::Signal(signal)) if says_out_of_memory(&evidence.stderr_tail) => Failure::new(
            FailureCode::MemoryLimit,
            format!(
                "ended by {} after an allocation failed; the limit is {} bytes of address space",
                signal_name(signal),
                evidence.limits.address_space_bytes
            ),
        ),
        Some(Exit::Signal(signal)) => {
            Failure::new(FailureCode::DecoderCrashed, format!("ended by {}", signal_name(signal)))
        }
        Some(Exit::Code(code)) => {
            Failure::new(FailureCode::Internal, format!("ended with status {code} and without a last word"))
        }
        None => Failure::new(FailureCode::Internal, "it could not be found out how the child ended"),
    }
}

/// What Rust's allocator, FFmpeg and x264 say when they get no memory.
fn says_out_of_memory(stderr: &str) -> bool {
    ["memory allocation of", "Cannot allocate memory", "malloc of size", "Out of memory"]
        .iter()
        .any(|phrase| stderr.contains(phrase))
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGSEGV => "SIGSEGV (it used memory that it does not have)",
        libc::SIGABRT => "SIGABRT (it gave up by itself)",
        libc::SIGILL => "SIGILL (an instruction that this processor does not know)",
        libc::SIGFPE => "SIGFPE (a division by zero)",
        libc::SIGBUS => "SIGBUS (memory or a mapped file that went away)",
        libc::SIGSYS => "SIGSYS (a forbidden system call)",
        libc::SIGTRAP => "SIGTRAP (a failed check)",
        libc::SIGKILL => "SIGKILL",
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        libc::SIGHUP => "SIGHUP",
        libc::SIGPIPE => "SIGPIPE (nobody listened)",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Cause, Evidence, Exit, LastWord, Outcome, Usage, judge};
    use reelyard_model::{Failure, FailureCode, child::Limits};
    use std::time::Duration;

    fn evidence(exit: Exit) -> Evidence {
        Evidence {
            killed_for: None,
            last_word: None,
            exit: Some(exit),
            usage: Usage::default(),
            limits: Limits::default(),
            kernel_ran_out_of_memory: false,
            stderr_tail: "the tail".to_owned(),
        }
    }

    fn code(evidence: &Evidence) -> FailureCode {
        match judge(evidence) {
            Outcome::Failed(failure) => {
                assert_eq!(failure.stderr_tail, evidence.stderr_tail);
                failure.code
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_end_without_a_last_word_is_a_crash_whatever_the_status() {
        for (exit, expected) in [
            (Exit::Code(0), FailureCode::Internal),
            (Exit::Code(101), FailureCode::Internal),
            (Exit::Signal(libc::SIGSEGV), FailureCode::DecoderCrashed),
            (Exit::Signal(libc::SIGABRT), FailureCode::DecoderCrashed),
            (Exit::Signal(libc::SIGILL), FailureCode::DecoderCrashed),
            (Exit::Signal(libc::SIGFPE), FailureCode::DecoderCrashed),
            (Exit::Signal(libc::SIGBUS), FailureCode::DecoderCrashed),
            (Exit::Signal(libc::SIGSYS), FailureCode::DecoderCrashed),
            (Exit::Signal(libc::SIGKILL), FailureCode::ChildKilled),
            (Exit::Signal(libc::SIGTERM), FailureCode::ChildKilled),
            (Exit::Signal(libc::SIGXCPU), FailureCode::TimeLimit),
            (Exit::Signal(libc::SIGXFSZ), FailureCode::OutputLimit),
        ] {
            assert_eq!(code(&evidence(exit)), expected, "{exit:?}");
        }
    }

    #[test]
    fn a_kill_is_read_with_what_the_kernel_counted() {
        let mut killed = evidence(Exit::Signal(libc::SIGKILL));
        killed.kernel_ran_out_of_memory = true;
        assert_eq!(code(&killed), FailureCode::MemoryLimit);
        killed.usage.cpu = Duration::from_secs(killed.limits.cpu_seconds);
        assert_eq!(code(&killed), FailureCode::TimeLimit);
    }

    #[test]
    fn a_crash_after_a_failed_allocation_is_a_memory_limit() {
        let mut aborted = evidence(Exit::Signal(libc::SIGABRT));
        aborted.stderr_tail = "memory allocation of 8589934592 bytes failed".to_owned();
        assert_eq!(code(&aborted), FailureCode::MemoryLimit);
    }

    #[test]
    fn our_own_kill_says_why() {
        let second = Duration::from_secs(1);
        for (cause, expected) in [
            (Cause::NoProgress { silent: second }, FailureCode::ChildHung),
            (Cause::WallClock { limit: second }, FailureCode::TimeLimit),
            (Cause::ScratchFull { bytes: 2, limit: 1 }, FailureCode::OutputLimit),
            (Cause::Memory { resident_bytes: 2, limit: 1 }, FailureCode::MemoryLimit),
            (Cause::Protocol("noise".to_owned()), FailureCode::Internal),
            (Cause::Lingered, FailureCode::Internal),
        ] {
            let killed =
                Evidence { killed_for: Some(cause.clone()), ..evidence(Exit::Signal(libc::SIGKILL)) };
            assert_eq!(code(&killed), expected, "{cause:?}");
        }
        let asked = Evidence {
            killed_for: Some(Cause::Asked),
            last_word: Some(LastWord::Done),
            ..evidence(Exit::Signal(libc::SIGKILL))
        };
        assert_eq!(judge(&asked), Outcome::Stopped);
    }

    #[test]
    fn a_last_word_counts_even_when_the_way_out_crashes() {
        let mut done = evidence(Exit::Signal(libc::SIGSEGV));
        done.last_word = Some(LastWord::Done);
        assert_eq!(judge(&done), Outcome::Done);
        done.killed_for = Some(Cause::Lingered);
        assert_eq!(judge(&done), Outcome::Done);
        done.last_word = Some(LastWord::Failed(Failure::new(FailureCode::NotMedia, "no")));
        assert_eq!(code(&done), FailureCode::NotMedia);
        // But what came after the last word was noise.
        done.killed_for = Some(Cause::Protocol("noise".to_owned()));
        assert_eq!(code(&done), FailureCode::Internal);
    }
}
