//! Uploads in parts: the dialect for clients that send many parts at once and in any order.
//!
//! Called by `src/http/uploads` with the headers and bodies of requests and by the stores with what is durable; never
//! touches the wire or the disk itself. [`PartSet`] decides, [`PartChunk`] takes bytes; [`Opening`], [`PartUpload`] and
//! [`Completion`] are the requests. Every error carries its status and says what was wrong and what to send instead.
//!
//! `POST /uploads/parts` begins an upload and answers its id; `PUT` with that id, a number and a range brings a part and
//! answers its ETag; `GET` lists what is durable; `POST /uploads/parts/complete` with the list finishes; `DELETE` gives
//! the upload up. A part counts whole or not at all.

mod chunk;
mod error;
mod listing;
mod refusal;
mod request;
mod set;
mod sizes;
#[cfg(test)]
mod tests;

pub use chunk::PartChunk;
pub use error::PartsError;
pub use listing::{ByteRange, Listing, StoredPart};
pub use refusal::PartRefusal;
pub use request::{Completion, MAX_COMPLETION_BYTES, MAX_OPENING_BYTES, Opening, PartUpload, upload_id};
pub use set::{DurablePart, ListedPart, PartRequest, PartSet, PartSettled};
pub use sizes::{MAX_PART_BYTES, MAX_PARTS, MIN_PART_BYTES, PartSizes};

/// Header names, in lower case as HTTP libraries keep them.
pub mod header {
    pub const UPLOAD_ID: &str = "x-upload-id";
    pub const PART_NUMBER: &str = "x-part-number";
    pub const CONTENT_RANGE: &str = "x-content-range";
    pub const PART_SIZE: &str = "x-part-size";
    pub const PART_MIN_SIZE: &str = "x-part-min-size";
    pub const PART_MAX_SIZE: &str = "x-part-max-size";
    pub const PARTS_MAX: &str = "x-parts-max";
    pub const LENGTH: &str = "upload-length";
    pub const METADATA: &str = "upload-metadata";
}
