//! `reelyard upload` against a server that goes away and comes back.

use super::server::Server;
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
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

/// Waits until the transfer is somewhere in the middle; what the server has then.
fn wait_for_some_bytes(server: &Server, child: &mut Child, at_least: u64) -> serde_json::Value {
    let began = Instant::now();
    loop {
        assert!(child.try_wait().unwrap().is_none(), "done before it could be interrupted");
        assert!(began.elapsed() < CONDITION_LIMIT, "nothing arrives");
        match listing(server) {
            Some(found) if found["durable_bytes"].as_u64().unwrap() >= at_least => return found,
            _ => thread::yield_now(),
        }
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
    let mut child = upload_command(&server, &place).args(["--parallel", "2"]).spawn().unwrap();
    wait_for_some_bytes(&server, &mut child, 20 << 20);
    server.kill();
    server.restart();
    check_stored(&server, &place, &result_of(&child.wait_with_output().unwrap()));
}

#[test]
fn the_same_command_goes_on_where_a_killed_one_stopped() {
    let (server, place) = (Server::start(), workplace(100 << 20));
    let mut child = upload_command(&server, &place).args(["--parallel", "2"]).spawn().unwrap();
    wait_for_some_bytes(&server, &mut child, 20 << 20);
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
    let mut child = upload_command(&server, &place).args(["--parallel", "2"]).spawn().unwrap();
    wait_for_some_bytes(&server, &mut child, 20 << 20);
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
    let mut child = upload_command(&server, &place).args(["--parallel", "2"]).spawn().unwrap();
    wait_for_some_bytes(&server, &mut child, 20 << 20);
    child.kill().unwrap();
    child.wait().unwrap();
    let upload = open_upload(&server).unwrap();
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
    let before = line.sent.load(Ordering::Relaxed);
    let result = result_of(&command_over(&line, &server, &place).output().unwrap());
    check_stored(&server, &place, &result);
    assert_eq!(sources(), 1);
    let sent = line.sent.load(Ordering::Relaxed) - before;
    assert!(sent < 10_000, "it was not sent a second time, but {sent} bytes were");
}

/// A connection between client and server, and what it does to the bytes.
#[derive(Clone, Copy, Default)]
struct Harm {
    /// Cuts every connection after so many bytes from the client: the mobile network of a train.
    cut_after: Option<u64>,
    /// Changes this byte of what the first connections send, as many times in all.
    flip: Option<(usize, usize)>,
    /// The server's digest of the whole comes out as another.
    wrong_digest: bool,
}

struct Line {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
    connections: Arc<AtomicUsize>,
}

fn line(server: &Server, harm: Harm) -> Line {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let line =
        Line { address: listener.local_addr().unwrap(), sent: Arc::default(), connections: Arc::default() };
    let (address, sent, connections) = (server.address, line.sent.clone(), line.connections.clone());
    thread::spawn(move || {
        let flips = Arc::new(AtomicUsize::new(harm.flip.map_or(0, |(_, times)| times)));
        for client in listener.incoming().flatten() {
            let Ok(upstream) = TcpStream::connect(address) else { continue };
            connections.fetch_add(1, Ordering::Relaxed);
            let (back_from, back_to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || answers(back_from, back_to, harm));
            let (sent, flips) = (sent.clone(), flips.clone());
            thread::spawn(move || requests(client, upstream, harm, &sent, &flips));
        }
    });
    line
}

fn answers(mut from: TcpStream, mut to: TcpStream, harm: Harm) {
    const DIGEST: &[u8] = b"\"sha256\":\"";
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let piece = &mut buffer[..count];
        let found = piece.windows(DIGEST.len()).position(|window| window == DIGEST);
        if let (true, Some(at)) = (harm.wrong_digest, found) {
            let digit = &mut piece[at + DIGEST.len()];
            *digit = if *digit == b'0' { b'1' } else { b'0' };
        }
        if to.write_all(piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn requests(client: TcpStream, mut upstream: TcpStream, harm: Harm, sent: &AtomicU64, flips: &AtomicUsize) {
    let mut from = (&client).take(harm.cut_after.unwrap_or(u64::MAX));
    let (mut buffer, mut passed) = (vec![0; 64 << 10], 0);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if let Some((at, _)) = harm.flip
            && (passed..passed + count).contains(&at)
            && flips.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        {
            buffer[at - passed] ^= 1;
        }
        passed += count;
        sent.fetch_add(count as u64, Ordering::Relaxed);
        if upstream.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), upstream.shutdown(Shutdown::Both));
}

fn command_over(line: &Line, server: &Server, place: &Workplace) -> Command {
    let mut command = bare_command(place);
    command.args(["--json", "--key", &server.key, "--server"]).arg(format!("http://{}", line.address));
    command
}

#[test]
fn a_line_that_no_part_gets_through_is_slow_but_no_reason_to_wait_ever_longer() {
    let (server, place) = (Server::start(), workplace(24 << 20));
    let line = line(&server, Harm { cut_after: Some(2 << 20), ..Harm::default() });
    let began = Instant::now();
    let output = command_over(&line, &server, &place).output().unwrap();
    check_stored(&server, &place, &result_of(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("sending piece by piece"), "{output:?}");
    // Some twenty cuts: with a pause of half a second for each, not with twice the pause each time.
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}

#[test]
fn a_line_that_parts_get_through_now_and_then_is_enough() {
    let (server, place) = (Server::start(), workplace(100 << 20));
    let line = line(&server, Harm { cut_after: Some(20 << 20), ..Harm::default() });
    let output = command_over(&line, &server, &place).output().unwrap();
    check_stored(&server, &place, &result_of(&output));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("piece by piece"), "{output:?}");
}

#[test]
fn parts_are_sent_at_the_same_time_as_many_as_told() {
    let place = workplace(100 << 20);
    for (parallel, connections) in [("4", 4), ("1", 1)] {
        let server = Server::start();
        let line = line(&server, Harm::default());
        let output = command_over(&line, &server, &place).args(["--parallel", parallel]).output().unwrap();
        check_stored(&server, &place, &result_of(&output));
        // A connection comes back a moment after its answer; the request that follows at once may open another.
        let opened = line.connections.load(Ordering::Relaxed);
        assert!((connections..=connections + 1).contains(&opened), "{opened} connections for {parallel}");
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
    let (server, place) = (Server::start(), workplace(100 << 20));
    let file = fs::OpenOptions::new().write(true).open(&place.file).unwrap();
    let index_start = (100 << 20) - 20_000_u32;
    file.write_all_at(b"\0\0\0\x10ftypisom0000", 0).unwrap();
    file.write_all_at(&(index_start - 16).to_be_bytes(), 16).unwrap();
    file.write_all_at(b"mdat", 20).unwrap();
    file.write_all_at(&20_000_u32.to_be_bytes(), u64::from(index_start)).unwrap();
    file.write_all_at(b"moov", u64::from(index_start) + 4).unwrap();
    let mut child = upload_command(&server, &place).args(["--parallel", "1"]).spawn().unwrap();
    let found = part_numbers(&wait_for_some_bytes(&server, &mut child, 1));
    // Seven parts of 16 MiB; a slow look may see the first ones after it already.
    assert!(found.contains(&7) && found.len() < 7, "{found:?}");
    check_stored(&server, &place, &result_of(&child.wait_with_output().unwrap()));
}

#[test]
fn after_a_kill_only_what_is_missing_is_sent() {
    let (server, place) = (Server::start(), workplace(100 << 20));
    let line = line(&server, Harm::default());
    let mut child = command_over(&line, &server, &place).args(["--parallel", "2"]).spawn().unwrap();
    let found = wait_for_some_bytes(&server, &mut child, 20 << 20);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = line.sent.load(Ordering::Relaxed);
    check_stored(&server, &place, &result_of(&command_over(&line, &server, &place).output().unwrap()));
    let sent = line.sent.load(Ordering::Relaxed) - before;
    let missing = (100 << 20) - found["durable_bytes"].as_u64().unwrap();
    // What the killed one had handed to the kernel may still come; it is less than a part.
    assert!(sent <= missing + (8 << 20), "{sent} bytes for {missing} that were missing");
}

#[test]
fn other_bytes_behind_the_same_size_and_time_are_noticed_and_sent() {
    let (server, place) = (Server::start(), workplace(100 << 20));
    let mut child = upload_command(&server, &place).args(["--parallel", "2"]).spawn().unwrap();
    let found = wait_for_some_bytes(&server, &mut child, 20 << 20);
    child.kill().unwrap();
    child.wait().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&place.file).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let first_stored = found["parts"][0]["first_byte"].as_u64().unwrap();
    file.write_all_at(b"something else", first_stored + 1000).unwrap();
    file.set_modified(modified).unwrap();
    let result = result_of(&upload_command(&server, &place).output().unwrap());
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
    let before = line.sent.load(Ordering::Relaxed);
    let second = result_of(&ask_first());
    assert_ne!(second["asset"], first["asset"]);
    assert_eq!(second["sha256"], first["sha256"]);
    let sent = line.sent.load(Ordering::Relaxed) - before;
    assert!(sent < 10_000, "{sent} bytes were sent");
}

#[test]
fn an_upload_that_an_older_version_began_by_tus_is_finished_by_tus() {
    // So large that the command is killed before it has sent all of it: else there is a source with these bytes already.
    let (server, place) = (Server::start(), workplace(40_000_000));
    // What a killed command leaves, in the words of a version that knew no parts.
    let mut child = upload_command(&server, &place).arg("--wait").spawn().unwrap();
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
    let bytes = fs::read(&place.file).unwrap();
    let upload = server.create(bytes.len());
    assert_eq!(server.patch(&upload, 0, &bytes[..1_000_000]).status, 204);
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&memory).unwrap()).unwrap();
    state["upload"] = serde_json::json!(format!("{}{upload}", server.url()));
    state.as_object_mut().unwrap().remove("part_bytes");
    fs::write(&memory, state.to_string()).unwrap();
    let result = result_of(&upload_command(&server, &place).output().unwrap());
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
