//! Uploads in parts against the real server: side by side, repeated, contradicting, handed over, killed.

use super::{
    server::Server,
    wire::{Answer, Request, read_answer},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    ops::Range,
    os::unix::fs::MetadataExt as _,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Smallest part but the last.
const PART: usize = 5 << 20;
/// Kills in `make test`; the long run sets the variable below.
const KILLS: usize = 20;
const KILLS_VARIABLE: &str = "REELYARD_TEST_KILLS";

/// Numbers that look random and are the same on every run (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}

fn noise(byte_len: usize) -> Vec<u8> {
    let mut chance = Chance(0x5eed_0000_0000_0002 ^ byte_len as u64);
    (0..byte_len).map(|_| chance.below(256) as u8).collect()
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex::encode(Sha256::digest(bytes)))
}

/// An upload that was begun.
struct Upload<'a> {
    server: &'a Server,
    id: String,
    length: usize,
}

impl<'a> Upload<'a> {
    fn begin(server: &'a Server, length: usize) -> Self {
        let answer =
            ask(server, "POST", "/uploads/parts").with("Upload-Length", &length.to_string()).send(b"");
        assert_eq!(answer.status, 201, "{answer:?}");
        Self { server, id: answer.header("x-upload-id").unwrap().to_owned(), length }
    }

    fn ask(&self, method: &str, path: &str) -> Request {
        ask(self.server, method, path).with("X-Upload-ID", &self.id)
    }

    fn put(&self, number: usize, range: &Range<usize>) -> Request {
        let Range { start, end } = range;
        self.ask("PUT", "/uploads/parts")
            .with("X-Part-Number", &number.to_string())
            .with("X-Content-Range", &format!("bytes {start}-{}/{}", end - 1, self.length))
    }

    fn send(&self, whole: &[u8], number: usize, range: &Range<usize>) -> Answer {
        self.put(number, range).send(&whole[range.clone()])
    }

    /// A part whose body nobody will want: only its head is sent.
    fn refused(&self, number: usize, range: &Range<usize>) -> Answer {
        let mut connection = self.put(number, range).begin(Some(range.len()));
        read_answer(&mut connection, false).expect("an answer without the body")
    }

    fn list(&self) -> Value {
        let answer = self.ask("GET", "/uploads/parts").send(b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    fn complete(&self, body: &Value) -> Answer {
        self.ask("POST", "/uploads/parts/complete").send(body.to_string().as_bytes())
    }

    /// With the list that the server gives.
    fn complete_all(&self) -> Answer {
        self.complete(&self.list()["parts"])
    }
}

fn ask(server: &Server, method: &str, path: &str) -> Request {
    server.bare(method, path).with("Authorization", &format!("Bearer {}", server.key))
}

/// Parts of the smallest size, and a last one with the rest.
fn ranges(length: usize) -> Vec<Range<usize>> {
    (0..length).step_by(PART).map(|start| start..length.min(start + PART)).collect()
}

fn asset_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let made: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer.header("reelyard-asset"), made["asset"].as_str());
    made["asset"].as_str().unwrap().to_owned()
}

fn source(server: &Server, asset: &str) -> Vec<u8> {
    fs::read(server.data.join("sources").join(asset)).unwrap()
}

#[test]
fn parts_that_come_at_once_and_out_of_order_become_one_asset_without_a_second_copy() {
    let server = Server::start();
    let whole = noise(9 * PART + 12_345);
    let upload = Upload::begin(&server, whole.len());
    let parts: Vec<(usize, Range<usize>)> = (1..).zip(ranges(whole.len())).collect();
    let left = Mutex::new(parts);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    // The tail first, as a client does that wants the index of an MP4 to be there early.
                    let Some((number, range)) = left.lock().unwrap().pop() else { return };
                    let answer = upload.send(&whole, number, &range);
                    assert_eq!(answer.status, 204, "{answer:?}");
                    assert_eq!(answer.header("etag"), Some(etag(&whole[range]).as_str()));
                }
            });
        }
    });
    let began = Instant::now();
    let answer = upload.complete_all();
    eprintln!("last step for {} MiB: {:?}", whole.len() >> 20, began.elapsed());
    let asset = asset_of(&answer);
    let made: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(made["sha256"], hex::encode(Sha256::digest(&whole)));
    assert!(source(&server, &asset) == whole, "other bytes");
    assert_eq!(asset_of(&upload.complete_all()), asset, "a lost answer can be asked again");
    assert_eq!(upload.list()["asset"], asset.as_str());
    let again = upload.send(&whole, 2, &(PART..2 * PART));
    assert_eq!(again.status, 204, "a part that is sent again is a success also now: {again:?}");
    let used = |folder: &str| -> u64 {
        let entries = fs::read_dir(server.data.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
    };
    let used = used("uploads") + used("sources");
    assert!(used as f64 <= whole.len() as f64 * 1.01, "{used} bytes on the disk for {}", whole.len());
    assert_eq!(fs::read_dir(server.data.join("sources")).unwrap().count(), 1);
}

