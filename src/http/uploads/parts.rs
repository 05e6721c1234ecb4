//! Uploads in parts on the wire: `/uploads/parts` and `/uploads/parts/complete`, a thin shell over
//! `reelyard_upload::parts`.
//!
//! Parts of one upload are received side by side; of one part the newest request wins, and the one before it stops. The
//! asset is made when the client completes the upload, once, and asking again gives the same answer. A client that goes
//! away in the middle of a part has to send that part again, and nothing else.

use super::{
    answer::{self, HeaderFields},
    body::{self, Ended, Stop},
    receive, resource,
};
use crate::{
    app::App,
    flow::{
        self, FlowError,
        receive::{Announcement, UPLOAD_EXPIRES_AFTER_MS, Whole},
    },
    http::{
        auth::Uploader,
        problem::{Kind, Problem},
        trace,
    },
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::CONTENT_RANGE};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use reelyard_catalog::{CatalogError, UploadRow};
use reelyard_model::{AssetId, Completion as Completes, UploadId, UploadKind, UploadState};
use reelyard_sign::upload_token::{Use, Wish};
use reelyard_storage::PartError;
use reelyard_upload::{
    BodyEnd,
    parts::{
        ByteRange, Completion, DurablePart, Listing, MAX_COMPLETION_BYTES, MAX_OPENING_BYTES, Opening,
        PartRefusal, PartRequest, PartSet, PartSettled, PartSizes, PartUpload, PartsError, header, upload_id,
    },
};
use serde::Serialize;
use std::{ops::Deref, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tracing::Instrument as _;

const PATH: &str = "/uploads/parts";
/// The row is told how much is there (for display and expiry) at most so often; the store always knows it.
const ROW_UPDATE_INTERVAL_MS: i64 = 30_000;
/// JSON bodies are small: whoever needs longer for one is not sending it.
const JSON_BODY_LIMIT: Duration = Duration::from_secs(30);
/// JSON bodies of uploads that are in memory at a time: 32 of the longest are 64 MiB, and a list is read in milliseconds.
const MAX_JSON_BODIES: usize = 32;
static JSON_BODIES: Semaphore = Semaphore::const_new(MAX_JSON_BODIES);
/// For bodies that do not have the digest they came with (draft-ietf-httpapi-digest-fields-problem-types).
const MISMATCHING_DIGEST: (&str, &str) = (
    "https://iana.org/assignments/http-problem-types#digest-mismatching-values",
    "Mismatching Digest Values",
);

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/uploads/parts", any(collection))
        .route("/uploads/parts/", any(collection))
        .route("/uploads/parts/complete", any(complete))
        .route("/uploads/parts/complete/", any(complete))
}

