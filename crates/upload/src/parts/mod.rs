//! Uploads in parts: for clients that send many parts at once and in any order.
//!
//! Called by `src/http/uploads` with the headers and bodies of requests and by the stores with what is durable; never
//! touches the wire or the disk itself. Every error says what was wrong and what to send instead.

mod chunk;
mod refusal;
mod set;

pub use chunk::PartChunk;
pub use refusal::PartRefusal;
pub use set::{DurablePart, ListedPart, PartRequest, PartSet, PartSettled};
