//! The journal of one upload: an append-only file that says how many bytes are durable and what they hash to.
//!
//! Layout, little endian. Header of 64 bytes: magic, version, record length, upload id, length of the upload, check.
//! Then records of 128 bytes: offset, kind and state of the running SHA-256, check. A check is the first 8 bytes of
//! SHA-256 over the upload id, the number of the record and the record, so that neither a torn record nor one of
//! another upload is ever believed. A record is written after the bytes it counts were synced, and synced itself
//! before anybody is told. The last record that checks is the truth.
//!
//! That is version 1, for uploads that grow from the front. Version 2 has the same header and the same frame of a
//! record, for uploads in parts: `parts_journal.rs`.

use crate::StoreError;
use reelyard_model::UploadId;
use reelyard_upload::{
    Checkpoint, WholeHash,
    whole_hash::{STATE_KIND, STATE_LEN},
};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

const MAGIC: [u8; 8] = *b"RYUPLOG\n";
const VERSION: u16 = 1;
/// Of journals of uploads in parts.
pub(super) const PARTS_VERSION: u16 = 2;
pub(super) const HEADER_LEN: usize = 64;
pub(super) const RECORD_LEN: usize = 128;
const CHECK_LEN: usize = 8;
/// Of a checkpoint the kind of the hash state; which numbers are something else depends on the version.
pub(super) const KIND_AT: usize = 8;
/// Offset and kind stand before the state.
const STATE_AT: usize = 16;
const _: () = assert!(STATE_AT + STATE_LEN + CHECK_LEN == RECORD_LEN);
/// Stands for a length that its sender did not know; no upload can be so long.
const LENGTH_UNKNOWN: u64 = u64::MAX;
/// Records read at once when the last good one is looked for; more than one is needed only after a torn write.
const TAIL_RECORDS: u64 = 32;

#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    upload: UploadId,
    /// Good records so far: the next one goes behind them.
    records: u64,
}

/// What a journal says.
pub(crate) struct Recorded {
    /// As it was announced when the journal was made; `None`: it was not known then.
    pub(crate) length: Option<u64>,
    pub(crate) offset: u64,
    /// `None`: the state is of a kind that this program does not read; hash the durable bytes again.
    pub(crate) hash: Option<WholeHash>,
}

impl Journal {
    /// A new journal with nothing durable yet. On return the file is synced; its name is not.
    pub(crate) fn create(path: &Path, upload: UploadId, length: Option<u64>) -> Result<(), StoreError> {
        create_file(path, upload, VERSION, length)
    }

    pub(crate) fn open(path: &Path, upload: UploadId) -> Result<(Self, Recorded), StoreError> {
        let reading = |e| StoreError::io("reading the journal", path, e);
        let OpenJournal { file, length, written } = open_file(path, upload, VERSION)?;
        let (records, last) = last_good(&file, upload, written).map_err(reading)?;
        let (offset, hash) = last.map_or((0, Some(WholeHash::new())), |record| read_record(&record));
        Ok((Self { file, path: path.to_owned(), upload, records }, Recorded { length, offset, hash }))
    }

    /// The checkpoint is durable when this returns. The bytes it counts must be durable already.
    pub(crate) fn append(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let record = sealed(self.upload, self.records, checkpoint_record(checkpoint));
        let written = self.file.write_all_at(&record, position_of(self.records));
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            // Nobody may find later what was reported as failed now: its bytes are about to be cut off.
            if let Err(error) = self.file.set_len(position_of(self.records)) {
                tracing::warn!(%error, "a record that does not count stays in a journal");
            }
            return Err(StoreError::io("writing the journal", &self.path, error));
        }
        self.records += 1;
        Ok(())
    }
}

/// A journal file whose header was read.
pub(super) struct OpenJournal {
    pub(super) file: File,
    pub(super) length: Option<u64>,
    /// Whole records, good or not.
    pub(super) written: u64,
}

