//! The life of a publication, as one total function. There is one publication for each asset; its playback id is
//! given when the asset is planned and never changes, so that a link can be shown before it plays.

use crate::state::{Refused, state_names};

state_names! {
    /// Where a publication stands.
    PublicationState {
        /// Its playback id is known; nothing plays yet.
        Preparing = "preparing",
        Live = "live",
        /// Taken off the air with its asset.
        Withdrawn = "withdrawn",
    }
}

state_names! {
    PublicationEvent {
        GoLive = "go_live",
        Withdraw = "withdraw",
    }
}

pub fn next(state: PublicationState, event: PublicationEvent) -> Result<PublicationState, Refused> {
    use PublicationEvent as E;
    use PublicationState as S;
    match (state, event) {
        // From `Live` too: a second publishing attempt replaces the first.
        (S::Preparing | S::Live, E::GoLive) => Ok(S::Live),
        (S::Withdrawn, E::GoLive) => Err(Refused::new(state, event)),
        (S::Preparing | S::Live | S::Withdrawn, E::Withdraw) => Ok(S::Withdrawn),
    }
}