/// Of this dialect.
pub(super) fn is_path(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What the handlers of one request share.
struct Asked {
    app: Arc<App>,
    by: Uploader,
    headers: HeaderMap,
    body: Body,
}

async fn asked(app: Arc<App>, request: Request) -> Result<Asked, Problem> {
    let (parts, body) = request.into_parts();
    match Uploader::of_request(&app, &parts.headers, &parts.extensions).await {
        Ok(by) => Ok(Asked { app, by, headers: parts.headers, body }),
        Err(problem) => Err(body::refuse(body, problem).await),
    }
}

async fn collection(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    match *request.method() {
        Method::OPTIONS => Ok(answer::options(app.max_upload_bytes)),
        Method::POST => open(asked(app, request).await?).await,
        Method::PUT => put(asked(app, request).await?).await,
        Method::GET | Method::HEAD => list(asked(app, request).await?).await,
        Method::DELETE => give_up(asked(app, request).await?).await,
        _ => Err(answer::method_not_allowed("OPTIONS, POST, PUT, HEAD, GET, DELETE")),
    }
}

async fn complete(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    match *request.method() {
        Method::OPTIONS => Ok(answer::options(app.max_upload_bytes)),
        Method::POST => finish(asked(app, request).await?).await,
        _ => Err(answer::method_not_allowed("OPTIONS, POST")),
    }
}

/// POST: begins an upload.
async fn open(asked: Asked) -> Result<Response, Problem> {
    let Asked { app, by, headers, body } = asked;
    let body = match by.may_create() {
        Ok(()) => json_body(body, MAX_OPENING_BYTES).await?,
        Err(problem) => return Err(body::refuse(body, problem).await),
    };
    let opening = Opening::read(&HeaderFields(&headers), &body, app.max_upload_bytes).map_err(refusal)?;
    drop(body);
    let metadata = &opening.metadata;
    let permit = by.may_begin(
        &app,
        Wish {
            length: Some(opening.length),
            media_type: metadata.text("filetype").or(metadata.text("type")),
            preset: metadata.text("preset"),
            is_piece: false,
        },
    )?;
    let permit = by.within_tier(permit, metadata.text("tier"))?;
    resource::check_room(&app, opening.length).await?;
    let announcement = Announcement {
        tenant: by.tenant,
        grant: permit.grant,
        kind: UploadKind::Parts,
        completion: Completes::Declared,
        partials: Vec::new(),
        concat_header: None,
        expected_sha256: opening.expected,
        byte_len: Some(opening.length),
        file_name: metadata.text("filename").or(metadata.text("name")).map(str::to_owned),
        metadata: metadata.header().to_owned(),
        preset: permit.preset.or(metadata.text("preset").map(str::to_owned)),
        priority: permit.priority,
        traceparent: Some(trace::current_traceparent()),
    };
    let row = flow::receive::create(&app, announcement).await.map_err(receive::flow_problem)?;
    let sizes = PartSizes::of(opening.length);
    let mut headers = HeaderMap::new();
    answer::put_text(&mut headers, "location", &format!("/uploads/{}", row.id));
    answer::put_text(&mut headers, header::UPLOAD_ID, &row.id.to_string());
    answer::put_number(&mut headers, header::PART_SIZE, sizes.recommended);
    answer::put_number(&mut headers, header::PART_MIN_SIZE, sizes.min);
    answer::put_number(&mut headers, header::PART_MAX_SIZE, sizes.max);
    answer::put_number(&mut headers, header::PARTS_MAX, u64::from(sizes.count));
    Ok((StatusCode::CREATED, headers).into_response())
}

/// The whole of a small body, and its place among [`MAX_JSON_BODIES`].
pub(super) struct JsonBody {
    bytes: Vec<u8>,
    _place: SemaphorePermit<'static>,
}

impl Deref for JsonBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// For those who may send one: who that is should be known before. To be dropped as soon as it is understood.
pub(super) async fn json_body(body: Body, max_bytes: usize) -> Result<JsonBody, Problem> {
    let Ok(Ok(place)) = timeout(JSON_BODY_LIMIT, JSON_BODIES.acquire()).await else {
        let problem = Problem::unavailable("The server reads as many lists as it can; try again soon.", 2);
        return Err(body::refuse(body, problem).await);
    };
    let collected = timeout(JSON_BODY_LIMIT, Limited::new(body, max_bytes).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(JsonBody { bytes: collected.to_bytes().to_vec(), _place: place }),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail =
                format!("The JSON body is longer than {max_bytes} bytes; send only what is asked for.");
            Err(Problem::new(Kind::TooLarge, detail).with("max_bytes", max_bytes))
        }
        _ => Err(Problem::new(Kind::BadRequest, "The JSON body did not come whole; send it again.")),
    }
}

/// The upload of the request, if it is one in parts and the caller's.
async fn owned(app: &App, by: &Uploader, id: UploadId, wanted: Use) -> Result<(UploadRow, u64), Problem> {
    let row = resource::owned(app, by, id, wanted).await?;
    match (row.kind, row.byte_len) {
        (UploadKind::Parts, Some(length)) => Ok((row, length)),
        _ => Err(Problem::new(
            Kind::StateConflict,
            "This upload was not begun at /uploads/parts and takes no parts; send its bytes to /uploads/{id}.",
        )),
    }
}

