//! The rules of the playback origin and of the watch page: who gets in, and what they get.

use super::{Bench, SEGMENT};
use crate::http::links::now_unix_seconds;
use reelyard_model::PlaybackId;
use reelyard_sign::Keyring;
use reelyard_storage::{
    Objects,
    s3::{Patience, S3Config, S3Credentials, S3Objects},
};
use reelyard_testkit::{ACCESS_KEY_ID, Fault, FaultProxy, Kind, Plan, S3Server, SECRET_ACCESS_KEY};
use std::sync::Arc;
use uuid::Uuid;

const HOUR: u64 = 3600;

#[tokio::test]
async fn a_signed_link_plays_and_says_how_long_it_may_be_kept() {
    let bench = Bench::with_keys().await;
    let (_, id) = bench.publish().await;
    let token = bench.app.keyring.sign(id, now_unix_seconds() + 20);
    let master = bench.get(&format!("/p/{token}/{id}/master.m3u8")).await;
    assert_eq!(master.status, 200, "{}", master.text());
    assert_eq!(master.text(), "#EXTM3U\n");
    assert_eq!(master.header("content-type"), "application/vnd.apple.mpegurl");
    assert_eq!(master.header("access-control-allow-origin"), "*");
    let max_age: u64 =
        master.header("cache-control").strip_prefix("public, max-age=").unwrap().parse().unwrap();
    assert!((1..=20).contains(&max_age), "never beyond the token: {max_age}");

    let manifest = bench.get(&format!("/p/{token}/{id}/manifest.mpd")).await;
    assert_eq!(manifest.header("content-type"), "application/dash+xml");
    let segment = bench.get(&format!("/p/{token}/{id}/audio/00000.m4s")).await;
    assert_eq!((segment.status.as_u16(), segment.body.as_slice()), (200, SEGMENT));
    assert_eq!(segment.header("content-type"), "video/iso.segment");
    assert!(segment.header("cache-control").ends_with(", immutable"));
    let head = bench.call("HEAD", &format!("/p/{token}/{id}/audio/00000.m4s"), &[]).await;
    assert_eq!((head.status.as_u16(), head.header("content-length"), head.body.len()), (200, "36", 0));
}

#[tokio::test]
async fn expired_is_410_and_everything_else_that_does_not_open_is_403() {
    let bench = Bench::with_keys().await;
    let (_, id) = bench.publish().await;
    let now = now_unix_seconds();
    let ask = async |token: String| {
        let answer = bench.get(&format!("/p/{token}/{id}/master.m3u8")).await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "*",
            "players must be able to read refusals"
        );
        (answer.status.as_u16(), answer.problem())
    };
    let expired = bench.app.keyring.sign(id, now - 2 * HOUR);
    assert_eq!(ask(expired.clone()).await, (410, "link-expired".into()));
    let text = bench.get(&format!("/p/{expired}/{id}/master.m3u8")).await.json();
    assert!(text["detail"].as_str().unwrap().contains("2 hours ago"), "{text}");

    let good = bench.app.keyring.sign(id, now + HOUR);
    let another = PlaybackId::from_uuid(Uuid::from_u128(9));
    let refused = (403, "link-not-valid".to_owned());
    // Another video's token, another server's, a later expiry, one letter changed, no token at all.
    assert_eq!(ask(bench.app.keyring.sign(another, now + HOUR)).await, refused);
    assert_eq!(ask(Keyring::new([8; 32]).sign(id, now + HOUR)).await, refused);
    assert_eq!(ask(good.replace(&(now + HOUR).to_string(), &(now + 2 * HOUR).to_string())).await, refused);
    let last = if good.ends_with('A') { "B" } else { "A" };
    assert_eq!(ask(format!("{}{last}", &good[..good.len() - 1])).await, refused);
    assert_eq!(ask("x".into()).await, refused);
    // A genuine token for a video that does not exist opens nothing either.
    let ghost = bench.app.keyring.sign(another, now + HOUR);
    let answer = bench.get(&format!("/p/{ghost}/{another}/master.m3u8")).await;
    assert_eq!((answer.status.as_u16(), answer.problem()), (404, "not-found".into()));
}

#[tokio::test]
async fn keys_rotate_without_breaking_links() {
    let before = Keyring::new([1; 32]);
    let after = before.rotated([2; 32]);
    let id = PlaybackId::from_uuid(Uuid::from_u128(5));
    let old = before.sign(id, now_unix_seconds() + HOUR);
    assert!(after.verify(&old, id, now_unix_seconds()).is_ok());
}

