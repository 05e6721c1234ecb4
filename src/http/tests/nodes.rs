//! Two nodes on one catalogue and one store: an upload goes from one to the other.

use super::{Answer, Place, app, request, send};
use crate::{app::App, holders::Holders, ledger::CatalogLedger};
use axum::{Router, body::Body};
use bytes::Bytes;
use reelyard_catalog::Catalog;
use reelyard_storage::s3::{S3Config, S3Credentials, S3Settings, S3Store};
use reelyard_testkit::{ACCESS_KEY_ID, Kind, S3Server, SECRET_ACCESS_KEY};
use std::{
    convert::Infallible,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

const VERSION: (&str, &str) = ("tus-resumable", "1.0.0");
const BODY_TYPE: (&str, &str) = ("content-type", "application/offset+octet-stream");
/// The target of a hand-over between nodes; here for the median, since a busy machine holds up a single one.
const HAND_OVER: Duration = Duration::from_secs(2);
/// For each of them: below the ten seconds after which a node that says nothing loses what it holds, so it was asked.
const SLOWEST_HAND_OVER: Duration = Duration::from_secs(8);
const HAND_OVERS: usize = 20;

struct Node {
    app: Arc<App>,
    router: Router,
}

impl Node {
    async fn start(name: &str, folder: &Path, server: &S3Server) -> Self {
        let catalog = Catalog::open(&folder.join("catalog.sqlite")).await.unwrap();
        let own = folder.join(name);
        std::fs::create_dir(&own).unwrap();
        let config = S3Config::parse(&S3Server::url(&server.endpoint(), "nodes")).unwrap();
        let credentials = S3Credentials {
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret_access_key: SECRET_ACCESS_KEY.to_owned(),
            session_token: None,
        };
        let ledger = Arc::new(CatalogLedger(catalog.clone()));
        let store = S3Store::open(&config, credentials, ledger, S3Settings::new(&own)).await.unwrap();
        let holders = Holders::among_nodes(catalog.clone(), name.to_owned());
        let objects = Arc::new(store.objects());
        let place = Place { uploads: Arc::new(store), objects, holders, in_pieces: true };
        let app = app(&own, catalog, place, true).await;
        let minding = app.clone();
        tokio::spawn(async move {
            minding.holders.run(minding.shutdown.clone(), || minding.now_ms()).await;
        });
        Self { router: crate::http::router(app.clone()), app }
    }

    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let all: Vec<_> = [VERSION].iter().chain(headers).copied().collect();
        send(&self.router, request(method, path, &all, body)).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.app.shutdown.cancel();
    }
}

async fn two_nodes(folder: &Path, server: &S3Server) -> (Node, Node) {
    (Node::start("a", folder, server).await, Node::start("b", folder, server).await)
}

/// A body that has begun and does not go on.
fn stalled(beginning: &'static [u8]) -> (Body, mpsc::Sender<Bytes>) {
    let (sender, receiver) = mpsc::channel(4);
    sender.try_send(Bytes::from_static(beginning)).unwrap();
    let pieces = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (Ok::<_, Infallible>(piece), receiver))
    });
    (Body::from_stream(pieces), sender)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stalls_on_one_node_goes_on_at_another_at_the_exact_byte() {
    let Some(server) = S3Server::start(Kind::SeaweedFs) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = two_nodes(folder.path(), &server).await;
    let mut took = Vec::new();
    for _ in 0..HAND_OVERS {
        let created = a.call("POST", "/uploads", &[("upload-length", "10")], Body::empty()).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let path = created.header("location").to_owned();
        let (body, still_open) = stalled(b"hello");
        let stalling = tokio::spawn({
            let (router, path) = (a.router.clone(), path.clone());
            async move {
                let headers = [VERSION, BODY_TYPE, ("upload-offset", "0"), ("content-length", "10")];
                send(&router, request("PATCH", &path, &headers, body)).await
            }
        });
        // Until node A has read what there is; before that there would be nothing to hand over.
        while still_open.capacity() < still_open.max_capacity() {
            tokio::task::yield_now().await;
        }
        let begin = Instant::now();
        let head = b.call("HEAD", &path, &[], Body::empty()).await;
        took.push(begin.elapsed());
        assert_eq!((head.status.as_u16(), head.header("upload-offset")), (200, "5"), "{}", head.text());
        assert_eq!(stalling.await.unwrap().status, 423, "the first one was told");
        let headers = [BODY_TYPE, ("upload-offset", "5"), ("content-length", "5")];
        let done = b.call("PATCH", &path, &headers, Body::from("world")).await;
        assert_eq!(done.status, 204, "{}", done.text());
        let read = a.call("GET", &path, &[], Body::empty()).await;
        assert_eq!(read.body, b"helloworld", "and the first node sees it all");
    }
    took.sort();
    let (median, slowest) = (took[HAND_OVERS / 2], took[HAND_OVERS - 1]);
    eprintln!("of {HAND_OVERS} hand-overs between nodes: median {median:?}, slowest {slowest:?}");
    assert!(median <= HAND_OVER && slowest <= SLOWEST_HAND_OVER, "{took:?}");
}
