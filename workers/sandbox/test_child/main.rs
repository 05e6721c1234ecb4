//! A child that misbehaves on demand, for the tests of `supervise` and `confine`. The first argument says how. It is a
//! real program under real limits: what the tests see is what the media child would get.

// A child that is never waited for is what one of the behaviours is about.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::zombie_processes)]

use reelyard_model::child::{Job, Limits, Message, PROTOCOL, Request};
use reelyard_sandbox::{
    Devices, confine,
    source::Source,
    supervise::{ChildCommand, Watch},
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::FromRawFd,
    path::Path,
};

#[allow(clippy::too_many_lines, reason = "a table of behaviours")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let how = arguments.first().map_or("", String::as_str);
    if how == "grandchild" {
        hang();
    }
    let mut text = String::new();
    match how {
        "deaf" => hang(),
        "supervisor" => supervise_one_that_hangs(),
        _ => {}
    }
    std::io::stdin().read_to_string(&mut text).unwrap();
    let request: Request = serde_json::from_str(&text).unwrap();
    match how {
        "garbage" => {
            println!("this is no message");
            hang();
        }
        "endless-line" => loop {
            std::io::stdout().write_all(&[b'x'; 65536]).unwrap();
        },
        _ => {}
    }
    match how {
        "kernel-without-landlock" | "walls-without-landlock" => {
            answer(&[libc::SYS_landlock_create_ruleset], libc::ENOSYS)
        }
        "landlock-switched-off" => answer(&[libc::SYS_landlock_create_ruleset], libc::EOPNOTSUPP),
        // As in a container whose own filter is narrow.
        "nothing-to-be-had" => answer(
            &[libc::SYS_landlock_create_ruleset, libc::SYS_seccomp, libc::SYS_close_range, libc::SYS_capset],
            libc::EPERM,
        ),
        _ => {}
    }
    let devices = if how == "walls-with-devices" { Devices::Nvidia } else { Devices::None };
    let poor = matches!(how, "kernel-without-landlock" | "landlock-switched-off" | "nothing-to-be-had");
    let confined = poor
        || matches!(
            how,
            "walls"
                | "walls-with-devices"
                | "walls-without-landlock"
                | "long-file"
                | "much-memory"
                | "spin"
                | "threads"
                | "asks"
                | "abort-confined"
        );
    let sandbox = if confined { confine(&request.limits, Path::new("."), devices) } else { Vec::new() };
    say(&Message::Hello { protocol: PROTOCOL, ffmpeg: "none".to_owned(), sandbox });
    match how {
        "good" => good(),
        _ if poor => say(&Message::Done),
        "hang" => hang(),
        "walls" | "walls-with-devices" | "walls-without-landlock" => try_the_walls(confined),
        "threads" => threads(),
        "asks" => ask_for_the_source(),
        "signal" => raise(arguments[1].parse().unwrap()),
        "exit" => std::process::exit(arguments[1].parse().unwrap()),
        "abort-confined" => std::process::abort(),
        "half-a-line" => {
            print!("{{\"kind\":\"prog");
            std::io::stdout().flush().unwrap();
            raise(libc::SIGSEGV);
        }
        "same-progress" => loop {
            say(&Message::Progress { done_us: 5, total_us: 10 });
        },
        "flood-stderr" => {
            for line in 0..200_000 {
                eprintln!("{line} {}", "x".repeat(90));
            }
            eprintln!("the very last line");
            raise(libc::SIGSEGV);
        }
        "long-file" => write_up_to("long", 1 << 30),
        "fill-scratch" => {
            write_up_to("much", 64 << 20);
            hang();
        }
        "much-memory" => drop(vec![1_u8; 1 << 40]),
        "resident" => {
            let memory = vec![1_u8; 256 << 20];
            hang_with(&memory);
        }
        "spin" => loop {
            std::hint::spin_loop();
        },
        "bad-name" => say(&Message::File { file: "../out".to_owned(), byte_len: 1 }),
        "lingers" => {
            say(&Message::Done);
            hang();
        }
        "talks-on" => {
            say(&Message::Done);
            say(&Message::Done);
            hang();
        }
        "with-grandchild" => {
            // It holds this program's pipes and never ends by itself.
            let grandchild = std::process::Command::new("/proc/self/exe").arg("grandchild").spawn().unwrap();
            say(&Message::Warning { text: grandchild.id().to_string() });
            say(&Message::Done);
        }
        "leaves-much" => {
            for done_us in 0..300 {
                say(&Message::Progress { done_us, total_us: 300 });
            }
            say(&Message::Done);
        }
        "many" => {
            for done_us in 0..10_000 {
                say(&Message::Progress { done_us, total_us: 10_000 });
            }
            say(&Message::Done);
        }
        other => panic!("no such behaviour: {other:?}"),
    }
}

