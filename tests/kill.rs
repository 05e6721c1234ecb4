//! `kill -9` at random moments, of the server and of the media child: no acknowledged byte is lost, no task is stuck,
//! outputs are complete, and there is exactly one publication for each asset.
//!
//! `REELYARD_KILLS` (default 20 of each kind) and `REELYARD_SEED` choose length and moments; `make test-kill` is the long run.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use sha2::{Digest, Sha256};
use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use support::{
    Chance, PATIENCE, Server, decoded_pictures, exchange, fixture, header, playlist_uris, request, wait_for,
};

/// Size of one PATCH: small, so that kills fall between and inside them.
const PATCH_BYTES: usize = 96 << 10;

fn kills() -> u64 {
    std::env::var("REELYARD_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

fn seed() -> u64 {
    std::env::var("REELYARD_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5EED)
}

/// Six seconds of the sample at 320x180: small enough to be encoded many times.
fn short_clip(folder: &Path) -> std::path::PathBuf {
    let clip = folder.join("clip.mp4");
    let sample = fixture("bbb-720p-20s.mp4");
    let status = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-i"])
        .arg(sample)
        .args([
            "-t",
            "6",
            "-vf",
            "scale=426:240",
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-b:v",
            "3M",
            "-g",
            "24",
            "-c:a",
            "aac",
        ])
        .arg(&clip)
        .status()
        .expect("ffmpeg runs");
    assert!(status.success());
    clip
}

/// The same film as other bytes, with an empty box behind it (ISO/IEC 14496-12 section 8.1.2): what the server has
/// already it does not process again.
fn another(bytes: &[u8], number: usize) -> Vec<u8> {
    let contents = (number as u64).to_be_bytes();
    [bytes, &16_u32.to_be_bytes(), b"free", &contents].concat()
}

/// What one client was told: the only truth the checker believes.
#[derive(Default)]
struct Ledger {
    upload: Option<String>,
    acknowledged: AtomicU64,
}

/// One creator whose connection breaks all the time: asks for the offset, sends the next piece, notes every answer.
fn upload_through_kills(address: &Mutex<String>, bytes: &[u8], ledger: &mut Ledger) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "the upload did not finish in {PATIENCE:?}");
        let base = address.lock().unwrap().clone();
        let Some(upload) = ledger.upload.clone() else {
            let (status, headers, _) = exchange(
                "POST",
                &format!("{base}/uploads"),
                &[("Tus-Resumable", "1.0.0".into()), ("Upload-Length", bytes.len().to_string())],
                &[],
            );
            if status == 201 {
                let location = header(&headers, "location").expect("201 has a Location");
                ledger.upload = Some(location.rsplit('/').next().unwrap().to_owned());
            }
            continue;
        };
        let url = format!("{base}/uploads/{upload}");
        let (status, headers, _) = exchange("HEAD", &url, &[("Tus-Resumable", "1.0.0".into())], &[]);
        if status == 0 || status == 503 {
            std::thread::yield_now();
            continue;
        }
        assert!(matches!(status, 200 | 204), "HEAD of an upload that was acknowledged answers {status}");
        let offset: u64 = header(&headers, "upload-offset").expect("an offset").parse().unwrap();
        let acknowledged = ledger.acknowledged.load(Ordering::SeqCst);
        assert!(
            offset >= acknowledged,
            "LOST: {acknowledged} bytes were acknowledged, the server has {offset}"
        );
        if offset == bytes.len() as u64
            && let Some(asset) = header(&headers, "reelyard-asset")
        {
            return asset;
        }
        let end = bytes.len().min(offset as usize + PATCH_BYTES);
        let (status, headers, _) = exchange(
            "PATCH",
            &url,
            &[
                ("Tus-Resumable", "1.0.0".into()),
                ("Upload-Offset", offset.to_string()),
                ("Content-Type", "application/offset+octet-stream".into()),
            ],
            &bytes[offset as usize..end],
        );
        if status == 204 {
            let told: u64 = header(&headers, "upload-offset").expect("an offset").parse().unwrap();
            ledger.acknowledged.fetch_max(told, Ordering::SeqCst);
        }
    }
}

