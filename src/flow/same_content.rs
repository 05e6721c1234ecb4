//! **same content**: bytes that the tenant has already become a new asset on the files of the old one, with no work.
//!
//! Called by `receive` at the end of an upload, by `sweep`, and by the possession routes, where a client shows that it
//! has the bytes and sends none. The catalogue decides inside the finishing transaction whether the tenant has the
//! content; here are the edges: what "the same recipe" means, the removal of bytes that nobody needs twice, and the
//! questions of `reelyard_upload::possession`. A crash before the removal leaves a row that names those bytes, and the
//! sweep removes them then; a crash while an answer is looked at burns the question, and the client asks anew.

use super::{FlowError, receive, receive::Whole};
use crate::app::App;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reelyard_catalog::{ContentQuery, NewUpload, PossessionRow, Proven, UploadGrant, VainTries};
use reelyard_model::{AssetId, Completion, TenantId, UploadId, UploadKind, plan::PLAN_VERSION};
use reelyard_planner::Policy;
use reelyard_upload::possession::{self, NONCE_BYTES, Proof};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::ops::Range;
use uuid::Uuid;

/// A client reads 1 MiB of its file in that time, on a phone too. Short, because who lacks the bytes must not have the
/// time to fetch the ranges from somebody who has them.
pub(crate) const ANSWER_WITHIN_MS: i64 = 60_000;
/// Questions about one content that one tenant leaves without the right answer; beyond them it has to send the bytes.
/// Some clients are closed in the middle; guessing needs hundreds.
const VAIN_TRIES: VainTries = VainTries { most: 4, within_ms: 3_600_000 };
/// Ranges that are read from the store at a time: from S3 each is a request.
const READS_AT_ONCE: usize = 8;

/// What a client says that it has.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) tenant: TenantId,
    pub(crate) byte_len: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) file_name: Option<String>,
    /// As tus has it in `Upload-Metadata`.
    pub(crate) metadata: String,
    /// `None`: the default preset.
    pub(crate) preset: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) id: UploadId,
    pub(crate) nonce: [u8; NONCE_BYTES],
    pub(crate) ranges: Vec<Range<u64>>,
    pub(crate) expires_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The asset is made; asking again with the same answer gives it again.
    Proven { asset: AssetId },
    /// That was the one answer that is taken.
    Wrong,
    /// No such question, or not of this tenant, or answered, or too late.
    Unknown,
    /// The tenant has the content no more.
    NotHere,
}

/// What this server makes of a source with this preset now, as a digest: presets are files that operators change, and
/// nobody who uploads anew wants what the old one made. A preset that is gone has a recipe of its own.
pub(crate) fn recipe(app: &App, preset: &str) -> String {
    let made_of = json!({
        "plan": PLAN_VERSION,
        "policy": format!("{:?}", Policy::default()),
        "preset": app.presets.get(preset),
    });
    hex::encode(Sha256::digest(made_of.to_string()))
}

/// The bytes of an upload whose asset uses another's. Failing is no harm: the row names them until they are gone.
pub(crate) async fn remove_spare(app: &App, asset: AssetId, key: &str) {
    let removed = async {
        app.uploads.delete_source(key).await?;
        app.catalog.spare_source_removed(asset).await?;
        Ok::<(), FlowError>(())
    };
    if let Err(error) = removed.await {
        tracing::warn!(%asset, key, %error, "same content: the second copy of the bytes stays until the next sweep");
    }
}

/// What a crash or a failure left.
pub(crate) async fn remove_spares(app: &App) -> Result<(), FlowError> {
    for (asset, key) in app.catalog.spare_sources().await? {
        remove_spare(app, asset, &key).await;
    }
    Ok(())
}

/// `None`: the tenant has no such content, or asked for it too often in vain; the bytes have to be sent. Which of the
/// two is not told. `asked_by`: the key, which alone may answer.
pub(crate) async fn ask(
    app: &App,
    claim: Claim,
    asked_by: Option<Uuid>,
) -> Result<Option<Question>, FlowError> {
    let preset = app.preset_name(claim.preset.as_deref())?;
    let sha256 = hex::encode(claim.sha256);
    let recipe = recipe(app, &preset);
    let query = ContentQuery {
        tenant: claim.tenant,
        byte_len: claim.byte_len,
        sha256: &sha256,
        preset: &preset,
        recipe: &recipe,
    };
    // Of nothing nobody can show that he has it.
    if claim.byte_len == 0 || app.catalog.find_content(&query).await?.is_none() {
        return Ok(None);
    }
    let nonce = new_nonce()?;
    let now_ms = app.now_ms();
    let row = PossessionRow {
        id: UploadId::from_uuid(Uuid::now_v7()),
        tenant: claim.tenant,
        byte_len: claim.byte_len,
        sha256,
        file_name: claim.file_name,
        metadata: claim.metadata,
        preset,
        nonce: nonce.to_vec(),
        created_ms: now_ms,
        expires_ms: now_ms.saturating_add(ANSWER_WITHIN_MS),
        proof: None,
        asked_by,
    };
    if !app.catalog.ask_possession(&row, VAIN_TRIES).await? {
        tracing::warn!(tenant = %row.tenant, sha256 = row.sha256, "same content: asked for too often without the right answer");
        return Ok(None);
    }
    let ranges = possession::ranges(row.byte_len, &nonce);
    Ok(Some(Question { id: row.id, nonce, ranges, expires_ms: row.expires_ms }))
}

