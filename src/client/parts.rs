//! The client's side of uploads in parts (begin, ask what is durable, send a part, complete, give up), and of uploads
//! without a body, which are begun alike.
//!
//! One function per request; who tries again, and when, is `transfer`. What the server says is checked here: a caller
//! gets numbers that make sense or [`ClientError::Nonsense`].

use super::{
    ClientError, SHORT_ANSWER_LIMIT, Server, answered,
    line::{SentBytes, stalled},
    text, unreachable,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::StreamExt as _;
use reelyard_upload::parts::header as field;
use reqwest::{Body, Method, RequestBuilder, Response, header};
use serde::Deserialize;
use serde_json::json;
use std::{ops::Range, sync::Arc, time::Duration};

const PATH: &str = "uploads/parts";
const POSSESSION_PATH: &str = "uploads/possession";
/// The body of a part goes to the network in pieces of this size, each counted for the display.
const PIECE_BYTES: usize = 256 << 10;
/// The list of 10,000 parts, the most there are, with room.
const MAX_LIST_BYTES: usize = 4 << 20;
/// Completing may have to hash what was not hashed on the way, at a GiB in about a second, and to put it together.
const COMPLETION_LIMIT: Duration = Duration::from_secs(10 * 60);

/// What a new upload is told.
pub(crate) struct Opening<'a> {
    pub(crate) length: u64,
    pub(crate) file_name: &'a str,
    pub(crate) preset: Option<&'a str>,
    pub(crate) title: Option<&'a str>,
    pub(crate) tier: Option<&'a str>,
}

impl Opening<'_> {
    fn body(&self) -> serde_json::Value {
        let mut body = json!({ "length": self.length, "filename": self.file_name });
        for (key, value) in [("preset", self.preset), ("title", self.title), ("tier", self.tier)] {
            if let Some(value) = value {
                body[key] = json!(value);
            }
        }
        body
    }
}

pub(crate) struct Begun {
    pub(crate) id: String,
    /// The size of parts that the server recommends.
    pub(crate) part_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredPart {
    pub(crate) number: u32,
    pub(crate) range: Range<u64>,
    pub(crate) sha256: String,
}

pub(crate) struct Standing {
    pub(crate) length: u64,
    /// Of a complete upload they may not be kept apart any more.
    pub(crate) parts: Vec<StoredPart>,
    pub(crate) is_complete: bool,
}

pub(crate) struct Made {
    pub(crate) asset: String,
    pub(crate) sha256: Option<String>,
}

/// A part with its bytes.
pub(crate) struct Part {
    pub(crate) number: u32,
    pub(crate) range: Range<u64>,
    pub(crate) bytes: Bytes,
    pub(crate) sha256: [u8; 32],
}

#[derive(Deserialize)]
struct ListAnswer {
    length: u64,
    asset: Option<String>,
    parts: Vec<ListEntry>,
}

#[derive(Deserialize)]
struct ListEntry {
    part_number: u32,
    first_byte: u64,
    last_byte: u64,
    etag: String,
}

/// What to hash in proof of having the file.
pub(crate) struct Question {
    pub(crate) challenge: String,
    pub(crate) nonce: [u8; 32],
    pub(crate) ranges: Vec<Range<u64>>,
}

#[derive(Deserialize)]
struct QuestionAnswer {
    challenge: String,
    nonce: String,
    ranges: Vec<Piece>,
}

#[derive(Deserialize)]
struct Piece {
    offset: u64,
    length: u64,
}

#[derive(Deserialize)]
pub(crate) struct MadeWithoutBytes {
    pub(crate) upload_id: String,
    pub(crate) asset: String,
    pub(crate) sha256: String,
}

#[derive(Deserialize)]
struct MadeAnswer {
    asset: String,
    sha256: Option<String>,
}

pub(crate) async fn begin(server: &Server, opening: &Opening<'_>) -> Result<Begun, ClientError> {
    let request = server.request(Method::POST, server.address(PATH)?);
    let request = request.timeout(SHORT_ANSWER_LIMIT).json(&opening.body());
    let answer = answered(request.send().await).await?;
    let id = text(&answer, field::UPLOAD_ID).map(str::to_owned);
    let part_bytes = text(&answer, field::PART_SIZE).and_then(|text| text.parse().ok());
    match (id, part_bytes) {
        (Some(id), Some(part_bytes)) if part_bytes > 0 => Ok(Begun { id, part_bytes }),
        _ => Err(ClientError::Nonsense(
            "the server began an upload and did not say which, or in what parts".to_owned(),
        )),
    }
}

pub(crate) async fn standing(server: &Server, id: &str) -> Result<Standing, ClientError> {
    let request = about(server, Method::GET, PATH, id)?.timeout(SHORT_ANSWER_LIMIT);
    let told: ListAnswer = read_json(answered(request.send().await).await?).await?;
    let parts = told.parts.into_iter().map(|entry| StoredPart {
        number: entry.part_number,
        range: entry.first_byte..entry.last_byte.saturating_add(1),
        sha256: entry.etag.trim_matches('"').to_owned(),
    });
    Ok(Standing { length: told.length, parts: parts.collect(), is_complete: told.asset.is_some() })
}

/// Sends one part; the SHA-256 of what the server stored, as it says. `sent` counts the bytes that leave.
pub(crate) async fn put(
    server: &Server,
    id: &str,
    part: &Part,
    total: u64,
    sent: &Arc<SentBytes>,
) -> Result<String, ClientError> {
    sent.set(0);
    let (counter, bytes) = (sent.clone(), part.bytes.clone());
    let pieces = (0..bytes.len()).step_by(PIECE_BYTES).map(move |start| {
        let piece = bytes.slice(start..bytes.len().min(start + PIECE_BYTES));
        Ok::<_, std::io::Error>(piece)
    });
    let stream = futures::stream::iter(pieces).inspect(move |piece| {
        if let Ok(piece) = piece {
            counter.add(piece.len() as u64);
        }
    });
    let request = about(server, Method::PUT, PATH, id)?
        .header(field::PART_NUMBER, part.number)
        .header(field::CONTENT_RANGE, format!("bytes {}-{}/{total}", part.range.start, part.range.end - 1))
        .header("content-digest", digest_field(&part.sha256))
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, part.bytes.len())
        .body(Body::wrap_stream(stream));
    let answer = tokio::select! {
        answer = request.send() => answered(answer).await?,
        stalled = stalled(|| sent.get(), 0..part.bytes.len() as u64) => return Err(stalled),
    };
    let etag = text(&answer, header::ETAG.as_str());
    etag.map(|etag| etag.trim_matches('"').to_owned())
        .ok_or_else(|| ClientError::Nonsense("the server took a part and answers no ETag".to_owned()))
}

