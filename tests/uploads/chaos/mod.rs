//! Everything breaks at once, and nothing that was acknowledged is lost: clients of all three dialects send through a
//! proxy that cuts connections, while the server is killed (-9) again and again and, where uploads lie in S3, S3 fails
//! too. Each client keeps its own ledger of what it was told and compares at every step; an independent check at the
//! end reads everything back.
//!
//! The run is made from one seed. `make test` kills 20 times for each store, `make chaos-uploads` 300 times.

mod clients;
mod proxy;

use super::{crash::Chance, server::Server, wire::Request};
use clients::{Client, Dialect, Finished};
use proxy::CuttingProxy;
use reelyard_testkit::{ACCESS_KEY_ID, Fault, FaultProxy, Kind, Plan, S3Server, SECRET_ACCESS_KEY};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

const KILLS: usize = 20;
const KILLS_VARIABLE: &str = "REELYARD_TEST_KILLS";
const SEED_VARIABLE: &str = "REELYARD_TEST_SEED";

/// What the clients see of the world.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    /// The world calms down: finish what you have and begin nothing new.
    pub(crate) ending: AtomicBool,
}

struct Storage {
    server: S3Server,
    proxy: FaultProxy,
}

impl Storage {
    fn start() -> Option<Self> {
        let server = S3Server::start(Kind::SeaweedFs)?;
        let proxy = FaultProxy::start(&server.endpoint(), Plan::calm());
        Some(Self { server, proxy })
    }

    fn url(&self) -> String {
        S3Server::url(self.proxy.url(), "reelyard")
    }
}

fn storm(seed: u64) -> Plan {
    let per_thousand = vec![
        (150, Fault::SlowDown),
        (50, Fault::CutBefore),
        (50, Fault::LostReply),
        (50, Fault::Delay(Duration::from_millis(200))),
    ];
    Plan { seed, per_thousand, methods: Vec::new() }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_acknowledged_is_lost_on_a_disk_whatever_breaks() {
    campaign(None);
}

#[test]
fn nothing_acknowledged_is_lost_in_s3_whatever_breaks() {
    let Some(storage) = Storage::start() else { return };
    campaign(Some(storage));
}

fn campaign(storage: Option<Storage>) {
    let (seed, kills) = (number(SEED_VARIABLE, 1), number(KILLS_VARIABLE, KILLS as u64));
    let mut server = match &storage {
        None => Server::start(),
        Some(storage) => {
            let credentials =
                [("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)];
            Server::start_in(&["--storage-url", &storage.url()], &credentials)
        }
    };
    let proxy = CuttingProxy::start(server.address, seed);
    let world =
        Arc::new(World { address: proxy.address(), key: server.key.clone(), ending: AtomicBool::new(false) });
    let clients: Vec<_> = [Dialect::Tus, Dialect::Ietf, Dialect::Parts]
        .into_iter()
        .zip(seed * 1000..)
        .map(|(dialect, seed)| {
            let world = world.clone();
            thread::spawn(move || Client::new(world, dialect, seed).run())
        })
        .collect();
    let cuts = nemesis(&mut server, &proxy, storage.as_ref(), seed, kills);
    world.ending.store(true, Ordering::Relaxed);
    let finished: Vec<Finished> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    check(&server, &finished);
    let faults = storage.as_ref().map_or(0, |storage| storage.proxy.faults());
    eprintln!(
        "seed {seed}: {kills} kills, {cuts} cut connections, {faults} faults of S3, {} uploads finished",
        finished.len()
    );
    drop(storage.map(|storage| storage.server));
}

/// Breaks things, one after the other, and calms down at the end; how many connections were cut.
fn nemesis(
    server: &mut Server,
    proxy: &CuttingProxy,
    storage: Option<&Storage>,
    seed: u64,
    kills: u64,
) -> u64 {
    let mut chance = Chance::new(seed);
    for round in 0..kills {
        proxy.cut_share(chance.below(60) as u64);
        if let Some(storage) = storage {
            let plan = if chance.below(3) > 0 { storm(seed + round) } else { Plan::calm() };
            storage.proxy.set_plan(plan);
        }
        // Not a wait for something: the random moment.
        let longest_ms = if storage.is_some() { 1_200 } else { 600 };
        thread::sleep(Duration::from_millis(chance.below(longest_ms) as u64));
        server.kill();
        // A server does not start while it cannot reach its store; that is another test's matter.
        if let Some(storage) = storage {
            storage.proxy.set_plan(Plan::calm());
        }
        server.restart();
    }
    proxy.cut_share(0);
    proxy.cuts()
}

/// Reads everything back, without a proxy between: the bytes, one asset for each upload, and nothing else.
fn check(server: &Server, finished: &[Finished]) {
    assert!(finished.len() >= 3, "every dialect got something through");
    for one in finished {
        let answer = with_key(server, server.bare("GET", &format!("/uploads/{}", one.upload))).send(b"");
        assert_eq!(answer.status, 200, "{one:?}: {answer:?}");
        assert_eq!(answer.body.len(), one.length, "{one:?}");
        assert_eq!(Sha256::digest(&answer.body)[..], one.sha256, "{one:?}: other bytes");
        let shown = with_key(server, server.bare("GET", &format!("/v1/assets/{}", one.asset))).send(b"");
        let shown: serde_json::Value = serde_json::from_slice(&shown.body).unwrap();
        assert_eq!(shown["sha256"], hex::encode(one.sha256), "{one:?}");
    }
    let told: BTreeSet<&str> = finished.iter().map(|one| one.asset.as_str()).collect();
    assert_eq!(told.len(), finished.len(), "each upload has an asset of its own");
    let stored = assets(server);
    let made: BTreeSet<&str> = stored.iter().map(String::as_str).collect();
    assert_eq!(made, told, "every asset is one that its sender was told of");
}

fn assets(server: &Server) -> Vec<String> {
    let mut found = Vec::new();
    let mut path = "/v1/assets?limit=100".to_owned();
    loop {
        let page = with_key(server, server.bare("GET", &path)).send(b"");
        let page: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
        let items = page["items"].as_array().unwrap_or_else(|| panic!("{page}"));
        found.extend(items.iter().map(|asset| asset["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/assets?limit=100&cursor={cursor}"),
            None => return found,
        }
    }
}

fn with_key(server: &Server, request: Request) -> Request {
    request.with("Authorization", &format!("Bearer {}", server.key))
}