/// PUT: one part.
async fn put(asked: Asked) -> Result<Response, Problem> {
    let Asked { app, by, headers, body } = asked;
    let prepared = async {
        let part = PartUpload::read(&HeaderFields(&headers)).map_err(refusal)?;
        let (row, length) = owned(&app, &by, part.upload, Use::Continue).await?;
        by.check_length(length)?;
        let part = part.within(length).map_err(|error| refusal_within(error, length))?;
        Ok((row, part))
    };
    let (row, part) = match prepared.await {
        Ok(prepared) => prepared,
        Err(problem) => return Err(body::refuse(body, problem).await),
    };
    // In a task of its own: when the client goes away this handler is dropped, and the part has to be let go in order.
    let receiving = receive_part(app, by, row, part, body).in_current_span();
    let part = tokio::spawn(receiving).await.map_err(Problem::internal)??;
    let mut headers = HeaderMap::new();
    answer::put_text(&mut headers, "etag", &part.etag());
    answer::put_number(&mut headers, header::PART_NUMBER, u64::from(part.number));
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}

async fn receive_part(
    app: Arc<App>,
    by: Uploader,
    row: UploadRow,
    part: PartRequest,
    body: Body,
) -> Result<DurablePart, Problem> {
    let body_len = part.range.end - part.range.start;
    let begun = async {
        let hold = app.holders.take_over_part(row.id, part.number).await.map_err(receive::hold_problem)?;
        let seat = (app.limits.bodies.enter(row.id)?, by.sit(&app, hold.stop()).await?);
        // The row is told of the bytes when they have come; until then the upload must not expire under them.
        let takes_bytes = matches!(row.state, UploadState::Created | UploadState::Receiving);
        if takes_bytes && row.expires_ms - app.now_ms() < UPLOAD_EXPIRES_AFTER_MS / 2 {
            flow::receive::received(&app, row.id, row.byte_offset).await.map_err(receive::flow_problem)?;
        }
        let terms = flow::receive::terms(&app, &row, 0);
        let receiving = app.uploads.begin_part(row.id, terms, &part).await;
        Ok((hold, seat, receiving.map_err(|error| part_problem(error, &row))?))
    };
    let (hold, _seat, mut receiving) = match begun.await {
        Ok(begun) => begun,
        Err(problem) => return Err(body::refuse(body, problem).await),
    };
    let stop = Stop { limits: &app.limits, taken_over: hold.stop(), shutdown: &app.shutdown };
    let ended = body::receive(body, Some(body_len), &mut receiving, stop, |_| {}).await;
    let end = match &ended {
        Ok(Ended::Complete(_)) => BodyEnd::Complete,
        _ => BodyEnd::Cut,
    };
    let settled = receiving.end(end).await;
    let part = match (ended, settled) {
        (Err(error), _) | (Ok(Ended::Complete(_)), Err(error)) => return Err(part_problem(error, &row)),
        (Ok(Ended::Complete(_)), Ok(PartSettled::Store(part))) => {
            metrics::counter!("reelyard_upload_stored_bytes_total").increment(body_len);
            landed(&app, &row).await;
            part
        }
        (Ok(Ended::Complete(_)), Ok(PartSettled::AlreadyThere(part))) => part,
        (Ok(short), _) => return Err(short_problem(&row, part.number, &short)),
    };
    Ok(part)
}

/// A part is durable: the row hears of it, and the hash of the whole goes on in the background.
async fn landed(app: &Arc<App>, row: &UploadRow) {
    let terms = flow::receive::terms(app, row, 0);
    let due = row.state == UploadState::Created || app.now_ms() - row.updated_ms >= ROW_UPDATE_INTERVAL_MS;
    if due {
        let told = async {
            let set = app.uploads.part_set(row.id, terms).await?;
            flow::receive::received(app, row.id, set.durable_bytes()).await
        };
        if let Err(error) = told.await {
            tracing::warn!(upload = %row.id, %error, "receive: the row was not told of a part; its bytes are safe");
        }
    }
    let (app, id) = (app.clone(), row.id);
    let hashing = async move {
        if let Err(error) = app.uploads.hash_parts(id, terms).await {
            tracing::debug!(upload = %id, %error, "receive: not hashed ahead; completing does it");
        }
    };
    tokio::spawn(hashing.in_current_span());
}

/// GET: what is durable.
#[derive(Serialize)]
struct Standing {
    upload_id: String,
    /// Only once the upload is complete and its asset is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    asset: Option<String>,
    part_size: u64,
    #[serde(flatten)]
    listing: Listing,
}

