//! A store under test with what a case wants to do to it.

use bytes::Bytes;
use futures::TryStreamExt as _;
use reelyard_model::UploadId;
use reelyard_storage::{ByteStream, LocalStore, Objects, ReceiveError, Terms, UploadStore};
use reelyard_upload::{BodyEnd, ChunkRequest, Transfer, WholeHash};
use std::{path::PathBuf, sync::Arc};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const MIB: usize = 1 << 20;
const LIMIT: u64 = 1 << 40;

pub(crate) struct Bench {
    pub(crate) store: Arc<dyn UploadStore>,
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) keeper: Keeper,
    /// Data directory or scratch directory.
    pub(crate) directory: TempDir,
}

pub(crate) enum Keeper {
    Disk,
    #[cfg(feature = "s3")]
    S3(in_s3::Place),
}

impl Bench {
    pub(crate) fn on_a_disk() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = block_on(LocalStore::open(directory.path())).unwrap();
        let objects = Arc::new(store.clone());
        Self { store: Arc::new(store), objects, keeper: Keeper::Disk, directory }
    }

    /// The process is gone in the middle of whatever it did, and a new one has come up.
    pub(crate) async fn crash(&mut self) {
        match &mut self.keeper {
            Keeper::Disk => self.store = Arc::new(LocalStore::open(self.directory.path()).await.unwrap()),
            #[cfg(feature = "s3")]
            Keeper::S3(place) => {
                place.ledger.change_hands();
                self.store = Arc::new(place.open(self.directory.path()).await.unwrap());
            }
        }
    }

    pub(crate) async fn new_upload(&self, length: Option<u64>) -> UploadId {
        let upload = UploadId::from_uuid(Uuid::now_v7());
        #[cfg(feature = "s3")]
        if let Keeper::S3(place) = &self.keeper {
            place.ledger.add(upload);
        }
        self.store.create_upload(upload, length).await.unwrap();
        upload
    }

    pub(crate) async fn new_parts(&self, length: usize) -> UploadId {
        let upload = UploadId::from_uuid(Uuid::now_v7());
        #[cfg(feature = "s3")]
        if let Keeper::S3(place) = &self.keeper {
            place.ledger.add(upload);
        }
        self.store.create_parts(upload, length as u64).await.unwrap();
        upload
    }

    /// What the catalogue does when an upload is given up: nobody knows it any more.
    pub(crate) fn give_up(&self, _upload: UploadId) {
        #[cfg(feature = "s3")]
        if let Keeper::S3(place) = &self.keeper {
            place.ledger.remove(_upload);
        }
    }

    pub(crate) fn terms(&self, length: Option<u64>) -> Terms {
        let fence = match &self.keeper {
            Keeper::Disk => 0,
            #[cfg(feature = "s3")]
            Keeper::S3(place) => place.ledger.fence(),
        };
        Terms { length, limit: LIMIT, fence }
    }

    pub(crate) async fn offset(&self, upload: UploadId, length: Option<u64>) -> u64 {
        self.store.open_upload(upload, self.terms(length)).await.unwrap().transfer().offset()
    }

    /// A file of this machine, as a child leaves it.
    pub(crate) fn scratch_file(&self, bytes: &[u8]) -> PathBuf {
        let folder = self.directory.path().join("scratch");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(Uuid::now_v7().to_string());
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// One chunk, in batches of the given pieces.
    pub(crate) async fn send(
        &self,
        upload: UploadId,
        length: Option<u64>,
        request: &ChunkRequest,
        pieces: &[&[u8]],
        end: BodyEnd,
    ) -> (u64, Result<Transfer, ReceiveError>) {
        let open = self.store.open_upload(upload, self.terms(length)).await.unwrap();
        let mut receiving = open.begin(request).unwrap();
        for piece in pieces {
            // What is wrong is told again at the end.
            let _ = receiving.write(vec![Bytes::copy_from_slice(piece)]).await;
        }
        receiving.end(end).await
    }

    /// A whole upload in one chunk, finished.
    pub(crate) async fn source(&self, bytes: &[u8]) -> UploadId {
        let length = bytes.len() as u64;
        let upload = self.new_upload(Some(length)).await;
        let batches: Vec<&[u8]> = bytes.chunks(MIB).collect();
        let (_, outcome) = self.send(upload, Some(length), &at(0), &batches, BodyEnd::Complete).await;
        assert_eq!(outcome.unwrap().sha256(), Some(sha256(bytes)));
        self.store.finish_upload(upload, length).await.unwrap();
        upload
    }
}

pub(crate) async fn collected(bytes: ByteStream) -> Vec<u8> {
    bytes.try_collect::<Vec<_>>().await.unwrap().concat()
}

pub(crate) fn at(offset: usize) -> ChunkRequest {
    ChunkRequest { offset: offset as u64, ..ChunkRequest::default() }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = WholeHash::new();
    hash.update(bytes);
    hash.digest()
}

/// Bytes without a pattern that a displaced block could hide in.
pub(crate) fn noise(byte_len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64 ^ byte_len as u64;
    let mut bytes = Vec::with_capacity(byte_len + 8);
    while bytes.len() < byte_len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(byte_len);
    bytes
}

/// Inside a runtime, from a function that is not async.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
}

