//! Every named crash point, ended (`kill -9`), made to fail, and held up, one at a time; and after each the same
//! question: did one small film become what it becomes when nothing happens?
//!
//! The points of the catalogue's commits are found by a run that notes where it comes by: one for each line that
//! commits. `make test` kills at every named point and takes some of the commits; `make chaos` takes all of everything.

use crate::{
    chaos,
    client::Client,
    farm::{Farm, LEASE_SECONDS, Wish},
    process::Process,
    support::Chance,
};
use reelyard_crash_points::POINTS;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const ALL_VARIABLE: &str = "REELYARD_CRASH_POINTS";
const SEED_VARIABLE: &str = "REELYARD_CHAOS_SEED";
/// So many commits of the catalogue in the short run, both before and after.
const SHORT_SITES: usize = 4;
const PATIENCE: Duration = Duration::from_secs(120);
const SWEEPING: Duration = Duration::from_secs(150);
/// Made to fail, a worker has been granted tasks and does not know it.
const LOST_ANSWER: &str = "worker-after-claim";
const ACTIONS: [&str; 3] = ["kill", "error", "delay 700"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Node,
    Worker,
}

/// Films before a place counts as one that nothing comes by: whether a wake-up or the look at the clock finds a task
/// first is chance.
const MOST_FILMS: usize = 5;

struct Case {
    point: String,
    place: Where,
    action: &'static str,
}

struct Bench {
    farm: Farm,
    client: Client,
    clip: Vec<u8>,
    expected: BTreeMap<String, String>,
    sent: u64,
}

impl Bench {
    fn start() -> Option<(Self, BTreeSet<String>)> {
        let wish = Wish {
            nodes: 1,
            workers: 1,
            slots: 1,
            lease_seconds: LEASE_SECONDS,
            with_crash_points: true,
            ..Wish::default()
        };
        let farm = Farm::start(&wish)?;
        let (client, clip) = (Client::that_asks_again(&farm.admin_key), chaos::clip(&farm.folder));
        let mut bench = Self { farm, client, clip, expected: BTreeMap::new(), sent: 0 };
        // Without anything, noting which places it comes by.
        let trace = bench.farm.folder.join("trace-calm");
        let told = [("REELYARD_CRASH_POINTS_TRACE", trace.to_str().unwrap().to_owned())];
        for place in [Where::Node, Where::Worker] {
            let process = bench.process(place);
            process.kill(true);
            process.launch(&told);
            assert!(process.wait_until_ready());
        }
        let (asset, _) = bench.film();
        bench.expected = bench.farm.published_bytes(&asset);
        let mut passed = names_in(&trace);
        for _ in 1..MOST_FILMS {
            if never_passed(&passed).is_empty() {
                break;
            }
            bench.film();
            passed = names_in(&trace);
        }
        Some((bench, passed))
    }

    fn process(&mut self, place: Where) -> &mut Process {
        match place {
            Where::Node => &mut self.farm.nodes[0].process,
            Where::Worker => &mut self.farm.workers[0].process,
        }
    }

    /// Who was ended by a point comes back, as its service manager would see to.
    fn revive(&mut self) {
        for place in [Where::Node, Where::Worker] {
            let process = self.process(place);
            if process.has_ended() {
                process.launch(&[]);
                assert!(process.wait_until_ready(), "it does not start again:\n{}", process.log_tail(20));
            }
        }
    }

    /// Sends one film through whatever happens and waits until it plays: the asset, and the digest of what was sent.
    fn film(&mut self) -> (String, String) {
        self.sent += 1;
        let bytes = crate::story::another(&self.clip, self.sent);
        let digest = hex::encode(Sha256::digest(&bytes));
        let base = self.farm.nodes[0].url.clone();
        let metadata = Farm::upload_metadata("points");
        let upload = self.until("creating an upload", |bench| {
            let location = bench.client.tus_create(&base, bytes.len(), &metadata).header("location")?;
            location.rsplit('/').next().map(str::to_owned)
        });
        let mut acknowledged = 0;
        let asset = self.until("an upload", |bench| {
            let head = bench.client.tus_head(&base, &upload);
            assert!(head.status != 404, "an acknowledged upload is gone");
            let offset = head.number("upload-offset")?;
            assert!(offset >= acknowledged, "{acknowledged} bytes were acknowledged, {offset} are left");
            if let Some(asset) = head.header("reelyard-asset") {
                return Some(asset);
            }
            let start = usize::try_from(offset).unwrap();
            let end = bytes.len().min(start + bytes.len() / 2 + 1);
            let done = bench.client.tus_patch(&base, &upload, offset, &bytes[start..end]);
            if done.status == 204 {
                acknowledged = done.number("upload-offset").unwrap_or(0);
            }
            None
        });
        self.until("a film", |bench| {
            let shown: Value = bench.client.get(&format!("{base}/v1/assets/{asset}")).json();
            assert!(shown["state"] != "failed", "{shown:#}");
            (shown["state"] == "ready").then_some(())
        });
        (asset, digest)
    }

