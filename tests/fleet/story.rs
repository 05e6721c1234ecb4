//! The main job on a fleet: uploaded through one node, cut, resumed through the other, encoded by several workers, played
//! through either node. And what must not change it: a broker that forgets everything, a worker that sleeps through its
//! lease, a worker that dies when nearly all is done.

use crate::{
    client::Client,
    farm::{Farm, Wish},
    process::processor_seconds,
    support::{self, Server, fixture, playlist_uris, root, run, wait_for},
};
use reelyard_testkit::Line;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path, time::Duration};

const PATIENCE: Duration = Duration::from_secs(240);
/// Half way through a PATCH of the sample.
const CUT_AFTER_BYTES: u64 = 700_000;
const FIRST_PIECE_BYTES: usize = 600_000;
/// One pause of the machine may be longer than what lets a lease of the other tests run out, and would cost an attempt.
const LEASE_SECONDS: u64 = 10;
const SLEEPER: usize = 0;
const VICTIM: usize = 1;
/// Films until a worker was stopped with a chunk in hand: it may end one, and the film with it, in that very moment.
const MOST_FILMS: usize = 5;
/// What the same work may cost in seconds of a processor: neighbours take its caches and half of its core. Attempts are
/// counted exactly; this is against work that no attempt tells of.
const SAME_WORK_AT_MOST: f64 = 2.0;

/// The same film as other bytes, with an empty box behind it (ISO/IEC 14496-12 section 8.1.2): what the server has
/// already it does not process again.
pub(crate) fn another(bytes: &[u8], number: u64) -> Vec<u8> {
    [bytes, &16_u32.to_be_bytes(), b"free", &number.to_be_bytes()].concat()
}

fn play(url: &str) -> Value {
    let script = root().join("tests/browser/play.mjs");
    let (ok, stdout, stderr) =
        run("node", &[script.to_str().unwrap(), "--player", "hls", "--url", url, "--seconds", "10"]);
    let report: Value =
        serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("no report\n{stdout}\n{stderr}"));
    assert!(ok, "{report:#}\n{stderr}");
    report
}

/// The workers that say that they made chunks of the asset.
fn encoders_of(farm: &Farm, asset: &str) -> Vec<usize> {
    let made_one = |number: &usize| {
        let log = farm.workers[*number].process.log();
        log.lines().any(|line| is_completed(line, asset) && line.contains("kind=\"encode\""))
    };
    (0..farm.workers.len()).filter(made_one).collect()
}

/// Whether a line of a worker's log tells that it ended a task of the asset.
fn is_completed(line: &str, asset: &str) -> bool {
    line.contains("task completed") && line.contains(asset)
}

/// Through node 0, cut in the middle, the rest through node 1.
fn upload_with_a_cut(farm: &Farm, bytes: &[u8]) -> String {
    let client = Client::new(&farm.admin_key);
    let first = format!("http://{}", farm.nodes[0].front.address());
    let created = client.tus_create(&first, bytes.len(), &Farm::upload_metadata("story"));
    assert_eq!(created.status, 201, "{}", created.text());
    let location = created.header("location").unwrap();
    let upload = location.rsplit('/').next().unwrap();
    let first_piece = client.tus_patch(&first, upload, 0, &bytes[..FIRST_PIECE_BYTES]);
    assert_eq!(first_piece.status, 204, "{}", first_piece.text());
    farm.nodes[0].front.set_line(Line::CutAfter(CUT_AFTER_BYTES));
    let cut = client.tus_patch(&first, upload, FIRST_PIECE_BYTES as u64, &bytes[FIRST_PIECE_BYTES..]);
    assert_eq!(cut.status, 0, "the connection was cut");
    farm.nodes[0].front.set_line(Line::Clear);

    let second = &farm.nodes[1].url;
    let head = client.tus_head(second, upload);
    assert_eq!(head.status, 200, "{}", head.text());
    let offset = head.number("upload-offset").unwrap();
    eprintln!(
        "{FIRST_PIECE_BYTES} bytes acknowledged by node 0, then cut {CUT_AFTER_BYTES} further on; node 1 has {offset}"
    );
    assert!(offset >= FIRST_PIECE_BYTES as u64, "{offset}");
    let at = usize::try_from(offset).unwrap();
    let done = client.tus_patch(second, upload, offset, &bytes[at..]);
    assert_eq!(done.status, 204, "{}", done.text());
    wait_for("the asset of the upload", PATIENCE, || client.tus_head(second, upload).header("reelyard-asset"))
}

