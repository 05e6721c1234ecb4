//! Creators who never give up: they send through any node, in order or in parts, and write down what they are told. What
//! they see themselves and may not be (an offset that went back, an upload that is gone) is a violation at once.

use super::{World, ledger::Ledger};
use crate::{
    client::{Answer, Client},
    farm::Farm,
    support::Chance,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

/// An upload that gets nowhere for so long is lost.
const PATIENCE: Duration = Duration::from_secs(240);
const PAUSE: Duration = Duration::from_millis(50);
/// A creator looks at what became of the last film before sending the next; not for ever.
const LOOKS_FOR: Duration = Duration::from_secs(25);
const LARGEST_PATCH_BYTES: u64 = 96 << 10;
/// A box of so many bytes makes an upload of several parts.
const PADDING_BYTES: u64 = 11 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Tus,
    Parts,
}

pub(super) struct Creator {
    world: Arc<World>,
    dialect: Dialect,
    chance: Chance,
    client: Client,
}

impl Creator {
    pub(super) fn new(world: Arc<World>, dialect: Dialect, seed: u64) -> Self {
        let client = Client::that_asks_again(&world.admin_key);
        Self { world, dialect, chance: Chance(seed), client }
    }

    /// One film after the other, until the world is ending; at least one.
    pub(super) fn run(mut self) {
        loop {
            let bytes = self.film();
            let sent = match self.dialect {
                Dialect::Tus => self.send_in_order(&bytes),
                Dialect::Parts => self.send_in_parts(&bytes),
            };
            let Some((upload, asset)) = sent else { return };
            self.ledger().finished(&upload, &asset, &hex::encode(Sha256::digest(&bytes)), bytes.len());
            self.look_after(&asset);
            if self.world.ending.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn ledger(&self) -> &Ledger {
        &self.world.ledger
    }

    /// The clip as bytes that nobody has sent before.
    fn film(&mut self) -> Vec<u8> {
        let mut bytes = crate::story::another(&self.world.clip, self.chance.next());
        if self.dialect == Dialect::Parts && self.chance.below(3) == 0 {
            let mut padding = vec![0; usize::try_from(PADDING_BYTES).expect("fits")];
            let (start, step) = (self.chance.next(), self.chance.next() | 1);
            for (index, eight) in (0_u64..).zip(padding.chunks_mut(8)) {
                let value = start.wrapping_add(step.wrapping_mul(index)).to_be_bytes();
                eight.copy_from_slice(&value[..eight.len()]);
            }
            bytes.extend((u32::try_from(padding.len()).expect("fits") + 8).to_be_bytes());
            bytes.extend(b"free");
            bytes.extend(padding);
        }
        bytes
    }

    fn base(&mut self) -> String {
        let nodes = self.world.fronts.len() as u64;
        let number = self.chance.below(nodes);
        self.world.fronts[usize::try_from(number).expect("few nodes")].clone()
    }

    /// Asks until it gets something; `None`: it never did, and that was written down.
    fn until<T>(&mut self, what: &str, mut attempt: impl FnMut(&mut Self) -> Option<T>) -> Option<T> {
        let begin = Instant::now();
        loop {
            if let Some(done) = attempt(self) {
                return Some(done);
            }
            if begin.elapsed() > PATIENCE {
                self.world.violation(format!("{what} got nowhere in {PATIENCE:?}"));
                return None;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Not an answer of the server's: nothing came, or it is not able to answer now.
    fn is_passing(answer: &Answer) -> bool {
        matches!(answer.status, 0 | 408 | 409 | 423 | 425 | 429) || answer.status >= 500
    }

    fn send_in_order(&mut self, bytes: &[u8]) -> Option<(String, String)> {
        let metadata = Farm::upload_metadata("chaos");
        let upload = self.until("creating an upload", |creator| {
            let base = creator.base();
            let answer = creator.client.tus_create(&base, bytes.len(), &metadata);
            let location = (answer.status == 201).then(|| answer.header("location")).flatten()?;
            location.rsplit('/').next().map(str::to_owned)
        })?;
        let mut acknowledged = 0;
        let asset = self.until(&format!("upload {upload}"), |creator| {
            creator.push_on(&upload, bytes, &mut acknowledged)
        })?;
        Some((upload, asset))
    }

    /// One look and one PATCH; the asset when all is done.
    fn push_on(&mut self, upload: &str, bytes: &[u8], acknowledged: &mut u64) -> Option<String> {
        let base = self.base();
        let head = self.client.tus_head(&base, upload);
        if Self::is_passing(&head) {
            return None;
        }
        let offset = match (head.status, head.number("upload-offset")) {
            (200 | 204, Some(offset)) => offset,
            _ => {
                self.world.violation(format!("upload {upload} was acknowledged; HEAD says {}", head.status));
                return None;
            }
        };
        if offset < *acknowledged {
            self.world.violation(format!("upload {upload}: {acknowledged} acknowledged, {offset} are left"));
        }
        *acknowledged = (*acknowledged).max(offset);
        if let Some(asset) = head.header("reelyard-asset") {
            return Some(asset);
        }
        let start = usize::try_from(offset).expect("fits");
        let most = 1 + self.chance.below(LARGEST_PATCH_BYTES);
        let end = bytes.len().min(start + usize::try_from(most).expect("fits"));
        let base = self.base();
        let answer = self.client.tus_patch(&base, upload, offset, &bytes[start..end]);
        if let (204, Some(told)) = (answer.status, answer.number("upload-offset")) {
            *acknowledged = told;
            self.ledger().offset(upload, told);
        }
        None
    }

    fn send_in_parts(&mut self, bytes: &[u8]) -> Option<(String, String)> {
        let metadata = Farm::upload_metadata("chaos in parts");
        let (upload, part_bytes) = self.until("opening an upload in parts", |creator| {
            let (base, length) = (creator.base(), bytes.len().to_string());
            let headers = [("Upload-Length", length.as_str()), ("Upload-Metadata", &metadata)];
            let answer = creator.client.ask("POST", &format!("{base}/uploads/parts"), &headers, &[]);
            let upload = (answer.status == 201).then(|| answer.header("x-upload-id")).flatten()?;
            Some((upload, answer.number("x-part-min-size").unwrap_or(1).max(1 << 20)))
        })?;
        let part_bytes = usize::try_from(part_bytes).expect("fits");
        let mut etags = Vec::new();
        for (number, part) in (1..).zip(bytes.chunks(part_bytes)) {
            let start = (number - 1) * part_bytes;
            let range = format!("bytes {start}-{}/{}", start + part.len() - 1, bytes.len());
            let etag = self.until(&format!("part {number} of {upload}"), |creator| {
                let (base, number) = (creator.base(), number.to_string());
                let headers = [
                    ("X-Upload-ID", upload.as_str()),
                    ("X-Part-Number", &number),
                    ("X-Content-Range", &range),
                ];
                let answer = creator.client.ask("PUT", &format!("{base}/uploads/parts"), &headers, part);
                if answer.status != 0 && answer.header("etag").is_none() && !Self::is_passing(&answer) {
                    let said = answer.text();
                    creator.world.violation(format!("part {number} of {upload}: {} {said}", answer.status));
                }
                answer.header("etag")
            })?;
            self.ledger().part(&upload, number, &etag);
            etags.push(json!({ "part_number": number, "etag": etag }));
        }
        self.check_listing(&upload, &etags)?;
        let list = json!({ "parts": etags }).to_string();
        let asset = self.until(&format!("completing {upload}"), |creator| {
            let base = creator.base();
            let headers = [("X-Upload-ID", upload.as_str()), ("Content-Type", "application/json")];
            let url = format!("{base}/uploads/parts/complete");
            creator.client.ask("POST", &url, &headers, list.as_bytes()).header("reelyard-asset")
        })?;
        Some((upload, asset))
    }

    /// Every part that was acknowledged is there.
    fn check_listing(&mut self, upload: &str, etags: &[Value]) -> Option<()> {
        let listing = self.until(&format!("listing {upload}"), |creator| {
            let base = creator.base();
            let answer =
                creator.client.ask("GET", &format!("{base}/uploads/parts"), &[("X-Upload-ID", upload)], &[]);
            (answer.status == 200).then(|| answer.json())
        })?;
        for etag in etags {
            let listed = listing["parts"].as_array().into_iter().flatten();
            let is_there =
                |part: &Value| part["part_number"] == etag["part_number"] && part["etag"] == etag["etag"];
            if !listed.into_iter().any(is_there) {
                self.world
                    .violation(format!("upload {upload}: part {etag} was acknowledged and is not listed"));
            }
        }
        Some(())
    }

    /// Some films are called off, some removed, most are looked at until they play.
    fn look_after(&mut self, asset: &str) {
        match self.chance.below(10) {
            0 => {
                thread::sleep(Duration::from_millis(self.chance.below(3000)));
                let base = self.base();
                let answer = self.client.ask("POST", &format!("{base}/v1/assets/{asset}/cancel"), &[], &[]);
                if answer.status == 200 {
                    self.ledger().cancelled(asset);
                }
            }
            1 => {
                thread::sleep(Duration::from_millis(self.chance.below(6000)));
                let base = self.base();
                let answer = self.client.ask("DELETE", &format!("{base}/v1/assets/{asset}"), &[], &[]);
                if (200..300).contains(&answer.status) {
                    self.ledger().deleted(asset);
                }
            }
            _ => {
                let begin = Instant::now();
                while begin.elapsed() < LOOKS_FOR && !self.world.ending.load(Ordering::Relaxed) {
                    let base = self.base();
                    let shown = self.client.get(&format!("{base}/v1/assets/{asset}"));
                    if shown.status == 404 {
                        self.world.violation(format!("asset {asset} was acknowledged and is not known"));
                    }
                    if matches!(shown.json()["state"].as_str(), Some("ready" | "failed")) {
                        return;
                    }
                    thread::sleep(Duration::from_millis(300));
                }
            }
        }
    }
}
