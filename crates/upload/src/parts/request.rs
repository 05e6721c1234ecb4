//! Requests of the dialect, read from their headers and their JSON bodies.

use super::{ListedPart, MAX_PARTS, PartRequest, PartSizes, PartsError, header};
use crate::{
    digest_fields::{Digests, Integrity, content_check},
    fields::{FieldError, Fields, bad, content_length, digits, number, optional, printable},
    tus::Metadata,
};
use reelyard_model::UploadId;
use serde::Deserialize;
use std::ops::Range;

/// Body of a POST that begins: a title and a file name have room many times over.
pub const MAX_OPENING_BYTES: usize = 64 << 10;
/// Body of a POST that completes: 10,000 entries of 100 bytes, twice.
pub const MAX_COMPLETION_BYTES: usize = 2 << 20;
const SHA256_LEN: usize = 32;

/// A POST that begins an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub length: u64,
    /// From `Upload-Metadata` and from the body, in the form of the header.
    pub metadata: Metadata,
    /// SHA-256 of the whole, where the client knows it already.
    pub expected: Option<[u8; SHA256_LEN]>,
}

/// The JSON body that it may have.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpeningBody {
    length: Option<u64>,
    filename: Option<String>,
    content_type: Option<String>,
    preset: Option<String>,
    title: Option<String>,
    tier: Option<String>,
    sha256: Option<String>,
}

/// A PUT that brings a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartUpload {
    pub upload: UploadId,
    part: PartRequest,
    total: u64,
}

/// A POST that completes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    pub upload: UploadId,
    pub list: Vec<ListedPart>,
    /// SHA-256 of the whole.
    pub expected: Option<[u8; SHA256_LEN]>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FullCompletion {
    parts: Vec<ListEntry>,
    sha256: Option<String>,
}

/// Other members are ignored, so that the entries of GET's list can be sent back as they are.
#[derive(Debug, Deserialize)]
struct ListEntry {
    part_number: u32,
    etag: String,
}

/// `X-Upload-ID`.
pub fn upload_id(fields: &impl Fields) -> Result<UploadId, PartsError> {
    const EXPECTED: &str = "the X-Upload-ID that POST /uploads/parts answered";
    let name = header::UPLOAD_ID;
    let text =
        optional(fields, name, EXPECTED)?.ok_or(FieldError::Missing { name, expected: EXPECTED })?.trim();
    text.parse().map_err(|_| bad(name, format!("{} is not an upload", printable(text)), EXPECTED).into())
}

impl Opening {
    /// `body` is empty or JSON.
    pub fn read(fields: &impl Fields, body: &[u8], max_upload_bytes: u64) -> Result<Self, PartsError> {
        const LENGTH: &str = "the size of the whole upload in bytes, such as Upload-Length: 1048576";
        const BODY: &str = "an object such as {\"length\": 1048576, \"filename\": \"holiday.mp4\"}; the members are length, filename, content_type, preset, title, tier and sha256";
        let told = match body.trim_ascii() {
            [] => OpeningBody::default(),
            body => json(body, BODY)?,
        };
        let announced = optional(fields, header::LENGTH, LENGTH)?;
        let announced = announced.map(|text| digits(header::LENGTH, text, LENGTH)).transpose()?;
        let length = match (announced, told.length) {
            (Some(header), Some(body)) if header != body => {
                return Err(PartsError::LengthTwice { header, body });
            }
            (header, body) => header.or(body).ok_or(PartsError::LengthMissing)?,
        };
        let max = max_upload_bytes.min(PartSizes::max_length());
        if length > max {
            return Err(PartsError::TooLarge { length, max });
        }
        let expected = expected(fields, told.sha256.as_deref(), BODY)?;
        Ok(Self { length, metadata: metadata(fields, &told)?, expected })
    }
}

/// What the body says goes before what the header says of the same key.
fn metadata(fields: &impl Fields, told: &OpeningBody) -> Result<Metadata, PartsError> {
    let header = optional(fields, header::METADATA, "ASCII text, in one header")?;
    let header = header.map_or(Ok(Metadata::default()), Metadata::parse)?;
    let OpeningBody { filename, content_type, preset, title, tier, .. } = told;
    // `filetype` is what clients of tus call it.
    let body = [
        ("filename", filename),
        ("filetype", content_type),
        ("preset", preset),
        ("title", title),
        ("tier", tier),
    ];
    let body = body.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?.as_bytes())));
    let mut pairs: Vec<(&str, &[u8])> = body.collect();
    if pairs.is_empty() {
        return Ok(header);
    }
    for (key, value) in header.pairs() {
        if !pairs.iter().any(|(taken, _)| taken == key) {
            pairs.push((key, value));
        }
    }
    Ok(Metadata::parse(&Metadata::format(&pairs))?)
}

impl PartUpload {
    pub fn read(fields: &impl Fields) -> Result<Self, PartsError> {
        const NUMBER: &str = "the number of the part, from 1 to 10000";
        let upload = upload_id(fields)?;
        let claimed = number(fields, header::PART_NUMBER, NUMBER)?;
        let part_number = u32::try_from(claimed)
            .ok()
            .filter(|number| (1..=MAX_PARTS).contains(number))
            .ok_or_else(|| bad(header::PART_NUMBER, format!("{claimed} is not one"), NUMBER))?;
        let (range, total) = content_range(fields)?;
        let range_len = range.end - range.start;
        match content_length(fields)? {
            Some(body_len) if body_len != range_len => {
                return Err(PartsError::BodyDiffers { body_len, range_len });
            }
            _ => {}
        }
        let part = PartRequest { number: part_number, range, check: content_check(fields)? };
        Ok(Self { upload, part, total })
    }