/// On return the file is synced; its name is not.
pub(super) fn create_file(
    path: &Path,
    upload: UploadId,
    version: u16,
    length: Option<u64>,
) -> Result<(), StoreError> {
    let mut header = [0_u8; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&version.to_le_bytes());
    header[10..12].copy_from_slice(&(RECORD_LEN as u16).to_le_bytes());
    header[16..32].copy_from_slice(upload.as_uuid().as_bytes());
    header[32..40].copy_from_slice(&length.unwrap_or(LENGTH_UNKNOWN).to_le_bytes());
    let check = check_of(upload, u64::MAX, &header[..HEADER_LEN - CHECK_LEN]);
    header[HEADER_LEN - CHECK_LEN..].copy_from_slice(&check);
    File::create_new(path)
        .and_then(|file| file.write_all_at(&header, 0).and_then(|()| file.sync_all()))
        .map_err(|e| StoreError::io("writing the journal", path, e))
}

pub(super) fn open_file(path: &Path, upload: UploadId, version: u16) -> Result<OpenJournal, StoreError> {
    let reading = |e| StoreError::io("reading the journal", path, e);
    let file = File::options().read(true).write(true).open(path).map_err(reading)?;
    let file_len = file.metadata().map_err(reading)?.len();
    if file_len < HEADER_LEN as u64 {
        // The creation was cut before it was acknowledged: nobody knows this upload.
        return Err(StoreError::NotFound { what: path.display().to_string() });
    }
    let mut header = [0_u8; HEADER_LEN];
    file.read_exact_at(&mut header, 0).map_err(reading)?;
    let length = read_header(&header, upload, version)
        .map_err(|problem| StoreError::Damaged { what: path.display().to_string(), problem })?;
    Ok(OpenJournal { file, length, written: (file_len - HEADER_LEN as u64) / RECORD_LEN as u64 })
}

/// Where the record of this number lies.
pub(super) fn position_of(record: u64) -> u64 {
    HEADER_LEN as u64 + record * RECORD_LEN as u64
}

/// Without its check: [`sealed`].
pub(super) fn checkpoint_record(checkpoint: &Checkpoint) -> [u8; RECORD_LEN] {
    let mut record = [0_u8; RECORD_LEN];
    record[..8].copy_from_slice(&checkpoint.offset.to_le_bytes());
    record[KIND_AT] = STATE_KIND;
    record[STATE_AT..STATE_AT + STATE_LEN].copy_from_slice(&checkpoint.hash.save());
    record
}

pub(super) fn sealed(upload: UploadId, number: u64, mut record: [u8; RECORD_LEN]) -> [u8; RECORD_LEN] {
    let check = check_of(upload, number, &record[..RECORD_LEN - CHECK_LEN]);
    record[RECORD_LEN - CHECK_LEN..].copy_from_slice(&check);
    record
}

pub(super) fn is_good(upload: UploadId, number: u64, record: &[u8]) -> bool {
    let (said, check) = record.split_at(RECORD_LEN - CHECK_LEN);
    check == check_of(upload, number, said)
}

fn check_of(upload: UploadId, number: u64, bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut hash = Sha256::new();
    hash.update(upload.as_uuid().as_bytes());
    hash.update(number.to_le_bytes());
    hash.update(bytes);
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&hash.finalize()[..CHECK_LEN]);
    check
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// The length of the upload.
fn read_header(header: &[u8; HEADER_LEN], upload: UploadId, expected: u16) -> Result<Option<u64>, String> {
    if header[..8] != MAGIC {
        return Err("it does not begin as a journal does".to_owned());
    }
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version != expected {
        return Err(match version {
            VERSION => {
                "it is of an upload that grows from the front, and was asked for as one in parts".to_owned()
            }
            PARTS_VERSION => {
                "it is of an upload in parts, and was asked for as one that grows from the front".to_owned()
            }
            _ => {
                format!("it has version {version}, this program reads versions {VERSION} and {PARTS_VERSION}")
            }
        });
    }
    let (said, check) = header.split_at(HEADER_LEN - CHECK_LEN);
    if check != check_of(upload, u64::MAX, said) {
        return Err("its header does not check".to_owned());
    }
    Ok(Some(u64_at(header, 32)).filter(|length| *length != LENGTH_UNKNOWN))
}

/// The number of records up to the last one that checks, and that one.
fn last_good(
    file: &File,
    upload: UploadId,
    written: u64,
) -> std::io::Result<(u64, Option<[u8; RECORD_LEN]>)> {
    let mut end = written;
    while end > 0 {
        let start = end.saturating_sub(TAIL_RECORDS);
        let mut tail = vec![0_u8; (end - start) as usize * RECORD_LEN];
        file.read_exact_at(&mut tail, HEADER_LEN as u64 + start * RECORD_LEN as u64)?;
        for (index, bytes) in tail.chunks_exact(RECORD_LEN).enumerate().rev() {
            let number = start + index as u64;
            if is_good(upload, number, bytes) {
                let mut record = [0; RECORD_LEN];
                record.copy_from_slice(bytes);
                return Ok((number + 1, Some(record)));
            }
        }
        end = start;
    }
    Ok((0, None))
}

