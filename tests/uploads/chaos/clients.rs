//! A client of each dialect that never gives up, and never forgets what it was told.

use super::{
    super::wire::{Answer, Request, read_answer},
    Chance, World,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    io::Write as _,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

const LARGEST_BYTES: usize = 20 << 20;
/// An upload that gets nowhere for so long has been lost.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Tus,
    Ietf,
    Parts,
}

/// What the client was told at the end.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) upload: String,
    pub(crate) asset: String,
    pub(crate) length: usize,
    pub(crate) sha256: [u8; 32],
}

pub(crate) struct Client {
    world: Arc<World>,
    dialect: Dialect,
    chance: Chance,
}

impl Client {
    pub(crate) fn new(world: Arc<World>, dialect: Dialect, seed: u64) -> Self {
        Self { world, dialect, chance: Chance::new(seed) }
    }

    /// One upload after the other, until the world is ending; at least one.
    pub(crate) fn run(mut self) -> Vec<Finished> {
        let mut finished = Vec::new();
        while finished.is_empty() || !self.world.ending.load(Ordering::Relaxed) {
            let length = 1 + self.chance.below(LARGEST_BYTES);
            let bytes: Vec<u8> = (0..length).map(|_| self.chance.below(256) as u8).collect();
            let (upload, asset) = match self.dialect {
                Dialect::Tus | Dialect::Ietf => self.send_in_order(&bytes),
                Dialect::Parts => self.send_in_parts(&bytes),
            };
            let sha256 = Sha256::digest(&bytes).into();
            finished.push(Finished { upload, asset, length, sha256 });
        }
        finished
    }

    /// An answer, however often it takes; `None` for this one try.
    fn once(&self, request: Request, body: &[u8], is_head: bool) -> Option<Answer> {
        let mut connection = request.try_begin(Some(body.len())).ok()?;
        let _ = connection.write_all(body);
        read_answer(&mut connection, is_head)
    }