/// Unpredictable or nothing: with places that somebody can foresee the question would be none.
fn new_nonce() -> Result<[u8; NONCE_BYTES], FlowError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| FlowError::NoRandomness { reason: error.to_string() })?;
    Ok(nonce)
}

/// The client's one answer. Right, it is a finished upload and an asset, without a byte sent.
pub(crate) async fn answer(
    app: &App,
    row: PossessionRow,
    grant: UploadGrant,
    proof: [u8; 32],
) -> Result<Verdict, FlowError> {
    let (id, tenant) = (row.id, row.tenant);
    let proof = hex::encode(proof);
    if row.proof.as_ref() == Some(&proof) {
        // The answer to it was lost on the way.
        return Ok(Verdict::Proven { asset: receive::asset_of(id) });
    }
    let nonce: Option<[u8; NONCE_BYTES]> = row.nonce.as_slice().try_into().ok();
    let (Some(nonce), true) = (nonce, app.catalog.take_possession_answer(id, app.now_ms()).await?) else {
        return Ok(Verdict::Unknown);
    };
    let recipe = recipe(app, &row.preset);
    let query = ContentQuery {
        tenant,
        byte_len: row.byte_len,
        sha256: &row.sha256,
        preset: &row.preset,
        recipe: &recipe,
    };
    let Some(content) = app.catalog.find_content(&query).await? else { return Ok(Verdict::NotHere) };
    // One answer to each question, so how long the comparison takes is of no use to anybody.
    if hex::encode(expected_proof(app, &content.source_key, row.byte_len, &nonce).await?) != proof {
        tracing::warn!(%tenant, sha256 = row.sha256, "same content: a wrong proof of possession");
        return Ok(Verdict::Wrong);
    }
    make(app, row, grant, proof).await
}

async fn expected_proof(
    app: &App,
    source_key: &str,
    byte_len: u64,
    nonce: &[u8; NONCE_BYTES],
) -> Result<[u8; 32], FlowError> {
    let mut proof = Proof::begin(nonce);
    let reads = possession::ranges(byte_len, nonce).into_iter().map(|range| async move {
        let pieces = app.uploads.read_source(source_key, range).await?;
        pieces.try_collect::<Vec<_>>().await
    });
    let mut ranges = stream::iter(reads).buffered(READS_AT_ONCE);
    while let Some(pieces) = ranges.try_next().await? {
        pieces.iter().for_each(|piece| proof.add(piece));
    }
    Ok(proof.finish())
}

async fn make(
    app: &App,
    row: PossessionRow,
    grant: UploadGrant,
    proof: String,
) -> Result<Verdict, FlowError> {
    let mut sha256 = [0; 32];
    if hex::decode_to_slice(&row.sha256, &mut sha256).is_err() {
        return Ok(Verdict::Unknown);
    }
    let now_ms = app.now_ms();
    let priority = receive::priority_of(&row.metadata);
    let upload = NewUpload {
        id: row.id,
        tenant: row.tenant,
        kind: UploadKind::Whole,
        completion: Completion::Length,
        partials: Vec::new(),
        concat_header: None,
        expected_sha256: Some(row.sha256),
        byte_len: Some(row.byte_len),
        file_name: row.file_name,
        metadata: row.metadata,
        preset: row.preset,
        priority,
        traceparent: receive::new_traceparent(),
        now_ms,
        expires_ms: now_ms,
    };
    let whole = Whole { byte_len: row.byte_len, sha256 };
    let title = receive::title_of(&upload.metadata, upload.file_name.as_deref());
    let finish = receive::finish_request(app, upload.id, &upload.preset, title, &whole);
    let trace_id = receive::trace_id(&upload.traceparent).to_owned();
    let proven = Proven { upload, grant, finish, proof };
    let Some(finished) = app.catalog.finish_proven(proven).await? else { return Ok(Verdict::NotHere) };
    tracing::info!(upload = %row.id, asset = %finished.asset, trace_id, byte_len = row.byte_len, "same content: shown, so not sent");
    Ok(Verdict::Proven { asset: finished.asset })
}
