//! `reelyard upload` against a server that goes away and comes back.

use super::server::Server;
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

const CONDITION_LIMIT: Duration = Duration::from_secs(60);

struct Workplace {
    directory: tempfile::TempDir,
    file: PathBuf,
}

fn workplace(byte_len: usize) -> Workplace {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("holiday in Rügen.mp4");
    let block: Vec<u8> = (0..65_537_usize).map(|n| (n * 31 + n / 251) as u8).collect();
    let mut bytes = Vec::with_capacity(byte_len + block.len());
    while bytes.len() < byte_len {
        bytes.extend_from_slice(&block);
    }
    fs::write(&file, &bytes[..byte_len]).unwrap();
    Workplace { directory, file }
}

fn upload_command(server: &Server, place: &Workplace) -> Command {
    let mut command = bare_command(place);
    command.args(["--server", &server.url(), "--json"]).arg("--data-dir").arg(&server.data);
    command
}

/// Without a server, without a data directory.
fn bare_command(place: &Workplace) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reelyard"));
    command
        .arg("upload")
        .arg(&place.file)
        .env("XDG_STATE_HOME", place.directory.path().join("state"))
        .env("XDG_DATA_HOME", place.directory.path().join("data"))
        .env_remove("REELYARD_KEY")
        .env_remove("REELYARD_SERVER")
        .env_remove("REELYARD_DATA_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn result_of(output: &Output) -> serde_json::Value {
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {shown}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("not one JSON object: {output:?}"))
}

fn check_stored(server: &Server, place: &Workplace, result: &serde_json::Value) {
    let bytes = fs::read(&place.file).unwrap();
    assert_eq!(result["byte_len"], bytes.len());
    assert_eq!(result["sha256"], hex::encode(Sha256::digest(&bytes)));
    let asset = result["asset"].as_str().unwrap();
    assert!(fs::read(server.data.join("sources").join(asset)).unwrap() == bytes);
}

/// Bytes of the one upload that are in the data directory.
fn received(data: &Path) -> u64 {
    let entries = fs::read_dir(data.join("uploads")).unwrap();
    let files = entries.flatten().filter(|entry| entry.path().extension().is_none());
    files.filter_map(|entry| entry.metadata().ok()).map(|facts| facts.len()).max().unwrap_or(0)
}

/// Waits until the transfer is somewhere in the middle.
fn wait_for_some_bytes(data: &Path, child: &mut Child, at_least: u64) {
    let began = Instant::now();
    while received(data) < at_least {
        assert!(child.try_wait().unwrap().is_none(), "done before it could be interrupted");
        assert!(began.elapsed() < CONDITION_LIMIT, "nothing arrives");
        std::thread::yield_now();
    }
}

#[test]
fn a_file_is_sent_and_one_json_object_tells_where_it_is() {
    let (server, place) = (Server::start(), workplace(3_000_000));
    let output = upload_command(&server, &place).output().unwrap();
    check_stored(&server, &place, &result_of(&output));
    assert_eq!(fs::read_dir(place.directory.path().join("state/reelyard/uploads")).unwrap().count(), 0);
}

#[test]
fn an_empty_file_is_sent_too() {
    let (server, place) = (Server::start(), workplace(0));
    check_stored(&server, &place, &result_of(&upload_command(&server, &place).output().unwrap()));
}

#[test]
fn it_goes_on_when_the_server_was_killed_and_came_back() {
    let (mut server, place) = (Server::start(), workplace(100 << 20));
    let mut child = upload_command(&server, &place).spawn().unwrap();
    wait_for_some_bytes(&server.data, &mut child, 20 << 20);
    server.kill();
    server.restart();
    check_stored(&server, &place, &result_of(&child.wait_with_output().unwrap()));
}

#[test]
fn the_same_command_goes_on_where_a_killed_one_stopped() {
    let (server, place) = (Server::start(), workplace(100 << 20));
    let mut child = upload_command(&server, &place).spawn().unwrap();
    wait_for_some_bytes(&server.data, &mut child, 20 << 20);
    child.kill().unwrap();
    child.wait().unwrap();
    let remembered = fs::read_dir(place.directory.path().join("state/reelyard/uploads")).unwrap().next();
    let remembered = fs::read_to_string(remembered.unwrap().unwrap().path()).unwrap();
    let result = result_of(&upload_command(&server, &place).output().unwrap());
    assert!(remembered.contains(result["upload"].as_str().unwrap()), "it is the same upload");
    check_stored(&server, &place, &result);
}