/// The checker: asks the running server and native tools, and believes no counter of the server's own.
fn check_asset(server: &Server, id: &str, upload: Option<&str>, source: &[u8], frames: &str) {
    let asset = server.settled(id);
    assert_eq!(asset["state"], "ready", "{asset:#}\n{}", server.log());
    if let Some(upload) = upload {
        let (status, stored) = request(
            "GET",
            &format!("{}/uploads/{upload}", server.url),
            &[("Tus-Resumable", "1.0.0".into())],
            &[],
        );
        assert_eq!(status, 200, "the finished upload can be read by its owner");
        assert_eq!(
            hex::encode(Sha256::digest(&stored)),
            hex::encode(Sha256::digest(source)),
            "the stored source is the file"
        );
    }
    let hls = asset["playback"]["hls"].as_str().expect("a signed address");
    let (status, master) = request("GET", hls, &[], &[]);
    assert_eq!(status, 200);
    let master = String::from_utf8(master).unwrap();
    let base = hls.rsplit_once('/').unwrap().0;
    for rung in playlist_uris(&master) {
        let url = format!("{base}/{rung}");
        assert_eq!(decoded_pictures(&url), frames, "{rung} is complete");
    }
    let publications = server.data.join("publications").join(id);
    let trees = fs::read_dir(&publications).unwrap().count();
    assert_eq!(trees, 1, "one publication of {id}, and no leftovers of lost attempts");
    let (_, jobs) = server.get(&format!("/v1/jobs?asset={id}"));
    for job in jobs["items"].as_array().expect("a list of jobs") {
        assert_eq!(job["state"], "done", "no task is stuck: {job:#}");
    }
}

#[test]
fn the_server_is_killed_at_random_moments() {
    let folder = tempfile::tempdir().unwrap();
    let clip = short_clip(folder.path());
    let bytes = fs::read(&clip).unwrap();
    let data = folder.path().join("data");
    let mut chance = Chance(seed());
    let address = Arc::new(Mutex::new(String::new()));
    let mut server = Some(Server::start(&data));
    *address.lock().unwrap() = server.as_ref().unwrap().url.clone();

    let mut remaining = kills();
    let mut finished: Vec<(String, String, Vec<u8>)> = Vec::new();
    while remaining > 0 {
        let bytes = another(&bytes, finished.len());
        // One upload and its processing, with up to five kills on the way: so many are never held against a task.
        let mut ledger = Ledger::default();
        let done = AtomicBool::new(false);
        let (asset, upload) = std::thread::scope(|scope| {
            let creator = scope.spawn(|| {
                let asset = upload_through_kills(&address, &bytes, &mut ledger);
                done.store(true, Ordering::SeqCst);
                (asset, ledger.upload.clone().unwrap())
            });
            for _ in 0..remaining.min(5) {
                // From within the first PATCHes to well into the encode.
                std::thread::sleep(Duration::from_millis(30 + chance.below(1200)));
                server.take().expect("a server runs").kill();
                let next = Server::start(&data);
                *address.lock().unwrap() = next.url.clone();
                server = Some(next);
                remaining -= 1;
            }
            creator.join().expect("the creator's thread")
        });
        server.as_ref().expect("a server runs").settled(&asset);
        finished.push((asset, upload, bytes));
    }
    let server = server.expect("a server runs");
    for (asset, upload, bytes) in &finished {
        check_asset(&server, asset, Some(upload), bytes, "144");
    }
    let (_, assets) = server.get("/v1/assets");
    assert_eq!(
        assets["items"].as_array().map(Vec::len),
        Some(finished.len()),
        "one asset for each upload, no more"
    );
}

#[test]
fn the_media_child_is_killed_at_random_moments() {
    let folder = tempfile::tempdir().unwrap();
    let clip = short_clip(folder.path());
    let bytes = fs::read(&clip).unwrap();
    let server = Server::start(&folder.path().join("data"));
    let mut chance = Chance(seed() ^ 0xC41D);
    let mut remaining = kills();
    let mut assets = Vec::new();
    while remaining > 0 {
        fs::write(&clip, another(&bytes, assets.len())).unwrap();
        let asset = support::upload_whole(&server, &clip, None);
        // At most two for one asset: three in a row on one task are evidence against the file, and it would be set aside.
        for _ in 0..remaining.min(2) {
            let victim = wait_for("a media child to kill, or the asset to settle", PATIENCE, || match server
                .media_children()
                .first()
            {
                Some(pid) => Some(Some(*pid)),
                None if server.asset(&asset)["state"] == "ready" => Some(None),
                None => None,
            });
            let Some(pid) = victim else { break };
            std::thread::sleep(Duration::from_millis(chance.below(400)));
            // The child may have ended by itself meanwhile; then this kill counts for nothing.
            if server.media_children().contains(&pid)
                && Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success()
            {
                remaining -= 1;
            }
        }
        assets.push(asset);
    }
    for asset in &assets {
        check_asset(&server, asset, None, &bytes, "144");
    }
    assert!(server.stop().success());
}
