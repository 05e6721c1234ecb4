//! What is durable of an upload whose bytes lie in S3: plain facts, kept by the catalogue, made by the store.
//!
//! An object counts when a committed entry names it, and not before. `reelyard-storage` says how the ledger is used.

/// The bytes `start..end` of an upload are the whole object `key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    pub start: u64,
    pub end: u64,
    pub key: String,
}

/// A part of an upload in parts: its bytes are `start..end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerPart {
    pub number: u32,
    pub start: u64,
    pub end: u64,
    pub sha256: [u8; 32],
}

/// All that is durable of one upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerState {
    /// Of an upload that grows from the front: the bytes that count. Of one in parts: how far its hash has come.
    pub offset: u64,
    /// State of the whole's SHA-256 at `offset`; `None` at 0.
    pub hash: Option<Vec<u8>>,
    /// Sorted by `start`, without overlaps.
    pub extents: Vec<Extent>,
    /// Sorted by number.
    pub parts: Vec<LedgerPart>,
}

/// One step, committed whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerChange {
    /// New offset with its hash state. Offsets never go down: a lower one changes nothing.
    pub checkpoint: Option<(u64, Vec<u8>)>,
    /// Extents that the new ones replace, by their start. Refused when one is not there: somebody else has replaced it.
    pub remove: Vec<u64>,
    pub insert: Vec<Extent>,
    /// Refused when a part of this number or one that overlaps it is there already.
    pub part: Option<LedgerPart>,
}