/// Makes the kernel answer some calls with an error, as poorer kernels and containers do.
fn answer(calls: &[libc::c_long], error: i32) {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(error as u32);
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// A supervisor for the test to kill: prints the number of a child that would never end.
fn supervise_one_that_hangs() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut running = reelyard_sandbox::supervise::start(ChildCommand {
            program: std::env::current_exe().unwrap(),
            arguments: vec!["hang".to_owned()],
            request: Request { protocol: PROTOCOL, job: Job::Probe, limits: Limits::default() },
            source: None,
            scratch: std::env::current_dir().unwrap(),
            watch: Watch::default(),
        })
        .await
        .unwrap();
        running.next().await.unwrap();
        println!("{}", running.process_id());
        std::future::pending::<()>().await;
    });
}

fn say(message: &Message) {
    println!("{}", serde_json::to_string(message).unwrap());
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

fn hang_with(memory: &[u8]) -> ! {
    std::hint::black_box(memory);
    hang()
}

fn raise(signal: i32) {
    // SAFETY: raising a signal that ends this test program. Rust's own handler of SIGSEGV and SIGBUS waits for the
    // fault to come again, which a raised signal does not.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

fn write_up_to(file: &str, bytes: usize) {
    let mut file = File::create(file).unwrap();
    let block = vec![1_u8; 1 << 20];
    for _ in 0..bytes >> 20 {
        file.write_all(&block).unwrap();
    }
}

/// Reads the source, writes a file, says all that a child says, and shows what it was given.
fn good() {
    // SAFETY: the supervisor gives the source as descriptor 3, and nobody else here uses it.
    let mut source = unsafe { File::from_raw_fd(3) };
    let mut text = String::new();
    source.read_to_string(&mut text).unwrap();
    say(&Message::Warning { text: format!("source: {text}") });
    for (name, value) in std::env::vars() {
        say(&Message::Warning { text: format!("environment: {name}={value}") });
    }
    let mut descriptors: Vec<String> = Path::new("/proc/self/fd")
        .read_dir()
        .unwrap()
        .flatten()
        .filter(|entry| !entry.path().read_link().unwrap().starts_with("/proc"))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    descriptors.sort();
    say(&Message::Warning { text: format!("descriptors: {}", descriptors.join(" ")) });
    say(&Message::Progress { done_us: 1, total_us: 2 });
    std::fs::create_dir("240p").unwrap();
    std::fs::write("240p/init.mp4", b"12345").unwrap();
    say(&Message::File { file: "240p/init.mp4".to_owned(), byte_len: 5 });
    eprintln!("all well");
    say(&Message::Done);
}

/// What work needs: threads, memory, clocks, files below scratch, reading descriptor 3.
fn threads() {
    // SAFETY: as in `good`.
    let mut source = unsafe { File::from_raw_fd(3) };
    source.read_to_string(&mut String::new()).unwrap();
    let workers: Vec<_> = (0..8_u8)
        .map(|number| {
            std::thread::Builder::new()
                .name(format!("worker {number}"))
                .spawn(move || vec![number; 4 << 20])
                .unwrap()
        })
        .collect();
    let bytes: usize = workers.into_iter().map(|worker| worker.join().unwrap().len()).sum();
    std::thread::sleep(std::time::Duration::from_millis(1));
    std::fs::create_dir("240p").unwrap();
    std::fs::write("240p/part", b"12345").unwrap();
    std::fs::rename("240p/part", "240p/init.mp4").unwrap();
    File::open("240p").unwrap().sync_all().unwrap();
    let seen: Vec<_> = Path::new(".").read_dir().unwrap().flatten().map(|entry| entry.file_name()).collect();
    say(&Message::Warning { text: format!("{bytes} {seen:?}") });
    say(&Message::File { file: "240p/init.mp4".to_owned(), byte_len: 5 });
    say(&Message::Done);
}

/// Reads a source that the parent serves, and tries to make more of the socket than that.
fn ask_for_the_source() {
    let source = Source::inherited().unwrap();
    let mut bytes = vec![0; source.byte_len() as usize];
    let count = source.read_at(&mut bytes, 0).unwrap();
    say(&Message::Warning { text: format!("read: {}", String::from_utf8_lossy(&bytes[..count])) });
    let byte = [b'x'];
    let mut part = libc::iovec { iov_base: byte.as_ptr().cast_mut().cast(), iov_len: 1 };
    // SAFETY: an all-zero msghdr is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    // Descriptors would travel in such messages.
    report("send a message", call(|| unsafe { libc::sendmsg(3, &raw const message, 0) as libc::c_long }));
    report("receive a message", call(|| unsafe { libc::recvmsg(3, &raw mut message, 0) as libc::c_long }));
    report(
        "another socket",
        call(|| unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, [0; 2].as_mut_ptr()).into() }),
    );
    report("connect it", call(|| unsafe { libc::connect(3, [0_u8; 16].as_ptr().cast(), 16).into() }));
    say(&Message::Done);
}