/// `parts`: number and SHA-256 of each. `whole`: of the file.
pub(crate) async fn complete(
    server: &Server,
    id: &str,
    parts: impl Iterator<Item = (u32, String)>,
    whole: &[u8; 32],
) -> Result<Made, ClientError> {
    let parts: Vec<_> = parts.map(|(number, etag)| json!({ "part_number": number, "etag": etag })).collect();
    let request = about(server, Method::POST, &format!("{PATH}/complete"), id)?
        .timeout(COMPLETION_LIMIT)
        .header("repr-digest", digest_field(whole))
        .json(&json!({ "parts": parts }));
    let made: MadeAnswer = read_json(answered(request.send().await).await?).await?;
    Ok(Made { asset: made.asset, sha256: made.sha256 })
}

/// What was sent of it is not wanted any more. Gone already is as good.
pub(crate) async fn give_up(server: &Server, id: &str) -> Result<(), ClientError> {
    let request = about(server, Method::DELETE, PATH, id)?.timeout(SHORT_ANSWER_LIMIT);
    match answered(request.send().await).await {
        Ok(_) | Err(ClientError::Refused { status: 404 | 410, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Asks for an upload without its bytes, by the whole's SHA-256 in hexadecimal.
pub(crate) async fn ask_possession(
    server: &Server,
    opening: &Opening<'_>,
    sha256: &str,
) -> Result<Question, ClientError> {
    let mut body = opening.body();
    body["sha256"] = json!(sha256);
    let request = server.request(Method::POST, server.address(POSSESSION_PATH)?);
    let request = request.timeout(SHORT_ANSWER_LIMIT).json(&body);
    let told: QuestionAnswer = read_json(answered(request.send().await).await?).await?;
    let nonce = hex::decode(&told.nonce).ok().and_then(|nonce| nonce.try_into().ok());
    let nonce = nonce.ok_or_else(|| ClientError::Nonsense("the server's nonce is none".to_owned()))?;
    let ranges = told.ranges.iter().map(|piece| piece.offset..piece.offset.saturating_add(piece.length));
    Ok(Question { challenge: told.challenge, nonce, ranges: ranges.collect() })
}

pub(crate) async fn show_possession(
    server: &Server,
    challenge: &str,
    proof: &[u8; 32],
) -> Result<MadeWithoutBytes, ClientError> {
    let address = server.address(&format!("{POSSESSION_PATH}/{challenge}"))?;
    let request = server.request(Method::POST, address).timeout(SHORT_ANSWER_LIMIT);
    let request = request.json(&json!({ "proof": hex::encode(proof) }));
    read_json(answered(request.send().await).await?).await
}

fn about(server: &Server, method: Method, path: &str, id: &str) -> Result<RequestBuilder, ClientError> {
    Ok(server.request(method, server.address(path)?).header(field::UPLOAD_ID, id))
}

/// As `Content-Digest` and `Repr-Digest` have it (RFC 9530).
fn digest_field(sha256: &[u8; 32]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(sha256))
}

async fn read_json<T: for<'de> Deserialize<'de>>(mut answer: Response) -> Result<T, ClientError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_LIST_BYTES {
            return Err(ClientError::Nonsense("the server's answer has no end".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|error| {
        ClientError::Nonsense(format!("the server's answer is not what a Reelyard says: {error}"))
    })
}
