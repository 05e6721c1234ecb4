//! What the catalogue's tests share: a catalogue of its own for each test, and an asset brought to where a test begins.
//!
//! The suite is run by two programs: `sqlite.rs`, where a catalogue is a file, and `postgres.rs`, where it is a database
//! of a server that the test process starts.

#![allow(dead_code, reason = "each test file uses its part")]

use reelyard_catalog::PostgresSettings;
use reelyard_catalog::{
    Actor, Catalog, ClaimRequest, Claimed, CompletedProbe, CompletedTask, FailedTask, FinishUpload,
    NewRendition, NewTask, NewUpload, NewWorker, Settled,
};
use reelyard_model::{
    AssetId, Completion, Failure, FailureCode, MediaInfo, Plan, PlaybackId, TaskId, TenantId, Tier, UploadId,
    UploadKind, WorkerId,
    media_info::MEDIA_INFO_VERSION,
    output::{FileOutput, StillsOutput},
    plan::PLAN_VERSION,
    work::{TaskKind, TaskResult},
};
use reelyard_testkit::PostgresServer;
use serde_json::json;
use sqlx::Connection as _;
use std::{path::Path, sync::OnceLock};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const LEASE_MS: u64 = 1_000;
pub(crate) const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
pub(crate) const EVERY_KIND: [TaskKind; 5] = TaskKind::ALL;

/// Ended by its guard when the process ends.
static SERVER: OnceLock<Option<PostgresServer>> = OnceLock::new();

/// Where a catalogue lies: other handles and other processes find it there.
pub(crate) enum Place {
    File(TempDir),
    Database(String),
}

pub(crate) struct Bench {
    pub(crate) catalog: Catalog,
    pub(crate) place: Place,
}

impl Place {
    /// A new one; on a machine without PostgreSQL, which was said on standard error, always a file.
    pub(crate) fn new() -> Self {
        let server = match crate::ON_POSTGRES {
            true => SERVER.get_or_init(PostgresServer::start_without_fsync).as_ref(),
            false => None,
        };
        match server {
            Some(server) => Self::Database(server.new_database()),
            None => Self::File(tempfile::tempdir().unwrap()),
        }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(directory) => directory.path().join("catalog.sqlite").to_str().unwrap().to_owned(),
            Self::Database(url) => url.clone(),
        }
    }
}

/// A handle on the catalogue of this name, as another process would have.
pub(crate) async fn open(name: &str) -> Catalog {
    let opened = if name.starts_with("postgres:") {
        Catalog::connect(name, &PostgresSettings::default()).await
    } else {
        Catalog::open(Path::new(name)).await
    };
    opened.unwrap()
}

/// The tasks of a planned asset, by what they are.
pub(crate) struct Planned {
    pub(crate) asset: AssetId,
    pub(crate) encodes: [TaskId; 2],
    pub(crate) audio: TaskId,
    pub(crate) stills: TaskId,
    pub(crate) publish: TaskId,
}

pub(crate) fn worker(number: u128) -> WorkerId {
    WorkerId::from_uuid(Uuid::from_u128(number))
}

/// Who does what people do.
pub(crate) fn somebody() -> Actor {
    Actor { name: "a person of the tests".into(), reason: Some("to see what happens".into()) }
}

pub(crate) fn failure(code: FailureCode) -> Failure {
    Failure { code, detail: "for the test".into(), stderr_tail: "the last words".into() }
}

pub(crate) fn encoded() -> TaskResult {
    TaskResult::Encoded { encoder: "libx264".into(), tracks: Vec::new(), warnings: Vec::new() }
}

