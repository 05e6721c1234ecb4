//! One upload made of others (tus concatenation), the same for every store: the bytes of the partials behind one
//! another, through the write path that bytes from a socket take.
//!
//! The hash of the whole needs every byte in order anyway. What is copied counts as it comes, so a concatenation that was
//! interrupted goes on at the durable offset, on any node.

use crate::{Receive, ReceiveError, StoreError, Terms, Uploads};
use bytes::Bytes;
use futures::TryStreamExt as _;
use reelyard_model::UploadId;
use reelyard_upload::{BodyEnd, ChunkRequest, Transfer};
use std::mem;

/// Handed over at once, as by the routes.
const BATCH_BYTES: usize = 1 << 20;

pub(crate) async fn concatenate<Store: Uploads + ?Sized>(
    store: &Store,
    into: UploadId,
    terms: Terms,
    partials: &[(UploadId, u64)],
) -> Result<Transfer, StoreError> {
    let open = store.open_upload(into, terms).await?;
    if open.transfer().is_whole() {
        return Ok(open.transfer().clone());
    }
    let request = ChunkRequest { offset: open.transfer().offset(), ..ChunkRequest::default() };
    let mut receiving = open.begin(&request).map_err(|error| unexpected(into, error))?;
    let copied = copy(store, receiving.as_mut(), request.offset, partials).await;
    // What was copied counts, whatever stopped it.
    let end = if copied.is_ok() { BodyEnd::Complete } else { BodyEnd::Cut };
    let (_, outcome) = receiving.end(end).await;
    copied.and(outcome).map_err(|error| unexpected(into, error))
}

async fn copy<Store: Uploads + ?Sized>(
    store: &Store,
    receiving: &mut dyn Receive,
    position: u64,
    partials: &[(UploadId, u64)],
) -> Result<(), ReceiveError> {
    let mut start = 0;
    for (partial, byte_len) in partials {
        let end = start + byte_len;
        let from = position.clamp(start, end);
        if from < end {
            let mut bytes = store.read_upload(*partial, from - start..*byte_len).await?;
            let (mut batch, mut batch_len) = (Vec::<Bytes>::new(), 0);
            while let Some(piece) = bytes.try_next().await? {
                batch_len += piece.len();
                batch.push(piece);
                if batch_len >= BATCH_BYTES {
                    receiving.write(mem::take(&mut batch)).await?;
                    batch_len = 0;
                }
            }
            receiving.write(batch).await?;
        }
        start = end;
    }
    Ok(())
}

/// The lengths were checked before: a refusal here means that the partials are not what they were.
fn unexpected(into: UploadId, error: ReceiveError) -> StoreError {
    match error {
        ReceiveError::Store(error) => error,
        ReceiveError::Refused(refused) => {
            StoreError::Damaged { what: format!("the concatenation {into}"), problem: refused.to_string() }
        }
    }
}