#[tokio::test]
async fn no_path_leads_out_of_the_publication() {
    let bench = Bench::with_keys().await;
    let (asset, id) = bench.publish().await;
    let token = bench.app.keyring.sign(id, now_unix_seconds() + HOUR);
    for path in [
        "../master.m3u8",
        "../../../admin.key",
        "..%2f..%2f..%2fcatalog.sqlite",
        "%2e%2e/%2e%2e/catalog.sqlite",
        "%252e%252e/catalog.sqlite",
        "audio/../../../../catalog.sqlite",
        "audio/./00000.m4s",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "audio//00000.m4s",
        "audio/",
        "audio\\..\\..\\catalog.sqlite",
        "audio%5c..%5c..%5ccatalog.sqlite",
        "master.m3u8%00.jpg",
        "%ff%fe",
        "%c0%ae%c0%ae/catalog.sqlite",
        "\u{ff0e}\u{ff0e}/catalog.sqlite",
        ".hidden.m3u8",
        "master.m3u8/",
    ] {
        let address: String = format!("/p/{token}/{id}/{path}")
            .chars()
            .map(|letter| match letter {
                // What no address may hold is what a client encodes.
                '\\' => "%5C".to_owned(),
                letter if letter.is_ascii() => letter.to_string(),
                letter => letter.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect(),
            })
            .collect();
        let answer = bench.get(&address).await;
        assert!(matches!(answer.status.as_u16(), 400 | 404), "{path}: {} {}", answer.status, answer.text());
        assert!(!answer.text().contains("SQLite"), "{path}");
    }
    // Inside, but nothing that publish makes; and a folder.
    for path in ["notes.json", "audio", "audio/00001.m4s", "nothing.m3u8"] {
        let answer = bench.get(&format!("/p/{token}/{id}/{path}")).await;
        assert_eq!((answer.status.as_u16(), answer.problem()), (404, "not-found".into()), "{path}");
        assert!(
            !answer.text().contains(&asset.to_string()),
            "no storage path in a refusal: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn ranges_and_conditions() {
    ranges_and_conditions_at(Bench::with_keys().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_conditions_of_files_in_s3() {
    for kind in [Kind::SeaweedFs, Kind::Moto] {
        let Some(server) = S3Server::start(kind) else { return };
        ranges_and_conditions_at(Bench::start_with(false, Some(in_s3(&server.endpoint()).await)).await).await;
    }
}

/// Published files in S3, at that server or at a proxy before it.
async fn in_s3(endpoint: &str) -> Arc<dyn Objects> {
    let config = S3Config::parse(&S3Server::url(endpoint, "played")).unwrap();
    let credentials = S3Credentials {
        access_key_id: ACCESS_KEY_ID.to_owned(),
        secret_access_key: SECRET_ACCESS_KEY.to_owned(),
        session_token: None,
    };
    let patience = Patience { bound_ms: 500, ..Patience::default() };
    Arc::new(S3Objects::open(&config, credentials, patience).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_told_with_a_time_to_come_back() {
    let Some(server) = S3Server::start(Kind::SeaweedFs) else { return };
    let proxy = FaultProxy::start(&server.endpoint(), Plan::calm());
    let bench = Bench::start_with(true, Some(in_s3(proxy.url()).await)).await;
    let (asset, id) = bench.publish().await;
    let token = bench.app.keyring.sign(id, now_unix_seconds() + HOUR);
    let path = format!("/p/{token}/{id}/audio/00000.m4s");
    assert_eq!(bench.get(&path).await.body, SEGMENT);
    for fault in [Fault::SlowDown, Fault::CutBefore] {
        proxy.set_plan(Plan::always(fault));
        for headers in [vec![], vec![("range", "bytes=0-9")]] {
            let answer = bench.call("GET", &path, &headers).await;
            assert_eq!((answer.status.as_u16(), answer.problem()), (503, "unavailable".into()));
            assert_eq!(answer.header("retry-after"), "2");
            assert_eq!(answer.header("access-control-allow-origin"), "*", "players can read it");
        }
        assert_eq!(
            bench.get(&format!("/watch/{id}?token={token}")).await.status,
            200,
            "the page needs no store"
        );
        assert_eq!(bench.get(&format!("/v1/assets/{asset}")).await.status, 200);
    }
    proxy.set_plan(Plan::calm());
    assert_eq!(bench.get(&path).await.body, SEGMENT);
}

async fn ranges_and_conditions_at(bench: Bench) {
    let (_, id) = bench.publish().await;
    let token = bench.app.keyring.sign(id, now_unix_seconds() + HOUR);
    let path = format!("/p/{token}/{id}/audio/00000.m4s");
    let whole = bench.get(&path).await;
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let etag = whole.header("etag").to_owned();
    let modified = whole.header("last-modified").to_owned();
    assert!(etag.starts_with('"') && modified.ends_with(" GMT"), "{etag} {modified}");

    let table = [
        ("bytes=0-3", "bytes 0-3/36", &SEGMENT[..4]),
        ("bytes=30-", "bytes 30-35/36", &SEGMENT[30..]),
        ("bytes=-4", "bytes 32-35/36", &SEGMENT[32..]),
        ("bytes=10-1000", "bytes 10-35/36", &SEGMENT[10..]),
    ];
    for (range, content_range, bytes) in table {
        let part = bench.call("GET", &path, &[("range", range)]).await;
        assert_eq!((part.status.as_u16(), part.header("content-range")), (206, content_range));
        assert_eq!(part.body, bytes, "{range}");
        assert_eq!(part.header("content-length"), bytes.len().to_string());
    }
    let beyond = bench.call("GET", &path, &[("range", "bytes=36-")]).await;
    assert_eq!((beyond.status.as_u16(), beyond.header("content-range")), (416, "bytes */36"));
    assert_eq!(beyond.problem(), "range-not-satisfiable");
    // RFC 9110 section 14.2: a range means something to GET alone.
    for range in ["bytes=0-9", "bytes=36-"] {
        let head = bench.call("HEAD", &path, &[("range", range)]).await;
        assert_eq!((head.status.as_u16(), head.header("content-length")), (200, "36"), "{range}");
        assert_eq!((head.header("content-range"), head.body.len()), ("", 0), "{range}");
    }
    let several = bench.call("GET", &path, &[("range", "bytes=0-1,3-4")]).await;
    assert_eq!((several.status.as_u16(), several.body.as_slice()), (200, SEGMENT));

    for condition in [("if-none-match", etag.as_str()), ("if-modified-since", modified.as_str())] {
        let unchanged = bench.call("GET", &path, &[condition]).await;
        assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0), "{condition:?}");
        assert_eq!(unchanged.header("etag"), etag);
    }
    let same = bench.call("GET", &path, &[("range", "bytes=0-3"), ("if-range", &etag)]).await;
    assert_eq!(same.status, 206);
    let other = bench.call("GET", &path, &[("range", "bytes=0-3"), ("if-range", "\"other\"")]).await;
    assert_eq!(other.status, 200);
    let preflight = bench.call("OPTIONS", &path, &[("origin", "https://elsewhere.example")]).await;
    assert_eq!(preflight.status, 204);
    assert!(preflight.header("access-control-allow-headers").contains("Range"));
    let post = bench.call("POST", &path, &[]).await;
    assert_eq!((post.status.as_u16(), post.problem()), (405, "method-not-allowed".into()));
}

#[tokio::test]
async fn a_deleted_video_stops_playing_at_once() {
    let bench = Bench::open().await;
    let (asset, id) = bench.publish().await;
    let token = bench.app.keyring.sign(id, now_unix_seconds() + HOUR);
    let path = format!("/p/{token}/{id}/master.m3u8");
    assert_eq!(bench.get(&path).await.status, 200);
    assert_eq!(bench.call("DELETE", &format!("/v1/assets/{asset}"), &[]).await.status, 204);
    let answer = bench.get(&path).await;
    assert_eq!((answer.status.as_u16(), answer.problem()), (410, "gone".into()));
    assert_eq!(bench.call("DELETE", &format!("/v1/assets/{asset}"), &[]).await.status, 204, "twice is fine");
}

#[tokio::test]
async fn the_watch_page_says_where_the_video_stands() {
    let bench = Bench::with_keys().await;
    let asset = bench.upload("holiday <b>.mp4").await;
    let id = bench.plan().await;
    let token = bench.app.keyring.sign(id, now_unix_seconds() + HOUR);

    let page = bench.get(&format!("/watch/{id}?token={token}")).await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    assert!(page.text().contains("holiday &lt;b&gt;"), "{}", page.text());
    assert!(!page.text().contains("<b>"));
    assert!(!page.text().contains(&asset.to_string()), "viewers see no asset id");
    let status = bench.get(&format!("/watch/{id}/status?token={token}")).await.json();
    assert_eq!((&status["state"], &status["playback"]), (&"processing".into(), &serde_json::Value::Null));

    let no_token = bench.get(&format!("/watch/{id}")).await;
    assert_eq!(no_token.status, 403);
    assert!(no_token.text().contains("does not open this video"), "{}", no_token.text());
    let expired = bench.app.keyring.sign(id, now_unix_seconds() - HOUR);
    let expired = bench.get(&format!("/watch/{id}?token={expired}")).await;
    assert_eq!(expired.status, 410);
    assert!(expired.text().contains("This link has expired"));
    let unknown = PlaybackId::from_uuid(Uuid::from_u128(9));
    let token = bench.app.keyring.sign(unknown, now_unix_seconds() + HOUR);
    assert_eq!(bench.get(&format!("/watch/{unknown}?token={token}")).await.status, 404);
}

#[tokio::test]
async fn an_open_server_needs_no_token_on_the_page() {
    let bench = Bench::open().await;
    let (_, id) = bench.publish().await;
    let status = bench.get(&format!("/watch/{id}/status")).await.json();
    assert_eq!(status["state"], "ready");
    let hls = status["playback"]["hls"].as_str().unwrap();
    assert!(hls.starts_with("/p/v1."), "relative to the page: {hls}");
    assert_eq!(bench.get(hls).await.status, 200);
    assert_eq!(status["playback"]["poster"], serde_json::Value::Null, "sound alone has no poster");
}
