//! Without a body: when the server has the file already, it is enough to show that we have it too.
//!
//! The file is hashed, the server asked; it names ranges, and the answer is one hash over them. Whatever does not work
//! out here means no more than that the bytes are sent: nothing fails for it but the file itself.

use super::{Sent, Transfer};
use crate::client::parts::{self, Opening};
use anyhow::Context as _;
use reelyard_upload::possession::Proof;
use sha2::{Digest as _, Sha256};
use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _, path::PathBuf};

const READ_BYTES: usize = 1 << 20;
/// The server asks for a MiB in all; one that asks for far more is not answered.
const MAX_PROOF_BYTES: u64 = 64 << 20;

/// `None`: send the bytes.
pub(super) async fn show(transfer: &Transfer<'_>) -> anyhow::Result<Option<Sent>> {
    let (path, length) = (transfer.path, transfer.identity.byte_len);
    let unreadable = || path.display().to_string();
    transfer.display.say("looking whether the server has this file already");
    let whole = std::iter::once(0..length).collect();
    let sha256 = hash(path.to_owned(), Hash::Whole(Sha256::new()), whole).await.with_context(unreadable)?;
    let sha256 = hex::encode(sha256);
    transfer.check_file()?;
    let file_name = transfer.file_name();
    let Transfer { preset, title, tier, .. } = *transfer;
    let opening = Opening { length, file_name: &file_name, preset, title, tier };
    let Ok(question) = parts::ask_possession(transfer.server, &opening, &sha256).await else {
        return Ok(None);
    };
    let in_file = question.ranges.iter().all(|range| range.start <= range.end && range.end <= length);
    let asked: u64 = question.ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
    if !in_file || asked > MAX_PROOF_BYTES {
        return Ok(None);
    }
    let proof = Hash::Proof(Proof::begin(&question.nonce));
    let proof = hash(path.to_owned(), proof, question.ranges).await.with_context(unreadable)?;
    let Ok(made) = parts::show_possession(transfer.server, &question.challenge, &proof).await else {
        return Ok(None);
    };
    let address = transfer.server.address(&format!("uploads/{}", made.upload_id))?.to_string();
    transfer.display.say("the server has this file already; nothing was sent");
    Ok(Some(Sent { address, asset: Some(made.asset), server_sha256: Some(made.sha256), sha256 }))
}

enum Hash {
    Whole(Sha256),
    Proof(Proof),
}

/// Beside the runtime: a large file takes a while.
async fn hash(path: PathBuf, hash: Hash, ranges: Vec<Range<u64>>) -> io::Result<[u8; 32]> {
    let hashing = move || {
        let (file, mut hash, mut buffer) = (File::open(path)?, hash, vec![0; READ_BYTES]);
        for range in ranges {
            for start in (range.start..range.end).step_by(READ_BYTES) {
                let left = usize::try_from(range.end - start).unwrap_or(READ_BYTES);
                let piece = &mut buffer[..READ_BYTES.min(left)];
                file.read_exact_at(piece, start)?;
                match &mut hash {
                    Hash::Whole(whole) => whole.update(&*piece),
                    Hash::Proof(proof) => proof.add(piece),
                }
            }
        }
        Ok(match hash {
            Hash::Whole(whole) => whole.finalize().into(),
            Hash::Proof(proof) => proof.finish(),
        })
    };
    tokio::task::spawn_blocking(hashing).await.map_err(io::Error::other)?
}
