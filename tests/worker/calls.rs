//! The calls themselves, by hand: what they answer, when asked twice, too late, or by somebody else.

use crate::{
    fleet::{Fleet, SOON, short_clip},
    support::{fixture, wait_for},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A server that stops waits so long for answers that are under way.
const DRAIN: Duration = Duration::from_secs(8);
/// An order is there by then: before the next line that keeps its stream alive (15 s), which would push out with it
/// what was held back.
const AT_ONCE: Duration = Duration::from_secs(12);

fn hello(fleet: &Fleet) -> String {
    let worker = Uuid::now_v7().to_string();
    let call = json!({"worker": worker, "name": "by hand", "version": "1",
        "machine": {"cores": 2, "memory_bytes": 1, "heavy_slots": 1, "light_slots": 1}});
    let (status, answer) = fleet.call("hello", call);
    assert_eq!((status, answer["lease_ms"].as_u64()), (200, Some(30_000)), "{answer}");
    worker
}

fn claim(fleet: &Fleet, worker: &str, max: u32, wait_ms: u64, after: Option<i64>) -> (u16, Value) {
    let offer = json!({"worker": worker, "kinds": ["probe"], "cpu_millicores": 1000, "memory_bytes": 1});
    fleet.call(
        "claim",
        json!({"worker": worker, "offers": [offer], "max": max, "wait_ms": wait_ms, "after": after}),
    )
}

#[test]
fn an_attempt_is_claimed_kept_and_ended_once() {
    let fleet = Fleet::start(&[]);
    let stranger = Uuid::now_v7().to_string();
    let (status, problem) = claim(&fleet, &stranger, 1, 0, None);
    assert_eq!((status, problem["type"].as_str()), (409, Some("/problems/worker-unknown")), "{problem}");
    let worker = hello(&fleet);
    assert_eq!(claim(&fleet, &worker, 1, 0, None).1["grants"], json!([]), "nothing to do yet");

    let asset = fleet.upload(&fixture("bbb-720p-20s.mp4"));
    let grant = claim(&fleet, &worker, 4, 0, None).1["grants"][0].clone();
    assert_eq!(
        (grant["asset"].as_str(), grant["attempt"].as_u64()),
        (Some(asset.as_str()), Some(1)),
        "{grant}"
    );
    let byte_len = std::fs::metadata(fixture("bbb-720p-20s.mp4")).unwrap().len();
    assert_eq!(grant["source"]["byte_len"].as_u64(), Some(byte_len));
    let task = grant["task"].clone();
    let beat =
        |attempt: u32| json!({"task": task, "attempt": attempt, "progress": {"done_us": 1, "total_us": 2}});
    let (_, beats) = fleet.call("heartbeat", json!({"worker": worker, "beats": [beat(1), beat(2)]}));
    assert_eq!(beats["verdicts"], json!(["continue", "lost"]));

    // Not media, says this worker: the file is to blame, so the asset fails.
    let failure = json!({"code": "not_media", "detail": "by hand", "stderr_tail": ""});
    let report = |attempt: u32| {
        let report = json!({"outcome": "failed", "failure": failure});
        fleet.call("report", json!({"worker": worker, "task": task, "attempt": attempt, "report": report}))
    };
    assert_eq!(report(2).1["verdict"], "lost", "of an attempt that is not");
    for _ in 0..2 {
        assert_eq!(
            report(1),
            (200, json!({"verdict": "continue"})),
            "asked again, it answers as the first time"
        );
    }
    assert_eq!(fleet.settled(&asset)["state"], "failed");
    assert_eq!(report(2).1["verdict"], "lost");
}

#[test]
fn a_task_that_is_given_back_is_ready_at_once() {
    let fleet = Fleet::start(&[]);
    let worker = hello(&fleet);
    let asset = fleet.upload(&fixture("bbb-720p-20s.mp4"));
    let grant = claim(&fleet, &worker, 1, 0, None).1["grants"][0].clone();
    let held = json!({"task": grant["task"], "attempt": 1});
    for released in [true, false] {
        let (_, answer) = fleet.call("release", json!({"worker": worker, "held": [held]}));
        assert_eq!(answer["released"], json!([released]));
    }
    assert_eq!(fleet.job(&asset, "probe")["state"], "ready");
    assert_eq!(claim(&fleet, &worker, 1, 0, None).1["grants"][0]["attempt"], 2);
}

#[test]
fn what_a_lost_answer_brought_is_back_in_line_when_the_worker_asks_again() {
    let fleet = Fleet::start(&[]);
    let worker = hello(&fleet);
    let asset = fleet.upload(&fixture("bbb-720p-20s.mp4"));
    let offer = json!({"worker": worker, "kinds": ["probe"], "cpu_millicores": 1000, "memory_bytes": 1});
    let claim = |name: &str, unheard: Value| {
        let call = json!({"worker": worker, "offers": [offer], "max": 4, "claim": name, "unheard": unheard});
        fleet.call("claim", call).1["grants"].clone()
    };
    let names = [(); 3].map(|()| Uuid::now_v7().to_string());
    let lost = claim(&names[0], json!([]));
    assert_eq!((lost.as_array().unwrap().len(), lost[0]["attempt"].as_u64()), (1, Some(1)), "{lost}");
    // A worker that heard it, or cannot say, leaves it alone.
    assert_eq!(claim(&names[1], json!([])), json!([]));
    let heard = claim(&names[2], json!([names[0], names[1]]));
    assert_eq!((&heard[0]["task"], heard[0]["attempt"].as_u64()), (&lost[0]["task"], Some(2)), "{heard}");
    let job = fleet.job(&asset, "probe");
    assert_eq!((&job["state"], &job["lost_count"]), (&json!("leased"), &json!(0)), "{job}");
}

#[test]
fn outputs_go_below_their_own_attempt_and_nowhere_else() {
    let fleet = Fleet::start(&[]);
    let worker = hello(&fleet);
    let asset = fleet.upload(&fixture("bbb-720p-20s.mp4"));
    let grant = claim(&fleet, &worker, 1, 0, None).1["grants"][0].clone();
    let task = grant["task"].as_str().unwrap();
    let at = |attempt: u32, file: &str| format!("/v1/worker/attempts/{task}/{attempt}/output?file={file}");
    for _ in 0..2 {
        assert_eq!(fleet.put(&at(1, "1080p/00001.m4s"), b"segment").0, 204);
    }
    let stored = fleet.data.join(format!("renditions/{asset}/{task}/a1/1080p/00001.m4s"));
    assert_eq!(std::fs::read(&stored).unwrap(), b"segment");
    for file in ["../a2/x", "/etc/x", "%2e%2e/x", ".x", "a/b/c", ""] {
        assert_eq!(fleet.put(&at(1, file), b"x").0, 400, "{file:?}");
    }
    let (status, problem) = fleet.put(&at(2, "x.m4s"), b"x");
    assert_eq!((status, problem["type"].as_str()), (409, Some("/problems/attempt-over")), "{problem}");
    // The source of the attempt's own asset, by range.
    let source = std::fs::read(fixture("bbb-720p-20s.mp4")).unwrap();
    let headers =
        [("Authorization", format!("Bearer {}", fleet.worker_key)), ("Range", "bytes=100-199".into())];
    let path = format!("{}/v1/worker/attempts/{task}/1/source", fleet.url);
    let (status, bytes) = crate::support::request("GET", &path, &headers, &[]);
    assert!(status == 206 && bytes == source[100..200]);
    // A result that names other files is a broken worker's.
    let track = json!({"rendition": "x", "format": {"kind": "audio", "sample_rate": 1, "channels": 1},
        "codecs": "x", "timescale": 1, "init": {"file": "../../x", "byte_len": 1, "sha256": ""}, "segments": []});
    let report = json!({"outcome": "completed", "result": {"kind": "encoded", "encoder": "x", "tracks": [track], "warnings": []}});
    let (status, answer) =
        fleet.call("report", json!({"worker": worker, "task": task, "attempt": 1, "report": report}));
    assert_eq!((status, answer["verdict"].as_str()), (200, Some("continue")), "{answer}");
    let job = fleet.job(&asset, "probe");
    assert!(job["failure"]["detail"].to_string().contains("../../x"), "{job}");
    assert_eq!(fleet.put(&at(1, "late.m4s"), b"x").0, 409, "it is over");
}

#[test]
fn a_waiting_call_is_answered_when_there_is_news_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let Some(clip) = short_clip(folder.path(), 2) else { return };
    let fleet = Fleet::start(&[]);
    let worker = hello(&fleet);
    // Something comes while the call waits.
    let (asset, waited) = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| claim(&fleet, &worker, 1, 25_000, None));
        let asset = fleet.upload(&clip);
        (asset, waiting.join().unwrap().1)
    });
    assert_eq!(waited["grants"][0]["asset"], asset.as_str(), "{waited}");
    // What became ready before the call, and after the last look, is told at once.
    let seen = waited["seen"].as_i64().unwrap();
    let began = Instant::now();
    let (status, told) = claim(&fleet, &worker, 0, 25_000, Some(seen.min(1)));
    assert!(status == 200 && told["grants"] == json!([]) && began.elapsed() < SOON / 4, "{told}");
}