pub(crate) fn stills() -> TaskResult {
    let file = |name: &str| FileOutput { file: name.into(), byte_len: 1, sha256: "0".repeat(64) };
    let stills =
        StillsOutput { poster: file("poster.jpg"), sprites: Vec::new(), sprite_index: file("sprites.vtt") };
    TaskResult::Stills { stills }
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let place = Place::new();
        Self { catalog: open(&place.name()).await, place }
    }

    pub(crate) async fn second_handle(&self) -> Catalog {
        open(&self.place.name()).await
    }

    pub(crate) async fn restarted(self) -> Self {
        self.catalog.close().await;
        Self { catalog: open(&self.place.name()).await, place: self.place }
    }

    pub(crate) async fn upload(&self, now_ms: i64) -> UploadId {
        let id = UploadId::from_uuid(Uuid::now_v7());
        self.catalog.create_upload(new_upload(id, now_ms)).await.unwrap();
        id
    }

    /// A finished upload: an asset with a probe task that is ready.
    pub(crate) async fn asset(&self, now_ms: i64) -> AssetId {
        let upload = self.upload(now_ms).await;
        self.catalog.upload_finishing_or_finished(upload, 1_000, now_ms).await.unwrap();
        self.catalog.finish_upload(finish(upload, now_ms)).await.unwrap().asset
    }

    pub(crate) async fn claim(&self, kinds: &[TaskKind], now_ms: i64) -> Option<Claimed> {
        self.catalog.claim(&claim(1, kinds, now_ms)).await.unwrap()
    }

    /// An asset whose probe is done: two chunks, sound, stills, publish.
    pub(crate) async fn planned(&self, now_ms: i64) -> Planned {
        let asset = self.asset(now_ms).await;
        let probe = self.claim(&[TaskKind::Probe], now_ms).await.unwrap();
        assert_eq!(probe.asset.id, asset);
        let (done, planned) = completed_probe(&probe, now_ms);
        assert_eq!(self.catalog.complete_probe(done).await.unwrap(), Settled::Now);
        planned
    }

    /// Claims whatever of this kind comes first, and completes it.
    pub(crate) async fn do_one(&self, kind: TaskKind, now_ms: i64) -> TaskId {
        let claimed = self.claim(&[kind], now_ms).await.expect("something to claim");
        let done = CompletedTask {
            task: claimed.task.id,
            attempt: claimed.task.attempt,
            result: if kind == TaskKind::Stills { stills() } else { encoded() },
            warnings: Vec::new(),
            now_ms,
        };
        assert_eq!(self.catalog.complete_task(done).await.unwrap(), Settled::Now);
        claimed.task.id
    }

    pub(crate) async fn fail(&self, claimed: &Claimed, code: FailureCode, now_ms: i64) -> Settled {
        let failed = FailedTask {
            task: claimed.task.id,
            attempt: claimed.task.attempt,
            failure: failure(code),
            random: u32::MAX,
            now_ms,
        };
        self.catalog.fail_task(failed).await.unwrap()
    }

    pub(crate) async fn state_of(&self, task: TaskId) -> reelyard_model::TaskState {
        self.catalog.task(task).await.unwrap().unwrap().state
    }

    /// The sentence for it.
    pub(crate) async fn waits_for(&self, task: TaskId, now_ms: i64) -> String {
        let task = self.catalog.task(task).await.unwrap().unwrap();
        let facts = self.catalog.waiting_facts(&[task], now_ms).await.unwrap();
        reelyard_schedule::why_waiting(&facts[0]).sentence(now_ms)
    }

    /// An asset with a ready probe, of this tenant and this urgent.
    pub(crate) async fn asset_of(&self, tenant: TenantId, tier: Tier, now_ms: i64) -> TaskId {
        let id = UploadId::from_uuid(Uuid::now_v7());
        let new = NewUpload { tenant, priority: tier.priority(), ..new_upload(id, now_ms) };
        self.catalog.create_upload(new).await.unwrap();
        self.catalog.upload_finishing_or_finished(id, 1_000, now_ms).await.unwrap();
        let finish = finish(id, now_ms);
        let probe = finish.probe_task;
        self.catalog.finish_upload(finish).await.unwrap();
        probe
    }

    pub(crate) async fn tenant(&self, number: u128) -> TenantId {
        let id = TenantId::from_uuid(Uuid::from_u128(number));
        self.catalog.add_tenant(id, &format!("tenant {number}"), 0).await.unwrap();
        id
    }

    /// What no method of the catalogue does: a row as another version, or a damaged disk, may leave it.
    pub(crate) async fn execute(&self, statement: &'static str) {
        let query = sqlx::raw_sql(statement);
        match &self.place {
            Place::Database(url) => {
                let mut database = sqlx::PgConnection::connect(url).await.unwrap();
                query.execute(&mut database).await.unwrap();
            }
            Place::File(_) => {
                let file = sqlx::sqlite::SqliteConnectOptions::new().filename(self.place.name());
                let mut database = sqlx::SqliteConnection::connect_with(&file).await.unwrap();
                query.execute(&mut database).await.unwrap();
            }
        }
    }

    /// A worker that says nothing of its machine; `node`: the server that it lives in.
    pub(crate) async fn worker(&self, id: WorkerId, node: Option<&str>, now_ms: i64) {
        let node = node.map(str::to_owned);
        let (name, version, machine) = ("worker".to_owned(), String::new(), json!({}));
        self.catalog.register_worker(&NewWorker { id, name, node, version, machine, now_ms }).await.unwrap();
    }

    /// Its server is called `node`.
    pub(crate) async fn worker_in_a_server(&self, id: WorkerId, now_ms: i64) {
        self.worker(id, Some("node"), now_ms).await;
    }

    /// A worker that is a machine of its own.
    pub(crate) async fn machine(&self, number: u128, now_ms: i64) -> WorkerId {
        let id = worker(number);
        let machine = json!({ "cores": 8, "memory_bytes": 1_000, "heavy_slots": 2, "light_slots": 1 });
        let name = format!("machine-{number}");
        let new = NewWorker { id, name, node: None, version: "1.2.3".into(), machine, now_ms };
        self.catalog.register_worker(&new).await.unwrap();
        id
    }

    pub(crate) async fn asset_state(&self, asset: AssetId) -> reelyard_model::AssetState {
        self.catalog.asset(asset).await.unwrap().unwrap().state
    }
}