#[test]
fn a_beginning_tells_how_large_parts_may_be_and_takes_json_as_well() {
    let server = Server::start();
    let body = json!({"length": 3, "filename": "holiday.mp4", "title": "Holiday"}).to_string();
    let answer = ask(&server, "POST", "/uploads/parts").send(body.as_bytes());
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!((answer.number("x-part-size"), answer.number("x-part-min-size")), (16 << 20, PART));
    assert_eq!((answer.number("x-part-max-size"), answer.number("x-parts-max")), (5 << 30, 10_000));
    assert_eq!(answer.header("tus-resumable"), None);
    let id = answer.header("x-upload-id").unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(format!("/uploads/{id}").as_str()));
    let upload = Upload { server: &server, id, length: 3 };
    upload.send(b"abc", 1, &(0..3));
    let asset = asset_of(&upload.complete_all());
    let shown: Value =
        serde_json::from_slice(&ask(&server, "GET", &format!("/v1/assets/{asset}")).send(b"").body).unwrap();
    assert_eq!(shown["title"], "Holiday");
    for (body, status, says) in [
        ("", 400, "Upload-Length"),
        ("{\"length\": 3", 400, "cannot be read as JSON"),
        ("{\"length\": 900000000000000}", 413, "takes at most"),
    ] {
        let answer = ask(&server, "POST", "/uploads/parts").send(body.as_bytes());
        assert!(answer.status == status && answer.detail().contains(says), "{answer:?}");
    }
}

#[test]
fn a_part_that_contradicts_what_is_there_gets_a_clear_problem_and_changes_nothing() {
    let server = Server::start();
    let whole = noise(2 * PART + 100);
    let upload = Upload::begin(&server, whole.len());
    let first = 0..PART;
    assert_eq!(upload.send(&whole, 1, &first).status, 204);
    assert_eq!(upload.send(&whole, 1, &first).status, 204, "the same bytes are a success");
    let other = upload.put(1, &first).send(&vec![7; PART]);
    assert!(other.status == 409 && other.detail().contains("other bytes"), "{other:?}");
    assert_eq!(other.problem()["type"], "/problems/part-conflict");
    for (number, range, status, says) in [
        (1, 0..PART + 1, 409, "Part 1 is stored already as bytes 0-5242879"),
        (2, 1..PART + 1, 409, "bytes in common with part 1"),
        (2, PART..3 * PART, 416, "the upload has 10485860 bytes"),
        (2, PART..PART + 10, 400, "only the part that ends the upload may have less"),
        (0, 0..PART, 400, "0 is not one"),
        (10_001, 0..PART, 400, "10001 is not one"),
    ] {
        let answer = upload.refused(number, &range);
        assert!(answer.status == status && answer.detail().contains(says), "{number} {range:?}: {answer:?}");
    }
    let outside = upload.refused(2, &(PART..3 * PART));
    assert_eq!(outside.header("content-range"), Some(format!("bytes */{}", whole.len()).as_str()));
    let total = Upload { server: &server, id: upload.id.clone(), length: whole.len() + 1 };
    let answer = total.refused(2, &(PART..2 * PART));
    assert!(answer.status == 409 && answer.detail().contains("was begun with 10485860"), "{answer:?}");
    let damaged = upload.put(2, &(PART..2 * PART)).with("Content-MD5", "XUFAKrxLKna5cZ2REBfFkg==");
    let damaged = damaged.send(&whole[PART..2 * PART]);
    assert!(damaged.status == 400 && damaged.detail().contains("md5 checksum of part 2"), "{damaged:?}");
    let listed = upload.list();
    assert_eq!(listed["missing"], json!([{"first_byte": PART, "last_byte": whole.len() - 1}]));
    assert_eq!(listed["parts"].as_array().unwrap().len(), 1);
}