pub(super) fn read_record(record: &[u8; RECORD_LEN]) -> (u64, Option<WholeHash>) {
    let known = record[KIND_AT] == STATE_KIND;
    let hash = known.then(|| WholeHash::restore(&record[STATE_AT..STATE_AT + STATE_LEN])).flatten();
    (u64_at(record, 0), hash)
}

#[cfg(test)]
mod tests {
    use super::{HEADER_LEN, Journal, RECORD_LEN};
    use crate::StoreError;
    use reelyard_model::UploadId;
    use reelyard_upload::{Checkpoint, WholeHash};
    use std::{fs, path::PathBuf};
    use uuid::Uuid;

    const UPLOAD: UploadId = UploadId::from_uuid(Uuid::from_u128(7));

    fn checkpoint(bytes: &[u8]) -> Checkpoint {
        let mut hash = WholeHash::new();
        hash.update(bytes);
        Checkpoint { offset: bytes.len() as u64, hash }
    }

    fn written(records: usize) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.journal");
        Journal::create(&path, UPLOAD, Some(1000)).unwrap();
        let (mut journal, _) = Journal::open(&path, UPLOAD).unwrap();
        for n in 1..=records {
            journal.append(&checkpoint(&vec![1; n * 10])).unwrap();
        }
        (directory, path)
    }

    #[test]
    fn a_journal_says_what_was_appended_last() {
        for records in [0, 1, 2, 31, 32, 33, 70] {
            let (_directory, path) = written(records);
            let (_, recorded) = Journal::open(&path, UPLOAD).unwrap();
            assert_eq!((recorded.length, recorded.offset), (Some(1000), records as u64 * 10));
            assert_eq!(recorded.hash.unwrap().digest(), checkpoint(&vec![1; records * 10]).hash.digest());
        }
    }

    #[test]
    fn a_torn_record_is_ignored_wherever_it_was_torn_and_written_over() {
        for cut in 1..RECORD_LEN {
            let (_directory, path) = written(3);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
            let (mut journal, recorded) = Journal::open(&path, UPLOAD).unwrap();
            assert_eq!(recorded.offset, 20, "cut by {cut}");
            journal.append(&checkpoint(&[1; 25])).unwrap();
            assert_eq!(Journal::open(&path, UPLOAD).unwrap().1.offset, 25);
        }
    }

    #[test]
    fn a_record_with_a_flipped_bit_is_not_believed() {
        for at in 0..RECORD_LEN {
            let (_directory, path) = written(2);
            let mut bytes = fs::read(&path).unwrap();
            bytes[HEADER_LEN + RECORD_LEN + at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(Journal::open(&path, UPLOAD).unwrap().1.offset, 10, "byte {at}");
        }
    }

    #[test]
    fn a_journal_of_another_upload_is_damage_and_half_a_header_is_no_upload() {
        let (_directory, path) = written(1);
        let other = UploadId::from_uuid(Uuid::from_u128(8));
        assert!(matches!(Journal::open(&path, other), Err(StoreError::Damaged { .. })));
        fs::write(&path, b"RYUP").unwrap();
        assert!(Journal::open(&path, UPLOAD).err().unwrap().is_not_found());
    }

    /// Yesterday's files: this one was written by the first release.
    #[test]
    fn the_journal_of_the_first_release_is_read() {
        let bytes = hex::decode(include_str!("../../tests/golden/journal-v1.hex").trim()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.journal");
        fs::write(&path, &bytes).unwrap();
        let (_, recorded) = Journal::open(&path, UPLOAD).unwrap();
        assert_eq!((recorded.length, recorded.offset), (Some(1000), 20));
        assert_eq!(recorded.hash.unwrap().digest(), checkpoint(&[1; 20]).hash.digest());
        let (_directory, path) = written(2);
        assert_eq!(hex::encode(fs::read(path).unwrap()), hex::encode(bytes));
    }
}
