//! The client's side of the tus protocol: create, ask for the offset, send a chunk.

use super::{ClientError, SHORT_ANSWER_LIMIT, Server, answered, line::stalled, text};
use futures::StreamExt as _;
use reelyard_upload::tus::{self, Metadata};
use reqwest::{Body, Method, Response, header};
use std::{
    io::SeekFrom,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
};
use tokio_util::io::ReaderStream;

/// Bytes in one PATCH: what is sent between two acknowledgements. A cut connection loses none of it that arrived, so
/// small chunks would only cost syncs.
const CHUNK_BYTES: u64 = 32 << 20;
const READ_BYTES: usize = 256 << 10;

/// What the server says about an upload.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) offset: u64,
    pub(crate) length: Option<u64>,
    pub(crate) asset: Option<String>,
    /// Of the finished upload, as the server computed it, lower-case hexadecimal.
    pub(crate) sha256: Option<String>,
}

/// The address of a new upload.
pub(crate) async fn create(
    server: &Server,
    length: u64,
    metadata: &[(&str, &[u8])],
) -> Result<String, ClientError> {
    let request = server
        .request(Method::POST, server.address("uploads")?)
        .timeout(SHORT_ANSWER_LIMIT)
        .header(tus::header::RESUMABLE, tus::VERSION)
        .header(tus::header::LENGTH, length)
        .header(tus::header::METADATA, Metadata::format(metadata))
        .header(header::CONTENT_LENGTH, 0);
    let answer = answered(request.send().await).await?;
    let address = text(&answer, "location")
        .ok_or_else(|| ClientError::Nonsense("the server made an upload and did not say where".to_owned()))?;
    Ok(server.address(address)?.to_string())
}

pub(crate) async fn standing(server: &Server, upload: &str) -> Result<Standing, ClientError> {
    let request = server
        .request(Method::HEAD, absolute(server, upload)?)
        .timeout(SHORT_ANSWER_LIMIT)
        .header(tus::header::RESUMABLE, tus::VERSION);
    read_standing(&answered(request.send().await).await?)
}

/// Sends one chunk from `offset`. `sent` counts bytes as they leave, for the display.
pub(crate) async fn send_chunk(
    server: &Server,
    upload: &str,
    file: &Path,
    offset: u64,
    length: u64,
    sent: Arc<AtomicU64>,
) -> Result<Standing, ClientError> {
    let unreadable = |error: std::io::Error| ClientError::File(format!("{}: {error}", file.display()));
    let chunk_len = CHUNK_BYTES.min(length - offset);
    let mut source = File::open(file).await.map_err(unreadable)?;
    source.seek(SeekFrom::Start(offset)).await.map_err(unreadable)?;
    sent.store(offset, Ordering::Relaxed);
    let counter = sent.clone();
    let stream = ReaderStream::with_capacity(source.take(chunk_len), READ_BYTES).inspect(move |piece| {
        if let Ok(piece) = piece {
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    });
    let request = server
        .request(Method::PATCH, absolute(server, upload)?)
        .header(tus::header::RESUMABLE, tus::VERSION)
        .header(tus::header::OFFSET, offset)
        .header(header::CONTENT_TYPE, tus::BODY_TYPE)
        .header(header::CONTENT_LENGTH, chunk_len)
        .body(Body::wrap_stream(stream));
    let answer = tokio::select! {
        answer = request.send() => answered(answer).await?,
        stalled = stalled(|| sent.load(Ordering::Relaxed), offset..offset + chunk_len) => return Err(stalled),
    };
    read_standing(&answer)
}

/// The address comes from a file on disk or from the server: in either case it must be the server's.
fn absolute(server: &Server, upload: &str) -> Result<reqwest::Url, ClientError> {
    let address = upload.parse::<reqwest::Url>().ok().filter(|url| url.origin() == server.base().origin());
    address.ok_or_else(|| ClientError::Nonsense(format!("{upload:?} is not an address of {}", server.base())))
}

fn read_standing(answer: &Response) -> Result<Standing, ClientError> {
    let number = |name| text(answer, name).and_then(|text| text.parse::<u64>().ok());
    let offset = number(tus::header::OFFSET).ok_or_else(|| {
        ClientError::Nonsense("the answer has no Upload-Offset; is this a tus server?".to_owned())
    })?;
    Ok(Standing {
        offset,
        length: number(tus::header::LENGTH),
        asset: text(answer, "reelyard-asset").map(str::to_owned),
        sha256: text(answer, "repr-digest").and_then(sha256_of),
    })
}

/// From `sha-256=:BASE64:` (RFC 9530).
fn sha256_of(repr_digest: &str) -> Option<String> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let digest =
        repr_digest.split(',').find_map(|one| one.trim().strip_prefix("sha-256=:")?.strip_suffix(':'))?;
    STANDARD.decode(digest).ok().map(hex::encode)
}