#[test]
fn uploads_of_others_of_nobody_and_of_another_kind_are_told_apart() {
    let server = Server::start();
    let upload = Upload::begin(&server, 100);
    let unknown =
        Upload { server: &server, id: "0192f0c8-0000-7000-8000-000000000001".to_owned(), length: 100 };
    assert_eq!(unknown.refused(1, &(0..100)).status, 404);
    assert_eq!(unknown.ask("GET", "/uploads/parts").send(b"").status, 404);
    let nothing = ask(&server, "GET", "/uploads/parts").send(b"");
    assert!(nothing.status == 400 && nothing.detail().contains("X-Upload-ID"), "{nothing:?}");
    let without_key = server.bare("GET", "/uploads/parts").with("X-Upload-ID", &upload.id).send(b"");
    assert_eq!(without_key.status, 401);
    let tus = server.create(100);
    let tus = Upload { server: &server, id: tus.rsplit('/').next().unwrap().to_owned(), length: 100 };
    let answer = tus.refused(1, &(0..100));
    assert!(answer.status == 409 && answer.detail().contains("not begun at /uploads/parts"), "{answer:?}");
    let location = format!("/uploads/{}", upload.id);
    for answer in [server.patch(&location, 0, b"abc"), server.tus("HEAD", &location).send(b"")] {
        assert_eq!(answer.status, 409, "{answer:?}");
    }
    assert_eq!(upload.list()["parts"], json!([]), "nothing of it counts");
    assert!(ask(&server, "PATCH", "/uploads/parts").send(b"").header("allow").is_some());
}

#[test]
fn an_upload_is_complete_when_its_list_is_and_never_looks_so_before() {
    let server = Server::start();
    let whole = noise(PART + 100);
    let upload = Upload::begin(&server, whole.len());
    assert_eq!(upload.send(&whole, 2, &(PART..PART + 100)).status, 204);
    let early = upload.complete_all();
    assert_eq!((early.status, &early.problem()["type"]), (409, &json!("/problems/parts-missing")));
    assert_eq!(early.problem()["missing"], json!([{"first_byte": 0, "last_byte": PART - 1}]));
    assert_eq!(upload.send(&whole, 1, &(0..PART)).status, 204);
    let list = upload.list()["parts"].clone();
    assert_eq!(upload.list().get("asset"), None, "all bytes are there, and the upload is not complete");
    assert_eq!(server.tus("HEAD", &format!("/uploads/{}", upload.id)).send(b"").status, 409);
    let cases = [
        (json!([list[0]]), 409, "2 is stored, but the list does not name it"),
        (json!([list[0], list[1], list[0]]), 400, "names part 1 twice"),
        (json!([{"part_number": 1, "etag": list[1]["etag"]}, list[1]]), 409, "part 1 with another ETag"),
        (json!([list[0], list[1], {"part_number": 3, "etag": list[1]["etag"]}]), 409, "part 3, which is not"),
        (json!({"parts": list, "sha": "x"}), 400, "cannot be read as JSON"),
    ];
    for (body, status, says) in cases {
        let answer = upload.complete(&body);
        assert!(answer.status == status && answer.detail().contains(says), "{body}: {answer:?}");
    }
    let digest = hex::encode(Sha256::digest(&whole));
    let asset = asset_of(&upload.complete(&json!({"parts": list, "sha256": digest})));
    let head = server.tus("HEAD", &format!("/uploads/{}", upload.id)).send(b"");
    assert_eq!((head.status, head.header("reelyard-asset")), (200, Some(asset.as_str())));
    let read = ask(&server, "GET", &format!("/uploads/{}", upload.id)).send(b"");
    assert!(read.status == 200 && read.body == whole);
}

