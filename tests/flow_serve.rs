//! `reelyard serve` as a process: what it refuses before the port opens, what it leaves in its directory, how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Longest that a start or an end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn serve(data: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reelyard"));
    // No media work is done here, so any program will do.
    command
        .args(["serve", "--workers", "0", "--media-program", "/bin/true", "--data-dir"])
        .arg(data)
        .args(more);
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

struct Running {
    child: Child,
    url: String,
}

impl Running {
    fn start(data: &Path, more: &[&str]) -> Self {
        let ready = data.with_extension("ready");
        let _ = fs::remove_file(&ready);
        let child = serve(data, more).arg("--ready-file").arg(&ready).spawn().unwrap();
        let mut running = Self { child, url: String::new() };
        let deadline = Instant::now() + PATIENCE;
        while running.url.is_empty() {
            assert!(running.child.try_wait().unwrap().is_none(), "the server ended: {}", running.errors());
            assert!(Instant::now() < deadline, "the server is not ready");
            running.url = fs::read_to_string(&ready).unwrap_or_default().trim().to_owned();
            std::thread::yield_now();
        }
        running
    }

    fn errors(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            std::io::Read::read_to_string(&mut errors, &mut text).unwrap();
        }
        text
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Status, standard output, standard error.
    fn ended(mut self) -> (Option<i32>, String, String) {
        let child = std::mem::replace(&mut self.child, Command::new("/bin/true").spawn().unwrap());
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn refused(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_first_start_makes_keys_and_a_signal_ends_it_in_order() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let running = Running::start(&data, &["--listen", "127.0.0.1:0", "--log-format", "json"]);
    assert!(running.url.starts_with("http://127.0.0.1:"), "{}", running.url);
    let began = Instant::now();
    running.signal("-TERM");
    let (code, out, log) = running.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(began.elapsed() < PATIENCE);
    let key = fs::read_to_string(data.join("admin.key")).unwrap();
    assert!(out.contains(key.trim()), "the key is shown at the first start: {out}");
    for line in log.lines() {
        assert!(line.starts_with('{') && line.contains("\"timestamp\""), "{line}");
    }
    for secret in ["admin.key", "signing-keys.json"] {
        assert_eq!(fs::metadata(data.join(secret)).unwrap().permissions().mode() & 0o777, 0o600, "{secret}");
    }
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);

    let again = Running::start(&data, &["--listen", "127.0.0.1:0"]);
    again.signal("-INT");
    let (code, out, _) = again.ended();
    assert_eq!(code, Some(0));
    assert!(!out.contains(key.trim()), "and not at the second: {out}");
}

fn healthcheck(url: &str) -> (Option<i32>, String) {
    let program = env!("CARGO_BIN_EXE_reelyard");
    let output = Command::new(program).args(["healthcheck", "--server", url]).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_healthcheck_says_whether_it_is_ready_and_why_not() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let running = Running::start(&data, &["--listen", "127.0.0.1:0"]);
    assert_eq!(healthcheck(&running.url), (Some(0), "ready\n".to_owned()));
    fs::remove_dir_all(data.join("scratch")).unwrap();
    let (code, said) = healthcheck(&running.url);
    assert_eq!(code, Some(1));
    assert!(said.starts_with("not ready:") && said.contains("data_directory failed"), "{said}");
    let url = running.url.clone();
    running.signal("-TERM");
    running.ended();
    let (code, said) = healthcheck(&url);
    assert_eq!(code, Some(1));
    assert!(said.contains("does not answer"), "{said}");
}

#[test]
fn its_address_stands_in_the_directory_while_it_runs() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("server.url"), "http://127.0.0.1:1\n").unwrap();
    let running = Running::start(&data, &["--insecure-open", "--listen", "127.0.0.1:0"]);
    let written = fs::read_to_string(data.join("server.url")).unwrap();
    assert_eq!(written.trim(), running.url);
    running.signal("-TERM");
    assert_eq!(running.ended().0, Some(0));
    assert!(!data.join("server.url").exists());
}

#[test]
fn two_servers_do_not_share_a_directory() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let first = Running::start(&data, &["--listen", "127.0.0.1:0"]);
    let errors = refused(serve(&data, &["--listen", "127.0.0.1:0"]));
    assert!(errors.contains("in use") && errors.contains(&first.child.id().to_string()), "{errors}");
}

#[test]
fn without_keys_it_stays_on_loopback() {
    let place = tempfile::tempdir().unwrap();
    let errors = refused(serve(&place.path().join("data"), &["--insecure-open", "--listen", "0.0.0.0:0"]));
    assert!(errors.contains("loopback"), "{errors}");
    assert!(!place.path().join("data").exists(), "refused before anything was made");
}

#[test]
fn what_is_wrong_is_told_before_the_port_opens() {
    let place = tempfile::tempdir().unwrap();
    let mut too_many = Command::new(env!("CARGO_BIN_EXE_reelyard"));
    let output =
        too_many.args(["serve", "--workers", "100000", "--data-dir"]).arg(place.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("256"), "{output:?}");

    let presets = place.path().join("presets");
    fs::create_dir(&presets).unwrap();
    fs::write(presets.join("mine.toml"), "version = 1\nladder = 3\n").unwrap();
    let data = place.path().join("data");
    let errors = refused(serve(&data, &["--presets", presets.to_str().unwrap()]));
    assert!(errors.contains("mine.toml, line 2") && errors.contains("ladder"), "{errors}");

    let errors = refused(serve(&data, &["--public-url", "video.example"]));
    assert!(errors.contains("--public-url"), "{errors}");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("catalog.sqlite"), "this is no database, it is a note".repeat(40)).unwrap();
    let errors = refused(serve(&data, &["--listen", "127.0.0.1:0"]));
    assert!(errors.contains("catalog.sqlite"), "{errors}");
}

#[test]
fn a_port_that_was_asked_for_and_is_taken_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let errors = refused(serve(&place.path().join("data"), &["--listen", &taken]));
    assert!(errors.contains(&taken) && errors.contains("--listen"), "{errors}");
}

#[test]
fn the_default_port_makes_way_and_says_so() {
    let place = tempfile::tempdir().unwrap();
    // Ours or somebody else's: what matters is that it is taken.
    let _holder = TcpListener::bind("127.0.0.1:8080");
    let running = Running::start(&place.path().join("data"), &["--insecure-open"]);
    let url = running.url.clone();
    running.signal("-TERM");
    let (code, out, _) = running.ended();
    assert_eq!(code, Some(0));
    assert!(!url.ends_with(":8080"), "{url}");
    assert!(out.contains("Port 8080 is taken"), "{out}");
}

#[test]
fn a_second_signal_stops_at_once_even_with_an_open_answer() {
    let place = tempfile::tempdir().unwrap();
    let running = Running::start(&place.path().join("data"), &["--insecure-open", "--listen", "127.0.0.1:0"]);
    // A request that never ends holds up the drain.
    let address = running.url.trim_start_matches("http://").to_owned();
    let mut open = std::net::TcpStream::connect(&address).unwrap();
    std::io::Write::write_all(
        &mut open,
        format!(
            "POST /uploads HTTP/1.1\r\nHost: {address}\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 1000\r\n\
             Content-Type: application/offset+octet-stream\r\nContent-Length: 1000\r\n\r\nhalf"
        )
        .as_bytes(),
    )
    .unwrap();
    running.signal("-TERM");
    running.signal("-INT");
    let began = Instant::now();
    let (code, _, log) = running.ended();
    assert!(matches!(code, Some(0 | 130)), "{code:?} {log}");
    assert!(began.elapsed() < PATIENCE);
}
