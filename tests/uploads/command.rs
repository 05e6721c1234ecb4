//! `reelyard upload` against a server that goes away and comes back.

use super::{
    line::{Harm, Line, line},
    server::Server,
};
use rustix::net::{AddressFamily, SocketType};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::{fd::OwnedFd, unix::fs::FileExt as _},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

const CONDITION_LIMIT: Duration = Duration::from_secs(60);
const PART_BYTES: u64 = 16 << 20;
const FILE_BYTES: usize = 100 << 20;
/// Of that the line lets through so much before it holds: two parts are whole then, however two at a time share it, and
/// others are missing.
const HOLD_AFTER: Option<u64> = Some(3 * PART_BYTES + PART_BYTES / 2);
/// Requests without the bytes of a file, of one command.
const REQUESTS_BYTES: u64 = 10_000;

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

fn command_over(line: &Line, server: &Server, place: &Workplace) -> Command {
    let mut command = bare_command(place);
    command.args(["--json", "--key", &server.key, "--server"]).arg(format!("http://{}", line.address));
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

/// The one upload that is not finished.
fn open_upload(server: &Server) -> Option<String> {
    let entries = fs::read_dir(server.data.join("uploads")).unwrap().flatten();
    let name = entries.map(|entry| entry.file_name().into_string().unwrap()).next()?;
    Some(name.split('.').next().unwrap().to_owned())
}

/// What the server lists of it; `None` before it is begun.
fn listing(server: &Server) -> Option<serde_json::Value> {
    let upload = open_upload(server)?;
    let answer = server.tus("GET", "/uploads/parts").with("X-Upload-ID", &upload).send(b"");
    (answer.status == 200).then(|| serde_json::from_slice(&answer.body).unwrap())
}

fn part_numbers(listing: &serde_json::Value) -> Vec<u64> {
    listing["parts"].as_array().unwrap().iter().map(|part| part["part_number"].as_u64().unwrap()).collect()
}

/// Waits until the transfer is somewhere in the middle, where the line holds it; what the server has then.
fn wait_for_parts(server: &Server, child: &mut Child, at_least: usize) -> serde_json::Value {
    let began = Instant::now();
    loop {
        assert!(child.try_wait().unwrap().is_none(), "done before it could be interrupted");
        assert!(began.elapsed() < CONDITION_LIMIT, "nothing arrives");
        match listing(server) {
            Some(found) if part_numbers(&found).len() >= at_least => return found,
            _ => thread::yield_now(),
        }
    }
}

/// Begins to send and is held in the middle.
fn begin_and_hold(line: &Line, server: &Server, place: &Workplace) -> Child {
    let mut child = command_over(line, server, place).args(["--parallel", "2"]).spawn().unwrap();
    wait_for_parts(server, &mut child, 2);
    child
}

/// As somebody ends it who has no patience. What it had handed to the kernel has come when this returns.
fn kill_held(line: &Line, mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
    line.release();
    line.wait_until_empty();
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
    let (mut server, place) = (Server::start(), workplace(FILE_BYTES));
    let line = line(&server, Harm { hold_after: HOLD_AFTER, ..Harm::default() });
    let child = begin_and_hold(&line, &server, &place);
    server.kill();
    line.release();
    server.restart();
    check_stored(&server, &place, &result_of(&child.wait_with_output().unwrap()));
}

#[test]
fn the_same_command_goes_on_where_a_killed_one_stopped() {
    let (server, place) = (Server::start(), workplace(FILE_BYTES));
    let line = line(&server, Harm { hold_after: HOLD_AFTER, ..Harm::default() });
    let child = begin_and_hold(&line, &server, &place);
    kill_held(&line, child);
    let remembered = fs::read_dir(place.directory.path().join("state/reelyard/uploads")).unwrap().next();
    let remembered = fs::read_to_string(remembered.unwrap().unwrap().path()).unwrap();
    let result = result_of(&command_over(&line, &server, &place).output().unwrap());
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
    let (server, place) = (Server::start(), workplace(FILE_BYTES));
    let line = line(&server, Harm { hold_after: HOLD_AFTER, ..Harm::default() });
    let child = begin_and_hold(&line, &server, &place);
    fs::OpenOptions::new().append(true).open(&place.file).unwrap().write_all(b"more").unwrap();
    line.release();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("was changed while it was being sent"),
        "{output:?}"
    );
}

