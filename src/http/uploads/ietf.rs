//! Resumable Uploads for HTTP (the IETF draft and its older interop versions) on the wire: a thin shell over
//! `reelyard_upload::ietf` and the shared receiving.
//!
//! Completion is declared: that all bytes are there does not make the asset, the client's word does. While a body comes
//! in, interim answers (104) tell where the upload is and how much of it is safe, where the client takes them.

use super::{
    answer::{self, HeaderFields},
    body::{self, Sent},
    download, empty,
    receive::{self, How, Incoming, Progress},
    resource,
};
use crate::{
    app::App,
    flow::{
        self,
        receive::{Announcement, UPLOAD_EXPIRES_AFTER_MS},
    },
    http::{
        auth::{Permit, Uploader},
        interim::Interim,
        problem::{Kind, Problem},
        trace,
    },
};
use axum::response::Response;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
    request::Parts,
};
use reelyard_catalog::UploadRow;
use reelyard_model::{Completion, TenantId, UploadId, UploadKind};
use reelyard_sign::upload_token::{Use, Wish};
use reelyard_upload::{
    Algorithm, Check, Checksum, Transfer,
    ietf::{self, Answer, Append, Creation, IetfError, Limits, Member, State},
};
use serde_json::json;
use std::sync::Arc;
use tracing::Instrument as _;

/// What the handlers of one request share.
pub(super) struct Asked {
    pub(super) app: Arc<App>,
    pub(super) by: Uploader,
    pub(super) dialect: ietf::Dialect,
    pub(super) headers: HeaderMap,
    pub(super) sent: Sent,
    /// Where the connection can carry interim answers.
    pub(super) interim: Option<Interim>,
}

/// `by`: where that is known already.
pub(super) async fn asked(
    app: Arc<App>,
    dialect: ietf::Dialect,
    by: Option<Uploader>,
    request: Parts,
    sent: Sent,
) -> Result<Asked, Problem> {
    let interim = request.extensions.get::<Interim>().cloned();
    let by = match by {
        Some(by) => Ok(by),
        None => Uploader::of_request(&app, &request.headers, &request.extensions).await,
    };
    match by {
        Ok(by) => Ok(Asked { app, by, dialect, headers: request.headers, sent, interim }),
        Err(problem) => Err(body::refuse(sent.body, problem).await),
    }
}

fn limits(app: &App, expires_ms: Option<i64>) -> Limits {
    let left_ms = expires_ms.map_or(UPLOAD_EXPIRES_AFTER_MS, |expires_ms| expires_ms - app.now_ms());
    Limits {
        max_size: Some(app.max_upload_bytes),
        max_age_seconds: u64::try_from(left_ms / 1000).ok(),
        ..Limits::default()
    }
}

/// The headers of OPTIONS.
pub(super) fn discovered(max_upload_bytes: u64) -> ietf::Headers {
    ietf::Dialect::discovered(&Limits { max_size: Some(max_upload_bytes), ..Limits::default() })
}

/// An error of the draft as a problem: its registered type where there is one, its members and headers.
pub(super) fn problem(dialect: ietf::Dialect, error: &IetfError, state: Option<&State>) -> Problem {
    let kind = match error.status() {
        409 => Kind::UploadOffsetConflict,
        413 => Kind::TooLarge,
        415 => Kind::WrongMediaType,
        _ => Kind::BadRequest,
    };
    let told = match error {
        IetfError::BeyondLimit { limit, .. } | IetfError::TooLarge { max: limit, .. } => {
            Limits { max_size: Some(*limit), ..Limits::default() }
        }
        _ => Limits::default(),
    };
    let mut problem = Problem::new(kind, answer::sentence(&error.to_string()));
    if let Some(registered) = error.registered() {
        problem = problem.with_type(registered.type_uri, registered.title);
    }
    for (name, member) in error.members() {
        let value = match member {
            Member::Number(number) => json!(number),
            Member::Entry(pairs) => json!([pairs.into_iter().collect::<std::collections::BTreeMap<_, _>>()]),
        };
        problem = problem.with(name, value);
    }
    for (name, value) in dialect.refused(error, state, &told) {
        if let Ok(value) = HeaderValue::try_from(value) {
            problem = problem.with_header(HeaderName::from_static(name), value);
        }
    }
    problem
}

/// POST: a new upload, with all its bytes, some or none.
pub(super) async fn create(asked: Asked) -> Result<Response, Problem> {
    let Asked { app, by, dialect, headers, sent, interim } = asked;
    let prepared = async {
        let creation = Creation::read(dialect, &HeaderFields(&headers), &limits(&app, None))
            .map_err(|error| problem(dialect, &error, None))?;
        let metadata = &creation.metadata;
        let media_type = metadata.text("filetype").or_else(|| content_type(&headers));
        let wish =
            Wish { length: creation.length, media_type, preset: metadata.text("preset"), is_piece: false };
        let permit = by.within_tier(by.may_begin(&app, wish)?, metadata.text("tier"))?;
        resource::check_room(&app, creation.length.unwrap_or_default()).await?;
        Ok::<_, Problem>((creation, permit))
    };
    let (creation, permit) = match prepared.await {
        Ok(prepared) => prepared,
        Err(problem) => return Err(body::refuse(sent.body, problem).await),
    };
    let announcement = announcement(by.tenant, permit, &creation);
    let making = make(app.clone(), by, dialect, creation, announcement, sent, interim).in_current_span();
    let (id, progress) = tokio::spawn(making).await.map_err(Problem::internal)??;
    standing(&app, dialect, id, progress, |location, state, limits| dialect.created(location, state, limits))
        .await
}