#[test]
fn orders_come_by_one_stream_that_names_no_task_when_it_is_opened() {
    let mut fleet = Fleet::start(&[]);
    let (status, problem) = fleet.call("orders", json!({"worker": Uuid::now_v7().to_string()}));
    assert_eq!((status, problem["type"].as_str()), (409, Some("/problems/worker-unknown")), "{problem}");
    let worker = hello(&fleet);
    let orders = fleet.orders(&worker, &json!([]));
    assert_eq!(orders.next(), Some(json!({"drain": false})), "it is open");
    let asset = fleet.upload(&fixture("bbb-720p-20s.mp4"));
    let grant = claim(&fleet, &worker, 1, 0, None).1["grants"][0].clone();
    let job = fleet.job(&asset, "probe");
    let cancelled_at = Instant::now();
    fleet.admin("POST", &format!("/v1/jobs/{}/cancel", job["id"].as_str().unwrap()));
    let held = json!({"task": grant["task"], "attempt": 1});
    let cancelled = json!({"over": {"task": grant["task"], "attempt": 1, "verdict": "cancelled"}});
    assert_eq!(orders.next().as_ref(), Some(&cancelled));
    let took = cancelled_at.elapsed();
    assert!(took < AT_ONCE, "{took:?}");
    wait_for("the end", SOON, || (fleet.asset(&asset)["state"] == "cancelled").then_some(()));
    // Opened anew with what is in hand, it is said again, at once; the one before ends.
    let anew = fleet.orders(&worker, &json!([held]));
    assert_eq!(orders.next(), None);
    assert_eq!(anew.next(), Some(json!({"drain": false})));
    assert_eq!(anew.next(), Some(cancelled));
    assert_eq!(fleet.admin("POST", &format!("/v1/workers/{worker}/drain")).0, 200);
    assert_eq!(anew.next(), Some(json!({"drain": true})));
    // A server that stops does not wait for whoever listens.
    let stopped_at = Instant::now();
    fleet.stop_server();
    assert_eq!(anew.next(), None);
    assert!(stopped_at.elapsed() < DRAIN, "{:?}", stopped_at.elapsed());
}

#[test]
fn only_a_key_of_a_worker_opens_these_calls_and_it_opens_nothing_else() {
    let fleet = Fleet::start(&[]);
    let call = json!({"protocol": 1, "worker": Uuid::now_v7().to_string()});
    let (status, problem) = fleet.call_as(fleet.admin_key(), "POST", "/v1/worker/release", &call);
    assert_eq!((status, problem["scope"].as_str()), (403, Some("worker")));
    assert_eq!(fleet.call_as("reelyard_nobody", "POST", "/v1/worker/release", &call).0, 401);
    for path in ["/v1/assets", "/v1/jobs", "/v1/events", "/v1/workers", "/metrics"] {
        assert_eq!(fleet.call_as(&fleet.worker_key, "GET", path, &Value::Null).0, 403, "{path}");
    }
    let (status, problem) = fleet.call_as(
        &fleet.worker_key,
        "POST",
        "/v1/worker/release",
        &json!({"protocol": 2, "worker": Uuid::now_v7().to_string()}),
    );
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("version 1"), "{problem}");
}
