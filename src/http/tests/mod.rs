//! Tests of the router as a whole, in process: real catalogue, real files, no socket.

mod api;
mod nodes;
mod operations;
mod orders;
mod playback;
mod possession;
mod rules;
mod tap;
mod uploads;

use crate::{app::App, holders::Holders};
use axum::{Router, body::Body};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use reelyard_catalog::{
    Actor, Catalog, ClaimRequest, CompletedProbe, CompletedPublish, CompletedTask, NewApiKey, NewRendition,
    NewTask, Scope, Scopes, Settled,
};
use reelyard_model::{
    AssetId, MediaInfo, Plan, PlaybackId, TaskId, TenantId, WorkerId,
    media_info::{AudioTrack, MEDIA_INFO_VERSION},
    plan::PLAN_VERSION,
    work::{TaskKind, TaskResult},
};
use reelyard_sign::Keyring;
use reelyard_storage::{LocalStore, Objects, UploadStore};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

const KEY: &str = "a-key-of-the-tests";
const SEGMENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Who does what people do.
fn somebody() -> Actor {
    Actor { name: "a person of the tests".to_owned(), reason: None }
}

/// A server without a socket, and the folder that it lives in.
struct Bench {
    app: Arc<App>,
    router: Router,
    _folder: TempDir,
}

/// Where uploads lie, and who minds them.
struct Place {
    uploads: Arc<dyn UploadStore>,
    /// Renditions and publications.
    objects: Arc<dyn Objects>,
    holders: Holders,
    in_pieces: bool,
}

async fn app(folder: &Path, catalog: Catalog, place: Place, insecure_open: bool) -> Arc<App> {
    let worker = WorkerId::from_uuid(Uuid::now_v7());
    let new = reelyard_catalog::NewWorker {
        id: worker,
        name: "test".to_owned(),
        node: Some("node".to_owned()),
        version: String::new(),
        machine: serde_json::json!({}),
        now_ms: jiff::Timestamp::now().as_millisecond(),
    };
    catalog.register_worker(&new).await.unwrap();
    Arc::new(App {
        desk: crate::flow::desk::Desk::open(&catalog),
        layouts: crate::flow::dispatch::layouts::Layouts::default(),
        orders: crate::flow::dispatch::orders::Orders::watch(&catalog),
        catalog,
        node: "node".to_owned(),
        uploads: place.uploads,
        holders: place.holders,
        store: place.objects,
        sources_in_pieces: place.in_pieces,
        keyring: Keyring::new([7; 32]),
        upload_keys: reelyard_sign::upload_token::UploadKeys::new([8; 32]),
        limits: crate::http::limits::Limits::new(crate::http::limits::Settings::default()),
        data_dir: folder.to_owned(),
        insecure_open,
        public_url: None,
        max_upload_bytes: 4 << 20,
        media_program: PathBuf::from("reelyard-media"),
        fleet: crate::flow::dispatch::fleet::Fleet::default(),
        control_worker: worker,
        presets: reelyard_planner::Presets::built_in().unwrap(),
        tickets: None,
        ticket: Notify::new(),
        publish_ticket: Notify::new(),
        relay_ticket: Notify::new(),
        swept_ticket: Notify::new(),
        concatenate_ticket: Notify::new(),
        assemble_ticket: Notify::new(),
        shutdown: CancellationToken::new(),
    })
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
    /// The slug of the problem that this must be.
    fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(body["trace_id"], self.header("x-request-id"));
        body["type"].as_str().unwrap().strip_prefix("/problems/").unwrap().to_owned()
    }
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

impl Bench {
    async fn open() -> Self {
        Self::start(true).await
    }
    async fn with_keys() -> Self {
        Self::start(false).await
    }

    async fn start(insecure_open: bool) -> Self {
        Self::start_with(insecure_open, None).await
    }

