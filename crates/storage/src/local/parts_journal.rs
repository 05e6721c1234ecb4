//! The journal of an upload in parts: which parts are durable, and how far the SHA-256 of the whole has come.
//!
//! Version 2 of the format in `journal.rs`: the same header, and records of 128 bytes with the same check. A record's
//! kind says what it is: a hash state at an offset, laid out as in version 1, or a part: first byte, kind, number, end,
//! SHA-256. A part's record is written after its bytes were synced, and synced before anybody is told; so every record
//! that checks is the truth, whatever became of those beside it. A hash state saves work and nothing else.

use super::journal::{
    KIND_AT, OpenJournal, PARTS_VERSION, RECORD_LEN, checkpoint_record, create_file, is_good, open_file,
    position_of, read_record, sealed, u64_at,
};
use crate::StoreError;
use reelyard_model::UploadId;
use reelyard_upload::{Checkpoint, parts::DurablePart};
use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// Kind of a part's record. Kinds of hash states (`whole_hash::STATE_KIND`) stay below.
const PART_KIND: u8 = 128;
const NUMBER_AT: usize = 12;
const END_AT: usize = 16;
const SHA256_AT: usize = 24;
const SHA256_LEN: usize = 32;
/// Records of one read: 10,000 parts and a few hash states come to 1.3 MiB, so a journal takes a handful of reads.
const READ_RECORDS: u64 = 4096;

#[derive(Debug)]
pub(super) struct PartsJournal {
    file: File,
    path: PathBuf,
    upload: UploadId,
    /// Up to the last good one: the next one goes behind them.
    records: u64,
}

/// What a journal says.
pub(super) struct RecordedParts {
    pub(super) length: u64,
    pub(super) parts: Vec<DurablePart>,
    /// The furthest hash state that can be read; `None`: hash from the beginning.
    pub(super) hashed: Option<Checkpoint>,
}

pub(super) enum PartsRecord {
    Part(DurablePart),
    Hashed(Checkpoint),
}

impl PartsJournal {
    pub(super) fn create(path: &Path, upload: UploadId, length: u64) -> Result<(), StoreError> {
        create_file(path, upload, PARTS_VERSION, Some(length))
    }

    pub(super) fn open(path: &Path, upload: UploadId) -> Result<(Self, RecordedParts), StoreError> {
        let OpenJournal { file, length, written } = open_file(path, upload, PARTS_VERSION)?;
        let length = length.ok_or_else(|| StoreError::Damaged {
            what: path.display().to_string(),
            problem: "an upload in parts has a length, and this one has none".to_owned(),
        })?;
        let mut recorded = RecordedParts { length, parts: Vec::new(), hashed: None };
        let mut records = 0;
        let mut buffer = Vec::new();
        for start in (0..written).step_by(READ_RECORDS as usize) {
            let count = READ_RECORDS.min(written - start) as usize;
            buffer.resize(count * RECORD_LEN, 0);
            file.read_exact_at(&mut buffer, position_of(start))
                .map_err(|e| StoreError::io("reading the journal", path, e))?;
            for (number, bytes) in (start..).zip(buffer.chunks_exact(RECORD_LEN)) {
                let mut record = [0; RECORD_LEN];
                record.copy_from_slice(bytes);
                if is_good(upload, number, &record) {
                    records = number + 1;
                    recorded.read(&record);
                }
            }
        }
        Ok((Self { file, path: path.to_owned(), upload, records }, recorded))
    }

    /// All of them or none, as far as this process can tell: after an error nothing of them is there.
    pub(super) fn append(&mut self, records: &[PartsRecord], sync: bool) -> Result<(), StoreError> {
        let sealed = (self.records..).zip(records).map(|(number, record)| {
            let record = match record {
                PartsRecord::Part(part) => part_record(part),
                PartsRecord::Hashed(checkpoint) => checkpoint_record(checkpoint),
            };
            sealed(self.upload, number, record)
        });
        let bytes = sealed.collect::<Vec<_>>().concat();
        let written = self.file.write_all_at(&bytes, position_of(self.records));
        let synced = written.and_then(|()| if sync { self.file.sync_data() } else { Ok(()) });
        if let Err(error) = synced {
            // Nobody may find later what was reported as failed now.
            if let Err(error) = self.file.set_len(position_of(self.records)) {
                tracing::warn!(%error, "records that do not count stay in a journal");
            }
            return Err(StoreError::io("writing the journal", &self.path, error));
        }
        self.records += records.len() as u64;
        Ok(())
    }
}

impl RecordedParts {
    fn read(&mut self, record: &[u8; RECORD_LEN]) {
        if record[KIND_AT] == PART_KIND {
            self.parts.push(read_part(record));
            return;
        }
        let (offset, hash) = read_record(record);
        let further = self.hashed.as_ref().is_none_or(|hashed| hashed.offset < offset);
        if let Some(hash) = hash.filter(|_| further) {
            self.hashed = Some(Checkpoint { offset, hash });
        }
    }
}

fn part_record(part: &DurablePart) -> [u8; RECORD_LEN] {
    let mut record = [0; RECORD_LEN];
    record[..8].copy_from_slice(&part.range.start.to_le_bytes());
    record[KIND_AT] = PART_KIND;
    record[NUMBER_AT..NUMBER_AT + 4].copy_from_slice(&part.number.to_le_bytes());
    record[END_AT..END_AT + 8].copy_from_slice(&part.range.end.to_le_bytes());
    record[SHA256_AT..SHA256_AT + SHA256_LEN].copy_from_slice(&part.sha256);
    record
}