#[test]
fn an_upload_that_the_server_does_not_know_any_more_begins_anew() {
    let (server, place) = (Server::start(), workplace(FILE_BYTES));
    let line = line(&server, Harm { hold_after: HOLD_AFTER, ..Harm::default() });
    let child = begin_and_hold(&line, &server, &place);
    kill_held(&line, child);
    let upload = open_upload(&server).unwrap();
    assert_eq!(server.tus("DELETE", &format!("/uploads/{upload}")).send(b"").status, 204);
    let result = result_of(&command_over(&line, &server, &place).output().unwrap());
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

/// An address that is ours as long as the socket, on which nobody listens.
fn port_of_nobody() -> (OwnedFd, SocketAddr) {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
    (socket, address)
}

#[test]
fn a_server_that_is_not_there_is_named_and_given_up_soon() {
    let place = workplace(1000);
    let (_nobody, nowhere) = port_of_nobody();
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
    let (server, place) = (Server::start(), workplace(40 << 20));
    let line = line(&server, Harm::default());
    // Nobody works on this server, so there is no end to the waiting.
    let mut child = command_over(&line, &server, &place).arg("--wait").spawn().unwrap();
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
    let before = line.sent();
    let result = result_of(&command_over(&line, &server, &place).output().unwrap());
    check_stored(&server, &place, &result);
    assert_eq!(sources(), 1);
    let sent = line.sent() - before;
    assert!(sent < REQUESTS_BYTES, "it was not sent a second time, but {sent} bytes were");
}

#[test]
fn a_line_that_no_part_gets_through_is_slow_but_no_reason_to_wait_ever_longer() {
    let (server, place) = (Server::start(), workplace(24 << 20));
    let line = line(&server, Harm { cut_after: Some(2 << 20), ..Harm::default() });
    let began = Instant::now();
    let output = command_over(&line, &server, &place).output().unwrap();
    check_stored(&server, &place, &result_of(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("sending piece by piece"), "{output:?}");
    // Some twenty cuts: with a pause of half a second for each, not with twice the pause each time, which would be minutes.
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
}

#[test]
fn a_line_that_parts_get_through_now_and_then_is_enough() {
    let (server, place) = (Server::start(), workplace(FILE_BYTES));
    let line = line(&server, Harm { cut_after: Some(20 << 20), ..Harm::default() });
    let output = command_over(&line, &server, &place).output().unwrap();
    check_stored(&server, &place, &result_of(&output));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("piece by piece"), "{output:?}");
}

#[test]
fn parts_are_sent_at_the_same_time_as_many_as_told() {
    let place = workplace(FILE_BYTES);
    for parallel in [4, 1] {
        let server = Server::start();
        let line = line(&server, Harm { hold_until_bodies: Some(parallel), ..Harm::default() });
        let mut command = command_over(&line, &server, &place);
        let output = command.args(["--parallel", &parallel.to_string()]).output().unwrap();
        check_stored(&server, &place, &result_of(&output));
        assert_eq!(line.most_bodies(), parallel);
    }
}

#[test]
fn bytes_that_change_on_the_way_are_sent_again() {
    let (server, place) = (Server::start(), workplace(40 << 20));
    let line = line(&server, Harm { flip: Some((3 << 20, 2)), ..Harm::default() });
    check_stored(&server, &place, &result_of(&command_over(&line, &server, &place).output().unwrap()));
}

#[test]
fn a_server_that_has_something_else_is_found_out() {
    let (server, place) = (Server::start(), workplace(1000));
    let line = line(&server, Harm { wrong_digest: true, ..Harm::default() });
    let output = command_over(&line, &server, &place).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("what the server has is not what the file holds"), "{said}");
}

#[test]
fn the_index_at_the_end_of_an_mp4_is_durable_before_the_rest() {
    let (server, place) = (Server::start(), workplace(FILE_BYTES));
    let file = fs::OpenOptions::new().write(true).open(&place.file).unwrap();
    let index_start = FILE_BYTES as u32 - 20_000;
    file.write_all_at(b"\0\0\0\x10ftypisom0000", 0).unwrap();
    file.write_all_at(&(index_start - 16).to_be_bytes(), 16).unwrap();
    file.write_all_at(b"mdat", 20).unwrap();
    file.write_all_at(&20_000_u32.to_be_bytes(), u64::from(index_start)).unwrap();
    file.write_all_at(b"moov", u64::from(index_start) + 4).unwrap();
    // The last of seven parts is the shorter one; the next that is sent is held before it is whole.
    let last_part = FILE_BYTES as u64 % PART_BYTES;
    let line = line(&server, Harm { hold_after: Some(last_part + PART_BYTES / 2), ..Harm::default() });
    let mut child = command_over(&line, &server, &place).args(["--parallel", "1"]).spawn().unwrap();
    assert_eq!(part_numbers(&wait_for_parts(&server, &mut child, 1)), [7]);
    line.release();
    check_stored(&server, &place, &result_of(&child.wait_with_output().unwrap()));
}

