//! tus 1.0.0 on the wire: a thin shell over `reelyard_upload::tus` and the shared receiving.

use super::{
    answer::{self, HeaderFields},
    body::{self, Sent},
    empty,
    receive::{self, Completes, How, Incoming, Progress},
    resource,
};
use crate::{
    app::App,
    flow::{self, FlowError, receive::Announcement},
    http::{
        auth::{Permit, Uploader},
        problem::{Kind, Problem},
        trace,
    },
};
use axum::response::Response;
use http::{HeaderMap, StatusCode, request::Parts};
use reelyard_catalog::UploadRow;
use reelyard_model::{Completion, TenantId, UploadId, UploadKind, UploadState};
use reelyard_sign::upload_token::{Use, Wish};
use reelyard_upload::{
    Check, ChunkRequest, Transfer,
    digest_fields::{DigestError, Digests, Integrity, content_check},
    ietf,
    tus::{self, Concat, Creation, HeadAnswer, TusError, UploadReference},
};
use std::{collections::BTreeSet, sync::Arc};
use tracing::Instrument as _;

/// What the handlers of one request share.
pub(super) struct Asked {
    pub(super) app: Arc<App>,
    pub(super) by: Uploader,
    pub(super) headers: HeaderMap,
    pub(super) sent: Sent,
}

/// Version first, as the protocol wants it, then who asks, where that is not known already.
pub(super) async fn asked(
    app: Arc<App>,
    by: Option<Uploader>,
    request: Parts,
    sent: Sent,
) -> Result<Asked, Problem> {
    let checked = async {
        tus::check_version(&HeaderFields(&request.headers)).map_err(answer::refusal)?;
        match by {
            Some(by) => Ok(by),
            None => Uploader::of_request(&app, &request.headers, &request.extensions).await,
        }
    };
    match checked.await {
        Ok(by) => Ok(Asked { app, by, headers: request.headers, sent }),
        Err(problem) => Err(body::refuse(sent.body, problem).await),
    }
}

/// POST: a new upload, perhaps with its first bytes (creation, creation-with-upload), perhaps made of others
/// (concatenation).
pub(super) async fn create(asked: Asked) -> Result<Response, Problem> {
    let Asked { app, by, headers, sent } = asked;
    let creation = match Creation::read(&HeaderFields(&headers), app.max_upload_bytes) {
        Ok(creation) => creation,
        Err(error) => return Err(body::refuse(sent.body, answer::refusal(error)).await),
    };
    let before = async {
        by.may_create()?;
        made_before(&app, &by, &creation).await
    };
    let before = match before.await {
        Ok(before) => before,
        Err(problem) => return Err(body::refuse(sent.body, problem).await),
    };
    if let Some(row) = before {
        let joining = {
            let app = app.clone();
            async move { join(&app, &row).await.map(|progress| (row.id, progress)) }
        };
        let (id, progress) = tokio::spawn(joining.in_current_span()).await.map_err(Problem::internal)??;
        return Ok(created(id, true, progress));
    }
    let prepared = async {
        let length = match &creation.concat {
            Concat::Final(partials) => final_length(&app, &by, partials).await?,
            Concat::None | Concat::Partial => creation.length,
        };
        let metadata = &creation.metadata;
        let permit = by.may_begin(
            &app,
            Wish {
                length,
                // What tus-js-client and Uppy call it.
                media_type: metadata.text("filetype").or(metadata.text("type")),
                preset: metadata.text("preset"),
                is_piece: matches!(creation.concat, Concat::Partial),
            },
        )?;
        let permit = by.within_tier(permit, metadata.text("tier"))?;
        resource::check_room(&app, length.unwrap_or_default()).await?;
        Ok((length, permit, expected_digest(&headers, &creation)?))
    };
    let (length, permit, expected_sha256) = match prepared.await {
        Ok(prepared) => prepared,
        Err(problem) => return Err(body::refuse(sent.body, problem).await),
    };
    // In a task of its own: when the client goes away this handler is dropped, and nobody would tidy up.
    let announcement = Announcement { expected_sha256, ..announcement(by.tenant, permit, &creation, length) };
    let is_final = announcement.kind == UploadKind::Final;
    let making = make(app, by, announcement, creation.first_chunk, sent).in_current_span();
    let (id, progress) = tokio::spawn(making).await.map_err(Problem::internal)??;
    Ok(created(id, is_final, progress))
}

