//! What was promised against what is there. Looks past the fleet's own words, at rows and objects; waits only for what
//! the fleet promises to do in the end (settle, sweep).

use super::{
    World,
    ledger::{Finished, assets_with},
};
use crate::{
    client::Client,
    farm::Farm,
    support::{decoded_pictures, playlist_uris},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

/// Leases, back-offs and one more try of everything that was given up.
const SETTLING: Duration = Duration::from_secs(300);
const SETTLING_CRIPPLED: Duration = Duration::from_secs(100);
/// The sweep looks every half minute, and a last time a minute after an asset has come to its end.
const SWEEPING: Duration = Duration::from_secs(150);

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) assets: usize,
    pub(super) ready: usize,
    pub(super) cancelled: usize,
    pub(super) deleted: usize,
    /// Assets that an operator had to ask for again, with the reasons of their failures.
    pub(super) asked_again: BTreeMap<String, u64>,
    pub(super) attempts: i64,
    pub(super) lost: i64,
    pub(super) failed: i64,
}

/// `expected`: the media files of an asset that was made while nothing broke.
pub(super) fn check(farm: &Farm, world: &World, expected: &BTreeMap<String, String>) -> Counts {
    let facts = world.ledger.facts();
    let finished = Finished::all(&facts);
    let (cancelled, deleted) = (assets_with(&facts, "cancelled"), assets_with(&facts, "deleted"));
    let mut counts = Counts { assets: finished.len(), ..Counts::default() };
    settle(farm, world, &mut counts);
    rest(farm, world);
    let mut is_decoded = false;
    for one in &finished {
        let rows = farm.rows(&format!("SELECT * FROM asset WHERE id = '{}'", one.asset));
        let Some(asset) = rows.first() else {
            world.violation(format!(
                "asset {} (upload {}) was acknowledged and has no row",
                one.asset, one.upload
            ));
            continue;
        };
        let state = asset["state"].as_str().unwrap_or_default();
        if state == "deleted" || deleted.contains(&one.asset) {
            check_deleted(farm, world, one, state);
            counts.deleted += 1;
            continue;
        }
        check_source(farm, world, one, asset);
        if state == "cancelled" || cancelled.contains(&one.asset) {
            if state == "ready" {
                world.violation(format!("asset {} was cancelled, and plays", one.asset));
            }
            counts.cancelled += 1;
            continue;
        }
        if state != "ready" {
            world.violation(format!("asset {} is {state}: {}", one.asset, asset["failure"]));
            continue;
        }
        counts.ready += 1;
        for flaw in farm.flaws_of_publication(&one.asset) {
            world.violation(flaw);
        }
        let published = farm.published_bytes(&one.asset);
        if &published != expected {
            world.violation(format!(
                "asset {}: other bytes than an undisturbed run: {}",
                one.asset,
                differences(&published, expected)
            ));
        } else if !is_decoded {
            is_decoded = true;
            decode(farm, world, &one.asset);
        }
    }
    only_what_was_sent(farm, world, &finished);
    counts.attempts = farm.count("SELECT COALESCE(sum(attempt), 0)::bigint FROM task");
    counts.lost = farm.count("SELECT COALESCE(sum(lost_count), 0)::bigint FROM task");
    counts.failed = farm.count("SELECT COALESCE(sum(failed_count), 0)::bigint FROM task");
    counts
}