#[test]
fn what_cannot_work_ends_at_once_with_the_servers_reason() {
    let (server, place) = (Server::start(), workplace(10));
    let unknown_preset = upload_command(&server, &place).args(["--preset", "none"]).output().unwrap();
    assert_eq!(unknown_preset.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown_preset.stderr).contains("web-h264"), "{unknown_preset:?}");
    let error: serde_json::Value = serde_json::from_slice(&unknown_preset.stdout).unwrap();
    assert!(error["error"].as_str().unwrap().contains("web-h264"));
    let wrong_key = upload_command(&server, &place).args(["--key", "wrong"]).output().unwrap();
    assert_eq!(wrong_key.status.code(), Some(1));
    let no_file =
        Command::new(env!("CARGO_BIN_EXE_reelyard")).args(["upload", "/nonexistent"]).output().unwrap();
    assert_eq!(no_file.status.code(), Some(1));
}

#[test]
fn a_file_that_changes_under_way_is_noticed() {
    let (server, place) = (Server::start(), workplace(100 << 20));
    let mut child = upload_command(&server, &place).spawn().unwrap();
    wait_for_some_bytes(&server.data, &mut child, 20 << 20);
    fs::OpenOptions::new().append(true).open(&place.file).unwrap().write_all(b"more").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("was changed while it was being sent"),
        "{output:?}"
    );
}

#[test]
fn an_upload_that_the_server_does_not_know_any_more_begins_anew() {
    let (server, place) = (Server::start(), workplace(100 << 20));
    let mut child = upload_command(&server, &place).spawn().unwrap();
    wait_for_some_bytes(&server.data, &mut child, 20 << 20);
    child.kill().unwrap();
    child.wait().unwrap();
    let upload = fs::read_dir(server.data.join("uploads")).unwrap().flatten().next().unwrap().file_name();
    let upload = upload.to_str().unwrap().trim_end_matches(".journal").to_owned();
    assert_eq!(server.tus("DELETE", &format!("/uploads/{upload}")).send(b"").status, 204);
    let result = result_of(&upload_command(&server, &place).output().unwrap());
    assert!(!result["upload"].as_str().unwrap().contains(&upload));
    check_stored(&server, &place, &result);
}

#[test]
fn the_server_of_the_data_directory_is_found_and_no_proxy_comes_between() {
    let (server, place) = (Server::start(), workplace(1000));
    let mut command = bare_command(&place);
    command.arg("--json").arg("--data-dir").arg(&server.data);
    // For the world outside; nothing listens there.
    command.env("http_proxy", "http://127.0.0.1:9").env("HTTP_PROXY", "http://127.0.0.1:9");
    check_stored(&server, &place, &result_of(&command.output().unwrap()));
}

#[test]
fn a_server_that_is_not_there_is_named_and_given_up_soon() {
    let place = workplace(1000);
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let began = Instant::now();
    let output = bare_command(&place).args(["--wait", "--server"]).arg(format!("http://{nowhere}")).output();
    let output = output.unwrap();
    assert!(began.elapsed() < CONDITION_LIMIT);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    for part in
        [&nowhere.to_string(), "trying again, for 10 s at most", "given up after 10 s", "reelyard serve"]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn waiting_that_was_interrupted_is_gone_on_with() {
    let (server, place) = (Server::start(), workplace(3_000_000));
    // Nobody works on this server, so there is no end to the waiting.
    let mut child = upload_command(&server, &place).arg("--wait").spawn().unwrap();
    let sources = || fs::read_dir(server.data.join("sources")).unwrap().count();
    let began = Instant::now();
    while sources() == 0 {
        assert!(child.try_wait().unwrap().is_none() && began.elapsed() < CONDITION_LIMIT);
        thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let result = result_of(&upload_command(&server, &place).output().unwrap());
    check_stored(&server, &place, &result);
    assert_eq!(sources(), 1, "it was not sent a second time");
}

/// Cuts every connection after so many bytes from the client: the mobile network of a train.
fn bad_line(server: SocketAddr, bytes_each: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(upstream) = TcpStream::connect(server) else { return };
            let (mut back_from, mut back_to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut back_from, &mut back_to);
                let _ = back_to.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                let mut upstream = upstream;
                let _ = std::io::copy(&mut (&client).take(bytes_each), &mut upstream);
                let _ = (client.shutdown(Shutdown::Both), upstream.shutdown(Shutdown::Both));
            });
        }
    });
    address
}

#[test]
fn a_line_that_breaks_all_the_time_is_slow_but_no_reason_to_wait_ever_longer() {
    let (server, place) = (Server::start(), workplace(24 << 20));
    let line = bad_line(server.address, 2 << 20);
    let began = Instant::now();
    let mut command = bare_command(&place);
    command.args(["--json", "--key", &server.key, "--server"]).arg(format!("http://{line}"));
    check_stored(&server, &place, &result_of(&command.output().unwrap()));
    // Twelve cuts: with a pause of half a second for each, not with twice the pause each time.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn https_is_spoken_and_what_speaks_no_tls_is_named() {
    let (server, place) = (Server::start(), workplace(10));
    let address = format!("https://{}", server.address);
    let output = bare_command(&place).args(["--server", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&address) && said.contains("speaks no TLS"), "{said}");
    assert!(!said.contains("trying again"), "{said}");
}
