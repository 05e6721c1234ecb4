//! (being written)
use crate::context::Context;
use reelyard_model::{Failure, FailureCode, MediaInfo};
pub(crate) fn run(_context: &Context) -> Result<MediaInfo, Failure> {
    Err(Failure::new(FailureCode::Internal, "not built"))
}