    /// The part, if it fits into an upload of this length.
    pub fn within(self, length: u64) -> Result<PartRequest, PartsError> {
        let Self { part, total, .. } = self;
        if total != length {
            return Err(PartsError::TotalDiffers { claimed: total, length });
        }
        let (number, byte_len) = (part.number, part.range.end - part.range.start);
        let sizes = PartSizes::of(length);
        if byte_len > sizes.max {
            return Err(PartsError::PartTooLarge { number, byte_len });
        }
        if byte_len < sizes.min && part.range.end != length {
            return Err(PartsError::PartTooSmall { number, byte_len });
        }
        Ok(part)
    }

    pub fn number(&self) -> u32 {
        self.part.number
    }

    pub fn body_len(&self) -> u64 {
        self.part.range.end - self.part.range.start
    }
}

/// `bytes a-b/total`, the last byte named as in RFC 9110 section 14.4.
fn content_range(fields: &impl Fields) -> Result<(Range<u64>, u64), PartsError> {
    const EXPECTED: &str =
        "the first byte, the last byte and the size of the whole, such as X-Content-Range: bytes 0-99/1000";
    let name = header::CONTENT_RANGE;
    let text = optional(fields, name, EXPECTED)?.ok_or(FieldError::Missing { name, expected: EXPECTED })?;
    let numbers = || {
        let rest = text.trim();
        let unit = rest.get(..5).filter(|unit| unit.eq_ignore_ascii_case("bytes"))?;
        let (range, total) = rest[unit.len()..].strip_prefix([' ', '='])?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some((first, last, total))
    };
    let (first, last, total) =
        numbers().ok_or_else(|| bad(name, format!("{} is no range", printable(text)), EXPECTED))?;
    let first = digits(name, first, EXPECTED)?;
    let last = digits(name, last, EXPECTED)?;
    let total = digits(name, total, EXPECTED)?;
    if last < first {
        return Err(bad(name, format!("it ends at {last}, before {first}"), EXPECTED).into());
    }
    Ok((first..last + 1, total))
}

impl Completion {
    pub fn read(fields: &impl Fields, body: &[u8]) -> Result<Self, PartsError> {
        const BODY: &str = "the list of all parts, such as [{\"part_number\": 1, \"etag\": \"...\"}], or {\"parts\": [...], \"sha256\": \"...\"}";
        let upload = upload_id(fields)?;
        // Told apart by their first byte: trying one form after the other would keep the whole body a second time.
        let (entries, sha256) = match body.trim_ascii_start().first() {
            Some(b'[') => (json(body, BODY)?, None),
            _ => {
                let FullCompletion { parts, sha256 } = json(body, BODY)?;
                (parts, sha256)
            }
        };
        if entries.len() > MAX_PARTS as usize {
            let problem = format!("{} parts, more than {MAX_PARTS}", entries.len());
            return Err(PartsError::BadBody { problem, expected: BODY });
        }
        let list = entries.iter().map(|entry| {
            let sha256 = etag(&entry.etag).ok_or_else(|| PartsError::BadBody {
                problem: format!("the etag of part {} is none of this server's", entry.part_number),
                expected: BODY,
            })?;
            Ok(ListedPart { number: entry.part_number, sha256 })
        });
        let list = list.collect::<Result<Vec<_>, PartsError>>()?;
        Ok(Self { upload, list, expected: expected(fields, sha256.as_deref(), BODY)? })
    }
}

/// With its quotes or without.
fn etag(text: &str) -> Option<[u8; SHA256_LEN]> {
    let text = text.trim();
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    hex::decode(bare).ok()?.try_into().ok()
}

/// What the whole is said to be, in `Repr-Digest` or as `sha256` in the body. Of the digests of RFC 9530, SHA-256 is the
/// one that is computed; others are ignored, as its section 2 allows.
fn expected(
    fields: &impl Fields,
    sha256: Option<&str>,
    body: &'static str,
) -> Result<Option<[u8; SHA256_LEN]>, PartsError> {
    let header = Digests::read(fields, Integrity::Repr)?.sha256;
    let header = header.and_then(|checksum| checksum.digest().try_into().ok());
    let told = sha256.map(|text| {
        let digest = hex::decode(text.trim()).ok();
        digest.and_then(|digest| digest.try_into().ok()).ok_or_else(|| PartsError::BadBody {
            problem: format!("sha256 is {}, not 64 hexadecimal digits", printable(text)),
            expected: body,
        })
    });
    match (told.transpose()?, header) {
        (Some(told), Some(header)) if told != header => Err(PartsError::WholeDigestTwice),
        (told, header) => Ok(told.or(header)),
    }
}

fn json<'a, T: Deserialize<'a>>(body: &'a [u8], expected: &'static str) -> Result<T, PartsError> {
    serde_json::from_slice(body)
        .map_err(|problem| PartsError::BadBody { problem: printable(&problem.to_string()), expected })
}
