//! Which parts of an upload are durable, and what that means for the next one and for the end.
//!
//! A [`PartSet`] is what a store's journal or ledger says. A request is shown to [`PartSet::begin`], which refuses it
//! or gives a [`PartChunk`] that takes the bytes; the store makes the settled part durable and tells the set afterwards
//! ([`PartSet::insert`]). Two numbers never have a byte in common, a number that is taken keeps its bytes, and parts
//! that are being received at the same time are kept apart as well.

use super::{PartChunk, PartRefusal};
use crate::Check;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

/// A part as a client asks to send it. Its body is as long as its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRequest {
    /// From 1.
    pub number: u32,
    /// Of the whole, in bytes; not empty.
    pub range: Range<u64>,
    /// [`Check::Trailing`] is not offered for parts and counts as nothing announced.
    pub check: Check,
}

/// A part that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurablePart {
    pub number: u32,
    pub range: Range<u64>,
    pub sha256: [u8; 32],
}

impl DurablePart {
    /// Its entity tag (RFC 9110 section 8.8.3): the quoted hex of its SHA-256.
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.sha256_hex())
    }

    pub fn sha256_hex(&self) -> String {
        hex::encode(self.sha256)
    }
}

/// A part as the list at the end names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPart {
    pub number: u32,
    pub sha256: [u8; 32],
}

/// What happened to a part whose body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartSettled {
    /// Make it durable, then [`PartSet::insert`].
    Store(DurablePart),
    /// The same bytes are stored already.
    AlreadyThere(DurablePart),
    /// Its body was cut: none of its bytes count, and it can be sent again.
    Discard,
}

/// What is durable of one upload in parts.
#[derive(Clone, Debug)]
pub struct PartSet {
    length: u64,
    durable: BTreeMap<u32, DurablePart>,
    /// First byte to number, of `durable`.
    by_start: BTreeMap<u64, u32>,
    /// All bytes before this one are durable.
    contiguous: u64,
    /// Being received, in this process: no other part may touch these bytes.
    under_way: HashMap<u32, Range<u64>>,
}

impl PartSet {
    pub fn new(length: u64) -> Self {
        Self {
            length,
            durable: BTreeMap::new(),
            by_start: BTreeMap::new(),
            contiguous: 0,
            under_way: HashMap::new(),
        }
    }

    /// From a journal or a ledger. Fails when its parts contradict one another or the length: it is damaged.
    pub fn restore(length: u64, parts: impl IntoIterator<Item = DurablePart>) -> Result<Self, PartRefusal> {
        let mut set = Self::new(length);
        parts.into_iter().try_for_each(|part| set.insert(part))?;
        Ok(set)
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// What is durable, by number.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &DurablePart> {
        self.durable.values()
    }

    pub fn part(&self, number: u32) -> Option<&DurablePart> {
        self.durable.get(&number)
    }

    /// Bytes that are durable, wherever they lie.
    pub fn durable_bytes(&self) -> u64 {
        self.length - self.missing().iter().map(|gap| gap.end - gap.start).sum::<u64>()
    }

    /// All bytes before this one are durable.
    pub fn contiguous(&self) -> u64 {
        self.contiguous
    }

    pub fn is_whole(&self) -> bool {
        self.contiguous == self.length
    }

    /// What is not durable, in order.
    pub fn missing(&self) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut end = 0;
        for part in self.by_start.values().filter_map(|number| self.durable.get(number)) {
            if end < part.range.start {
                gaps.push(end..part.range.start);
            }
            end = part.range.end;
        }
        if end < self.length {
            gaps.push(end..self.length);
        }
        gaps
    }

    /// Begins a part, or says why not. A part that is stored already is received to be compared, not to be written
    /// ([`PartChunk::is_repeat`]). One that is new is under way until [`Self::insert`] or [`Self::give_up`].
    pub fn begin(&mut self, request: &PartRequest) -> Result<PartChunk, PartRefusal> {
        let chunk = self.admit(request)?;
        if !chunk.is_repeat() {
            self.under_way.insert(request.number, request.range.clone());
        }
        Ok(chunk)
    }

    /// As [`Self::begin`], for stores that let parts race and decide when they are stored.
    pub fn admit(&self, request: &PartRequest) -> Result<PartChunk, PartRefusal> {
        let PartRequest { number, range, check } = request;
        let stored = self.check_place(*number, range)?;
        if let Some((other, taken)) = self.under_way.iter().find(|(_, taken)| overlap(taken, range)) {
            return Err(match other == number {
                true => PartRefusal::UnderWay { number: *number },
                false => {
                    PartRefusal::OverlapsUnderWay { number: *number, other: *other, taken: taken.clone() }
                }
            });
        }
        if self.under_way.contains_key(number) {
            return Err(PartRefusal::UnderWay { number: *number });
        }
        PartChunk::start(*number, range.clone(), check, stored.map(|part| part.sha256))
    }

    /// The part will not be stored: its bytes are free for others.
    pub fn give_up(&mut self, number: u32) {
        self.under_way.remove(&number);
    }

    /// The part is durable: from now on it counts. To be told so twice is fine.
    pub fn insert(&mut self, part: DurablePart) -> Result<(), PartRefusal> {
        let stored = self.check_place(part.number, &part.range)?.map(|stored| stored.sha256);
        self.under_way.remove(&part.number);
        match stored {
            Some(sha256) if sha256 == part.sha256 => Ok(()),
            Some(_) => Err(PartRefusal::OtherBytes { number: part.number }),
            None => {
                self.by_start.insert(part.range.start, part.number);
                self.durable.insert(part.number, part);
                self.move_contiguous();
                Ok(())
            }
        }
    }

    /// Whether the list names all of the upload and nothing else.
    pub fn check_complete(&self, list: &[ListedPart]) -> Result<(), PartRefusal> {
        if !self.is_whole() {
            return Err(PartRefusal::NotWhole { missing: self.missing() });
        }
        let mut listed = HashSet::new();
        for entry in list {
            let number = entry.number;
            let stored = self.durable.get(&number).ok_or(PartRefusal::ListedNotStored { number })?;
            if stored.sha256 != entry.sha256 {
                return Err(PartRefusal::ListedOtherBytes { number, etag: stored.etag() });
            }
            if !listed.insert(number) {
                return Err(PartRefusal::ListedTwice { number });
            }
        }
        match self.durable.keys().find(|number| !listed.contains(number)) {
            Some(number) => Err(PartRefusal::StoredNotListed { number: *number }),
            None => Ok(()),
        }
    }

    fn move_contiguous(&mut self) {
        while let Some(part) = self.by_start.get(&self.contiguous).and_then(|number| self.durable.get(number))
        {
            self.contiguous = part.range.end;
        }
    }

    /// The part of this number that is stored, if its range is this one.
    fn check_place(&self, number: u32, range: &Range<u64>) -> Result<Option<&DurablePart>, PartRefusal> {
        if range.is_empty() || range.end > self.length {
            return Err(PartRefusal::OutsideLength { number, range: range.clone(), length: self.length });
        }
        if let Some(stored) = self.durable.get(&number) {
            return match stored.range == *range {
                true => Ok(Some(stored)),
                false => Err(PartRefusal::OtherRange { number, stored: stored.range.clone() }),
            };
        }
        // Of those that begin before this one's end the last: without overlaps among themselves it ends last, too.
        let before = self.by_start.range(..range.end).next_back();
        match before.and_then(|(_, other)| self.durable.get(other)) {
            Some(other) if overlap(&other.range, range) => {
                Err(PartRefusal::Overlaps { number, other: other.number, taken: other.range.clone() })
            }
            _ => Ok(None),
        }
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}