#[test]
fn nothing_is_made_of_bytes_that_are_not_what_was_announced() {
    let server = Server::start();
    let upload = Upload::begin(&server, 3);
    upload.send(b"abc", 1, &(0..3));
    let list = upload.list()["parts"].clone();
    let other = upload.complete(&json!({"parts": list, "sha256": hex::encode(Sha256::digest(b"abd"))}));
    assert_eq!((other.status, &other.problem()["type"]), (422, &json!("/problems/content-mismatch")));
    assert_eq!(upload.complete(&list).status, 410);
    assert_eq!(fs::read_dir(server.data.join("sources")).unwrap().count(), 0);
}

#[test]
fn an_upload_that_was_given_up_stops_who_still_sends_and_is_gone() {
    let server = Server::start();
    let whole = noise(PART);
    let upload = Upload::begin(&server, PART);
    let mut stalled = upload.put(1, &(0..PART)).begin(Some(PART));
    stalled.write_all(&whole[..1 << 20]).unwrap();
    server.wait_until_file_has(&format!("/uploads/{}", upload.id), 1);
    assert_eq!(upload.ask("DELETE", "/uploads/parts").send(b"").status, 204);
    let answer = read_answer(&mut stalled, false).expect("the sender is told");
    assert_eq!(answer.status, 423, "{answer:?}");
    assert_eq!(upload.ask("GET", "/uploads/parts").send(b"").status, 410);
    assert_eq!(fs::read_dir(server.data.join("uploads")).unwrap().count(), 0);
}

#[test]
fn a_newer_request_for_a_part_takes_over_from_one_that_stalls_and_others_are_left_alone() {
    let server = Server::start();
    let whole = noise(2 * PART);
    let upload = Upload::begin(&server, 2 * PART);
    let stall = || {
        let mut connection = upload.put(1, &(0..PART)).begin(Some(PART));
        connection.write_all(&whole[..1 << 20]).unwrap();
        connection
    };
    let mut stalled = stall();
    // Before anything else is sent, so that it is this part that shows in the file.
    server.wait_until_file_has(&format!("/uploads/{}", upload.id), 1);
    let mut other = upload.put(2, &(PART..2 * PART)).begin(Some(PART));
    other.write_all(&whole[PART..PART + 100]).unwrap();
    let mut waits = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        let newer = stall();
        let told = read_answer(&mut stalled, false).expect("the older request is told");
        assert_eq!(told.status, 423, "{told:?}");
        waits.push(began.elapsed());
        stalled = newer;
    }
    waits.sort();
    eprintln!("20 hand-overs of a part: {:?} in the middle, {:?} at most", waits[10], waits[19]);
    let answer = upload.send(&whole, 1, &(0..PART));
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(read_answer(&mut stalled, false).unwrap().status, 423);
    other.write_all(&whole[PART + 100..]).unwrap();
    assert_eq!(read_answer(&mut other, false).unwrap().status, 204, "the other part went on");
    asset_of(&upload.complete_all());
}

#[test]
fn an_upload_in_parts_never_looks_done_while_it_cannot_be_finished() {
    let server = Server::start();
    let upload = Upload::begin(&server, 3);
    upload.send(b"abc", 1, &(0..3));
    let list = upload.list()["parts"].clone();
    let (sources, away) = (server.data.join("sources"), server.data.join("sources.away"));
    fs::rename(&sources, &away).unwrap();
    fs::write(&sources, "in the way").unwrap();
    let answer = upload.complete(&list);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(upload.list().get("asset"), None);
    fs::remove_file(&sources).unwrap();
    fs::rename(&away, &sources).unwrap();
    let asset = asset_of(&upload.complete(&list));
    assert_eq!(source(&server, &asset), b"abc");
}

/// What a client knows to be safe: the ETag of each part that was answered.
type Acknowledged = BTreeMap<usize, String>;

