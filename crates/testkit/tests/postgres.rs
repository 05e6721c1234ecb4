//! What the PostgreSQL servers of tests promise to those tests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use reelyard_testkit::PostgresServer;
use std::{
    io::Read as _,
    net::TcpStream,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Of psql, asking `url`.
fn ask(url: &str, statement: &str) -> Output {
    Command::new("psql").args(["-X", "-A", "-t", url, "-c", statement]).output().unwrap()
}

fn answer(url: &str, statement: &str) -> String {
    let output = ask(url, statement);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn databases_are_apart_and_survive_kill_and_fast_stop() {
    let Some(mut server) = PostgresServer::start() else { return };
    let [one, two] = [server.new_database(), server.new_database()];
    answer(&one, "CREATE TABLE kept (number int); INSERT INTO kept VALUES (7)");
    assert!(!ask(&two, "SELECT * FROM kept").status.success(), "the other database has no such table");

    server.kill();
    assert!(!ask(&one, "SELECT 1").status.success(), "nobody answers after a kill");
    server.restart();
    assert_eq!(answer(&one, "SELECT number FROM kept"), "7");

    server.stop_fast();
    assert!(!ask(&one, "SELECT 1").status.success(), "nobody answers after a stop");
    server.restart();
    assert_eq!(answer(&one, "SELECT number FROM kept"), "7");
    assert_eq!(answer(&one, "SHOW fsync"), "on");
}

#[test]
fn a_paused_server_answers_nothing_until_it_goes_on() {
    let Some(server) = PostgresServer::start_without_fsync() else { return };
    let database = server.new_database();
    assert_eq!(answer(&database, "SHOW fsync"), "off");
    server.pause();
    let mut waiting = Command::new("psql")
        .args(["-X", "-A", "-t", &database, "-c", "SELECT 42"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The kernel accepts, the server does not speak: no byte comes, whatever is sent.
    let address = database.split(['@', '/']).nth(3).unwrap().to_owned();
    let mut socket = TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut socket, &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(socket.read(&mut [0; 1]).is_err());
    assert_eq!(waiting.try_wait().unwrap(), None);
    server.resume();
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "42");
}

/// Run by the next test in a process of its own.
#[test]
#[ignore = "it waits to be killed"]
fn waits_to_be_killed() {
    let Some(server) = PostgresServer::start_without_fsync() else { return };
    println!("at {} {}", server.url(), answer(&server.url(), "SHOW data_directory"));
    std::thread::park();
}

#[test]
fn a_test_that_is_killed_leaves_no_server_and_no_files() {
    if PostgresServer::start_without_fsync().is_none() {
        return;
    }
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "waits_to_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(test.stdout.take().unwrap());
    let line =
        std::io::BufRead::lines(lines).map(Result::unwrap).find(|line| line.contains("at postgres://"));
    let line = line.expect("it says where its server is");
    let [url, directory] = line.split("at ").nth(1).unwrap().split(' ').collect::<Vec<_>>()[..] else {
        panic!("{line}")
    };
    test.kill().unwrap();
    test.wait().unwrap();
    let begin = Instant::now();
    while ask(url, "SELECT 1").status.success() || std::path::Path::new(directory).parent().unwrap().exists()
    {
        assert!(begin.elapsed() < Duration::from_secs(30), "{line} is still there");
    }
}