/// What the whole is to hash to: not of the text of tus, but every HTTP client can say it (RFC 9530 section 3). Of a
/// piece it is left out: pieces are compared as chunks.
fn expected_digest(headers: &HeaderMap, creation: &Creation) -> Result<Option<[u8; 32]>, Problem> {
    if creation.concat == Concat::Partial {
        return Ok(None);
    }
    let digests = Digests::read(&HeaderFields(headers), Integrity::Repr).map_err(digest_problem)?;
    Ok(digests.sha256.and_then(|checksum| checksum.digest().try_into().ok()))
}

fn digest_problem(error: DigestError) -> Problem {
    Problem::new(Kind::BadRequest, answer::sentence(&error.to_string()))
}

fn created(id: UploadId, is_final: bool, progress: Progress) -> Response {
    let mut headers = HeaderMap::new();
    answer::put_text(&mut headers, "location", &format!("/uploads/{id}"));
    put_progress(&mut headers, progress);
    if is_final && !progress.complete {
        // What is not joined yet has no offset.
        headers.remove(tus::header::OFFSET);
    }
    empty(StatusCode::CREATED, headers)
}

/// The final upload that the same request made, when its answer was lost: joining takes long, so that happens, and its
/// pieces may be gone by now.
async fn made_before(app: &App, by: &Uploader, creation: &Creation) -> Result<Option<UploadRow>, Problem> {
    let Concat::Final(partials) = &creation.concat else { return Ok(None) };
    let (Some(list), Some(newest)) =
        (tus::format_concat(&creation.concat), partials.iter().map(UploadReference::id).max())
    else {
        return Ok(None);
    };
    for partial in partials.iter().map(UploadReference::id).collect::<BTreeSet<_>>() {
        if app.catalog.upload(partial).await?.is_none_or(|row| row.tenant != by.tenant) {
            return Ok(None);
        }
    }
    let found = app.catalog.final_like(by.tenant, &list, creation.metadata.header(), newest).await?;
    if let Some(row) = &found {
        by.may_use(row, Use::Continue)?;
    }
    Ok(found)
}

/// Partial uploads that are this caller's and still there; how long they are together, if that is known.
async fn final_length(
    app: &App,
    by: &Uploader,
    partials: &[UploadReference],
) -> Result<Option<u64>, Problem> {
    let mut lengths = Vec::with_capacity(partials.len());
    for partial in partials {
        let row = app.catalog.upload(partial.id()).await?.filter(|row| row.tenant == by.tenant);
        let lives = |row: &UploadRow| matches!(row.state, UploadState::Created | UploadState::Receiving);
        let row = row.filter(lives).ok_or_else(|| answer::refusal(partial.unknown()))?;
        if row.kind != UploadKind::Partial {
            return Err(answer::refusal(partial.not_partial()));
        }
        by.may_use(&row, Use::Continue)?;
        lengths.push(row.byte_len);
    }
    tus::final_length(lengths, app.max_upload_bytes).map_err(answer::refusal)
}

fn announcement(tenant: TenantId, permit: Permit, creation: &Creation, length: Option<u64>) -> Announcement {
    let metadata = &creation.metadata;
    let (kind, partials) = match &creation.concat {
        Concat::None => (UploadKind::Whole, Vec::new()),
        Concat::Partial => (UploadKind::Partial, Vec::new()),
        Concat::Final(partials) => (UploadKind::Final, partials.iter().map(UploadReference::id).collect()),
    };
    Announcement {
        tenant,
        grant: permit.grant,
        kind,
        completion: Completion::Length,
        partials,
        concat_header: tus::format_concat(&creation.concat),
        expected_sha256: None,
        byte_len: length,
        // `name` is what Uppy sends beside `filename`.
        file_name: metadata.text("filename").or(metadata.text("name")).map(str::to_owned),
        metadata: metadata.header().to_owned(),
        preset: permit.preset.or(metadata.text("preset").map(str::to_owned)),
        priority: permit.priority,
        traceparent: Some(trace::current_traceparent()),
    }
}

