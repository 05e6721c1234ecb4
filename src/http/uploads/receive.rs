//! A chunk of an upload that grows from the front, whatever dialect it came in: taken over, received, made durable, and
//! finished when it was the last.

use super::{
    answer::{self, Dialect, HeaderFields},
    body::{self, Ended, Sent, Stop},
    ietf as ietf_shell,
    meter::MeterError,
    off_socket, resource,
};
use crate::{
    app::App,
    flow::{self, FlowError, receive::UPLOAD_EXPIRES_AFTER_MS, receive::Whole},
    holders::{Hold, HoldError},
    http::{
        auth::Uploader,
        problem::{Kind, Problem},
    },
};
use reelyard_catalog::{CatalogError, UploadRow};
use reelyard_crash_points::crash_point;
use reelyard_model::{AssetId, Completion, UploadId, UploadKind, UploadState};
use reelyard_storage::{OpenUpload, Receive, ReceiveError};
use reelyard_upload::{
    BodyEnd, Check, ChunkRequest, Refusal, Transfer,
    ietf::{self, Admitted, State},
    pace::TooSlow,
    tus,
};
use std::sync::Arc;
use tracing::Instrument as _;

/// The row is told the offset (for display and expiry) at most so often; the store always knows it.
const ROW_UPDATE_INTERVAL_MS: i64 = 30_000;

/// What a request brings.
pub(super) struct Incoming {
    pub(super) by: Uploader,
    pub(super) how: How,
    pub(super) chunk: ChunkRequest,
    /// The length of the whole, where the request tells it.
    pub(super) length: Option<u64>,
    /// Hears of the durable offset on the way.
    pub(super) tell: Option<Box<dyn FnMut(u64) + Send + Sync>>,
}

/// What the dialects see differently.
pub(super) enum How {
    Tus,
    Ietf { dialect: ietf::Dialect, append: Box<ietf::Append>, limits: ietf::Limits },
}

impl How {
    fn dialect(&self) -> Dialect {
        match self {
            Self::Tus => Dialect::Tus,
            Self::Ietf { dialect, .. } => Dialect::Ietf(*dialect),
        }
    }

    fn completes(&self) -> Completes {
        match self {
            Self::Tus => Completes::AtLength,
            Self::Ietf { dialect, append, .. } => Completes::Declared(append.completes, *dialect),
        }
    }

    /// Whether the request may append where the upload stands; true: it asks for a lost answer again.
    fn asks_again(&self, state: &State) -> Result<bool, Problem> {
        let Self::Ietf { dialect, append, limits } = self else { return Ok(false) };
        match append.admit(*dialect, state, limits) {
            Ok(Admitted::Replay) => Ok(true),
            Ok(Admitted::Receive { .. }) => Ok(false),
            Err(error) => Err(ietf_shell::problem(*dialect, &error, Some(state))),
        }
    }
}

/// What makes the upload complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completes {
    /// All bytes are there.
    AtLength,
    /// The client says whether these are the last ones.
    Declared(bool, ietf::Dialect),
}

/// Where an upload stands after a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) offset: u64,
    pub(super) length: Option<u64>,
    /// Nothing is left to be sent, and what was to be made of it is made.
    pub(super) complete: bool,
    /// Once it is finished.
    pub(super) asset: Option<AssetId>,
    pub(super) expires_ms: i64,
}

/// Receives a chunk in a task of its own: when the client goes away, the handler is dropped, but what has arrived is
/// still made durable and the upload let go in order.
pub(super) async fn receive(
    app: Arc<App>,
    id: UploadId,
    incoming: Incoming,
    sent: Sent,
) -> Result<Progress, Problem> {
    let task = async move {
        let hold = app.holders.take_over(id).await.map_err(hold_problem)?;
        let begun = async {
            // After the one before was told to stop, whose seat may be the one that is free.
            let seat = incoming.by.sit(&app, hold.stop()).await?;
            Ok((begin(&app, &hold, id, &incoming).await?, seat))
        };
        // What is over before and begins after the bytes come lies in boxes: a body that stalls is to hold little.
        match Box::pin(begun).await {
            Ok((Begun::Done(progress), _)) => Ok(progress),
            Ok((Begun::Receiving { row, receiving }, _seat)) => {
                fill(&app, &hold, &row, receiving, incoming, sent).await
            }
            Err(problem) => Err(body::refuse(sent.body, problem).await),
        }
    };
    let progress = tokio::spawn(task.in_current_span()).await.map_err(Problem::internal)??;
    crash_point!("upload-before-answer").map_err(Problem::internal)?;
    Ok(progress)
}

