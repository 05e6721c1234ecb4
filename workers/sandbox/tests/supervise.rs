//! Every way a child can end, with real children.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use reelyard_model::{
    Failure, FailureCode,
    child::{Job, Limits, Message, PROTOCOL, Request},
};
use reelyard_sandbox::supervise::{ChildCommand, Ending, Outcome, Watch, finished_file, start};
use std::{
    io::Write,
    time::{Duration, Instant},
};

/// For what must happen; a busy machine is slow. Half of the default patience with a child that makes no progress, so
/// that its end is not that patience's doing.
const PATIENCE: Duration = Duration::from_secs(30);

struct Case {
    scratch: tempfile::TempDir,
    command: ChildCommand,
}

/// A child that behaves so, under limits that a test does not meet by accident.
fn case(behaviour: &str) -> Case {
    let scratch = tempfile::tempdir().unwrap();
    let mut source = tempfile::tempfile().unwrap();
    source.write_all(b"the source").unwrap();
    std::io::Seek::rewind(&mut source).unwrap();
    let command = ChildCommand {
        program: env!("CARGO_BIN_EXE_reelyard-sandbox-test-child").into(),
        arguments: behaviour.split(' ').map(str::to_owned).collect(),
        request: Request { protocol: PROTOCOL, job: Job::Probe, limits: Limits::default() },
        source: Some(source.into()),
        scratch: scratch.path().to_owned(),
        watch: Watch::default(),
    };
    Case { scratch, command }
}

async fn run(command: ChildCommand) -> (Vec<Message>, Ending) {
    let mut running = start(command).await.unwrap();
    let mut messages = Vec::new();
    while let Some(message) = running.next().await {
        messages.push(message);
    }
    (messages, running.ended().await)
}

fn failure(ending: Ending) -> Failure {
    match ending.outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}; standard error: {}", ending.stderr_tail),
    }
}

fn warnings(messages: &[Message]) -> Vec<String> {
    let text = |message: &Message| match message {
        Message::Warning { text } => Some(text.clone()),
        _ => None,
    };
    messages.iter().filter_map(text).collect()
}

fn process_exists(id: &str) -> bool {
    // A zombie that nobody reaps counts as gone.
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn a_good_child_gets_its_source_and_nothing_else() {
    let case = case("good");
    let (messages, ending) = run(case.command).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.stderr_tail);
    assert_eq!(ending.stderr_tail, "all well\n");
    assert!(ending.usage.peak_resident_bytes > 0);
    let heard = warnings(&messages);
    assert!(heard.iter().any(|line| line == "source: the source"), "{heard:?}");
    assert!(heard.iter().any(|line| line == "descriptors: 0 1 2 3"), "{heard:?}");
    assert!(
        !heard.iter().any(|line| line.contains("PATH=") && !line.contains("LD_LIBRARY_PATH=")),
        "{heard:?}"
    );
    assert!(matches!(messages.first(), Some(Message::Hello { .. })));
    let announced = messages.iter().find_map(|message| match message {
        Message::File { file, byte_len } => Some((file.clone(), *byte_len)),
        _ => None,
    });
    let (file, byte_len) = announced.unwrap();
    assert!(finished_file(case.scratch.path(), &file, byte_len).is_ok());
}

#[tokio::test]
async fn each_signal_has_its_meaning() {
    for (signal, expected) in [
        (libc::SIGSEGV, FailureCode::DecoderCrashed),
        (libc::SIGABRT, FailureCode::DecoderCrashed),
        (libc::SIGILL, FailureCode::DecoderCrashed),
        (libc::SIGFPE, FailureCode::DecoderCrashed),
        (libc::SIGBUS, FailureCode::DecoderCrashed),
        (libc::SIGSYS, FailureCode::DecoderCrashed),
        (libc::SIGKILL, FailureCode::ChildKilled),
        (libc::SIGTERM, FailureCode::ChildKilled),
        (libc::SIGXCPU, FailureCode::TimeLimit),
        (libc::SIGXFSZ, FailureCode::OutputLimit),
    ] {
        let (_, ending) = run(case(&format!("signal {signal}")).command).await;
        assert_eq!(failure(ending).code, expected, "signal {signal}");
    }
}