#[test]
fn a_video_goes_through_a_fleet_and_plays_through_either_node() {
    let Some(farm) = Farm::start(&Wish { chunk_ms: 2000, ..Wish::default() }) else { return };
    let bytes = fs::read(fixture("bbb-720p-20s.mp4")).unwrap();
    let read_before = bytes_to_workers(&farm);
    let asset = upload_with_a_cut(&farm, &bytes);
    let shown = farm.settled(&asset, PATIENCE);
    assert_eq!(shown["state"], "ready", "{shown:#}");
    let workers = encoders_of(&farm, &asset);
    assert!(workers.len() >= 2, "several workers made chunks: {workers:?}");
    read_little(&farm, &bytes, read_before);

    let by_first = shown["playback"]["hls"].as_str().expect("a signed address").to_owned();
    let path = by_first.split_once("/p/").expect("a playback address").1;
    let by_second = format!("{}/p/{path}", farm.nodes[1].url);
    assert_eq!(media_of(&by_first), media_of(&by_second), "one signature, the same bytes from either node");
    let report = play(&by_second);
    assert_eq!(report["errors"].as_array().map(Vec::len), Some(0), "{report:#}");
    assert!(report["sizes"].as_array().unwrap().len() >= 2, "{report:#}");
    assert_eq!(
        farm.published_bytes(&asset),
        embedded_bytes(&farm.folder, &bytes),
        "as from one machine alone"
    );
    assert_eq!(farm.flaws_of_publication(&asset), Vec::<String>::new());
    wait_for("everything to come to rest", PATIENCE, || {
        (farm.unrest().is_empty() && farm.orphans().is_empty()).then_some(())
    });
}

/// What the store has sent to all workers.
fn bytes_to_workers(farm: &Farm) -> u64 {
    farm.workers.iter().map(|worker| worker.lines.storage.passed().to_client).sum()
}

/// What the workers say that they fetched is what the proxies before the store have passed, and for the chunks it is
/// little more than the source.
fn read_little(farm: &Farm, source: &[u8], before: u64) {
    let passed = bytes_to_workers(farm) - before;
    let times = |bytes: u64| bytes as f64 / source.len() as f64;
    let told = |what: &str, kind: &str| -> u64 {
        let logs: Vec<String> = farm.workers.iter().map(|worker| worker.process.log()).collect();
        let lines = logs.iter().flat_map(|log| log.lines());
        let lines = lines.filter(|line| line.contains("source read by ranges") && line.contains(kind));
        lines.filter_map(|line| line.split_once(what)?.1.split_whitespace().next()?.parse::<u64>().ok()).sum()
    };
    let (all, chunks) = (told("fetched_bytes=", ""), told("fetched_bytes=", "kind=\"encode\""));
    let count = farm.count("SELECT count(*) FROM task WHERE kind = 'encode'");
    eprintln!(
        "{count} chunks on {} workers fetched {:.3}x the source ({:.3}x were read by the children); with probe, sound and stills {:.3}x, and {:.3}x passed on the way to the workers",
        farm.workers.len(),
        times(chunks),
        times(told("served_bytes=", "kind=\"encode\"")),
        times(all),
        times(passed)
    );
    assert!(count >= 5, "{count} chunks");
    assert!(times(chunks) <= 1.1, "the chunks fetched {chunks} bytes of {}", source.len());
    // Heads of answers, and answers to what was stored.
    assert!(all <= passed && passed <= all + (1 << 20), "said {all}, passed {passed}");
}

/// What a player gets: the playlist of every rung.
fn media_of(hls: &str) -> Vec<(String, Vec<u8>)> {
    let client = Client::new("");
    let master = client.get(hls);
    assert_eq!(master.status, 200, "{}", master.text());
    let base = hls.rsplit_once('/').unwrap().0;
    let mut found = vec![(String::new(), master.body.clone())];
    for uri in playlist_uris(&master.text()) {
        let rung = client.get(&format!("{base}/{uri}"));
        assert_eq!(rung.status, 200, "{uri}: {}", rung.text());
        found.push((uri.to_owned(), rung.body.clone()));
    }
    assert!(found.len() >= 3, "two rungs");
    found
}

/// The media files that an embedded server makes of the same bytes.
fn embedded_bytes(folder: &Path, bytes: &[u8]) -> BTreeMap<String, String> {
    use sha2::{Digest as _, Sha256};
    let file = folder.join("same.mp4");
    fs::write(&file, bytes).unwrap();
    let data = folder.join("embedded");
    let server = Server::start_with(&data, &["--presets", folder.join("presets").to_str().unwrap()]);
    let asset = support::upload_whole(&server, &file, Some("fleet"));
    assert_eq!(server.settled(&asset)["state"], "ready");
    let trees: Vec<_> = fs::read_dir(data.join("publications").join(&asset)).unwrap().flatten().collect();
    assert_eq!(trees.len(), 1);
    walkdir::WalkDir::new(trees[0].path())
        .into_iter()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|end| end == "m4s" || end == "mp4"))
        .map(|entry| {
            let name = entry.path().strip_prefix(trees[0].path()).unwrap().to_string_lossy().into_owned();
            (name, hex::encode(Sha256::digest(fs::read(entry.path()).unwrap())))
        })
        .collect()
}

