//! A server without HTTP and without workers, in a directory of its own.

use super::child::FakeChild;
use crate::{
    app::App,
    flow::{
        self,
        dispatch::{InProcess, LocalDepot},
        receive::{Announcement, Whole},
    },
    holders::Holders,
};
use bytes::Bytes;
use reelyard_agent::control::ControlPlane;
use reelyard_catalog::{Actor, Catalog};
use reelyard_model::{
    AssetId, Completion, TaskState, TenantId, UploadId, UploadKind, WorkerId,
    work::{Grant, Offer, TaskKind},
};
use reelyard_sign::Keyring;
use reelyard_storage::LocalStore;
use reelyard_upload::{BodyEnd, ChunkRequest, Transfer};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(super) const SOURCE: &[u8] = b"a video, as far as anybody here looks at it";

/// Who does what people do.
pub(super) fn somebody() -> Actor {
    Actor { name: "a person of the tests".to_owned(), reason: None }
}

pub(crate) struct Bench {
    pub(crate) app: Arc<App>,
    pub(super) control: InProcess,
    pub(super) depot: LocalDepot,
    pub(super) worker: WorkerId,
    pub(super) child: FakeChild,
    directory: TempDir,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::over(tempfile::tempdir().unwrap(), |catalog| catalog).await
    }

    /// Tickets are written down for a broker.
    pub(super) async fn with_outbox() -> Self {
        Self::over(tempfile::tempdir().unwrap(), Catalog::with_outbox).await
    }

    /// The process is gone, its directory stays; the next one starts as `serve` does.
    pub(super) async fn restarted(self) -> Self {
        self.app.catalog.close().await;
        let child = self.child.clone();
        let mut bench = Self::over(self.directory, |catalog| catalog).await;
        bench.child = child;
        flow::receive::recover(&bench.app).await.unwrap();
        bench
    }

    async fn over(directory: TempDir, changed: impl FnOnce(Catalog) -> Catalog) -> Self {
        let catalog = changed(Catalog::open(&directory.path().join("catalog.sqlite")).await.unwrap());
        let control_worker = WorkerId::from_uuid(Uuid::now_v7());
        let worker = WorkerId::from_uuid(Uuid::now_v7());
        let store = LocalStore::open(directory.path()).await.unwrap();
        let app = Arc::new(App {
            desk: flow::desk::Desk::open(&catalog),
            layouts: flow::dispatch::layouts::Layouts::default(),
            orders: flow::dispatch::orders::Orders::watch(&catalog),
            catalog,
            node: "node".to_owned(),
            uploads: Arc::new(store.clone()),
            holders: Holders::alone(),
            store: Arc::new(store),
            sources_in_pieces: false,
            keyring: Keyring::new([7; 32]),
            upload_keys: reelyard_sign::upload_token::UploadKeys::new([8; 32]),
            limits: crate::http::limits::Limits::new(crate::http::limits::Settings::default()),
            presets: reelyard_planner::Presets::built_in().unwrap(),
            data_dir: directory.path().to_owned(),
            insecure_open: true,
            public_url: None,
            max_upload_bytes: 1 << 20,
            media_program: PathBuf::from("no such program"),
            fleet: crate::flow::dispatch::fleet::Fleet::default(),
            control_worker,
            tickets: None,
            ticket: Notify::new(),
            publish_ticket: Notify::new(),
            relay_ticket: Notify::new(),
            swept_ticket: Notify::new(),
            concatenate_ticket: Notify::new(),
            assemble_ticket: Notify::new(),
            shutdown: CancellationToken::new(),
        });
        flow::sweep::at_start(&app).await.unwrap();
        for id in [control_worker, worker] {
            let new = reelyard_catalog::NewWorker {
                id,
                name: "test".to_owned(),
                node: Some("node".to_owned()),
                version: String::new(),
                machine: serde_json::json!({ "cores": 1 }),
                now_ms: app.now_ms(),
            };
            app.catalog.register_worker(&new).await.unwrap();
        }
        Self {
            control: InProcess { app: app.clone() },
            depot: LocalDepot { app: app.clone() },
            app,
            worker,
            child: FakeChild::default(),
            directory,
        }
    }

    pub(super) async fn announce(&self, byte_len: u64) -> UploadId {
        self.announce_with(byte_len, None, None).await
    }

    async fn announce_with(
        &self,
        byte_len: u64,
        preset: Option<String>,
        tenant: Option<TenantId>,
    ) -> UploadId {
        let announcement = Announcement {
            tenant: tenant.unwrap_or(TenantId::DEFAULT),
            grant: reelyard_catalog::UploadGrant::default(),
            kind: UploadKind::Whole,
            completion: Completion::Length,
            partials: Vec::new(),
            concat_header: None,
            expected_sha256: None,
            byte_len: Some(byte_len),
            file_name: Some("cat.mp4".into()),
            metadata: String::new(),
            preset,
            priority: 0,
            traceparent: None,
        };
        flow::receive::create(&self.app, announcement).await.unwrap().id
    }

    /// Announced and all bytes acknowledged, but not finished.
    pub(super) async fn upload_bytes(&self, bytes: &'static [u8]) -> (UploadId, Transfer) {
        self.upload_with(bytes, None, None).await
    }

    /// Without a word: the default preset, the default tenant.
    pub(super) async fn upload_with(
        &self,
        bytes: &'static [u8],
        preset: Option<String>,
        tenant: Option<TenantId>,
    ) -> (UploadId, Transfer) {
        let upload = self.announce_with(bytes.len() as u64, preset, tenant).await;
        let row = self.app.catalog.upload(upload).await.unwrap().unwrap();
        let terms = flow::receive::terms(&self.app, &row, 0);
        let open = self.app.uploads.open_upload(upload, terms).await.unwrap();
        let request = ChunkRequest { body_len: Some(bytes.len() as u64), ..ChunkRequest::default() };
        let mut receiving = open.begin(&request).unwrap();
        receiving.write(vec![Bytes::from_static(bytes)]).await.unwrap();
        let (offset, transfer) = receiving.end(BodyEnd::Complete).await;
        assert_eq!(offset, bytes.len() as u64);
        (upload, transfer.unwrap())
    }

    pub(super) async fn asset(&self) -> AssetId {
        self.asset_of(SOURCE).await
    }

    pub(super) async fn asset_of(&self, bytes: &'static [u8]) -> AssetId {
        let (upload, transfer) = self.upload_bytes(bytes).await;
        flow::receive::finish(&self.app, upload, &Whole::of(&transfer).unwrap()).await.unwrap()
    }

    pub(super) async fn other_tenant(&self) -> TenantId {
        let tenant = TenantId::from_uuid(Uuid::now_v7());
        self.app.catalog.add_tenant(tenant, "another", self.app.now_ms()).await.unwrap();
        tenant
    }

    pub(super) fn offer(&self) -> Offer {
        Offer {
            worker: self.worker,
            kinds: TaskKind::ALL.to_vec(),
            prefers: Vec::new(),
            slots: 1,
            cpu_millicores: 1_000,
            memory_bytes: 1 << 30,
        }
    }

    /// The next grant; waits for no back-off: whoever waits for one is told to go on.
    pub(super) async fn grant(&self, asset: AssetId) -> Option<Grant> {
        self.end_back_offs(asset).await;
        self.control.claim(&[self.offer()]).await.unwrap().pop()
    }

    pub(super) async fn end_back_offs(&self, asset: AssetId) {
        for task in self.app.catalog.tasks_of_asset(asset).await.unwrap() {
            if task.state == TaskState::RetryWait {
                self.app.catalog.end_back_offs(task.not_before_ms).await.unwrap();
            }
        }
    }

    /// The files below this folder of the data directory, with their lengths.
    pub(super) fn files(&self, top: &str) -> Vec<(String, u64)> {
        let root = self.directory.path();
        walkdir::WalkDir::new(root.join(top))
            .into_iter()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| {
                let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                (name, entry.metadata().unwrap().len())
            })
            .collect()
    }

    /// What the world looks like, without ids and numbers of attempts.
    pub(super) async fn end_state(&self, asset: AssetId) -> String {
        let row = self.app.catalog.asset(asset).await.unwrap().unwrap();
        let mut tasks = BTreeMap::new();
        for task in self.app.catalog.tasks_of_asset(asset).await.unwrap() {
            tasks.insert((task.kind, task.ordinal), (task.state, task.failure));
        }
        let publication = self.app.catalog.publication(asset).await.unwrap().unwrap();
        let mut files = Vec::new();
        for top in ["renditions", "publications", "sources", "uploads"] {
            for (name, byte_len) in self.files(top) {
                // The attempt that won is another when one was lost.
                let name: Vec<&str> = name.split('/').filter(|part| !is_id_or_attempt(part)).collect();
                files.push(format!("{} {byte_len}", name.join("/")));
            }
        }
        files.sort();
        let ready = self.app.catalog.events_of_asset(asset, 500).await.unwrap();
        let ready = ready.iter().filter(|event| event.kind == "asset.ready").count();
        format!(
            "{:?} {:?} {:?}\n{tasks:#?}\n{:?} ready events: {ready}\n{files:#?}",
            row.state, row.failure, row.warnings, publication.state
        )
    }
}

fn is_id_or_attempt(part: &&str) -> bool {
    let attempt = part.strip_prefix('a').is_some_and(|number| number.parse::<u32>().is_ok());
    attempt || Uuid::parse_str(part.trim_end_matches(".journal")).is_ok()
}
