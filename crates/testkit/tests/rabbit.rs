//! What the RabbitMQ brokers of tests promise to those tests. What their queues keep is tested where there is a client,
//! in `reelyard-tickets`.

#![allow(clippy::unwrap_used, reason = "a test")]

use reelyard_testkit::RabbitServer;
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

/// For a greeting that must come; a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one that must not come.
const A_WHILE: Duration = Duration::from_millis(500);

/// The first byte of its answer to the protocol's header.
fn greeting(server: &RabbitServer, limit: Duration) -> Option<u8> {
    let mut socket = TcpStream::connect(server.address()).ok()?;
    socket.set_read_timeout(Some(limit)).unwrap();
    socket.write_all(b"AMQP\0\0\x09\x01").ok()?;
    let mut byte = [0; 1];
    socket.read_exact(&mut byte).ok()?;
    Some(byte[0])
}

#[test]
fn a_broker_can_be_paused_killed_started_again_and_wiped() {
    let begin = Instant::now();
    let Some(mut server) = RabbitServer::start() else { return };
    println!("start {:?}", begin.elapsed());
    assert_eq!(greeting(&server, PATIENCE), Some(1));

    server.pause();
    assert_eq!(greeting(&server, A_WHILE), None);
    server.resume();
    assert_eq!(greeting(&server, PATIENCE), Some(1));

    server.eval("rabbit_vhost:add(<<\"kept\">>, <<\"test\">>).");
    let exists = |server: &RabbitServer| server.eval("rabbit_vhost:exists(<<\"kept\">>).").trim() == "true";
    let begin = Instant::now();
    server.kill();
    assert_eq!(greeting(&server, A_WHILE), None);
    server.restart();
    println!("kill and restart {:?}", begin.elapsed());
    assert!(exists(&server));

    server.wipe_and_restart();
    assert!(!exists(&server));
    let begin = Instant::now();
    drop(server);
    println!("drop {:?}", begin.elapsed());
}

#[test]
fn two_brokers_run_side_by_side() {
    let (Some(one), Some(two)) = (RabbitServer::start(), RabbitServer::start()) else { return };
    assert_ne!(one.url(), two.url());
    assert_eq!([greeting(&one, PATIENCE), greeting(&two, PATIENCE)], [Some(1); 2]);
}