/// Messages that wait in the broker, of all queues.
fn waiting_in_the_broker(farm: &Farm) -> u64 {
    let expression = "lists:sum([proplists:get_value(messages, rabbit_amqqueue:info(Q, [messages])) || Q <- rabbit_amqqueue:list()]).";
    farm.servers.rabbit.eval(expression).trim().parse().unwrap_or(0)
}

/// One fleet, through which one film after another is sent: the same film, each time as other bytes.
struct Run {
    farm: Farm,
    client: Client,
    film: Vec<u8>,
    sent: u64,
    /// What becomes of the film when nothing happens.
    expected: BTreeMap<String, String>,
}

impl Run {
    fn send(&mut self, node: usize, title: &str) -> String {
        self.sent += 1;
        let bytes = another(&self.film, self.sent);
        self.client.upload(&self.farm.nodes[node].url, &bytes, &Farm::upload_metadata(title))
    }

    fn becomes_ready(&self, asset: &str) {
        let shown = self.farm.settled(asset, PATIENCE);
        assert_eq!(shown["state"], "ready", "{shown:#}");
    }

    fn encodes(&self, asset: &str) -> Vec<Value> {
        self.farm
            .rows(&format!("SELECT * FROM task WHERE asset = '{asset}' AND kind = 'encode' ORDER BY ordinal"))
    }

    fn done(&self, asset: &str) -> usize {
        self.encodes(asset).iter().filter(|task| task["state"] == "done").count()
    }

    fn holds_a_chunk(&self, worker: usize, asset: &str) -> bool {
        let id = fs::read_to_string(&self.farm.workers[worker].process.recipe.ready_file).unwrap();
        let is_its = |task: &Value| task["state"] == "leased" && task["worker"] == id.trim();
        self.encodes(asset).iter().any(is_its)
    }

    /// Stops the worker (SIGSTOP) while it has a chunk of the asset in hand, once so many are done. Whether it has one
    /// is looked at when it stands still, so that no look comes too late. False: the asset came to its end before.
    fn stop_with_a_chunk(&mut self, worker: usize, asset: &str, done: usize) -> bool {
        let what = format!("worker {worker} to have a chunk in hand when {done} are done");
        wait_for(&what, PATIENCE, || {
            if !self.farm.workers[worker].process.media_children().is_empty() && self.done(asset) >= done {
                self.farm.workers[worker].process.pause();
                if self.holds_a_chunk(worker, asset) {
                    return Some(true);
                }
                self.farm.workers[worker].process.resume();
            }
            let (_, shown) = self.farm.get(0, &format!("/v1/assets/{asset}"));
            matches!(shown["state"].as_str(), Some("ready" | "failed")).then_some(false)
        })
    }

    fn processor_seconds(&self) -> f64 {
        let running = self.farm.workers.iter().filter(|worker| worker.process.runs());
        running.map(|worker| processor_seconds_of_all(worker.process.pid())).sum()
    }
}

/// Of a process, and of its children, those that live among them.
fn processor_seconds_of_all(pid: u32) -> f64 {
    let children: f64 = crate::process::children_of(pid).into_iter().map(processor_seconds).sum();
    processor_seconds(pid) + children
}

#[test]
fn a_broker_that_lost_its_disk_a_sleeping_worker_and_a_killed_one_change_nothing() {
    let wish = Wish { nodes: 2, workers: 2, lease_seconds: LEASE_SECONDS, chunk_ms: 2000, ..Wish::default() };
    let Some(farm) = Farm::start(&wish) else { return };
    let client = Client::new(&farm.admin_key);
    let film = fs::read(fixture("bbb-720p-20s.mp4")).unwrap();
    let mut run = Run { farm, client, film, sent: 0, expected: BTreeMap::new() };

    // Undisturbed, for comparison.
    let before = run.processor_seconds();
    let asset = run.send(0, "calm");
    run.becomes_ready(&asset);
    let calm_seconds = run.processor_seconds() - before;
    run.expected = run.farm.published_bytes(&asset);
    let chunks = run.encodes(&asset).len();

    wipe_the_broker(&mut run);
    sleep_through_a_lease(&mut run);
    kill_near_the_end(&mut run, calm_seconds, chunks);
    wait_for("the losers to be swept", PATIENCE, || run.farm.orphans().is_empty().then_some(()));
}