/// Everything comes to an end. What was given up (three losses are evidence against a file, and nemesis made them) an
/// operator asks for again, once the world is whole.
fn settle(farm: &Farm, world: &World, counts: &mut Counts) {
    let client = Client::that_asks_again(&farm.admin_key);
    let begin = Instant::now();
    loop {
        for row in farm.rows("SELECT id, failure FROM asset WHERE state = 'failed'") {
            let failure: Value = serde_json::from_str(row["failure"].as_str().unwrap_or_default())
                .unwrap_or(row["failure"].clone());
            let code = failure["code"].as_str().unwrap_or("?").to_owned();
            *counts.asked_again.entry(code).or_default() += 1;
            let asset = row["id"].as_str().expect("an id");
            client.ask("POST", &format!("{}/v1/assets/{asset}/retry", farm.nodes[0].url), &[], &[]);
        }
        let open = farm
            .count("SELECT count(*) FROM asset WHERE state IN ('waiting', 'processing', 'failed')")
            + farm.count("SELECT count(*) FROM upload WHERE state IN ('receiving', 'finishing')");
        if open == 0 {
            return;
        }
        if begin.elapsed() > if world.is_crippled { SETTLING_CRIPPLED } else { SETTLING } {
            let stuck = farm.rows(
                "SELECT id, state, updated_ms FROM asset WHERE state IN ('waiting', 'processing', 'failed')",
            );
            world.violation(format!("{open} assets or uploads do not settle: {stuck:?}"));
            return;
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// No task, outbox row or lease left, and no object that no row knows.
fn rest(farm: &Farm, world: &World) {
    let begin = Instant::now();
    loop {
        let (unrest, orphans) = (farm.unrest(), farm.orphans());
        if unrest.is_empty() && orphans.is_empty() {
            return;
        }
        if begin.elapsed() > SWEEPING {
            for one in unrest {
                world.violation(one);
            }
            if !orphans.is_empty() {
                let some = &orphans[..orphans.len().min(8)];
                world.violation(format!(
                    "{} objects that no row knows, after the sweep: {some:?}",
                    orphans.len()
                ));
            }
            return;
        }
        thread::sleep(Duration::from_secs(1));
    }
}

fn check_source(farm: &Farm, world: &World, one: &Finished, asset: &Value) {
    if asset["byte_len"].as_u64() != Some(one.byte_len) || asset["sha256"].as_str() != Some(&one.sha256) {
        world.violation(format!("asset {}: the catalogue says another length or digest: {asset}", one.asset));
    }
    match farm.source_sha256(&one.asset) {
        Some(found) if found == one.sha256 => {}
        Some(found) => {
            world.violation(format!("asset {}: the source is {found}, sent was {}", one.asset, one.sha256))
        }
        None => world.violation(format!("asset {}: the source is not there, or not all of it", one.asset)),
    }
}

fn check_deleted(farm: &Farm, world: &World, one: &Finished, state: &str) {
    if state != "deleted" {
        world.violation(format!("asset {} was deleted, and is {state}", one.asset));
    }
    for folder in ["sources", "renditions", "publications"] {
        let left = farm.objects(&format!("{folder}/{}", one.asset));
        if !left.is_empty() {
            world.violation(format!(
                "asset {} was deleted; {} objects are left in {folder}",
                one.asset,
                left.len()
            ));
        }
    }
}

/// Nothing was made twice, and nothing that nobody sent.
fn only_what_was_sent(farm: &Farm, world: &World, finished: &[Finished]) {
    let known: Vec<&str> =
        finished.iter().map(|one| one.asset.as_str()).chain([world.reference.as_str()]).collect();
    for row in farm.rows("SELECT id FROM asset") {
        let id = row["id"].as_str().expect("an id");
        if !known.contains(&id) {
            world.violation(format!("asset {id} exists, and no sender was told of it"));
        }
    }
}

/// Every rung, from a node, by other people's decoder.
fn decode(farm: &Farm, world: &World, asset: &str) {
    let (_, shown) = farm.get(0, &format!("/v1/assets/{asset}"));
    let Some(hls) = shown["playback"]["hls"].as_str() else {
        world.violation(format!("asset {asset} is ready and has no address"));
        return;
    };
    let master = Client::new("").get(hls).text();
    let base = hls.rsplit_once('/').expect("a path").0;
    for rung in playlist_uris(&master) {
        let pictures = decoded_pictures(&format!("{base}/{rung}"));
        if pictures != super::PICTURES {
            world.violation(format!(
                "asset {asset}: {rung} has {pictures} pictures and not {}",
                super::PICTURES
            ));
        }
    }
}

fn differences(found: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) -> String {
    let missing = expected.keys().filter(|name| !found.contains_key(*name));
    let changed = expected.iter().filter(|(name, hash)| found.get(*name).is_some_and(|other| other != *hash));
    let missing: Vec<_> = missing.collect();
    let changed: Vec<_> = changed.map(|(name, _)| name).collect();
    format!("missing {missing:?}, changed {changed:?}")
}