async fn list(asked: Asked) -> Result<Response, Problem> {
    let Asked { app, by, headers, .. } = asked;
    let id = upload_id(&HeaderFields(&headers)).map_err(refusal)?;
    let (row, length) = owned(&app, &by, id, Use::Continue).await?;
    let listing = part_set(&app, &row).await?.map_or(Listing::complete(length), |set| Listing::from(&set));
    let mut headers = HeaderMap::new();
    answer::put(&mut headers, "cache-control", "no-store");
    answer::put_asset(&mut headers, row.asset);
    let standing = Standing {
        upload_id: id.to_string(),
        asset: row.asset.map(|asset| asset.to_string()),
        part_size: PartSizes::of(length).recommended,
        listing,
    };
    Ok((headers, Json(standing)).into_response())
}

/// `None`: the upload is complete, and nothing is kept of its parts any more.
async fn part_set(app: &App, row: &UploadRow) -> Result<Option<PartSet>, Problem> {
    let terms = flow::receive::terms(app, row, 0);
    match app.uploads.part_set(row.id, terms).await {
        Ok(set) => Ok(Some(set)),
        Err(error) if error.is_not_found() && row.asset.is_some() => Ok(None),
        Err(error) => Err(part_problem(error.into(), row)),
    }
}

/// DELETE: the owner gives it up. The asset of a complete upload stays.
async fn give_up(asked: Asked) -> Result<Response, Problem> {
    let Asked { app, by, headers, .. } = asked;
    let id = upload_id(&HeaderFields(&headers)).map_err(refusal)?;
    owned(&app, &by, id, Use::Terminate).await?;
    resource::terminate(&app, &by, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// POST to `complete`: all parts are there, and this is the list of them.
async fn finish(asked: Asked) -> Result<Response, Problem> {
    let Asked { app, by, headers, body } = asked;
    let fields = HeaderFields(&headers);
    let known = async {
        let id = upload_id(&fields).map_err(refusal)?;
        owned(&app, &by, id, Use::Continue).await
    };
    let (_, length) = match known.await {
        Ok(known) => known,
        Err(problem) => return Err(body::refuse(body, problem).await),
    };
    let body = json_body(body, MAX_COMPLETION_BYTES).await?;
    let completion = Completion::read(&fields, &body).map_err(refusal)?;
    drop(body);
    by.may_finish(&app, length).await?;
    // In a task of its own: a client that goes away gets the same answer when it asks again.
    let making = make_asset(app.clone(), completion.clone()).in_current_span();
    let asset = tokio::spawn(making).await.map_err(Problem::internal)??;
    let row = resource::live(&app, completion.upload).await?;
    let mut headers = HeaderMap::new();
    answer::put_text(&mut headers, "location", &format!("/uploads/{}", row.id));
    answer::put_asset(&mut headers, Some(asset));
    if let Some(sha256) = &row.sha256 {
        answer::put_digest(&mut headers, sha256);
    }
    let made = Made {
        upload_id: row.id.to_string(),
        asset: asset.to_string(),
        length: row.byte_len,
        sha256: row.sha256,
    };
    Ok((headers, Json(made)).into_response())
}

#[derive(Serialize)]
struct Made {
    upload_id: String,
    asset: String,
    length: Option<u64>,
    sha256: Option<String>,
}

/// One request at a time; the others find the asset.
async fn make_asset(app: Arc<App>, completion: Completion) -> Result<AssetId, Problem> {
    let id = completion.upload;
    let _hold = app.holders.take_over(id).await.map_err(receive::hold_problem)?;
    let row = resource::live(&app, id).await?;
    if let Some(set) = part_set(&app, &row).await? {
        let checked = set.check_complete(&completion.list);
        checked.map_err(|refused| refusal_within(refused.into(), set.length()))?;
    }
    let expected = completion.expected.map(hex::encode);
    if let Some(asset) = row.asset {
        return match (expected, row.sha256) {
            (Some(expected), Some(found)) if expected != found => Err(other_whole(&expected, &found)),
            _ => Ok(asset),
        };
    }
    if let Some(expected) = &expected
        && !app.catalog.expect_digest(id, expected, app.now_ms()).await?
    {
        let announced = row.expected_sha256.unwrap_or_default();
        return Err(other_whole(expected, &announced));
    }
    let terms = flow::receive::terms(&app, &row, 0);
    let transfer = app.uploads.hash_parts(id, terms).await.map_err(answer::store_problem)?;
    let whole = Whole::of(&transfer).map_err(receive::flow_problem)?;
    flow::receive::finish(&app, id, &whole).await.map_err(|error| match error {
        FlowError::OtherBytes { .. } | FlowError::Catalog(CatalogError::OverQuota(_)) => {
            receive::flow_problem(error)
        }
        _ => Problem::unavailable(
            "All parts are stored, but the video could not be made yet. Complete the upload again in a moment.",
            2,
        )
        .with_log(error),
    })
}

fn other_whole(told: &str, known: &str) -> Problem {
    let detail = format!(
        "The digest {told} was told now, and the upload has {known}. Send the file again as a new upload if it has changed, else complete without a digest."
    );
    Problem::new(Kind::PartConflict, detail)
}

fn part_problem(error: PartError, row: &UploadRow) -> Problem {
    match error {
        PartError::Refused(refused) => refusal_within(refused.into(), row.byte_len.unwrap_or_default()),
        PartError::Store(error) if error.is_not_found() && row.asset.is_some() => {
            Problem::new(Kind::StateConflict, "This upload is complete; nothing is left to be sent.")
        }
        // What a crash in the middle of a creation leaves: nobody was told of that upload.
        PartError::Store(error) if error.is_not_found() && row.state == UploadState::Created => {
            Problem::new(Kind::Gone, "This upload was never begun, or has ended; begin a new one.")
        }
        PartError::Store(error) => answer::store_problem(error),
    }
}

fn short_problem(row: &UploadRow, number: u32, ended: &Ended) -> Problem {
    match ended {
        Ended::TakenOver => {
            metrics::counter!("reelyard_upload_hand_overs_total").increment(1);
            let detail = format!("Part {number} is sent by a newer request, or the upload has ended.");
            Problem::new(Kind::Locked, detail)
        }
        Ended::Shutdown => Problem::unavailable(
            "The server is stopping. Send this part again in a moment; the others are safe.",
            2,
        ),
        Ended::TooSlow(slow) => receive::too_slow(*slow),
        Ended::Complete(_) | Ended::Disconnected => {
            tracing::debug!(upload = %row.id, number, ?ended, "receive: the client went away in a part");
            let detail = format!("The body of part {number} ended early; send the part again.");
            Problem::new(Kind::BadRequest, detail)
        }
    }
}

/// Before anything is known of the upload.
pub(super) fn refusal(error: PartsError) -> Problem {
    refusal_within(error, 0)
}

fn refusal_within(error: PartsError, length: u64) -> Problem {
    let text = answer::sentence(&error.to_string());
    let problem = match error.status() {
        413 => Problem::new(Kind::TooLarge, text),
        416 => range_problem(text, length),
        409 => Problem::new(Kind::PartConflict, text),
        _ => Problem::new(Kind::BadRequest, text),
    };
    match error {
        PartsError::TooLarge { max, .. } => problem.with("max_bytes", max),
        PartsError::TotalDiffers { length, .. } => problem.with("length", length),
        PartsError::Refused(PartRefusal::NotWhole { missing }) => {
            let missing: Vec<ByteRange> = missing.iter().map(ByteRange::from).collect();
            let text = problem.detail().to_owned();
            let missing = serde_json::to_value(missing).unwrap_or_default();
            Problem::new(Kind::PartsMissing, text).with("missing", missing)
        }
        PartsError::Refused(PartRefusal::ChecksumMismatch { .. }) => {
            problem.with_type(MISMATCHING_DIGEST.0, MISMATCHING_DIGEST.1)
        }
        _ => problem,
    }
}

fn range_problem(text: String, length: u64) -> Problem {
    let problem = Problem::new(Kind::RangeNotSatisfiable, text);
    match HeaderValue::from_str(&format!("bytes */{length}")) {
        Ok(value) => problem.with_header(CONTENT_RANGE, value),
        Err(_) => problem,
    }
}