#[test]
fn no_acknowledged_part_is_lost_however_often_the_server_is_killed() {
    let kills = std::env::var(KILLS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let mut chance = Chance(0x5eed_0000_0000_0003);
    let bytes = noise(5 * PART);
    let mut server = Server::start();
    let (mut killed, mut finished) = (0, Vec::new());
    while killed < kills || finished.is_empty() {
        let length = 1 + chance.below(bytes.len());
        let whole = &bytes[..length];
        let id = Upload::begin(&server, length).id;
        let mut acknowledged = Acknowledged::new();
        let asset = loop {
            check_safe(&Upload { server: &server, id: id.clone(), length }, &acknowledged);
            let kill_after = (killed < kills && chance.below(3) > 0)
                .then(|| Duration::from_micros(chance.below(120_000) as u64));
            let asset = send_round(&mut server, &id, whole, &mut acknowledged, kill_after);
            if kill_after.is_some() {
                killed += 1;
                server.restart();
            } else {
                break asset.expect("nobody disturbed it");
            }
            if let Some(asset) = asset {
                break asset;
            }
        };
        let upload = Upload { server: &server, id: id.clone(), length };
        assert_eq!(asset_of(&upload.complete_all()), asset, "the same answer after any kill");
        finished.push((asset, length));
    }
    for (asset, length) in &finished {
        assert!(source(&server, asset) == bytes[..*length], "{asset}: other bytes");
    }
    let sources = fs::read_dir(server.data.join("sources")).unwrap().count();
    assert_eq!(sources, finished.len(), "one source for each finished upload");
    eprintln!("{killed} kills, {} uploads finished", finished.len());
}

fn check_safe(upload: &Upload<'_>, acknowledged: &Acknowledged) {
    let listed = upload.list();
    if listed.get("asset").is_some() {
        // Complete, and only the answer was lost.
        return;
    }
    let listed: Acknowledged = listed["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| {
            let number = part["part_number"].as_u64().unwrap() as usize;
            (number, part["etag"].as_str().unwrap().to_owned())
        })
        .collect();
    for (number, etag) in acknowledged {
        assert_eq!(listed.get(number), Some(etag), "part {number} was acknowledged");
    }
}

/// Sends what was not acknowledged, three at a time, and completes; killed in the middle where a time is given.
fn send_round(
    server: &mut Server,
    id: &str,
    whole: &[u8],
    acknowledged: &mut Acknowledged,
    kill_after: Option<Duration>,
) -> Option<String> {
    let parts: Vec<(usize, Range<usize>)> = (1..).zip(ranges(whole.len())).collect();
    let left: Vec<_> = parts.into_iter().filter(|(number, _)| !acknowledged.contains_key(number)).collect();
    let (left, safe) = (Mutex::new(left), Mutex::new(std::mem::take(acknowledged)));
    let address = server.address;
    let key = server.key.clone();
    let request = |method: &str, path: &str| {
        Request::new(address, method, path)
            .with("Authorization", &format!("Bearer {key}"))
            .with("X-Upload-ID", id)
    };
    let length = whole.len();
    let send_one = |number: usize, range: Range<usize>| {
        let content_range = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        let put = request("PUT", "/uploads/parts")
            .with("X-Part-Number", &number.to_string())
            .with("X-Content-Range", &content_range);
        put.try_send(&whole[range]).filter(|answer| answer.status == 204)
    };
    let send_all = || {
        while let Some((number, range)) = { left.lock().unwrap().pop() } {
            let Some(answer) = send_one(number, range.clone()) else { return };
            assert_eq!(answer.header("etag"), Some(etag(&whole[range]).as_str()));
            safe.lock().unwrap().insert(number, answer.header("etag").unwrap().to_owned());
        }
    };
    let client = || {
        std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(send_all))));
        let list: Vec<Value> = safe
            .lock()
            .unwrap()
            .iter()
            .map(|(number, etag)| json!({"part_number": number, "etag": etag}))
            .collect();
        let body = Value::from(list).to_string();
        let answer = request("POST", "/uploads/parts/complete").try_send(body.as_bytes())?;
        (answer.status == 200).then(|| asset_of(&answer))
    };
    let asset = std::thread::scope(|scope| {
        let client = scope.spawn(client);
        if let Some(kill_after) = kill_after {
            // Not a wait for something: this is the random moment.
            std::thread::sleep(kill_after);
            server.kill();
        }
        client.join().unwrap()
    });
    *acknowledged = safe.into_inner().unwrap();
    asset
}
