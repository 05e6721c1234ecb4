//! What happens beside an upload while its bytes come in.

use super::{Bench, request};
use crate::flow::sweep;
use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, stream};
use reelyard_model::UploadId;
use std::convert::Infallible;

#[tokio::test]
async fn an_upload_that_is_gone_on_with_at_the_last_moment_is_not_swept_away() {
    let bench = Bench::open().await;
    let version = ("tus-resumable", "1.0.0");
    let created = bench.call("POST", "/uploads", &[version, ("upload-length", "8")]).await;
    let address = created.header("location").to_owned();
    let id: UploadId = address.rsplit('/').next().unwrap().parse().unwrap();
    // Nobody came for so long that its time is over.
    bench.app.catalog.upload_received(id, 0, 1, 2).await.unwrap();
    let app = bench.app.clone();
    let first = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"half")) });
    let second = first.chain(stream::once(async move {
        sweep::files(&app).await;
        Ok(Bytes::from_static(b"done"))
    }));
    let headers = [
        version,
        ("upload-offset", "0"),
        ("content-type", "application/offset+octet-stream"),
        ("content-length", "8"),
    ];
    let answer = bench.send(request("PATCH", &address, &headers, Body::from_stream(second))).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    let asset = answer.header("reelyard-asset").to_owned();
    let stored = bench.app.store.read(&format!("sources/{asset}")).await.unwrap();
    assert_eq!(stored, "halfdone");
}