#[test]
fn after_a_kill_only_what_is_missing_is_sent() {
    let (server, place) = (Server::start(), workplace(FILE_BYTES));
    let line = line(&server, Harm { hold_after: HOLD_AFTER, ..Harm::default() });
    let child = begin_and_hold(&line, &server, &place);
    kill_held(&line, child);
    let found = listing(&server).unwrap();
    let before = line.sent();
    check_stored(&server, &place, &result_of(&command_over(&line, &server, &place).output().unwrap()));
    let sent = line.sent() - before;
    let missing = FILE_BYTES as u64 - found["durable_bytes"].as_u64().unwrap();
    assert!(sent <= missing + REQUESTS_BYTES, "{sent} bytes for {missing} that were missing");
}

#[test]
fn other_bytes_behind_the_same_size_and_time_are_noticed_and_sent() {
    let (server, place) = (Server::start(), workplace(FILE_BYTES));
    let line = line(&server, Harm { hold_after: HOLD_AFTER, ..Harm::default() });
    let child = begin_and_hold(&line, &server, &place);
    kill_held(&line, child);
    let found = listing(&server).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&place.file).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let first_stored = found["parts"][0]["first_byte"].as_u64().unwrap();
    file.write_all_at(b"something else", first_stored + 1000).unwrap();
    file.set_modified(modified).unwrap();
    let result = result_of(&command_over(&line, &server, &place).output().unwrap());
    assert!(!result["upload"].as_str().unwrap().contains(found["upload_id"].as_str().unwrap()));
    check_stored(&server, &place, &result);
}

#[test]
fn of_a_file_that_the_server_has_nothing_is_sent_when_it_is_asked_first() {
    let (server, place) = (Server::start(), workplace(40 << 20));
    let line = line(&server, Harm::default());
    let ask_first = || command_over(&line, &server, &place).arg("--ask-first").output().unwrap();
    // It does not have it yet, so the answer is that the bytes be sent.
    let first = result_of(&ask_first());
    check_stored(&server, &place, &first);
    let before = line.sent();
    let second = result_of(&ask_first());
    assert_ne!(second["asset"], first["asset"]);
    assert_eq!(second["sha256"], first["sha256"]);
    let sent = line.sent() - before;
    assert!(sent < REQUESTS_BYTES, "{sent} bytes were sent");
}

#[test]
fn an_upload_that_an_older_version_began_by_tus_is_finished_by_tus() {
    let (server, place) = (Server::start(), workplace(40_000_000));
    // It is killed before it has sent all of it: else there is a source with these bytes already.
    let line = line(&server, Harm { hold_after: Some(1 << 20), ..Harm::default() });
    // What a killed command leaves, in the words of a version that knew no parts.
    let mut child = command_over(&line, &server, &place).arg("--wait").spawn().unwrap();
    let folder = place.directory.path().join("state/reelyard/uploads");
    let began = Instant::now();
    let memory = loop {
        let entry = fs::read_dir(&folder).ok().and_then(|mut entries| entries.next());
        match entry.map(|entry| entry.unwrap().path()) {
            Some(path) if path.extension().is_some_and(|extension| extension == "json") => break path,
            _ => assert!(began.elapsed() < CONDITION_LIMIT),
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    line.release();
    let bytes = fs::read(&place.file).unwrap();
    let upload = server.create(bytes.len());
    assert_eq!(server.patch(&upload, 0, &bytes[..1_000_000]).status, 204);
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&memory).unwrap()).unwrap();
    state["upload"] = serde_json::json!(format!("http://{}{upload}", line.address));
    state.as_object_mut().unwrap().remove("part_bytes");
    fs::write(&memory, state.to_string()).unwrap();
    let result = result_of(&command_over(&line, &server, &place).output().unwrap());
    assert!(result["upload"].as_str().unwrap().ends_with(&upload));
    check_stored(&server, &place, &result);
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