async fn make(
    app: Arc<App>,
    by: Uploader,
    announcement: Announcement,
    first_chunk: Option<ChunkRequest>,
    sent: Sent,
) -> Result<(UploadId, Progress), Problem> {
    let (kind, length) = (announcement.kind, announcement.byte_len);
    let row = match flow::receive::create(&app, announcement).await {
        Ok(row) => row,
        Err(error) => return Err(body::refuse(sent.body, receive::flow_problem(error)).await),
    };
    let progress = match (first_chunk, kind) {
        (Some(chunk), _) => begin_with(app, row.id, incoming(by, chunk, None), sent).await?,
        (None, UploadKind::Final) => join(&app, &row).await?,
        (None, _) => {
            let empty = Transfer::new(length, app.max_upload_bytes);
            receive::settle(&app, &row, empty, Completes::AtLength, &by).await?
        }
    };
    Ok((row.id, progress))
}

/// At once if every piece is there; else when the last one is. What fails here is tried again, and HEAD tells.
async fn join(app: &App, row: &UploadRow) -> Result<Progress, Problem> {
    let asset = match flow::concatenate::concatenate(app, row.id).await {
        Ok(asset) => asset,
        Err(error @ (FlowError::PartialGone { .. } | FlowError::FinalTooLong(_))) => {
            return Err(join_problem(error));
        }
        Err(error) => {
            tracing::error!(upload = %row.id, %error, "concatenate: trying again later");
            None
        }
    };
    let (offset, length) = (row.byte_len.unwrap_or_default(), row.byte_len);
    Ok(Progress { offset, length, complete: asset.is_some(), asset, expires_ms: row.expires_ms })
}

fn join_problem(error: FlowError) -> Problem {
    match error {
        FlowError::PartialGone { .. } => Problem::new(Kind::Gone, format!("This cannot be joined: {error}.")),
        FlowError::FinalTooLong(error) => answer::refusal(error),
        other => receive::finish_problem(other),
    }
}

/// The first chunk of an upload whose address its sender does not know yet. Without a good answer the sender will never
/// learn it and makes another upload, so what came is removed, unless it is the whole and becomes an asset later.
async fn begin_with(
    app: Arc<App>,
    id: UploadId,
    incoming: Incoming,
    sent: Sent,
) -> Result<Progress, Problem> {
    let received = receive::receive(app.clone(), id, incoming, sent).await;
    if received.is_err() {
        receive::forget(&app, id).await;
    }
    received
}

fn incoming(by: Uploader, chunk: ChunkRequest, length: Option<u64>) -> Incoming {
    Incoming { by, how: How::Tus, chunk, length, tell: None }
}

/// PATCH.
pub(super) async fn append(asked: Asked, id: UploadId) -> Result<Response, Problem> {
    let Asked { app, by, headers, sent } = asked;
    let read = async {
        // First, so that any PATCH against a final upload is 403, also when it is finished.
        let row = resource::owned(&app, &by, id, Use::Continue).await?;
        if row.kind == UploadKind::Final {
            return Err(answer::refusal(TusError::FinalTakesNoBytes));
        }
        let mut append = tus::Append::read(&HeaderFields(&headers)).map_err(answer::refusal)?;
        if append.chunk.check == Check::None {
            append.chunk.check = content_check(&HeaderFields(&headers)).map_err(digest_problem)?;
        }
        Ok(append)
    };
    let append = match Box::pin(read).await {
        Ok(append) => append,
        Err(problem) => return Err(body::refuse(sent.body, problem).await),
    };
    let progress = receive::receive(app, id, incoming(by, append.chunk, append.length), sent).await?;
    let mut answer_headers = HeaderMap::new();
    put_progress(&mut answer_headers, progress);
    Ok(empty(StatusCode::NO_CONTENT, answer_headers))
}

fn put_progress(headers: &mut HeaderMap, progress: Progress) {
    answer::put_number(headers, tus::header::OFFSET, progress.offset);
    answer::put_asset(headers, progress.asset);
    if progress.asset.is_none() {
        answer::put_text(headers, tus::header::EXPIRES, &tus::format_expires(progress.expires_ms));
    }
}