/// Of the file, where it is not the draft's own.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let told = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    (!told.starts_with("application/partial-upload")).then_some(told)
}

fn announcement(tenant: TenantId, permit: Permit, creation: &Creation) -> Announcement {
    let metadata = &creation.metadata;
    let expected = creation.repr_digest.as_ref().map(|checksum| checksum.digest());
    Announcement {
        tenant,
        grant: permit.grant,
        kind: UploadKind::Whole,
        completion: Completion::Declared,
        partials: Vec::new(),
        concat_header: None,
        expected_sha256: expected.and_then(|digest| digest.try_into().ok()),
        byte_len: creation.length,
        file_name: metadata.text("filename").map(str::to_owned),
        metadata: metadata.header().to_owned(),
        preset: permit.preset.or(metadata.text("preset").map(str::to_owned)),
        priority: permit.priority,
        traceparent: Some(trace::current_traceparent()),
    }
}

async fn make(
    app: Arc<App>,
    by: Uploader,
    dialect: ietf::Dialect,
    creation: Creation,
    announcement: Announcement,
    sent: Sent,
    interim: Option<Interim>,
) -> Result<(UploadId, Progress), Problem> {
    let row = match flow::receive::create(&app, announcement).await {
        Ok(row) => row,
        Err(error) => return Err(body::refuse(sent.body, receive::flow_problem(error)).await),
    };
    let Some(chunk) = creation.first_chunk else {
        let empty = Transfer::new(creation.length, app.max_upload_bytes);
        let progress = receive::settle(
            &app,
            &row,
            empty,
            receive::Completes::Declared(creation.completes, dialect),
            &by,
        );
        return match progress.await {
            Ok(progress) => Ok((row.id, progress)),
            Err(problem) => Err(of_whole(&app, dialect, row.id, problem).await),
        };
    };
    let announced = dialect.announced(&location(row.id), &limits(&app, None));
    let knows_address = announced.is_some() && interim.is_some();
    if let (Some(announced), Some(interim)) = (announced, &interim) {
        interim.upload_resumption_supported(&header_map(announced.headers));
    }
    let append = Append { chunk, completes: creation.completes, length: creation.length };
    let incoming = incoming(by, dialect, append, &app, interim);
    match received(&app, dialect, row.id, incoming, sent).await {
        Ok(progress) => Ok((row.id, progress)),
        Err(problem) if knows_address => Err(with_location(&app, row.id, problem).await),
        Err(problem) => {
            receive::forget(&app, row.id).await;
            Err(problem)
        }
    }
}

/// The 104 may not have reached the client before the refusal did; what is left of the upload should not be lost to it.
async fn with_location(app: &App, id: UploadId, problem: Problem) -> Problem {
    match (resource::live(app, id).await, HeaderValue::try_from(location(id))) {
        (Ok(_), Ok(location)) => problem.with_header(LOCATION, location),
        _ => problem,
    }
}

fn incoming(
    by: Uploader,
    dialect: ietf::Dialect,
    append: Append,
    app: &App,
    interim: Option<Interim>,
) -> Incoming {
    let mut progress = ietf::Progress::new(dialect, append.chunk.offset);
    let tell = interim.map(|interim| {
        Box::new(move |offset| {
            if let Some(reached) = progress.reached(offset) {
                interim.upload_resumption_supported(&header_map(reached.headers));
            }
        }) as Box<dyn FnMut(u64) + Send + Sync>
    });
    Incoming {
        by,
        chunk: append.chunk.clone(),
        length: append.length,
        how: How::Ietf { dialect, append: Box::new(append), limits: limits(app, None) },
        tell,
    }
}

async fn received(
    app: &Arc<App>,
    dialect: ietf::Dialect,
    id: UploadId,
    incoming: Incoming,
    sent: Sent,
) -> Result<Progress, Problem> {
    match receive::receive(app.clone(), id, incoming, sent).await {
        Ok(progress) => Ok(progress),
        Err(problem) => Err(of_whole(app, dialect, id, problem).await),
    }
}

/// That the whole is not what `Repr-Digest` announced has a registered type, and tells the client not to go on.
async fn of_whole(app: &App, dialect: ietf::Dialect, id: UploadId, other: Problem) -> Problem {
    if other.kind() != Kind::ContentMismatch {
        return other;
    }
    let Ok(Some(row)) = app.catalog.upload(id).await else { return other };
    let expected = row.expected_sha256.as_deref().and_then(|text| hex::decode(text).ok());
    let Some(announced) = expected.and_then(|digest| Checksum::new(Algorithm::Sha256, digest)) else {
        return other;
    };
    let state = State { is_complete: false, ..finished_state(&row) };
    problem(dialect, &IetfError::ReprMismatch { announced }, Some(&state))
}

