//! How large parts may be, and how many there may be of them.

/// Parts of one upload: each is a record in a journal, an object in S3 and an entry in the list at the end. The limit of
/// S3's own multipart uploads.
pub const MAX_PARTS: u32 = 10_000;
/// Smallest part but the last: what S3 demands of the pieces that it puts together without a copy by the client.
pub const MIN_PART_BYTES: u64 = 5 << 20;
/// Largest part: the largest object that S3 takes in one request.
pub const MAX_PART_BYTES: u64 = 5 << 30;
/// What a broken connection costs at most, and what a sync has to carry. Small enough for a phone, large enough that
/// the round trip between two parts does not show.
const PREFERRED_PART_BYTES: u64 = 16 << 20;
/// Recommended sizes are multiples of this.
const SIZE_STEP_BYTES: u64 = 1 << 20;

/// What a client is told when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSizes {
    /// In bytes, as the others.
    pub recommended: u64,
    /// Of all parts but the one that ends the upload.
    pub min: u64,
    pub max: u64,
    pub count: u32,
}

impl PartSizes {
    /// An upload of this length fits into parts of the recommended size.
    pub fn of(length: u64) -> Self {
        let needed = length.div_ceil(u64::from(MAX_PARTS)).next_multiple_of(SIZE_STEP_BYTES);
        Self {
            recommended: needed.clamp(PREFERRED_PART_BYTES, MAX_PART_BYTES),
            min: MIN_PART_BYTES,
            max: MAX_PART_BYTES,
            count: MAX_PARTS,
        }
    }

    /// The most bytes that an upload in parts can have.
    pub const fn max_length() -> u64 {
        MAX_PARTS as u64 * MAX_PART_BYTES
    }
}
