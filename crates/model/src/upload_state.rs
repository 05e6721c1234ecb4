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
    }
}

state_names! {
    UploadEvent {
        BytesAcknowledged = "bytes_acknowledged",
        AllBytesDurable = "all_bytes_durable",
        SourceStored = "source_stored",
        Terminate = "terminate",
        Expire = "expire",
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

        (S::Finishing | S::Finished | S::Terminated | S::Expired, E::BytesAcknowledged)
        | (S::Finished | S::Terminated | S::Expired, E::AllBytesDurable)
        | (S::Created | S::Receiving | S::Terminated | S::Expired, E::SourceStored)
        | (S::Finishing | S::Expired, E::Terminate)
        | (S::Finishing | S::Finished | S::Terminated, E::Expire) => Err(Refused::new(state, event)),
    }
}
