//! Bytes from and to the store that the servers use: sources by ranges of the objects that hold them, outputs by key.
//!
//! The grant says which objects hold the source. When one of them is gone, the pieces were joined meanwhile: the server
//! is asked where they are now, once for each time that happens. Keys of outputs hold the attempt, so a worker that
//! comes too late harms nobody; the server sweeps what it wrote.

use super::link::{CallError, Link, SHORT_LIMIT};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use reelyard_agent::{
    control::Depot,
    source::{RangeReader, SourceBytes},
};
use reelyard_model::work::{Grant, SourceLayout};
use reelyard_storage::{Objects, StoreError};
use reqwest::Method;
use std::{
    io,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

pub(crate) struct S3Depot {
    pub(crate) link: Arc<Link>,
    pub(crate) objects: Arc<dyn Objects>,
}

impl Depot for S3Depot {
    async fn open_source(&self, grant: &Grant) -> io::Result<SourceBytes> {
        Ok(SourceBytes::Ranges(Arc::new(StoredSource {
            byte_len: grant.source.byte_len,
            shared: Arc::new(Shared {
                link: self.link.clone(),
                objects: self.objects.clone(),
                path: format!("v1/worker/attempts/{}/{}/layout", grant.task, grant.attempt),
                layout: Mutex::new(Arc::new(grant.source.clone())),
            }),
        })))
    }

    async fn keep(&self, scratch_file: &Path, key: &str) -> io::Result<()> {
        self.objects.put_file(scratch_file, key).await.map_err(io::Error::other)
    }
}

struct StoredSource {
    byte_len: u64,
    shared: Arc<Shared>,
}

struct Shared {
    link: Arc<Link>,
    objects: Arc<dyn Objects>,
    path: String,
    layout: Mutex<Arc<SourceLayout>>,
}

impl RangeReader for StoredSource {
    fn byte_len(&self) -> u64 {
        self.byte_len
    }

    fn read(&self, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>> {
        let shared = self.shared.clone();
        // One piece after the other, each opened when the one before is read.
        stream::try_unfold(range, move |rest| {
            let shared = shared.clone();
            async move {
                if rest.is_empty() {
                    return Ok(None);
                }
                let (bytes, end) = shared.read_piece(&rest).await?;
                Ok::<_, io::Error>(Some((bytes, end..rest.end)))
            }
            .boxed()
        })
        .try_flatten()
        .boxed()
    }
}

impl Shared {
    /// The bytes from the start of `rest` that lie in one object, and where they end.
    async fn read_piece(
        &self,
        rest: &Range<u64>,
    ) -> io::Result<(BoxStream<'static, io::Result<Bytes>>, u64)> {
        let layout = self.layout();
        match self.open_piece(&layout, rest).await {
            Err(StoreError::NotFound { what }) => {
                tracing::info!(what, "a piece of the source was moved; asking where it is now");
                let layout = self.ask_again().await?;
                self.open_piece(&layout, rest).await.map_err(|error| match error {
                    StoreError::NotFound { .. } => io::Error::new(io::ErrorKind::NotFound, error),
                    other => io::Error::other(other),
                })
            }
            opened => opened.map_err(io::Error::other),
        }
    }

    async fn open_piece(
        &self,
        layout: &SourceLayout,
        rest: &Range<u64>,
    ) -> Result<(BoxStream<'static, io::Result<Bytes>>, u64), StoreError> {
        let missing = || StoreError::NotFound { what: format!("the piece of byte {}", rest.start) };
        let piece = layout.piece_at(rest.start).ok_or_else(missing)?;
        let end = rest.end.min(piece.end);
        let within = rest.start - piece.start..end - piece.start;
        let bytes = self.objects.read_range(&piece.key, within).await?;
        Ok((bytes.map_err(io::Error::other).boxed(), end))
    }

    async fn ask_again(&self) -> io::Result<Arc<SourceLayout>> {
        let answer = self.link.ask(Method::GET, &self.path, |request| request.timeout(SHORT_LIMIT)).await?;
        let layout: SourceLayout = answer
            .json()
            .await
            .map_err(|error| CallError::Away(format!("where the source lies: {error}")))?;
        let layout = Arc::new(layout);
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = layout.clone();
        Ok(layout)
    }

    fn layout(&self) -> Arc<SourceLayout> {
        self.layout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