/// HEAD: where the upload stands. Whoever asks wants to go on, so a request that is still sending is stopped first:
/// then the offset is exact. An upload that is whole but not yet an asset is finished first.
pub(super) async fn head(asked: Asked, id: UploadId) -> Result<Response, Problem> {
    let Asked { app, by, .. } = asked;
    match look(&app, &by, id).await {
        Ok(answer) => Ok(answer),
        // Asked last, because a piece may be joined at any moment.
        Err(problem) => match joined_piece(&app, &by, id).await? {
            Some(row) => standing(&row, row.byte_len),
            None => Err(problem),
        },
    }
}

async fn look(app: &Arc<App>, by: &Uploader, id: UploadId) -> Result<Response, Problem> {
    let row = resource::owned(app, by, id, Use::Continue).await?;
    if row.kind == UploadKind::Final && row.asset.is_none() {
        // In a task of its own: a client that goes away must not drop it in the middle of a write.
        let joining = {
            let app = app.clone();
            async move { flow::concatenate::concatenate(&app, id).await }.in_current_span()
        };
        tokio::spawn(joining).await.map_err(Problem::internal)?.map_err(join_problem)?;
        let row = resource::live(app, id).await?;
        let offset = row.asset.and(row.byte_len);
        return standing(&row, offset);
    }
    if row.asset.is_some() {
        return standing(&row, Some(row.byte_len.unwrap_or(row.byte_offset)));
    }
    let (row, transfer) = resource::stop_and_look(app, id).await?;
    match transfer {
        Some(transfer) => {
            // Looking at an upload does not complete one whose sender has to say so.
            let completes = match row.completion {
                Completion::Length | Completion::Withheld => Completes::AtLength,
                Completion::Declared => Completes::Declared(false, ietf::Dialect::unnamed()),
            };
            receive::settle(app, &row, transfer.clone(), completes, by).await?;
            standing(&resource::live(app, id).await?, Some(transfer.offset()))
        }
        None => standing(&row, Some(row.byte_len.unwrap_or(row.byte_offset))),
    }
}

/// A piece whose bytes have gone into a final upload: whoever lost an answer and asks where it stands has nothing to
/// send again.
async fn joined_piece(app: &App, by: &Uploader, id: UploadId) -> Result<Option<UploadRow>, Problem> {
    let row = app.catalog.upload(id).await?.filter(|row| row.tenant == by.tenant);
    let ended = |row: &UploadRow| row.kind == UploadKind::Partial && row.state == UploadState::Terminated;
    let Some(row) = row.filter(ended) else { return Ok(None) };
    by.may_use(&row, Use::Continue)?;
    Ok(app.catalog.is_joined(by.tenant, id).await?.then_some(row))
}

fn standing(row: &UploadRow, offset: Option<u64>) -> Result<Response, Problem> {
    let concat = match &row.concat_header {
        Some(text) => Concat::parse(text).map_err(Problem::internal)?,
        None => Concat::None,
    };
    let told = HeadAnswer {
        offset,
        length: row.byte_len,
        metadata: &row.metadata,
        concat: &concat,
        expires_ms: matches!(row.state, UploadState::Created | UploadState::Receiving)
            .then_some(row.expires_ms),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in told.headers() {
        answer::put_text(&mut headers, name, &value);
    }
    answer::put_asset(&mut headers, row.asset);
    if let Some(sha256) = &row.sha256 {
        answer::put_digest(&mut headers, sha256);
    }
    Ok(empty(StatusCode::OK, headers))
}

/// DELETE: the owner gives it up (termination). The asset of a finished upload stays.
pub(super) async fn terminate(asked: Asked, id: UploadId) -> Result<Response, Problem> {
    let Asked { app, by, .. } = asked;
    resource::terminate(&app, &by, id).await?;
    Ok(empty(StatusCode::NO_CONTENT, HeaderMap::new()))
}

/// The method, or the one that a client that can only POST means (`X-HTTP-Method-Override`).
pub(super) fn effective_method(headers: &HeaderMap, method: &http::Method) -> Result<http::Method, Problem> {
    let named = tus::method_override(&HeaderFields(headers)).map_err(answer::refusal)?;
    let Some(named) = named else { return Ok(method.clone()) };
    http::Method::from_bytes(named.as_bytes()).map_err(Problem::internal)
}
