//! The fault campaign: creators with synced ledgers, a nemesis that breaks one thing after the other, calm, and a checker
//! that compares ledger, database and objects.
//!
//! One seed makes one run: which faults, where and how long. (How threads meet is the machine's doing.) `make test` takes
//! 30 faults, `make chaos SEED=n ROUNDS=n` as many as it is told.

mod checker;
mod clients;
mod ledger;
mod nemesis;

use crate::{
    client::Client,
    farm::{Farm, Wish},
    support::fixture,
};
use clients::{Creator, Dialect};
use ledger::Ledger;
use nemesis::Nemesis;
use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const ROUNDS: u64 = 30;
const ROUNDS_VARIABLE: &str = "REELYARD_CHAOS_ROUNDS";
const SEED_VARIABLE: &str = "REELYARD_CHAOS_SEED";
/// Promises to switch off, by name; see `crates/crash-points`.
const SWITCHES_VARIABLE: &str = "REELYARD_CHAOS_SWITCHES";
/// Long enough for a relay that gives up its tickets to have done so.
const BROKER_AWAY: Duration = Duration::from_secs(30);
/// Of the clip: four seconds.
const PICTURES: &str = "96";

/// What everybody in a campaign sees.
pub(crate) struct World {
    fronts: Vec<String>,
    admin_key: String,
    clip: Vec<u8>,
    ledger: Ledger,
    /// An asset that was made while nothing broke.
    reference: String,
    /// Calm: finish what you have and begin nothing new.
    ending: AtomicBool,
    violations: Mutex<Vec<String>>,
    /// A promise is switched off: what does not settle soon never will, and that is what is to be seen.
    is_crippled: bool,
}

impl World {
    fn violation(&self, text: String) {
        eprintln!("VIOLATION: {text}");
        self.violations.lock().expect("nobody panicked with it").push(text);
    }

    fn has_violations(&self) -> bool {
        !self.violations.lock().expect("nobody panicked with it").is_empty()
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Four seconds of the sample, small: two chunks, and about a second of a processor.
pub(crate) fn clip(folder: &Path) -> Vec<u8> {
    let clip = folder.join("clip.mp4");
    let status = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-i"])
        .arg(fixture("bbb-720p-20s.mp4"))
        .args(["-t", "4", "-vf", "scale=320:180", "-c:v", "libx264", "-preset", "veryfast", "-b:v", "400k"])
        .args(["-g", "24", "-threads", "1", "-c:a", "aac", "-b:a", "48k"])
        .arg(&clip)
        .status()
        .expect("ffmpeg runs");
    assert!(status.success());
    fs::read(&clip).unwrap()
}

/// One film more while the broker is away, and nobody else at work who would wake the workers for it: its tickets are
/// kept until the broker has confirmed them, or the film is stuck.
fn last_act(farm: &mut Farm, world: &World, client: &Client) {
    use sha2::{Digest as _, Sha256};
    // A worker that ends a task looks for the next one without a ticket.
    crate::support::wait_for("all work to be done", Duration::from_secs(120), || {
        farm.unrest().is_empty().then_some(())
    });
    farm.servers.rabbit.kill();
    let bytes = crate::story::another(&world.clip, u64::MAX);
    let asset = client.upload(&farm.nodes[0].url, &bytes, &Farm::upload_metadata("the last"));
    world.ledger.finished(&asset, &asset, &hex::encode(Sha256::digest(&bytes)), bytes.len());
    let begin = Instant::now();
    while farm.count("SELECT count(*) FROM ticket_outbox") > 0 && begin.elapsed() < BROKER_AWAY {
        thread::sleep(Duration::from_millis(200));
    }
    // Empty: tickets that are left over from other tasks would wake the workers too.
    farm.servers.rabbit.wipe_and_restart();
}

#[test]
fn whatever_breaks_nothing_that_was_promised_is_lost() {
    let switches = std::env::var(SWITCHES_VARIABLE).unwrap_or_default();
    let switches: Vec<&str> = switches.split_whitespace().collect();
    let (seed, rounds) = (number(SEED_VARIABLE, 1), number(ROUNDS_VARIABLE, ROUNDS));
    let mut wish = Wish { with_crash_points: !switches.is_empty(), ..Wish::default() };
    if !switches.is_empty() {
        let told: Vec<String> = switches.iter().map(|name| format!("{name}=return")).collect();
        wish.variables = vec![("FAILPOINTS".to_owned(), told.join(";"))];
    }
    let Some(mut farm) = Farm::start(&wish) else { return };
    let begin = Instant::now();
    let clip = clip(&farm.folder);
    let client = Client::new(&farm.admin_key);
    let reference = client.upload(&farm.nodes[0].url, &clip, &Farm::upload_metadata("reference"));
    assert_eq!(farm.settled(&reference, Duration::from_secs(120))["state"], "ready");
    let expected = farm.published_bytes(&reference);

    let world = Arc::new(World {
        fronts: farm.nodes.iter().map(|node| format!("http://{}", node.front.address())).collect(),
        admin_key: farm.admin_key.clone(),
        clip,
        ledger: Ledger::open(&farm.folder.join("ledger.jsonl")),
        reference,
        ending: AtomicBool::new(false),
        violations: Mutex::default(),
        is_crippled: !switches.is_empty(),
    });
    let creators: Vec<_> = [Dialect::Tus, Dialect::Tus, Dialect::Parts]
        .into_iter()
        .zip(seed.wrapping_mul(1000)..)
        .map(|(dialect, seed)| {
            let world = world.clone();
            thread::spawn(move || Creator::new(world, dialect, seed).run())
        })
        .collect();
    let mut nemesis = Nemesis::new(&mut farm, &world, seed, &switches);
    nemesis.run(rounds);
    let struck = std::mem::take(&mut nemesis.counts);
    world.ending.store(true, Ordering::Relaxed);
    for creator in creators {
        if creator.join().is_err() {
            world.violation("a creator's thread panicked".to_owned());
        }
    }
    if switches.contains(&"without-safety-net") {
        last_act(&mut farm, &world, &client);
    }
    let broken = begin.elapsed();
    let counts = checker::check(&farm, &world, &expected);
    let lines: u64 = farm.nodes.iter().map(|node| node.lines.faults() + node.front.cuts()).sum::<u64>()
        + farm.workers.iter().map(|worker| worker.lines.faults()).sum::<u64>();
    let violations = world.violations.lock().unwrap();
    eprintln!(
        "seed {seed}: {} faults {struck:?}\n{lines} connections cut or requests failed on the way; {} uploads acknowledged, {counts:?}\n{broken:?} of faults, {:?} in all, {} violations",
        struck.values().sum::<u64>(),
        counts.assets,
        begin.elapsed(),
        violations.len()
    );
    assert!(
        violations.is_empty(),
        "seed {seed}, {rounds} rounds, switched off {switches:?}: {} violations:\n{}\nledger: {}",
        violations.len(),
        violations.join("\n"),
        farm.folder.join("ledger.jsonl").display()
    );
}