    fn until<T>(&self, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(done) = attempt() {
                return done;
            }
            assert!(begin.elapsed() < PATIENCE, "{:?}: {what} does not work any more", self.dialect);
            thread::sleep(PAUSE);
        }
    }

    fn request(&self, method: &str, path: &str) -> Request {
        let request = Request::new(self.world.address, method, path)
            .with("Authorization", &format!("Bearer {}", self.world.key));
        match self.dialect {
            Dialect::Tus => request.with("Tus-Resumable", "1.0.0"),
            Dialect::Ietf => request.with("Upload-Draft-Interop-Version", "8"),
            Dialect::Parts => request,
        }
    }

    fn send_in_order(&mut self, bytes: &[u8]) -> (String, String) {
        let path = self.until("creating an upload", || {
            let request = self.request("POST", "/uploads").with("Upload-Length", &bytes.len().to_string());
            let request =
                if self.dialect == Dialect::Ietf { request.with("Upload-Complete", "?0") } else { request };
            let answer = self.once(request, b"", false).filter(|answer| answer.status == 201)?;
            Some(answer.header("location").unwrap().to_owned())
        });
        let mut acknowledged = 0;
        let mut moved = Instant::now();
        let asset = loop {
            assert!(moved.elapsed() < PATIENCE, "{path}: stuck at {acknowledged} of {}", bytes.len());
            let head = self.until("asking for the offset", || {
                let answer = self.once(self.request("HEAD", &path), b"", true)?;
                assert!(answer.status < 400 || answer.status >= 423, "{path}: {answer:?}");
                matches!(answer.status, 200 | 204).then_some(answer)
            });
            let offset = head.number("upload-offset");
            assert!(offset >= acknowledged, "{path}: {acknowledged} were acknowledged, {offset} are left");
            assert!(offset <= bytes.len());
            if offset > acknowledged {
                moved = Instant::now();
            }
            acknowledged = offset;
            if let Some(asset) = head.header("reelyard-asset") {
                assert_eq!(offset, bytes.len(), "done before all of it was there");
                break asset.to_owned();
            }
            let end = bytes.len().min(offset + 1 + self.chance.below(4 << 20));
            let answer =
                self.once(self.append(&path, offset, end == bytes.len()), &bytes[offset..end], false);
            if let Some(answer) = answer.filter(|answer| matches!(answer.status, 201 | 204)) {
                acknowledged = answer.number("upload-offset");
                assert!(acknowledged <= end);
                moved = Instant::now();
            }
        };
        (path.rsplit('/').next().unwrap().to_owned(), asset)
    }

    fn append(&self, path: &str, offset: usize, is_last: bool) -> Request {
        let request = self.request("PATCH", path).with("Upload-Offset", &offset.to_string());
        match self.dialect {
            Dialect::Ietf => request
                .with("Content-Type", "application/partial-upload")
                .with("Upload-Complete", if is_last { "?1" } else { "?0" }),
            _ => request.with("Content-Type", "application/offset+octet-stream"),
        }
    }

    fn send_in_parts(&mut self, bytes: &[u8]) -> (String, String) {
        let (upload, part_bytes) = self.until("opening an upload in parts", || {
            let request =
                self.request("POST", "/uploads/parts").with("Upload-Length", &bytes.len().to_string());
            let answer = self.once(request, b"", false).filter(|answer| answer.status == 201)?;
            Some((
                answer.header("x-upload-id").unwrap().to_owned(),
                answer.number("x-part-min-size").max(1 << 20),
            ))
        });
        let mut order: Vec<usize> = (0..bytes.len().div_ceil(part_bytes)).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.chance.below(at + 1));
        }
        let mut etags = vec![String::new(); order.len()];
        for index in order {
            let (start, end) = (index * part_bytes, bytes.len().min((index + 1) * part_bytes));
            etags[index] = self.until("sending a part", || {
                let range = format!("bytes {start}-{}/{}", end - 1, bytes.len());
                let request = self
                    .request("PUT", "/uploads/parts")
                    .with("X-Upload-ID", &upload)
                    .with("X-Part-Number", &(index + 1).to_string())
                    .with("X-Content-Range", &range);
                let answer = self.once(request, &bytes[start..end], false)?;
                assert!(answer.status < 400 || answer.status >= 409, "{upload}: {answer:?}");
                answer.header("etag").map(str::to_owned)
            });
            self.check_listing(&upload, &etags);
        }
        let parts: Vec<Value> = etags
            .iter()
            .zip(1..)
            .map(|(etag, number)| json!({ "part_number": number, "etag": etag }))
            .collect();
        let list = json!({ "parts": parts }).to_string();
        let asset = self.until("completing", || {
            let request = self
                .request("POST", "/uploads/parts/complete")
                .with("X-Upload-ID", &upload)
                .with("Content-Type", "application/json");
            let answer = self.once(request, list.as_bytes(), false)?;
            assert!(answer.status < 400 || answer.status >= 423, "{upload}: {answer:?}");
            answer.header("reelyard-asset").map(str::to_owned)
        });
        (upload, asset)
    }

    /// Every part that was acknowledged is there.
    fn check_listing(&self, upload: &str, etags: &[String]) {
        let listing: Value = self.until("listing parts", || {
            let request = self.request("GET", "/uploads/parts").with("X-Upload-ID", upload);
            let answer = self.once(request, b"", false).filter(|answer| answer.status == 200)?;
            serde_json::from_slice(&answer.body).ok()
        });
        let listed = listing["parts"].as_array().unwrap();
        for (etag, number) in etags.iter().zip(1..).filter(|(etag, _)| !etag.is_empty()) {
            let there = listed
                .iter()
                .any(|part| part["part_number"] == number && part["etag"].as_str() == Some(etag));
            assert!(there, "{upload}: part {number} was acknowledged and is not there: {listing}");
        }
    }
}