/// PATCH.
pub(super) async fn append(asked: Asked, id: UploadId) -> Result<Response, Problem> {
    let Asked { app, by, dialect, headers, sent, interim } = asked;
    let read = async {
        resource::owned(&app, &by, id, Use::Continue).await?;
        Append::read(dialect, &HeaderFields(&headers), &limits(&app, None))
            .map_err(|error| problem(dialect, &error, None))
    };
    let append = match Box::pin(read).await {
        Ok(append) => append,
        Err(problem) => return Err(body::refuse(sent.body, problem).await),
    };
    let incoming = incoming(by, dialect, append, &app, interim);
    let progress = received(&app, dialect, id, incoming, sent).await?;
    standing(&app, dialect, id, progress, |_, state, limits| dialect.appended(state, limits)).await
}

/// The answer after a body: of the whole when that was its end, else of what is there.
async fn standing(
    app: &App,
    dialect: ietf::Dialect,
    id: UploadId,
    progress: Progress,
    open: impl FnOnce(&str, &State, &Limits) -> Answer,
) -> Result<Response, Problem> {
    let state = State { offset: progress.offset, length: progress.length, is_complete: progress.complete };
    if !progress.complete {
        return Ok(copied(open(&location(id), &state, &limits(app, Some(progress.expires_ms)))));
    }
    let row = resource::live(app, id).await?;
    let sha256 = row.sha256.as_deref().and_then(|text| hex::decode(text).ok());
    let sha256 = sha256.and_then(|digest| digest.try_into().ok());
    let sha256 = sha256.ok_or_else(|| Problem::internal("a finished upload has no digest"))?;
    let mut response = copied(dialect.finished(&location(id), &state, sha256));
    answer::put_asset(response.headers_mut(), progress.asset);
    Ok(response)
}

/// HEAD: stops whoever is sending, so that the offset is exact.
pub(super) async fn head(asked: Asked, id: UploadId) -> Result<Response, Problem> {
    let Asked { app, by, dialect, headers, .. } = asked;
    ietf::check_bare(dialect, &HeaderFields(&headers)).map_err(|error| problem(dialect, &error, None))?;
    resource::owned(&app, &by, id, Use::Continue).await?;
    let (row, transfer) = resource::stop_and_look(&app, id).await?;
    let state = match &transfer {
        Some(transfer) => State { offset: transfer.offset(), length: transfer.length(), is_complete: false },
        None => finished_state(&row),
    };
    let mut response = copied(dialect.retrieved(&state, &limits(&app, Some(row.expires_ms))));
    let headers = response.headers_mut();
    answer::put_asset(headers, row.asset);
    if let Some(sha256) = &row.sha256 {
        answer::put_digest(headers, sha256);
    }
    Ok(response)
}

/// GET: what HEAD tells, and the bytes of a complete upload for those who may read them.
pub(super) async fn get(asked: Asked, id: UploadId) -> Result<Response, Problem> {
    let row = match resource::readable(&asked.app, &asked.by, id).await {
        Ok(row) if row.asset.is_some() => row,
        _ => return head(asked, id).await,
    };
    let Asked { app, by, dialect, headers, .. } = asked;
    let mut response = download::download(&app, &by, id, &headers).await?;
    let told = dialect.retrieved(&finished_state(&row), &limits(&app, Some(row.expires_ms)));
    response.headers_mut().extend(header_map(told.headers));
    Ok(response)
}

pub(super) fn finished_state(row: &UploadRow) -> State {
    let length = row.byte_len.unwrap_or(row.byte_offset);
    State { offset: length, length: Some(length), is_complete: true }
}

/// DELETE: the client gives the upload up. The asset of a finished upload stays.
pub(super) async fn cancel(asked: Asked, id: UploadId) -> Result<Response, Problem> {
    let Asked { app, by, dialect, headers, .. } = asked;
    ietf::check_bare(dialect, &HeaderFields(&headers)).map_err(|error| problem(dialect, &error, None))?;
    resource::terminate(&app, &by, id).await?;
    Ok(copied(dialect.cancelled()))
}

/// What the engine refused while the body came in or at its end.
pub(super) fn of_body(
    dialect: ietf::Dialect,
    refusal: reelyard_upload::Refusal,
    check: &Check,
    state: &State,
) -> (Problem, bool) {
    let error = IetfError::of_body(refusal, check);
    (problem(dialect, &error, Some(state)), error.ends_upload())
}

pub(super) fn refused(dialect: ietf::Dialect, refusal: reelyard_upload::Refusal) -> Problem {
    problem(dialect, &IetfError::before_body(refusal), None)
}

fn location(id: UploadId) -> String {
    format!("/uploads/{id}")
}

fn header_map(headers: ietf::Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        answer::put_text(&mut map, name, &value);
    }
    map
}

fn copied(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::NO_CONTENT);
    empty(status, header_map(answer.headers))
}