enum Begun {
    /// There is nothing left to receive.
    Done(Progress),
    Receiving {
        row: Box<UploadRow>,
        receiving: Box<dyn Receive>,
    },
}

async fn begin(app: &App, hold: &Hold, id: UploadId, incoming: &Incoming) -> Result<Begun, Problem> {
    // Again, because the holder before us may have finished or ended it.
    let row = resource::live(app, id).await?;
    if let Some(asset) = row.asset {
        return repeat_of_last(&row, asset, incoming).map(Begun::Done);
    }
    check_takes_bytes(&row)?;
    // The row is told of the bytes when they have come; until then the upload must not expire under them.
    if row.expires_ms - app.now_ms() < UPLOAD_EXPIRES_AFTER_MS / 2 {
        flow::receive::received(app, id, row.byte_offset).await.map_err(flow_problem)?;
    }
    let dialect = incoming.how.dialect();
    let begun_with = row.max_byte_len;
    let max_byte_len = [begun_with, incoming.by.max_length()].into_iter().flatten().min();
    let row = UploadRow { max_byte_len, ..row };
    let open = resource::open(app, &row, hold.fence).await?;
    incoming.how.asks_again(&state_of(open.transfer()))?;
    // Of all that may be wrong, the offset comes first: tus asks for 409 then, whatever else the request says.
    let at_offset = ChunkRequest { offset: incoming.chunk.offset, ..ChunkRequest::default() };
    open.transfer().begin_chunk(&at_offset).map_err(|refused| answer::refused(dialect, refused))?;
    check_token_length(&row, begun_with, incoming)?;
    let (row, open) = match incoming.length {
        Some(length) if row.byte_len.is_none() => {
            learn_length(app, hold, row, open, length, incoming).await?
        }
        Some(length) => {
            let mut transfer = open.transfer().clone();
            transfer.declare_length(length).map_err(|refused| answer::refused(dialect, refused))?;
            (row, open)
        }
        None => (row, open),
    };
    // A body of untold length may bring a byte too many.
    if open.transfer().is_whole() && incoming.chunk.body_len.is_some() {
        let transfer = open.transfer().clone();
        transfer.begin_chunk(&incoming.chunk).map_err(|refused| answer::refused(dialect, refused))?;
        return settle(app, &row, transfer, incoming.how.completes(), &incoming.by).await.map(Begun::Done);
    }
    if let (None, Some(body_len)) = (row.byte_len, incoming.chunk.body_len) {
        // Room for what the request says it brings; a body of unknown length gets it on the way.
        app.catalog.reserve_up_to(id, incoming.chunk.offset.saturating_add(body_len)).await?;
    }
    let receiving = open.begin(&incoming.chunk).map_err(|error| answer::receive_problem(dialect, error))?;
    Ok(Begun::Receiving { row: Box::new(row), receiving })
}

/// Better told now than when all bytes are here. What was promised when it was begun is told by what follows.
fn check_token_length(row: &UploadRow, begun_with: Option<u64>, incoming: &Incoming) -> Result<(), Problem> {
    let end = incoming.chunk.body_len.map(|body_len| incoming.chunk.offset.saturating_add(body_len));
    let wanted = [row.byte_len, incoming.length, end].into_iter().flatten().max().unwrap_or_default();
    if begun_with.is_some_and(|allowed| wanted > allowed) {
        return Ok(());
    }
    incoming.by.check_length(wanted)
}

fn check_takes_bytes(row: &UploadRow) -> Result<(), Problem> {
    match row.kind {
        UploadKind::Whole | UploadKind::Partial => Ok(()),
        UploadKind::Final => Err(answer::refusal(tus::TusError::FinalTakesNoBytes)),
        UploadKind::Parts => check_not_in_parts(row),
    }
}