    fn until<T>(&mut self, what: &str, mut attempt: impl FnMut(&mut Self) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            self.revive();
            if let Some(done) = attempt(self) {
                return done;
            }
            assert!(begin.elapsed() < PATIENCE, "{what} got nowhere in {PATIENCE:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether the point was come by, and what is wrong afterwards.
    fn run(&mut self, number: usize, case: &Case) -> (bool, Vec<String>) {
        let trace = self.farm.folder.join(format!("trace-{number}"));
        let told = [
            ("FAILPOINTS", format!("{}=1*return({})", case.point, case.action)),
            ("REELYARD_CRASH_POINTS_TRACE", trace.to_str().unwrap().to_owned()),
        ];
        let process = self.process(case.place);
        process.kill(true);
        process.launch(&told);
        process.wait_until_ready();
        let (mut asset, mut digest) = self.film();
        let hit = format!("{} {}", case.point, case.action);
        let was_hit = || fs::read_to_string(&trace).unwrap_or_default().lines().any(|line| line == hit);
        for _ in 1..MOST_FILMS {
            if was_hit() {
                break;
            }
            (asset, digest) = self.film();
        }
        let was_hit = was_hit();
        let mut flaws = self.farm.flaws_of_publication(&asset);
        if self.farm.source_sha256(&asset).as_ref() != Some(&digest) {
            flaws.push(format!("asset {asset}: the source is not what was sent"));
        }
        if (case.point.as_str(), case.action) == (LOST_ANSWER, "error") {
            let losses = format!("SELECT sum(lost_count)::bigint FROM task WHERE asset = '{asset}'");
            if self.farm.count(&losses) > 0 {
                flaws
                    .push(format!("asset {asset}: an answer that was lost on its way counts as a lost task"));
            }
        }
        if self.farm.published_bytes(&asset) != self.expected {
            flaws.push(format!("asset {asset}: other bytes than when nothing happens"));
        }
        (was_hit, flaws)
    }
}

/// What a trace tells was come by.
fn names_in(trace: &Path) -> BTreeSet<String> {
    let lines = fs::read_to_string(trace).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

fn never_passed(passed: &BTreeSet<String>) -> Vec<&'static str> {
    let is_passed = |point: &str| passed.iter().any(|name| name.starts_with(point));
    POINTS.iter().copied().filter(|point| !is_passed(point)).collect()
}

/// Named points by where they are; commits by the lines that a calm run came by.
fn cases(passed: &BTreeSet<String>) -> Vec<Case> {
    let seed = std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let is_long = std::env::var(ALL_VARIABLE).is_ok_and(|text| text == "all");
    let mut chance = Chance(seed);
    let mut sites: Vec<String> = passed.iter().filter(|name| name.contains('@')).cloned().collect();
    if !is_long {
        while sites.len() > SHORT_SITES {
            let index = usize::try_from(chance.below(sites.len() as u64)).unwrap();
            sites.remove(index);
        }
    }
    let mut cases = Vec::new();
    for point in POINTS.iter().filter(|name| !name.starts_with("catalogue-")) {
        let places: &[Where] = match *point {
            name if name.starts_with("objects-") => &[Where::Node, Where::Worker],
            name if name.starts_with("worker-") => &[Where::Worker],
            _ => &[Where::Node],
        };
        for place in places {
            let actions = match *point {
                _ if is_long => 3,
                LOST_ANSWER => 2,
                _ => 1,
            };
            for action in &ACTIONS[..actions] {
                cases.push(Case { point: (*point).to_owned(), place: *place, action });
            }
        }
    }
    for site in sites {
        for action in ACTIONS {
            if is_long || chance.below(3) == 0 {
                cases.push(Case { point: site.clone(), place: Where::Node, action });
            }
        }
    }
    cases
}

#[test]
fn every_crash_point_leaves_what_was_promised() {
    let Some((mut bench, passed)) = Bench::start() else { return };
    assert_eq!(never_passed(&passed), [""; 0], "nothing comes by these, only by {passed:?}");
    let cases = cases(&passed);
    let mut flaws = Vec::new();
    let mut missed = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let begin = Instant::now();
        let (was_hit, found) = bench.run(number, case);
        let name = format!("{} on a {:?}: {}", case.point, case.place, case.action);
        eprintln!(
            "{name}: {} in {:.1} s",
            if was_hit { "hit" } else { "not come by" },
            begin.elapsed().as_secs_f64()
        );
        if !was_hit {
            missed.push(name.clone());
        }
        flaws.extend(found.into_iter().map(|flaw| format!("{name}: {flaw}")));
    }
    let begin = Instant::now();
    loop {
        let left: Vec<String> = bench.farm.unrest().into_iter().chain(bench.farm.orphans()).collect();
        if left.is_empty() {
            break;
        }
        if begin.elapsed() > SWEEPING {
            flaws.push(format!("left after the sweep: {left:?}"));
            break;
        }
        thread::sleep(Duration::from_secs(1));
    }
    eprintln!("{} cases, {} come by, {} flaws", cases.len(), cases.len() - missed.len(), flaws.len());
    assert!(flaws.is_empty(), "{}", flaws.join("\n"));
    assert!(missed.len() * 10 <= cases.len(), "too many were never come by: {missed:?}");
}

/// What is released has no place to end at: neither the feature nor a name of a place is in it.
#[test]
fn a_program_as_it_is_released_has_no_crash_points() {
    let manifest = fs::read_to_string(crate::support::root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let default = manifest["features"].get("default");
    assert!(default.is_none(), "no feature is on by itself: {default:?}");
    let program = fs::read(crate::farm::program()).unwrap();
    for name in POINTS.iter().chain(&reelyard_crash_points::SWITCHES) {
        let is_in = program.windows(name.len()).any(|bytes| bytes == name.as_bytes());
        assert!(!is_in, "{name} is in {}", crate::farm::program().display());
    }
    assert!(!program.windows(10).any(|bytes| bytes == b"FAILPOINTS"));
}
