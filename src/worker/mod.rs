//! `reelyard worker`: the agent of a machine that reaches the control plane over HTTP and has no database password.
//!
//! `cmd/worker` puts the parts together. `link` is the way to the servers (fail-over, patience, whose fault a refusal
//! is); `control` is the agent's control plane over it, with `beats` (heartbeats of all slots in one call) and `news`
//! (orders that come without being asked for) and `waiting` (tickets from a broker); `http_depot` and `s3_depot` are
//! the two places of bytes. Nothing here ends the program but a refused token, and that is told to `cmd/worker`.

mod beats;
pub(crate) mod control;
pub(crate) mod depot;
mod http_depot;
pub(crate) mod link;
mod news;
pub(crate) mod page;
pub(crate) mod place;
mod s3_depot;
mod waiting;
