//! A part on its way in: its bytes in order, their SHA-256, and the comparison with what was announced.

use super::{DurablePart, PartRefusal, PartSettled};
use crate::{Algorithm, BodyEnd, Check, Checksum, WholeHash, checksum::RunningChecksum};
use std::ops::Range;

pub struct PartChunk {
    number: u32,
    range: Range<u64>,
    position: u64,
    sha256: WholeHash,
    announced: Option<Checksum>,
    /// Of an announced checksum other than SHA-256, which is computed anyway.
    running: Option<Box<RunningChecksum>>,
    /// Of the part with this number and range that is stored already.
    stored: Option<[u8; 32]>,
}

impl PartChunk {
    pub(super) fn start(
        number: u32,
        range: Range<u64>,
        check: &Check,
        stored: Option<[u8; 32]>,
    ) -> Result<Self, PartRefusal> {
        let announced = match check {
            Check::Announced(announced) => Some(announced.clone()),
            Check::None | Check::Trailing => None,
        };
        let is_sha256 = announced.as_ref().is_some_and(|it| it.algorithm() == Algorithm::Sha256);
        if let (Some(stored), Some(announced), true) = (stored, &announced, is_sha256)
            && announced.digest() != stored
        {
            return Err(PartRefusal::OtherBytes { number });
        }
        let other = announced.as_ref().filter(|_| !is_sha256);
        let running = other.map(|announced| Box::new(announced.algorithm().start()));
        Ok(Self {
            number,
            position: range.start,
            range,
            sha256: WholeHash::new(),
            announced,
            running,
            stored,
        })
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn range(&self) -> &Range<u64> {
        &self.range
    }

    /// Where in the whole the next byte belongs.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The part is stored already: its bytes are to be compared, not written.
    pub fn is_repeat(&self) -> bool {
        self.stored.is_some()
    }

    /// The next bytes, in order. On refusal none of them is taken.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), PartRefusal> {
        if bytes.len() as u64 > self.range.end - self.position {
            return Err(PartRefusal::BodyTooLong { number: self.number, range: self.range.clone() });
        }
        self.sha256.update(bytes);
        if let Some(running) = &mut self.running {
            running.update(bytes);
        }
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// The body ended. A part counts whole or not at all.
    pub fn settle(self, end: &BodyEnd) -> Result<PartSettled, PartRefusal> {
        let number = self.number;
        if *end == BodyEnd::Cut {
            return Ok(PartSettled::Discard);
        }
        if self.position < self.range.end {
            let received = self.position - self.range.start;
            return Err(PartRefusal::BodyTooShort { number, range: self.range, received });
        }
        let sha256 = self.sha256.digest();
        if let Some(announced) = self.announced {
            let found = self.running.map_or_else(|| sha256.to_vec(), |running| running.digest());
            if announced.digest() != found {
                let algorithm = announced.algorithm().as_str();
                return Err(PartRefusal::ChecksumMismatch { number, algorithm });
            }
        }
        let part = DurablePart { number, range: self.range, sha256 };
        match self.stored {
            None => Ok(PartSettled::Store(part)),
            Some(stored) if stored == sha256 => Ok(PartSettled::AlreadyThere(part)),
            Some(_) => Err(PartRefusal::OtherBytes { number }),
        }
    }
}

impl std::fmt::Debug for PartChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartChunk")
            .field("number", &self.number)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}