fn read_part(record: &[u8; RECORD_LEN]) -> DurablePart {
    let mut number = [0; 4];
    number.copy_from_slice(&record[NUMBER_AT..NUMBER_AT + 4]);
    let mut sha256 = [0; SHA256_LEN];
    sha256.copy_from_slice(&record[SHA256_AT..SHA256_AT + SHA256_LEN]);
    DurablePart {
        number: u32::from_le_bytes(number),
        range: u64_at(record, 0)..u64_at(record, END_AT),
        sha256,
    }
}

const _: () = assert!(SHA256_AT + SHA256_LEN + 8 <= RECORD_LEN);

#[cfg(test)]
mod tests {
    use super::{PartsJournal, PartsRecord, RECORD_LEN, RecordedParts, position_of};
    use crate::{StoreError, local::journal::Journal};
    use reelyard_model::UploadId;
    use reelyard_upload::{Checkpoint, WholeHash, parts::DurablePart};
    use std::{fs, path::PathBuf};
    use uuid::Uuid;

    const UPLOAD: UploadId = UploadId::from_uuid(Uuid::from_u128(7));

    fn part(number: u32) -> DurablePart {
        let start = u64::from(number - 1) * 10;
        DurablePart { number, range: start..start + 10, sha256: [number as u8; 32] }
    }

    fn hashed(bytes: &[u8]) -> PartsRecord {
        let mut hash = WholeHash::new();
        hash.update(bytes);
        PartsRecord::Hashed(Checkpoint { offset: bytes.len() as u64, hash })
    }

    /// Parts 3, 1 and 2, hashed up to 20.
    fn written() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.journal");
        PartsJournal::create(&path, UPLOAD, 1000).unwrap();
        let (mut journal, recorded) = PartsJournal::open(&path, UPLOAD).unwrap();
        assert!(recorded.parts.is_empty() && recorded.hashed.is_none());
        journal.append(&[PartsRecord::Part(part(3))], true).unwrap();
        journal.append(&[PartsRecord::Part(part(1)), PartsRecord::Part(part(2))], true).unwrap();
        journal.append(&[hashed(&[1; 20])], false).unwrap();
        (directory, path)
    }

    fn read(path: &std::path::Path) -> RecordedParts {
        PartsJournal::open(path, UPLOAD).unwrap().1
    }

    #[test]
    fn a_journal_says_which_parts_were_appended_and_how_far_the_hash_was() {
        let (_directory, path) = written();
        let recorded = read(&path);
        assert_eq!((recorded.length, recorded.parts), (1000, vec![part(3), part(1), part(2)]));
        let checkpoint = recorded.hashed.unwrap();
        let mut expected = WholeHash::new();
        expected.update(&[1; 20]);
        assert_eq!((checkpoint.offset, checkpoint.hash.digest()), (20, expected.digest()));
    }

    #[test]
    fn a_torn_record_is_ignored_wherever_it_was_torn_and_written_over() {
        for cut in 1..RECORD_LEN {
            let (_directory, path) = written();
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - RECORD_LEN - cut]).unwrap();
            let (mut journal, recorded) = PartsJournal::open(&path, UPLOAD).unwrap();
            assert_eq!(recorded.parts, [part(3), part(1)], "cut by {cut}");
            journal.append(&[PartsRecord::Part(part(4))], true).unwrap();
            assert_eq!(read(&path).parts, [part(3), part(1), part(4)]);
        }
    }

    #[test]
    fn a_record_with_a_flipped_bit_is_not_believed_and_the_others_are() {
        for at in 0..RECORD_LEN {
            let (_directory, path) = written();
            let mut bytes = fs::read(&path).unwrap();
            bytes[position_of(1) as usize + at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(read(&path).parts, [part(3), part(2)], "byte {at}");
        }
    }

    #[test]
    fn more_records_than_one_read_takes_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.journal");
        PartsJournal::create(&path, UPLOAD, 1 << 40).unwrap();
        let (mut journal, _) = PartsJournal::open(&path, UPLOAD).unwrap();
        let parts: Vec<DurablePart> = (1..=10_000).map(part).collect();
        let records: Vec<PartsRecord> = parts.iter().cloned().map(PartsRecord::Part).collect();
        journal.append(&records, false).unwrap();
        assert_eq!(read(&path).parts, parts);
    }

    #[test]
    fn the_two_kinds_of_journals_are_not_mistaken_for_one_another() {
        let (_directory, path) = written();
        assert!(matches!(Journal::open(&path, UPLOAD), Err(StoreError::Damaged { .. })));
        fs::remove_file(&path).unwrap();
        Journal::create(&path, UPLOAD, Some(1000)).unwrap();
        assert!(matches!(PartsJournal::open(&path, UPLOAD), Err(StoreError::Damaged { .. })));
    }

    /// Yesterday's files: this one was written by the first release that had uploads in parts.
    #[test]
    fn the_journal_of_the_first_release_with_parts_is_read() {
        let golden = include_str!("../../tests/golden/journal-v2.hex").trim();
        let (_directory, path) = written();
        assert_eq!(hex::encode(fs::read(&path).unwrap()), golden);
        fs::write(&path, hex::decode(golden).unwrap()).unwrap();
        assert_eq!(read(&path).parts, [part(3), part(1), part(2)]);
    }
}