#[tokio::test]
async fn an_end_without_a_last_word_is_a_failure() {
    for (behaviour, expected) in [
        ("exit 0", FailureCode::Internal),
        ("exit 3", FailureCode::Internal),
        ("half-a-line", FailureCode::DecoderCrashed),
        ("abort-confined", FailureCode::DecoderCrashed),
    ] {
        let (_, ending) = run(case(behaviour).command).await;
        let failure = failure(ending);
        assert_eq!(failure.code, expected, "{behaviour}: {failure:?}");
    }
}

#[tokio::test]
async fn noise_on_the_pipe_ends_the_child() {
    for behaviour in ["garbage", "endless-line", "talks-on", "bad-name"] {
        let (_, ending) = run(case(behaviour).command).await;
        let failure = failure(ending);
        assert_eq!(failure.code, FailureCode::Internal, "{behaviour}: {failure:?}");
        assert!(failure.detail.contains("protocol"), "{failure:?}");
    }
}

#[tokio::test]
async fn a_child_that_makes_no_progress_is_killed() {
    for behaviour in ["hang", "deaf", "same-progress"] {
        let mut case = case(behaviour);
        case.command.watch.no_progress = Duration::from_secs(1);
        let begun = Instant::now();
        let (_, ending) = run(case.command).await;
        assert_eq!(failure(ending).code, FailureCode::ChildHung, "{behaviour}");
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn a_child_that_takes_too_long_is_killed() {
    let mut case = case("hang");
    case.command.watch.wall_clock = Duration::from_secs(1);
    let (_, ending) = run(case.command).await;
    assert_eq!(failure(ending).code, FailureCode::TimeLimit);
}

#[tokio::test]
async fn processor_time_is_bounded() {
    let mut case = case("spin");
    case.command.request.limits.cpu_seconds = 1;
    let (_, ending) = run(case.command).await;
    // The limit counts whole seconds of the clock's ticks; the usage is exact, and can be a little less.
    assert!(ending.usage.cpu >= Duration::from_millis(500), "{:?}", ending.usage);
    assert_eq!(failure(ending).code, FailureCode::TimeLimit);
}

#[tokio::test]
async fn a_file_that_grows_too_long_ends_the_child() {
    let mut case = case("long-file");
    case.command.request.limits.file_bytes = 8 << 20;
    let (_, ending) = run(case.command).await;
    assert_eq!(failure(ending).code, FailureCode::OutputLimit);
    assert_eq!(case.scratch.path().join("long").metadata().unwrap().len(), 8 << 20);
}

#[tokio::test]
async fn a_full_scratch_directory_ends_the_child() {
    let mut case = case("fill-scratch");
    case.command.watch.scratch_bytes = 32 << 20;
    let (_, ending) = run(case.command).await;
    assert_eq!(failure(ending).code, FailureCode::OutputLimit);
}

#[tokio::test]
async fn memory_is_bounded_twice() {
    let (_, ending) = run(case("much-memory").command).await;
    assert_eq!(failure(ending).code, FailureCode::MemoryLimit, "address space, by the kernel");
    let mut case = case("resident");
    case.command.request.limits.address_space_bytes = 64 << 20;
    let (_, ending) = run(case.command).await;
    assert_eq!(failure(ending).code, FailureCode::MemoryLimit, "memory in use, by the supervisor");
}

#[tokio::test]
async fn of_a_flood_of_errors_the_end_is_kept() {
    let (_, ending) = run(case("flood-stderr").command).await;
    let failure = failure(ending);
    assert_eq!(failure.code, FailureCode::DecoderCrashed);
    assert!(failure.stderr_tail.ends_with("the very last line\n"));
    assert!(failure.stderr_tail.len() <= 64 << 10);
}

#[tokio::test]
async fn a_child_that_does_not_go_is_helped() {
    let (_, ending) = run(case("lingers").command).await;
    assert_eq!(ending.outcome, Outcome::Done);
}

#[tokio::test]
async fn what_the_child_started_goes_with_it() {
    let (messages, ending) = run(case("with-grandchild").command).await;
    assert_eq!(ending.outcome, Outcome::Done);
    let grandchild = warnings(&messages).remove(0);
    let begun = Instant::now();
    while process_exists(&grandchild) {
        assert!(begun.elapsed() < PATIENCE, "the grandchild lives on");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn stop_kills_at_once() {
    let mut running = start(case("hang").command).await.unwrap();
    assert!(matches!(running.next().await, Some(Message::Hello { .. })));
    let begun = Instant::now();
    running.stop();
    assert_eq!(running.ended().await.outcome, Outcome::Stopped);
    // Sooner than the grace of a child that may end by itself, which is five seconds.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn dropping_it_kills_too() {
    let mut running = start(case("with-grandchild").command).await.unwrap();
    let mut grandchild = None;
    while let Some(message) = running.next().await {
        if let Message::Warning { text } = message {
            grandchild = Some(text);
            break;
        }
    }
    drop(running);
    let grandchild = grandchild.unwrap();
    let begun = Instant::now();
    while process_exists(&grandchild) {
        assert!(begun.elapsed() < PATIENCE, "the grandchild lives on");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_slow_listener_is_not_held_against_the_child() {
    let mut case = case("many");
    case.command.watch.no_progress = Duration::from_secs(4);
    let mut running = start(case.command).await.unwrap();
    assert!(matches!(running.next().await, Some(Message::Hello { .. })));
    // Longer than the patience with a silent child; the child stands at a full pipe meanwhile.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut heard = 0;
    while let Some(message) = running.next().await {
        heard += usize::from(matches!(message, Message::Progress { .. }));
    }
    assert_eq!(heard, 10_000);
    assert_eq!(running.ended().await.outcome, Outcome::Done);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_not_an_ending() {
    let mut case = case("good");
    case.command.program = "/nowhere/reelyard-media".into();
    assert_eq!(start(case.command).await.unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn what_a_child_left_in_the_pipe_is_read_however_long_it_takes() {
    // It fits into the pipe, so the child is long gone while this listens.
    let mut running = start(case("leaves-much").command).await.unwrap();
    let mut heard = 0;
    while let Some(message) = running.next().await {
        heard += usize::from(matches!(message, Message::Progress { .. }));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(heard, 300);
    assert_eq!(running.ended().await.outcome, Outcome::Done);
}

#[test]
fn a_child_does_not_outlive_a_supervisor_that_is_killed() {
    let scratch = tempfile::tempdir().unwrap();
    let mut supervisor = std::process::Command::new(env!("CARGO_BIN_EXE_reelyard-sandbox-test-child"))
        .arg("supervisor")
        .current_dir(scratch.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(supervisor.stdout.as_mut().unwrap()),
        &mut child,
    )
    .unwrap();
    let child = child.trim();
    assert!(process_exists(child), "{child:?}");
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let begun = Instant::now();
    while process_exists(child) {
        assert!(begun.elapsed() < PATIENCE, "the child lives on");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_hundred_children() {
    let open_descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // Of every thread: one thread of its own starts them all.
    let children = || -> Vec<String> {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        threads
            .flat_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
            .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    };
    // The first one brings what stays: the runtime's own descriptors.
    run(case("good").command).await;
    let before = open_descriptors();
    for number in 0..100 {
        let mut running = start(case(if number % 2 == 0 { "good" } else { "hang" }).command).await.unwrap();
        running.next().await;
        running.stop();
        running.ended().await;
    }
    assert!(open_descriptors() <= before, "{before} became {}", open_descriptors());
    assert_eq!(children(), Vec::<String>::new(), "not even a zombie");
}