pub(super) fn check_not_in_parts(row: &UploadRow) -> Result<(), Problem> {
    if row.kind != UploadKind::Parts {
        return Ok(());
    }
    Err(Problem::new(
        Kind::StateConflict,
        "This upload is received in parts; send them with PUT to /uploads/parts, and ask there with GET how far it is.",
    ))
}

/// The client tells the length that it had deferred: stored before a byte is taken under it.
async fn learn_length(
    app: &App,
    hold: &Hold,
    row: UploadRow,
    open: Box<dyn OpenUpload>,
    length: u64,
    incoming: &Incoming,
) -> Result<(UploadRow, Box<dyn OpenUpload>), Problem> {
    let refused = |refused| answer::refused(incoming.how.dialect(), refused);
    let mut transfer = open.transfer().clone();
    transfer.declare_length(length).map_err(refused)?;
    // A request that is refused tells no length either.
    transfer.begin_chunk(&incoming.chunk).map_err(refused)?;
    app.catalog.set_upload_length(row.id, length, app.now_ms()).await?;
    let row = UploadRow { byte_len: Some(length), ..row };
    let open = resource::open(app, &row, hold.fence).await?;
    Ok((row, open))
}

/// Feeds the body in, makes it durable, and makes the asset when that was the last of it.
async fn fill(
    app: &App,
    hold: &Hold,
    row: &UploadRow,
    mut receiving: Box<dyn Receive>,
    mut incoming: Incoming,
    sent: Sent,
) -> Result<Progress, Problem> {
    let stop = Stop { limits: &app.limits, taken_over: hold.stop(), shutdown: &app.shutdown };
    let tell = |offset| {
        if let Some(tell) = &mut incoming.tell {
            tell(offset);
        }
    };
    let ended = off_socket::receive(app, row, &incoming.chunk, &mut receiving, sent, stop, tell).await;
    let end = match &ended {
        Ok(Ended::Complete(trailers)) => body_end(&incoming.chunk.check, trailers),
        _ => Ok(BodyEnd::Cut),
    };
    let (end, unreadable) = end.map_or_else(|problem| (BodyEnd::Cut, Some(problem)), |end| (end, None));
    let (offset, settled) = receiving.end(end).await;
    metrics::counter!("reelyard_upload_stored_bytes_total")
        .increment(offset.saturating_sub(incoming.chunk.offset));
    if let Some(problem) = unreadable {
        return Err(answer::with_offset(problem, offset));
    }
    let (ended, transfer) = match (ended, settled) {
        (Ok(ended), Ok(transfer)) => (ended, transfer),
        (Err(MeterError::NoRoom(problem)), _) => return Err(answer::with_offset(problem, offset)),
        (Err(MeterError::Store(error)), _) | (Ok(_), Err(error)) => {
            return Err(Box::pin(refused_body(app, row, &incoming, offset, error)).await);
        }
    };
    Box::pin(note_progress(app, row, &transfer)).await;
    // What was cut short is counted all the same; whether it is the whole is settled by the request that asks next.
    match ended {
        Ended::Complete(_) => {
            Box::pin(settle(app, row, transfer, incoming.how.completes(), &incoming.by)).await
        }
        short => Err(answer::with_offset(short_problem(row, offset, &short), offset)),
    }
}

fn state_of(transfer: &Transfer) -> State {
    State { offset: transfer.offset(), length: transfer.length(), is_complete: false }
}

/// The body was not what it should be, or the store failed.
async fn refused_body(
    app: &App,
    row: &UploadRow,
    incoming: &Incoming,
    offset: u64,
    error: ReceiveError,
) -> Problem {
    match (error, &incoming.how) {
        (ReceiveError::Store(error), _) => answer::store_problem(error),
        (ReceiveError::Refused(refusal), How::Tus) => answer::refused(Dialect::Tus, refusal),
        (ReceiveError::Refused(refusal), How::Ietf { dialect, .. }) => {
            let state = State { offset, length: row.byte_len, is_complete: false };
            let (problem, ends_upload) =
                ietf_shell::of_body(*dialect, refusal, &incoming.chunk.check, &state);
            if ends_upload && let Err(error) = flow::receive::terminate(app, row.id).await {
                tracing::warn!(upload = %row.id, %error, "receive: an upload that cannot go on was not ended; it will expire");
            }
            problem
        }
    }
}

