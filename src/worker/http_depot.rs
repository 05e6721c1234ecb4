//! Bytes from and to the server itself, for workers that reach no store: sources by ranges, outputs one by one.
//!
//! Both name the attempt, and the server refuses what is over. A range or an output that fails is asked for again by
//! the agent.

use super::link::Link;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream::BoxStream};
use reelyard_agent::{
    control::Depot,
    source::{RangeReader, SourceBytes},
};
use reelyard_model::{TaskId, work::Grant};
use reqwest::{Body, Method, StatusCode, header};
use std::{io, ops::Range, path::Path, sync::Arc, time::Duration};
use tokio_util::io::ReaderStream;

/// From the request to the last byte of a range, which is some MiB.
const RANGE_LIMIT: Duration = Duration::from_secs(60);
/// The same for an output; the largest have some 50 MiB.
const OUTPUT_LIMIT: Duration = Duration::from_secs(300);

pub(crate) struct HttpDepot {
    pub(crate) link: Arc<Link>,
}

impl Depot for HttpDepot {
    async fn open_source(&self, grant: &Grant) -> io::Result<SourceBytes> {
        Ok(SourceBytes::Ranges(Arc::new(HttpSource {
            link: self.link.clone(),
            path: format!("v1/worker/attempts/{}/{}/source", grant.task, grant.attempt),
            byte_len: grant.source.byte_len,
        })))
    }

    async fn keep(&self, scratch_file: &Path, key: &str) -> io::Result<()> {
        let (task, attempt, file) = parts_of(key)
            .ok_or_else(|| io::Error::other(format!("{key:?} is not the key of an attempt's output")))?;
        let opened = tokio::fs::File::open(scratch_file).await?;
        let byte_len = opened.metadata().await?.len();
        let path = format!("v1/worker/attempts/{task}/{attempt}/output?file={file}");
        let send = |request: reqwest::RequestBuilder| {
            request
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_LENGTH, byte_len)
                .timeout(OUTPUT_LIMIT)
                .body(Body::wrap_stream(ReaderStream::new(opened)))
        };
        self.link.ask(Method::PUT, &path, send).await?;
        // It lies in the scratch directory of the task, which goes with it: that it stays is no failure.
        let _ = tokio::fs::remove_file(scratch_file).await;
        Ok(())
    }
}

/// `renditions/{asset}/{task}/a{attempt}/{file}` -> task, attempt, file. The characters of such keys need no encoding.
fn parts_of(key: &str) -> Option<(TaskId, u32, &str)> {
    let mut parts = key.splitn(5, '/').skip(2);
    let task = parts.next()?.parse().ok()?;
    let attempt = parts.next()?.strip_prefix('a')?.parse().ok()?;
    Some((task, attempt, parts.next()?))
}

struct HttpSource {
    link: Arc<Link>,
    path: String,
    byte_len: u64,
}

impl RangeReader for HttpSource {
    fn byte_len(&self) -> u64 {
        self.byte_len
    }

    fn read(&self, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>> {
        let (link, path) = (self.link.clone(), self.path.clone());
        async move {
            let wanted = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
            let ask =
                |request: reqwest::RequestBuilder| request.header(header::RANGE, wanted).timeout(RANGE_LIMIT);
            let answer = link.ask(Method::GET, &path, ask).await.map_err(io::Error::from)?;
            // All of it in place of a part would be taken for the part.
            if answer.status() != StatusCode::PARTIAL_CONTENT {
                let detail = format!("a range was asked for, and the answer was {}", answer.status());
                return Err(io::Error::other(detail));
            }
            Ok(answer.bytes_stream().map_err(io::Error::other))
        }
        .into_stream()
        .try_flatten()
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::parts_of;

    #[test]
    fn an_output_is_named_by_its_attempt_and_its_file() {
        let task = "0198c0de-0000-7000-8000-000000000002";
        let key = format!("renditions/0198c0de-0000-7000-8000-000000000001/{task}/a12/1080p/00001.m4s");
        assert_eq!(parts_of(&key), Some((task.parse().unwrap(), 12, "1080p/00001.m4s")));
        for no in [
            "",
            "renditions/a/b/a1/x",
            &format!("renditions/x/{task}/1/x"),
            &format!("renditions/x/{task}/a1"),
        ] {
            assert_eq!(parts_of(no), None, "{no}");
        }
    }
}
