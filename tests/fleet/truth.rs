//! What is there, looked at past our own programs: rows by `psql`, objects by signed requests of `curl`, pictures by
//! `ffprobe`. The checkers believe this and nothing that a server says of itself.

use crate::{
    farm::{Farm, PREFIX},
    support::run,
};
use reelyard_testkit::{ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

impl Farm {
    /// Rows of a query, as JSON objects.
    pub(crate) fn rows(&self, query: &str) -> Vec<Value> {
        let wrapped = format!("SELECT row_to_json(found) FROM ({query}) AS found");
        let (ok, text, error) = run("psql", &[&self.database_url, "-XAtq", "-c", &wrapped]);
        assert!(ok, "{query}: {error}");
        text.lines().map(|line| serde_json::from_str(line).expect("psql gives JSON")).collect()
    }

    /// One number.
    pub(crate) fn count(&self, query: &str) -> i64 {
        let rows = self.rows(query);
        let row = rows.first().and_then(Value::as_object).expect("one row");
        row.values().next().and_then(Value::as_i64).unwrap_or_else(|| panic!("{query}: {row:?}"))
    }

    /// Keys below the fleet's prefix with their lengths, straight from the store.
    pub(crate) fn objects(&self, below: &str) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        let mut token: Option<String> = None;
        loop {
            let mut path = format!("?list-type=2&prefix={}", escaped(&format!("{PREFIX}/{below}")));
            if let Some(token) = &token {
                path = format!("?continuation-token={}&{}", escaped(token), &path[1..]);
            }
            let page = String::from_utf8(self.storage_get(&path).expect("the store lists")).unwrap();
            for entry in page.split("<Contents>").skip(1) {
                let key = between(entry, "<Key>", "</Key>").expect("a key");
                let key = key.strip_prefix(&format!("{PREFIX}/")).expect("it is below the prefix").to_owned();
                let byte_len = between(entry, "<Size>", "</Size>").and_then(|text| text.parse().ok());
                found.insert(key, byte_len.expect("a length"));
            }
            token = between(&page, "<NextContinuationToken>", "</NextContinuationToken>").map(str::to_owned);
            if between(&page, "<IsTruncated>", "<").is_none_or(|text| text != "true") || token.is_none() {
                return found;
            }
        }
    }

    /// The bytes of an object; `None`: there is none.
    pub(crate) fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.storage_get(&format!("/{PREFIX}/{key}"))
    }

    fn storage_get(&self, path: &str) -> Option<Vec<u8>> {
        let url = format!("{}/{BUCKET}{path}", self.servers.storage.endpoint());
        let answer = Command::new("curl")
            .args(["-sS", "--fail", "--path-as-is", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user"])
            .args([&format!("{ACCESS_KEY_ID}:{SECRET_ACCESS_KEY}"), &url])
            .output()
            .expect("curl runs");
        answer.status.success().then_some(answer.stdout)
    }

    /// SHA-256 of a source as it lies in the store: whole, or in the pieces of its upload.
    pub(crate) fn source_sha256(&self, asset: &str) -> Option<String> {
        let rows = self.rows(&format!(
            "SELECT owner.source_key, owner.upload FROM asset JOIN asset AS owner
             ON owner.id = COALESCE(asset.content_of, asset.id) WHERE asset.id = '{asset}'"
        ));
        let row = rows.first()?;
        let mut hash = Sha256::new();
        match row["source_key"].as_str().and_then(|key| self.object(key)) {
            Some(whole) => hash.update(&whole),
            None => {
                let pieces = self.rows(&format!(
                    "SELECT object_key FROM upload_extent WHERE upload = '{}' ORDER BY start_byte",
                    row["upload"].as_str()?
                ));
                if pieces.is_empty() {
                    return None;
                }
                for piece in pieces {
                    hash.update(self.object(piece["object_key"].as_str()?)?);
                }
            }
        }
        Some(hex::encode(hash.finalize()))
    }

    /// Of everything in the fleet that should have come to rest: what has not, in sentences. Empty is good.
    pub(crate) fn unrest(&self) -> Vec<String> {
        let mut found = Vec::new();
        for task in self.rows(
            "SELECT id, asset, kind, ordinal, state, attempt FROM task
             WHERE state NOT IN ('done', 'dead', 'cancelled') ORDER BY id",
        ) {
            found.push(format!("stuck: task {task}"));
        }
        for task in self.rows("SELECT id, asset, kind, attempt, done_attempt FROM task WHERE state = 'done' AND done_attempt <> attempt") {
            found.push(format!("written under an old attempt: task {task}"));
        }
        for (table, condition) in [
            ("ticket_outbox", "TRUE"),
            ("upload", "holder IS NOT NULL AND held_until_ms > EXTRACT(EPOCH FROM now()) * 1000 + 120000"),
            ("task", "state <> 'leased' AND lease_until_ms IS NOT NULL"),
        ] {
            let count = self.count(&format!("SELECT count(*) FROM {table} WHERE {condition}"));
            if count > 0 {
                found.push(format!("left over: {count} rows of {table} where {condition}"));
            }
        }
        found
    }

    /// Objects that no row accounts for.
    pub(crate) fn orphans(&self) -> Vec<String> {
        let mut wanted = BTreeSet::new();
        for row in self.rows("SELECT object_key AS key FROM upload_extent") {
            wanted.insert(row["key"].as_str().unwrap().to_owned());
        }
        for row in self.rows("SELECT source_key AS key FROM asset WHERE state <> 'deleted'") {
            wanted.insert(row["key"].as_str().unwrap().to_owned());
        }
        let mut prefixes = BTreeSet::new();
        for row in self.rows("SELECT prefix FROM publication WHERE state = 'live' AND prefix IS NOT NULL") {
            prefixes.insert(format!("{}/", row["prefix"].as_str().unwrap().trim_end_matches('/')));
        }
        // Of assets that failed, what is done is kept for another try.
        for row in self.rows(
            "SELECT task.asset, task.id, task.done_attempt FROM task JOIN asset ON asset.id = task.asset
             WHERE asset.state IN ('failed', 'cancelled') AND task.done_attempt IS NOT NULL",
        ) {
            let (asset, task) = (row["asset"].as_str().unwrap(), row["id"].as_str().unwrap());
            prefixes.insert(format!("renditions/{asset}/{task}/a{}/", row["done_attempt"]));
        }
        let is_explained =
            |key: &String| wanted.contains(key) || prefixes.iter().any(|prefix| key.starts_with(prefix));
        self.objects("").into_keys().filter(|key| !is_explained(key)).collect()
    }

    /// Of one published asset: one publication, under the attempt that won, all files there. Empty is good.
    pub(crate) fn flaws_of_publication(&self, asset: &str) -> Vec<String> {
        let rows = self.rows(&format!(
            "SELECT publication.prefix, publication.state, publication.attempt, task.done_attempt FROM asset
             JOIN asset AS owner ON owner.id = COALESCE(asset.content_of, asset.id)
             JOIN publication ON publication.asset = asset.id
             LEFT JOIN task ON task.asset = owner.id AND task.kind = 'publish' WHERE asset.id = '{asset}'"
        ));
        let [row] = rows.as_slice() else {
            return vec![format!("asset {asset} has {} publications", rows.len())];
        };
        let mut flaws = Vec::new();
        if row["state"] != "live" || row["attempt"].is_null() || row["attempt"] != row["done_attempt"] {
            flaws.push(format!("asset {asset}: the publication is not the winner's: {row}"));
        }
        let Some(prefix) = row["prefix"].as_str() else { return flaws };
        if !prefix.trim_end_matches('/').ends_with(&format!("/a{}", row["attempt"])) {
            flaws.push(format!("asset {asset}: the prefix is of another attempt: {row}"));
        }
        for name in ["master.m3u8", "manifest.mpd"] {
            if self.object(&format!("{}/{name}", prefix.trim_end_matches('/'))).is_none() {
                flaws.push(format!("asset {asset}: no {name} in {prefix}"));
            }
        }
        flaws
    }

    /// The media files of a publication by name, with the SHA-256 of each: the same work gives the same.
    pub(crate) fn published_bytes(&self, asset: &str) -> BTreeMap<String, String> {
        let rows = self.rows(&format!("SELECT prefix FROM publication WHERE asset = '{asset}'"));
        let prefix = rows[0]["prefix"].as_str().expect("a prefix").trim_end_matches('/').to_owned();
        self.objects(&format!("{prefix}/"))
            .into_keys()
            .filter(|key| key.ends_with(".m4s") || key.ends_with(".mp4"))
            .map(|key| {
                let bytes = self.object(&key).expect("what was listed is there");
                (key[prefix.len() + 1..].to_owned(), hex::encode(Sha256::digest(&bytes)))
            })
            .collect()
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(found, _)| found)
}

/// For a query (RFC 3986 section 2.3), slashes too, as the signature wants it.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => (byte as char).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