/// The checksum may have come behind the body.
fn body_end(check: &Check, trailers: &http::HeaderMap) -> Result<BodyEnd, Problem> {
    match tus::trailing_checksum(check, &HeaderFields(trailers)) {
        Ok(Some(checksum)) => Ok(BodyEnd::CompleteWith(checksum)),
        Ok(None) => Ok(BodyEnd::Complete),
        Err(error) => Err(answer::refusal(error)),
    }
}

fn short_problem(row: &UploadRow, offset: u64, ended: &Ended) -> Problem {
    match ended {
        Ended::TakenOver => {
            metrics::counter!("reelyard_upload_hand_overs_total").increment(1);
            Problem::new(Kind::Locked, "Another request has taken this upload over; ask it for the offset.")
        }
        Ended::Shutdown => {
            Problem::unavailable("The server is stopping. What arrived is kept; go on in a moment.", 2)
        }
        Ended::TooSlow(slow) => too_slow(*slow),
        Ended::Complete(_) | Ended::Disconnected => {
            tracing::debug!(upload = %row.id, offset, ?ended, "receive: the client went away");
            Problem::new(
                Kind::BadRequest,
                "The body ended early. What arrived is kept; go on from the offset.",
            )
        }
    }
}

pub(super) fn too_slow(slow: TooSlow) -> Problem {
    metrics::counter!("reelyard_upload_too_slow_total").increment(1);
    let detail =
        format!("{} What arrived is kept; go on in a new request.", answer::sentence(&slow.to_string()));
    Problem::new(Kind::SenderTooSlow, detail)
}

/// Bytes are durable and the request is over: is the upload complete? Then its asset is made.
pub(super) async fn settle(
    app: &App,
    row: &UploadRow,
    mut transfer: Transfer,
    completes: Completes,
    by: &Uploader,
) -> Result<Progress, Problem> {
    if let Completes::Declared(last, dialect) = completes
        && let Err(error) = ietf::completion(last, transfer.offset(), transfer.length())
    {
        return Err(ietf_shell::problem(dialect, &error, Some(&state_of(&transfer))));
    }
    let complete = match completes {
        Completes::AtLength => transfer.is_whole(),
        Completes::Declared(last, _) => last,
    };
    let standing = |transfer: &Transfer, asset| Progress {
        offset: transfer.offset(),
        length: transfer.length(),
        complete,
        asset,
        expires_ms: row.expires_ms,
    };
    if !complete {
        return Ok(standing(&transfer, None));
    }
    may_finish(app, row, by, transfer.offset()).await?;
    if transfer.length().is_none() {
        let length = transfer.offset();
        transfer.declare_length(length).map_err(|refused| answer::refused(Dialect::Tus, refused))?;
        app.catalog.set_upload_length(row.id, length, app.now_ms()).await?;
    }
    if row.kind == UploadKind::Partial {
        piece_is_whole(app, row, transfer.offset()).await;
        return Ok(standing(&transfer, None));
    }
    let asset = finish(app, row.id, &transfer).await?;
    Ok(standing(&transfer, Some(asset)))
}

/// Refused, the upload waits for somebody who may: neither a restart nor the sweep finishes it.
async fn may_finish(app: &App, row: &UploadRow, by: &Uploader, byte_len: u64) -> Result<(), Problem> {
    let allowed = by.may_finish(app, byte_len).await;
    let withheld = match &allowed {
        Ok(()) if row.completion != Completion::Withheld => return Ok(()),
        // A whole upload says by its state that it is being finished; of a piece this is all that is known.
        Ok(()) => false,
        Err(problem) if problem.kind().status_code() >= 500 => return allowed,
        Err(_) => true,
    };
    app.catalog.withhold_upload(row.id, withheld).await?;
    allowed
}

/// Some final upload may have waited for it, and looks at its row. To join them may take minutes, which are not this
/// sender's.
async fn piece_is_whole(app: &App, row: &UploadRow, length: u64) {
    let told = row.byte_offset == length;
    if !told && let Err(error) = flow::receive::received(app, row.id, length).await {
        tracing::warn!(upload = %row.id, %error, "receive: the row was not told that this piece is whole");
    }
    app.concatenate_ticket.notify_one();
}