fn wipe_the_broker(run: &mut Run) {
    for worker in &mut run.farm.workers {
        worker.process.pause();
    }
    let asset = run.send(0, "wiped");
    wait_for("the ticket to reach the broker", PATIENCE, || {
        (run.farm.count("SELECT count(*) FROM ticket_outbox") == 0).then_some(())
    });
    run.farm.servers.rabbit.wipe_and_restart();
    wait_for("a node to bring the ticket back", PATIENCE, || {
        (waiting_in_the_broker(&run.farm) > 0).then_some(())
    });
    for worker in &mut run.farm.workers {
        worker.process.resume();
    }
    run.becomes_ready(&asset);
    assert_eq!(run.farm.published_bytes(&asset), run.expected, "wiping the broker's data loses nothing");
}

fn sleep_through_a_lease(run: &mut Run) {
    let slept_through = |run: &mut Run| {
        let asset = run.send(0, "slept");
        let is_caught = run.stop_with_a_chunk(SLEEPER, &asset, 0);
        // All of it is done without the sleeper, and its attempts are counted as lost.
        run.becomes_ready(&asset);
        let lost = format!("SELECT sum(lost_count)::bigint FROM task WHERE asset = '{asset}'");
        if is_caught && run.farm.count(&lost) >= 1 {
            return Some(asset);
        }
        run.farm.workers[SLEEPER].process.resume();
        None
    };
    let asset = (0..MOST_FILMS).find_map(|_| slept_through(run)).expect("the sleeper's lease was lost");
    let before = run.encodes(&asset);
    run.farm.workers[SLEEPER].process.resume();
    // It wakes up, says what it has, is refused, and works again: for the next film, or for one soon after.
    let works_again = (0..MOST_FILMS).any(|_| {
        let next = run.send(1, "after");
        run.becomes_ready(&next);
        run.farm.workers[SLEEPER].process.log().lines().any(|line| is_completed(line, &next))
    });
    assert!(works_again, "{}", run.farm.workers[SLEEPER].process.log_tail(40));
    assert_eq!(run.encodes(&asset), before, "nothing was written under the old attempt");
    assert_eq!(run.farm.published_bytes(&asset), run.expected);
    assert_eq!(run.farm.flaws_of_publication(&asset), Vec::<String>::new());
}

/// The victim stands still with one chunk until all others are done, and is killed then: a state that lasts, unlike the
/// moment in which a worker that runs makes the last chunk.
fn kill_near_the_end(run: &mut Run, calm_seconds: f64, chunks: usize) {
    let caught = |run: &mut Run| {
        let before = run.processor_seconds();
        let asset = run.send(0, "killed");
        // From the half on, so that the others take less than a lease.
        if run.stop_with_a_chunk(VICTIM, &asset, chunks / 2) {
            let what = "all chunks to be done but one";
            wait_for(what, PATIENCE, || (run.done(&asset) >= chunks - 1).then_some(()));
            if run.holds_a_chunk(VICTIM, &asset) {
                return Some((asset, before));
            }
            run.farm.workers[VICTIM].process.resume();
        }
        run.becomes_ready(&asset);
        None
    };
    let (asset, before) =
        (0..MOST_FILMS).find_map(|_| caught(run)).expect("the victim had the last chunk in hand");
    let spent_by_victim = processor_seconds_of_all(run.farm.workers[VICTIM].process.pid());
    run.farm.workers[VICTIM].process.kill(true);
    run.becomes_ready(&asset);
    let spent = run.processor_seconds() + spent_by_victim - before;
    let attempts: u64 = run.encodes(&asset).iter().filter_map(|task| task["attempt"].as_u64()).sum();
    let chunk_seconds = calm_seconds / chunks as f64;
    eprintln!(
        "killed with the last of {chunks} chunks: {attempts} attempts, {spent:.2} s of processor against {calm_seconds:.2} s undisturbed; a chunk takes {chunk_seconds:.2} s"
    );
    assert_eq!(attempts, chunks as u64 + 1, "one chunk was made again, and no other");
    let most = calm_seconds * SAME_WORK_AT_MOST + chunk_seconds;
    assert!(spent <= most, "{spent:.2} s of processor: at most one chunk more than {calm_seconds:.2} s");
    assert_eq!(run.farm.published_bytes(&asset), run.expected, "byte-identical to an undisturbed run");
    run.farm.workers[VICTIM].process.start();
}
