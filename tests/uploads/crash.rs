//! `kill -9` of the server at random moments: every acknowledged byte is there, every upload is finished once.

use super::{server::Server, wire::read_answer};
use bytes::Bytes;
use reelyard_model::UploadId;
use reelyard_storage::{LocalStore, Terms, Uploads as _};
use reelyard_upload::{BodyEnd, ChunkRequest};
use sha2::{Digest, Sha256};
use std::{io::Write as _, time::Duration};

/// Kills in `make test`; the long run sets the variable below.
const KILLS: usize = 20;
const KILLS_VARIABLE: &str = "REELYARD_TEST_KILLS";

/// Numbers that look random and are the same on every run (xorshift64*).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}

#[test]
fn no_acknowledged_byte_is_lost_however_often_the_server_is_killed() {
    let kills = std::env::var(KILLS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let mut chance = Chance::new(1);
    let bytes: Vec<u8> = (0..24 << 20).map(|_| chance.below(256) as u8).collect();
    let mut server = Server::start();
    let (mut killed, mut finished) = (0, Vec::new());
    while killed < kills || finished.is_empty() {
        let length = 1 + chance.below(bytes.len());
        let upload = server.create(length);
        let mut offset = 0;
        let asset = loop {
            let body = &bytes[offset..length.min(offset + 1 + chance.below(8 << 20))];
            let mut connection = server.patch_request(&upload, offset).begin(Some(body.len()));
            if killed < kills && chance.below(2) == 0 {
                offset = kill_during(&mut server, &mut connection, &mut chance, &upload, offset, body);
                killed += 1;
            } else {
                connection.write_all(body).unwrap();
                let answer = read_answer(&mut connection, false).unwrap();
                assert_eq!(answer.status, 204, "{answer:?}");
                offset = answer.number("upload-offset");
            }
            if offset == length {
                let head = server.tus("HEAD", &upload).send(b"");
                break head.header("reelyard-asset").expect("whole, so finished").to_owned();
            }
        };
        finished.push((upload, asset, length));
    }
    for (upload, asset, length) in &finished {
        let stored = std::fs::read(server.data.join("sources").join(asset)).unwrap();
        assert!(stored == bytes[..*length], "{upload}: other bytes");
        let shown = server.bare("GET", &format!("/v1/assets/{asset}"));
        let shown = shown.with("Authorization", &format!("Bearer {}", server.key)).send(b"");
        let shown: serde_json::Value = serde_json::from_slice(&shown.body).unwrap();
        assert_eq!(shown["sha256"], hex::encode(Sha256::digest(&bytes[..*length])));
    }
    let sources = std::fs::read_dir(server.data.join("sources")).unwrap().count();
    assert_eq!(sources, finished.len(), "one source for each finished upload");
    eprintln!("{killed} kills, {} uploads finished", finished.len());
}

/// Sends some or all of the body and kills the server; returns the offset that the next one knows.
fn kill_during(
    server: &mut Server,
    connection: &mut std::net::TcpStream,
    chance: &mut Chance,
    upload: &str,
    acknowledged: usize,
    body: &[u8],
) -> usize {
    let sent = if chance.below(2) == 0 { body.len() } else { chance.below(body.len()) };
    connection.write_all(&body[..sent]).unwrap();
    // Not a wait for something: this is the random moment, somewhere in hashing, writing, syncing or finishing.
    std::thread::sleep(Duration::from_micros(chance.below(30_000) as u64));
    server.kill();
    // The answer may have come before the end: then all of it was acknowledged.
    let answered = read_answer(connection, false).filter(|answer| answer.status == 204);
    let acknowledged_now = answered.map_or(acknowledged, |answer| answer.number("upload-offset"));
    server.restart();
    let offset = server.offset(upload);
    assert!(offset >= acknowledged_now, "{acknowledged_now} bytes were acknowledged, {offset} are left");
    assert!(offset <= acknowledged + sent);
    offset
}

/// What a crash leaves between "all bytes are durable" and "the asset exists".
#[derive(Clone, Copy, Debug)]
enum Left {
    Whole,
    Renamed,
}

#[test]
fn a_finish_that_a_crash_interrupted_is_taken_up() {
    for left in [Left::Whole, Left::Renamed] {
        let mut server = Server::start();
        let upload = server.create(6);
        server.patch(&upload, 0, b"abc");
        server.kill();
        leave(&server, &upload, left);
        server.restart();
        let head = server.tus("HEAD", &upload).send(b"");
        assert_eq!((head.status, head.number("upload-offset")), (200, 6), "{left:?}");
        let asset = head.header("reelyard-asset").unwrap_or_else(|| panic!("{left:?}: {head:?}"));
        assert_eq!(std::fs::read(server.data.join("sources").join(asset)).unwrap(), b"abcdef");
        assert_eq!(server.patch(&upload, 6, b"").header("reelyard-asset"), Some(asset));
    }
}

/// Does by hand what the server would have done before it was killed.
fn leave(server: &Server, upload: &str, left: Left) {
    let id: UploadId = upload.rsplit('/').next().unwrap().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = LocalStore::open(&server.data).await.unwrap();
        let request = ChunkRequest { offset: 3, ..ChunkRequest::default() };
        let terms = Terms { length: Some(6), limit: 1 << 20, fence: 0 };
        let open = store.open_upload(id, terms).await.unwrap();
        let mut receiving = open.begin(&request).unwrap();
        receiving.write(vec![Bytes::from_static(b"def")]).await.unwrap();
        assert!(receiving.end(BodyEnd::Complete).await.1.unwrap().is_whole());
        if matches!(left, Left::Renamed) {
            store.finish_upload(id, 6).await.unwrap();
        }
    });
}

#[test]
fn an_upload_never_looks_done_while_it_cannot_be_finished() {
    let server = Server::start();
    let upload = server.create(6);
    let (sources, away) = (server.data.join("sources"), server.data.join("sources.away"));
    std::fs::rename(&sources, &away).unwrap();
    std::fs::write(&sources, "in the way").unwrap();
    let answer = server.patch(&upload, 0, b"abcdef");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    let head = server.tus("HEAD", &upload).send(b"");
    assert_eq!((head.status, head.header("upload-offset")), (503, None));
    std::fs::remove_file(&sources).unwrap();
    std::fs::rename(&away, &sources).unwrap();
    let answer = server.patch(&upload, 6, b"");
    assert_eq!(answer.status, 204, "asking again finishes it: {answer:?}");
    assert!(answer.header("reelyard-asset").is_some());
}
