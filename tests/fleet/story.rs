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
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(240);
/// Half way through a PATCH of the sample.
const CUT_AFTER_BYTES: u64 = 700_000;
const FIRST_PIECE_BYTES: usize = 600_000;

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

/// Who has leases on encodes, looked at until the asset has come to an end.
fn encoders_until_settled(farm: &Farm, asset: &str) -> (Value, BTreeSet<String>) {
    let mut workers = BTreeSet::new();
    let settled = wait_for(&format!("asset {asset} to settle"), PATIENCE, || {
        for row in farm.rows(&format!(
            "SELECT worker FROM task WHERE asset = '{asset}' AND kind = 'encode' AND worker IS NOT NULL"
        )) {
            workers.insert(row["worker"].as_str().unwrap().to_owned());
        }
        let (_, shown) = farm.get(0, &format!("/v1/assets/{asset}"));
        matches!(shown["state"].as_str(), Some("ready" | "failed")).then_some(shown)
    });
    (settled, workers)
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
    let (shown, workers) = encoders_until_settled(&farm, &asset);
    assert_eq!(shown["state"], "ready", "{shown:#}");
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

#[test]
fn a_broker_that_lost_its_disk_a_sleeping_worker_and_a_killed_one_change_nothing() {
    let wish = Wish { nodes: 2, workers: 2, lease_seconds: 4, chunk_ms: 2000, ..Wish::default() };
    let Some(mut farm) = Farm::start(&wish) else { return };
    let client = Client::new(&farm.admin_key);
    let bytes = fs::read(fixture("bbb-720p-20s.mp4")).unwrap();

    // Undisturbed, for comparison.
    let before = farm_processor_seconds(&farm);
    let asset = client.upload(&farm.nodes[0].url, &another(&bytes, 0), &Farm::upload_metadata("calm"));
    assert_eq!(farm.settled(&asset, PATIENCE)["state"], "ready");
    let calm_seconds = farm_processor_seconds(&farm) - before;
    let expected = farm.published_bytes(&asset);
    let chunks =
        farm.count(&format!("SELECT count(*) FROM task WHERE asset = '{asset}' AND kind = 'encode'"));

    wipe_the_broker(&mut farm, &client, &bytes, &expected);
    sleep_through_a_lease(&mut farm, &client, &bytes, &expected);
    kill_near_the_end(&mut farm, &client, &bytes, (&expected, calm_seconds, chunks));
    wait_for("the losers to be swept", PATIENCE, || farm.orphans().is_empty().then_some(()));
}

fn farm_processor_seconds(farm: &Farm) -> f64 {
    let live = |pid: u32| {
        let children: f64 = crate::process::children_of(pid).into_iter().map(processor_seconds).sum();
        processor_seconds(pid) + children
    };
    farm.workers.iter().filter(|worker| worker.process.runs()).map(|worker| live(worker.process.pid())).sum()
}

fn wipe_the_broker(farm: &mut Farm, client: &Client, bytes: &[u8], expected: &BTreeMap<String, String>) {
    for worker in &mut farm.workers {
        worker.process.pause();
    }
    let asset = client.upload(&farm.nodes[0].url, &another(bytes, 1), &Farm::upload_metadata("wiped"));
    wait_for("the ticket to reach the broker", PATIENCE, || {
        (farm.count("SELECT count(*) FROM ticket_outbox") == 0).then_some(())
    });
    farm.servers.rabbit.wipe_and_restart();
    wait_for("a node to bring the ticket back", PATIENCE, || (waiting_in_the_broker(farm) > 0).then_some(()));
    for worker in &mut farm.workers {
        worker.process.resume();
    }
    assert_eq!(farm.settled(&asset, PATIENCE)["state"], "ready", "wiping the broker's data loses nothing");
    assert_eq!(&farm.published_bytes(&asset), expected);
}

fn encodes(farm: &Farm, asset: &str) -> Vec<Value> {
    farm.rows(&format!("SELECT * FROM task WHERE asset = '{asset}' AND kind = 'encode' ORDER BY ordinal"))
}

fn sleep_through_a_lease(
    farm: &mut Farm,
    client: &Client,
    bytes: &[u8],
    expected: &BTreeMap<String, String>,
) {
    let asset = client.upload(&farm.nodes[0].url, &another(bytes, 2), &Farm::upload_metadata("slept"));
    wait_for("worker 0 to encode", PATIENCE, || {
        (!farm.workers[0].process.media_children().is_empty()
            && encodes(farm, &asset).iter().any(|task| task["state"] == "leased"))
        .then_some(())
    });
    farm.workers[0].process.pause();
    // All of it is done without the sleeper, and its attempts are counted as lost.
    assert_eq!(farm.settled(&asset, PATIENCE)["state"], "ready");
    let lost = farm.count(&format!("SELECT sum(lost_count)::bigint FROM task WHERE asset = '{asset}'"));
    assert!(lost >= 1, "the sleeper's lease was lost");
    let before = encodes(farm, &asset);
    farm.workers[0].process.resume();
    // It wakes up, says what it has, is refused, and works for the next asset.
    let next = client.upload(&farm.nodes[1].url, &another(bytes, 3), &Farm::upload_metadata("after"));
    wait_for("the sleeper to work again", PATIENCE, || {
        (!farm.workers[0].process.media_children().is_empty()).then_some(())
    });
    assert_eq!(farm.settled(&next, PATIENCE)["state"], "ready");
    assert_eq!(encodes(farm, &asset), before, "nothing was written under the old attempt");
    assert_eq!(&farm.published_bytes(&asset), expected);
    assert_eq!(farm.flaws_of_publication(&asset), Vec::<String>::new());
}

fn kill_near_the_end(
    farm: &mut Farm,
    client: &Client,
    bytes: &[u8],
    (expected, calm_seconds, chunks): (&BTreeMap<String, String>, f64, i64),
) {
    let before = farm_processor_seconds(farm);
    let asset = client.upload(&farm.nodes[0].url, &another(bytes, 4), &Farm::upload_metadata("killed"));
    let nearly_all = (chunks * 9 + 9) / 10;
    wait_for("nine tenths of the chunks to be done, and another to be made", PATIENCE, || {
        let tasks = encodes(farm, &asset);
        let done = tasks.iter().filter(|task| task["state"] == "done").count() as i64;
        let leased = tasks.iter().any(|task| task["state"] == "leased");
        (done >= nearly_all - 1 && leased).then_some(())
    });
    let holder = encodes(farm, &asset)
        .iter()
        .find(|task| task["state"] == "leased")
        .and_then(|task| task["worker"].as_str().map(str::to_owned))
        .unwrap_or_default();
    let victim = (0..farm.workers.len())
        .find(|number| {
            let ready = fs::read_to_string(&farm.workers[*number].process.recipe.ready_file);
            ready.is_ok_and(|id| id.trim() == holder)
        })
        .unwrap_or(0);
    let spent_by_victim = {
        let pid = farm.workers[victim].process.pid();
        let children: f64 = crate::process::children_of(pid).into_iter().map(processor_seconds).sum();
        processor_seconds(pid) + children
    };
    farm.workers[victim].process.kill(true);
    assert_eq!(farm.settled(&asset, PATIENCE)["state"], "ready");
    let spent = farm_processor_seconds(farm) + spent_by_victim - before;
    let attempts: i64 = encodes(farm, &asset).iter().filter_map(|task| task["attempt"].as_i64()).sum();
    let chunk_seconds = calm_seconds / chunks as f64;
    eprintln!(
        "killed at nine tenths of {chunks} chunks: {attempts} attempts, {spent:.2} s of processor against {calm_seconds:.2} s undisturbed; a chunk takes {chunk_seconds:.2} s"
    );
    assert!(attempts <= chunks + 1, "one chunk was made again, and no other");
    // A fifth for what a machine measures of itself.
    assert!(spent <= calm_seconds * 1.2 + chunk_seconds, "at most one chunk more of processor time");
    assert_eq!(&farm.published_bytes(&asset), expected, "byte-identical to an undisturbed run");
    farm.workers[victim].process.start();
}