    /// `objects`: where published files lie, if not on this disk.
    async fn start_with(insecure_open: bool, objects: Option<Arc<dyn Objects>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
        let new = NewApiKey {
            id: Uuid::now_v7(),
            tenant: TenantId::DEFAULT,
            label: "test",
            key_sha256: &hex::encode(Sha256::digest(KEY)),
            scopes: Scopes::of(&[Scope::Admin]),
            now_ms: 0,
        };
        catalog.add_api_key(new, &somebody()).await.unwrap();
        let store = LocalStore::open(folder.path()).await.unwrap();
        let objects = objects.unwrap_or_else(|| Arc::new(store.clone()));
        let holders = Holders::alone();
        let place = Place { uploads: Arc::new(store), objects, holders, in_pieces: false };
        let app = app(folder.path(), catalog, place, insecure_open).await;
        Self { router: crate::http::router(app.clone()), app, _folder: folder }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.router, request).await
    }

    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request(method, path, headers, Body::empty())).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[]).await
    }

    /// An asset as an upload leaves it: waiting to be probed.
    async fn upload(&self, name: &str) -> AssetId {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let metadata = format!("filename {}", STANDARD.encode(name));
        // Four, and others for each name: the same bytes would not be processed again.
        let bytes = hex::encode(&Sha256::digest(name)[..2]);
        let key = format!("Bearer {KEY}");
        let headers = [
            // An open server does not look at it.
            ("authorization", key.as_str()),
            ("tus-resumable", "1.0.0"),
            ("upload-length", "4"),
            ("content-length", "4"),
            ("upload-metadata", metadata.as_str()),
            ("content-type", "application/offset+octet-stream"),
        ];
        let answer = self.send(request("POST", "/uploads", &headers, Body::from(bytes))).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.header("reelyard-asset").parse().unwrap()
    }

    async fn claim(&self, kind: TaskKind) -> (TaskId, u32) {
        let request = ClaimRequest {
            worker: self.app.control_worker,
            kinds: vec![kind],
            lease_ms: 60_000,
            now_ms: self.app.now_ms(),
        };
        let claimed = self.app.catalog.claim(&request).await.unwrap().expect("something to claim");
        (claimed.task.id, claimed.task.attempt)
    }

    /// Probed and planned: sound alone, which needs the fewest steps.
    async fn plan(&self) -> PlaybackId {
        let (task, attempt) = self.claim(TaskKind::Probe).await;
        let audio = TaskId::from_uuid(Uuid::now_v7());
        let new_task = |id, kind, needs| NewTask { id, kind, ordinal: 0, required: true, priority: 0, needs };
        let playback_id = PlaybackId::from_uuid(Uuid::now_v7());
        let done = CompletedProbe {
            task,
            attempt,
            info: sound_alone(),
            plan: Plan {
                version: PLAN_VERSION,
                preset: "web-h264".into(),
                duration_us: 2_000_000,
                video: None,
                audio: None,
                stills: None,
                decisions: vec![],
            },
            tasks: vec![
                new_task(audio, TaskKind::Audio, vec![]),
                new_task(TaskId::from_uuid(Uuid::now_v7()), TaskKind::Publish, vec![audio]),
            ],
            renditions: vec![NewRendition {
                name: "audio".into(),
                kind: "audio",
                width: None,
                height: None,
                max_bit_rate: 128_000,
            }],
            playback_id,
            recipe: crate::flow::same_content::recipe(&self.app, "web-h264"),
            now_ms: self.app.now_ms(),
        };
        assert_eq!(self.app.catalog.complete_probe(done).await.unwrap(), Settled::Now);
        playback_id
    }

    /// Uploaded, planned and published, with files that can be asked for.
    async fn publish(&self) -> (AssetId, PlaybackId) {
        let asset = self.upload("a film.mp4").await;
        let playback_id = self.plan().await;
        let (task, attempt) = self.claim(TaskKind::Audio).await;
        let result = TaskResult::Encoded { encoder: "aac".into(), tracks: vec![], warnings: vec![] };
        let done = CompletedTask { task, attempt, result, warnings: vec![], now_ms: self.app.now_ms() };
        assert_eq!(self.app.catalog.complete_task(done).await.unwrap(), Settled::Now);

        let prefix = format!("publications/{asset}/a1");
        for (file, bytes) in [
            ("master.m3u8", b"#EXTM3U\n".as_slice()),
            ("manifest.mpd", b"<MPD/>"),
            ("audio/00000.m4s", SEGMENT),
            ("notes.json", b"{}"),
        ] {
            self.app.store.put_bytes(&format!("{prefix}/{file}"), bytes.into()).await.unwrap();
        }
        let (task, attempt) = self.claim(TaskKind::Publish).await;
        let done = CompletedPublish {
            task,
            attempt,
            prefix,
            summary: Value::Null,
            renditions: vec![],
            now_ms: self.app.now_ms(),
        };
        assert_eq!(self.app.catalog.complete_publish(done).await.unwrap(), Settled::Now);
        (asset, playback_id)
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        builder = builder.header("host", "localhost:8080");
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body).unwrap()
}

fn sound_alone() -> MediaInfo {
    MediaInfo {
        version: MEDIA_INFO_VERSION,
        container: "mp3".into(),
        byte_len: 4,
        duration_us: 2_000_000,
        declared_duration_us: None,
        video: vec![],
        audio: vec![AudioTrack {
            index: 0,
            codec: "mp3".into(),
            sample_rate: 48_000,
            channels: 2,
            channel_layout: "stereo".into(),
            language: None,
            start_us: 0,
            duration_us: 2_000_000,
            bit_rate: None,
        }],
        other: vec![],
        warnings: vec![],
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