/// A beginning whose address its sender will never learn: what came is removed, unless it is the whole and becomes an
/// asset later.
pub(super) async fn forget(app: &App, id: UploadId) {
    match flow::receive::terminate(app, id).await {
        Ok(()) | Err(FlowError::Catalog(CatalogError::Refused(_))) => {}
        Err(error) => {
            tracing::warn!(upload = %id, %error, "receive: a beginning that nobody knows of was not removed; it will expire");
        }
    }
}

/// The upload is finished; its last answer may have been lost.
fn repeat_of_last(row: &UploadRow, asset: AssetId, incoming: &Incoming) -> Result<Progress, Problem> {
    let length = row.byte_len.unwrap_or(row.byte_offset);
    let chunk = &incoming.chunk;
    if !incoming.how.asks_again(&ietf_shell::finished_state(row))? {
        if chunk.offset != length {
            let refused = Refusal::OffsetMismatch { claimed: chunk.offset, durable: length };
            return Err(answer::refused(Dialect::Tus, refused));
        }
        if chunk.body_len.is_some_and(|body_len| body_len > 0) {
            let refused = Refusal::BeyondLength { offset: length, room: 0, length };
            return Err(answer::refused(Dialect::Tus, refused));
        }
    }
    let expires_ms = row.expires_ms;
    Ok(Progress { offset: length, length: Some(length), complete: true, asset: Some(asset), expires_ms })
}

/// Makes the asset. When this fails, the bytes are safe and any later request for the upload tries again.
pub(super) async fn finish(app: &App, id: UploadId, transfer: &Transfer) -> Result<AssetId, Problem> {
    let whole = Whole::of(transfer).map_err(flow_problem)?;
    flow::receive::finish(app, id, &whole).await.map_err(finish_problem)
}

pub(super) fn finish_problem(error: FlowError) -> Problem {
    match error {
        FlowError::OtherBytes { .. } | FlowError::Catalog(CatalogError::OverQuota(_)) => flow_problem(error),
        _ => Problem::unavailable(
            "All bytes are stored, but the video could not be made yet. Ask for the offset again in a moment.",
            2,
        )
        .with_log(error),
    }
}

async fn note_progress(app: &App, row: &UploadRow, transfer: &Transfer) {
    let offset = transfer.offset();
    // Of a piece that is whole the row has to know, because a final upload looks there.
    let whole_piece = row.kind == UploadKind::Partial && transfer.is_whole();
    let due = row.state == UploadState::Created || app.now_ms() - row.updated_ms >= ROW_UPDATE_INTERVAL_MS;
    if !whole_piece && (!due || offset == 0) {
        return;
    }
    if let Err(error) = flow::receive::received(app, row.id, offset).await {
        tracing::warn!(upload = %row.id, %error, "receive: the row was not told of the offset; the bytes are safe");
    }
}

pub(super) fn hold_problem(error: HoldError) -> Problem {
    match error {
        HoldError::Busy => Problem::new(
            Kind::Locked,
            "Another request is still storing bytes of this upload; try again soon.",
        ),
        HoldError::Catalog(error) => error.into(),
    }
}

/// Errors of the flow that are the caller's to mend, and the others.
pub(super) fn flow_problem(error: FlowError) -> Problem {
    match error {
        FlowError::UnknownPreset { .. } => Problem::new(Kind::BadRequest, format!("{error}.")),
        FlowError::OtherBytes { expected, found } => Problem::new(
            Kind::ContentMismatch,
            format!(
                "The bytes that arrived hash to {found}, and {expected} was announced. Nothing was made of them; send the file again as a new upload."
            ),
        ),
        FlowError::Catalog(CatalogError::Refused(refused)) => {
            Problem::new(Kind::StateConflict, format!("{refused}."))
        }
        FlowError::Catalog(error @ CatalogError::OverQuota(_)) => error.into(),
        FlowError::Store(error) => answer::store_problem(error),
        other => Problem::internal(other),
    }
}
