//! The life of an asset, as one total function. Called by the catalogue, inside the transaction that stores the
//! answer. The asset's state follows from its tasks (the flow decides when), never the other way round.

use crate::state::{Refused, state_names};

state_names! {
    /// Where an asset stands.
    AssetState {
        /// Its source is stored; nothing is known about it yet.
        Waiting = "waiting",
        /// A plan exists and its tasks are at work.
        Processing = "processing",
        /// Published: it plays.
        Ready = "ready",
        /// A task that it cannot do without is among the dead letters; the reason stands beside it.
        Failed = "failed",
        Cancelled = "cancelled",
        /// A tombstone: its files go, its row stays.
        Deleted = "deleted",
    }
}

state_names! {
    AssetEvent {
        Planned = "planned",
        Published = "published",
        /// A required task died.
        Fail = "fail",
        Cancel = "cancel",
        /// Somebody wants another try.
        Retry = "retry",
        Delete = "delete",
    }
}

pub fn next(state: AssetState, event: AssetEvent) -> Result<AssetState, Refused> {
    use AssetEvent as E;
    use AssetState as S;
    match (state, event) {
        (S::Waiting | S::Processing, E::Planned) => Ok(S::Processing),
        (S::Processing | S::Ready, E::Published) => Ok(S::Ready),
        (S::Waiting | S::Processing | S::Failed, E::Fail) => Ok(S::Failed),
        (S::Waiting | S::Processing | S::Cancelled, E::Cancel) => Ok(S::Cancelled),
        // Waiting, not Processing: the probe may be what is tried again. A plan that exists moves it on at once.
        (S::Failed | S::Cancelled, E::Retry) => Ok(S::Waiting),
        (S::Waiting | S::Processing | S::Ready | S::Failed | S::Cancelled | S::Deleted, E::Delete) => {
            Ok(S::Deleted)
        }

        (S::Ready | S::Failed | S::Cancelled | S::Deleted, E::Planned)
        | (S::Waiting | S::Failed | S::Cancelled | S::Deleted, E::Published)
        | (S::Ready | S::Cancelled | S::Deleted, E::Fail)
        | (S::Ready | S::Failed | S::Deleted, E::Cancel)
        | (S::Waiting | S::Processing | S::Ready | S::Deleted, E::Retry) => Err(Refused::new(state, event)),
    }
}
