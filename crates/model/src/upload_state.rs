//! The life of an upload, as one total function. Called by the catalogue, inside the transaction that stores the
//! answer; nothing else moves an upload. A move that makes no sense is refused with both names, never ignored.

use crate::state::{Refused, state_names};

state_names! {
    /// Where an upload stands.
    UploadState {
        /// Announced; not a byte has been acknowledged.
        Created = "created",
        Receiving = "receiving",
        /// All bytes are durable and the file is being turned into a source: no more bytes, no termination.
        Finishing = "finishing",
        /// Its asset exists. The upload stays readable for its owner.
        Finished = "finished",
        /// Its owner gave it up.
        Terminated = "terminated",
        /// Nobody came back for it in time.
        Expired = "expired",
        /// All its bytes came, and they are not what its sender had announced: nothing was made of them.
        Rejected = "rejected",
    }
}

state_names! {
    UploadEvent {
        BytesAcknowledged = "bytes_acknowledged",
        AllBytesDurable = "all_bytes_durable",
        SourceStored = "source_stored",
        Terminate = "terminate",
        Expire = "expire",
        Reject = "reject",
    }
}

state_names! {
    /// What an upload is, besides where it stands.
    UploadKind {
        Whole = "whole",
        /// A piece of a final one (tus concatenation); never an asset of its own.
        Partial = "partial",
        /// Made of partials.
        Final = "final",
        /// Received in parts, in any order.
        Parts = "parts",
    }
}

state_names! {
    /// What makes an upload complete.
    Completion {
        /// All bytes of the announced length are there.
        Length = "length",
        /// Its sender says so.
        Declared = "declared",
        /// As by its length, but whoever brought the last byte may not finish it: the next request of somebody who may
        /// does, and nothing else.
        Withheld = "withheld",
    }
}

/// Repeats are safe: an event that was already obeyed leaves the state as it is.
pub fn next(state: UploadState, event: UploadEvent) -> Result<UploadState, Refused> {
    use UploadEvent as E;
    use UploadState as S;
    match (state, event) {
        (S::Created | S::Receiving, E::BytesAcknowledged) => Ok(S::Receiving),
        // An empty file is complete without a byte, hence also from `Created`.
        (S::Created | S::Receiving | S::Finishing, E::AllBytesDurable) => Ok(S::Finishing),
        (S::Finishing | S::Finished, E::SourceStored) => Ok(S::Finished),
        (S::Created | S::Receiving | S::Terminated, E::Terminate) => Ok(S::Terminated),
        // The asset has its own copy of the bytes by then; only the upload's address goes.
        (S::Finished, E::Terminate) => Ok(S::Terminated),
        (S::Created | S::Receiving | S::Expired, E::Expire) => Ok(S::Expired),

        (S::Created | S::Receiving | S::Rejected, E::Reject) => Ok(S::Rejected),

        (S::Finishing | S::Finished | S::Terminated | S::Expired | S::Rejected, E::BytesAcknowledged)
        | (S::Finished | S::Terminated | S::Expired | S::Rejected, E::AllBytesDurable)
        | (S::Created | S::Receiving | S::Terminated | S::Expired | S::Rejected, E::SourceStored)
        | (S::Finishing | S::Expired | S::Rejected, E::Terminate)
        | (S::Finishing | S::Finished | S::Terminated | S::Rejected, E::Expire)
        | (S::Finishing | S::Finished | S::Terminated | S::Expired, E::Reject) => {
            Err(Refused::new(state, event))
        }
    }
}