pub(crate) fn new_upload(id: UploadId, now_ms: i64) -> NewUpload {
    NewUpload {
        id,
        kind: UploadKind::Whole,
        completion: Completion::Length,
        partials: Vec::new(),
        concat_header: None,
        expected_sha256: None,
        tenant: TenantId::DEFAULT,
        byte_len: Some(1_000),
        file_name: Some("cat.mp4".into()),
        metadata: "filename Y2F0Lm1wNA==".into(),
        preset: "web-h264".into(),
        priority: 0,
        traceparent: TRACE.into(),
        now_ms,
        expires_ms: now_ms + 1_000,
    }
}

pub(crate) fn finish(upload: UploadId, now_ms: i64) -> FinishUpload {
    FinishUpload {
        id: upload,
        byte_len: 1_000,
        // Every upload has bytes of its own, unless a test says otherwise.
        sha256: upload.as_uuid().simple().to_string().repeat(2),
        asset: AssetId::from_uuid(Uuid::now_v7()),
        title: "cat".into(),
        source_key: "sources/x".into(),
        probe_task: TaskId::from_uuid(Uuid::now_v7()),
        to_assemble: false,
        probe_priority: 30,
        recipe: "r1".into(),
        playback_id: PlaybackId::from_uuid(Uuid::now_v7()),
        now_ms,
    }
}

pub(crate) fn claim(number: u128, kinds: &[TaskKind], now_ms: i64) -> ClaimRequest {
    ClaimRequest { worker: worker(number), kinds: kinds.to_vec(), lease_ms: LEASE_MS, now_ms }
}

pub(crate) fn completed_probe(probe: &Claimed, now_ms: i64) -> (CompletedProbe, Planned) {
    let task = |kind, ordinal, required, needs: &[TaskId]| NewTask {
        id: TaskId::from_uuid(Uuid::now_v7()),
        kind,
        ordinal,
        required,
        priority: 10,
        needs: needs.to_vec(),
    };
    let encodes = [task(TaskKind::Encode, 0, true, &[]), task(TaskKind::Encode, 1, true, &[])];
    let audio = task(TaskKind::Audio, 0, false, &[]);
    let stills = task(TaskKind::Stills, 0, false, &[]);
    let publish = task(TaskKind::Publish, 0, true, &[encodes[0].id, encodes[1].id, audio.id, stills.id]);
    let planned = Planned {
        asset: probe.asset.id,
        encodes: [encodes[0].id, encodes[1].id],
        audio: audio.id,
        stills: stills.id,
        publish: publish.id,
    };
    let [first, second] = encodes;
    let done = CompletedProbe {
        task: probe.task.id,
        attempt: probe.task.attempt,
        info: media_info(),
        plan: Plan {
            version: PLAN_VERSION,
            preset: "web-h264".into(),
            duration_us: 1,
            video: None,
            audio: None,
            stills: None,
            decisions: Vec::new(),
        },
        tasks: vec![first, second, audio, stills, publish],
        renditions: vec![NewRendition {
            name: "240p".into(),
            kind: "video",
            width: Some(426),
            height: Some(240),
            max_bit_rate: 400_000,
        }],
        playback_id: PlaybackId::from_uuid(Uuid::now_v7()),
        recipe: "r1".into(),
        now_ms,
    };
    (done, planned)
}

pub(crate) fn media_info() -> MediaInfo {
    MediaInfo {
        version: MEDIA_INFO_VERSION,
        container: "mov".into(),
        byte_len: 1_000,
        duration_us: 1,
        declared_duration_us: None,
        video: Vec::new(),
        audio: Vec::new(),
        other: Vec::new(),
        warnings: vec!["The file is odd.".into()],
    }
}