/// Tries what a decoder that was taken over would try, and reports each outcome.
fn try_the_walls(confined: bool) {
    assert!(confined, "unconfined these would be done, to the test");
    report("read /etc/passwd", File::open("/etc/passwd").map(drop));
    report("read /proc/self/environ", File::open("/proc/self/environ").map(drop));
    report("reopen the source", File::open("/proc/self/fd/3").map(drop));
    report("write outside", File::create("../outside").map(drop));
    report("list outside", std::fs::read_dir("..").map(drop));
    report("symlink", std::os::unix::fs::symlink("/etc/passwd", "link"));
    report("hard link", File::create("file").and_then(|_| std::fs::hard_link("file", "second")));
    report(
        "set-user-id",
        std::fs::set_permissions("file", std::os::unix::fs::PermissionsExt::from_mode(0o4755)),
    );
    report("tcp socket", std::net::TcpListener::bind("127.0.0.1:0").map(drop));
    report("unix socket", std::os::unix::net::UnixListener::bind("socket").map(drop));
    report("exec", std::process::Command::new("/bin/true").status().map(drop));
    report("signal another", call(|| unsafe { libc::kill(libc::getppid(), 0).into() }));
    report(
        "ptrace",
        call(|| unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, libc::getppid(), 0, 0) }),
    );
    report("fork", call(|| unsafe { libc::fork().into() }));
    report("unshare", call(|| unsafe { libc::unshare(libc::CLONE_NEWUSER).into() }));
    report("bpf", call(|| unsafe { libc::syscall(libc::SYS_bpf, 0, 0, 0) }));
    report("io_uring", call(|| unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, 0) }));
    report("keyctl", call(|| unsafe { libc::syscall(libc::SYS_keyctl, 0, 0, 0, 0, 0) }));
    report("perf_event_open", call(|| unsafe { libc::syscall(libc::SYS_perf_event_open, 0, 0, 0, 0, 0) }));
    report("userfaultfd", call(|| unsafe { libc::syscall(libc::SYS_userfaultfd, 0) }));
    report("mount", call(|| unsafe { libc::syscall(libc::SYS_mount, 0, 0, 0, 0, 0) }));
    report("debuggable", call(|| unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0).into() }));
    let executable = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    report(
        "executable memory",
        call(|| unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, executable, anonymous, -1, 0) as libc::c_long
        }),
    );
    let more = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    report("raise a limit", call(|| unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const more).into() }));
    say(&Message::Done);
}

fn report(what: &str, outcome: std::io::Result<()>) {
    let outcome = outcome.map_or_else(|error| error.to_string(), |()| "allowed".to_owned());
    say(&Message::Warning { text: format!("{what}: {outcome}") });
}

/// Minus one is "refused", and errno says how.
fn call(mut attempt: impl FnMut() -> libc::c_long) -> std::io::Result<()> {
    if attempt() == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