#[cfg(feature = "s3")]
pub(crate) mod in_s3 {
    use super::{Bench, Keeper, block_on};
    use crate::memory_ledger::MemoryLedger;
    use aws_sdk_s3::{
        Client,
        config::{BehaviorVersion, Credentials, Region},
    };
    use reelyard_model::UploadId;
    use reelyard_storage::{
        StoreError,
        s3::{DEFAULT_OBJECTS_JOINED_AT_ONCE, Patience, S3Config, S3Credentials, S3Settings, S3Store},
    };
    use reelyard_testkit::{ACCESS_KEY_ID, BUCKET, FaultProxy, Kind, Plan, S3Server, SECRET_ACCESS_KEY};
    use std::{
        path::Path,
        sync::Arc,
        time::{Duration, Instant},
    };
    use uuid::Uuid;

    /// A prefix of its own in the bucket of a server, behind a proxy.
    pub(crate) struct Place {
        pub(crate) ledger: Arc<MemoryLedger>,
        pub(crate) proxy: FaultProxy,
        pub(crate) prefix: String,
        pub(crate) kind: Kind,
        /// Of the server itself.
        pub(crate) endpoint: String,
        pub(crate) objects_joined_at_once: usize,
        pub(crate) memory_bytes: u64,
        pub(crate) patience: Patience,
    }

    impl Place {
        pub(crate) async fn open(&self, scratch: &Path) -> Result<S3Store, StoreError> {
            self.open_at(self.proxy.url(), scratch).await
        }

        pub(crate) async fn open_at(&self, endpoint: &str, scratch: &Path) -> Result<S3Store, StoreError> {
            let config = S3Config::parse(&S3Server::url(endpoint, &self.prefix)).unwrap();
            let settings = S3Settings {
                memory_bytes: self.memory_bytes,
                patience: self.patience,
                objects_joined_at_once: self.objects_joined_at_once,
                ..S3Settings::new(scratch)
            };
            S3Store::open(&config, credentials(), self.ledger.clone(), settings).await
        }

        /// A client of the server itself, that sees what is really there.
        pub(crate) fn witness(&self) -> Client {
            let http = aws_smithy_http_client::Builder::new().build_http();
            let settings = aws_sdk_s3::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .http_client(http)
                .region(Region::new("us-east-1"))
                .credentials_provider(Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "test"))
                .force_path_style(true)
                .endpoint_url(&self.endpoint);
            Client::from_conf(settings.build())
        }

        /// Keys of all objects, without the prefix.
        pub(crate) async fn objects(&self) -> Vec<String> {
            let prefix = format!("{}/", self.prefix);
            let list = self.witness().list_objects_v2().bucket(BUCKET).prefix(&prefix).send().await.unwrap();
            let keys = list.contents().iter().filter_map(|object| object.key()?.strip_prefix(&prefix));
            keys.map(str::to_owned).collect()
        }

        /// Multipart uploads that nobody completed or aborted.
        pub(crate) async fn begun(&self) -> usize {
            let prefix = format!("{}/", self.prefix);
            let list = self.witness().list_multipart_uploads().bucket(BUCKET).prefix(&prefix).send().await;
            list.unwrap().uploads().len()
        }

        /// Waits until there are no objects but those that the ledger names: what goes, goes in the background.
        pub(crate) async fn wait_for_no_leftovers(&self, upload: UploadId) {
            let mut named: Vec<_> = self.ledger.state(upload).extents.into_iter().map(|it| it.key).collect();
            named.sort();
            let begin = Instant::now();
            loop {
                let mut there = self.objects().await;
                there.sort();
                if there == named {
                    return;
                }
                assert!(begin.elapsed() < Duration::from_secs(20), "there is {there:?}, named is {named:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    pub(crate) fn credentials() -> S3Credentials {
        S3Credentials {
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret_access_key: SECRET_ACCESS_KEY.to_owned(),
            session_token: None,
        }
    }

    impl Bench {
        pub(crate) fn in_s3(kind: Kind, endpoint: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let place = Place {
                ledger: Arc::default(),
                proxy: FaultProxy::start(endpoint, Plan::calm()),
                prefix: format!("t/{}", Uuid::now_v7()),
                kind,
                endpoint: endpoint.to_owned(),
                objects_joined_at_once: DEFAULT_OBJECTS_JOINED_AT_ONCE,
                // Parts of 1 MiB, so that small uploads show what large ones do.
                memory_bytes: 4 << 20,
                patience: Patience { first_wait_ms: 10, longest_wait_ms: 200, ..Patience::default() },
            };
            let store = block_on(place.open(directory.path())).unwrap();
            let objects = Arc::new(store.objects());
            Self { store: Arc::new(store), objects, keeper: Keeper::S3(place), directory }
        }

        pub(crate) fn place(&mut self) -> &mut Place {
            match &mut self.keeper {
                Keeper::S3(place) => place,
                Keeper::Disk => panic!("this case is for S3"),
            }
        }

        /// The store anew, with settings that were changed.
        pub(crate) async fn reopen(&mut self) {
            let scratch = self.directory.path().to_owned();
            let store = self.place().open(&scratch).await.unwrap();
            self.objects = Arc::new(store.objects());
            self.store = Arc::new(store);
        }
    }
}
