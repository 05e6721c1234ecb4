//! Requests of the dialect: what a POST and a PATCH ask for, read from their headers.

use super::{BODY_TYPE, Concat, Metadata, TusError, VERSION, checksum, header};
use crate::{
    ChunkRequest,
    fields::{Field, Fields, bad, content_length, digits, number, optional, printable},
};

const LENGTH: &str = "the size of the whole upload in bytes, such as Upload-Length: 1048576";

/// A POST that makes an upload, perhaps with its first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    /// In bytes. `None` when the client does not know it yet (creation-defer-length), and for a final upload, whose
    /// length is that of its partial uploads ([`super::final_length`]).
    pub length: Option<u64>,
    pub concat: Concat,
    pub metadata: Metadata,
    /// The first chunk, when the body carries one (creation-with-upload). Never with a final upload.
    pub first_chunk: Option<ChunkRequest>,
}

/// A PATCH that appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    pub chunk: ChunkRequest,
    /// The length of the whole, where the client tells it now because it did not know it before:
    /// [`crate::Transfer::declare_length`] before the chunk begins. It may come with an empty chunk.
    pub length: Option<u64>,
}

/// Every request but OPTIONS names the protocol version.
pub fn check_version(fields: &impl Fields) -> Result<(), TusError> {
    match fields.field(header::RESUMABLE) {
        Field::Text(VERSION) => Ok(()),
        Field::Text(other) => Err(TusError::UnsupportedVersion { received: printable(other) }),
        Field::Absent => Err(TusError::UnsupportedVersion { received: "none".to_owned() }),
        Field::NotText | Field::Repeated => {
            Err(TusError::UnsupportedVersion { received: "an unreadable value".to_owned() })
        }
    }
}

/// `X-HTTP-Method-Override`, for clients that can only POST: the protocol demands that it is obeyed.
pub fn method_override(fields: &impl Fields) -> Result<Option<&'static str>, TusError> {
    const EXPECTED: &str = "one of POST, HEAD, PATCH, DELETE, OPTIONS, GET, PUT";
    let Some(text) = optional(fields, header::METHOD_OVERRIDE, EXPECTED)? else { return Ok(None) };
    ["POST", "HEAD", "PATCH", "DELETE", "OPTIONS", "GET", "PUT"]
        .into_iter()
        .find(|method| method.eq_ignore_ascii_case(text))
        .map(Some)
        .ok_or_else(|| bad(header::METHOD_OVERRIDE, printable(text), EXPECTED).into())
}

impl Creation {
    pub fn read(fields: &impl Fields, max_upload_bytes: u64) -> Result<Self, TusError> {
        let concat = Concat::read(fields)?;
        let length = match &concat {
            Concat::None | Concat::Partial => announced_length(fields, max_upload_bytes)?,
            Concat::Final(_) => {
                let has = |name| fields.field(name) != Field::Absent;
                if has(header::LENGTH) || has(header::DEFER_LENGTH) {
                    return Err(TusError::FinalWithLength);
                }
                None
            }
        };
        let metadata = optional(fields, header::METADATA, "ASCII text, in one header")?;
        let metadata = metadata.map_or(Ok(Metadata::default()), Metadata::parse)?;
        let body_len = content_length(fields)?;
        let has_body = body_len.is_some_and(|byte_len| byte_len > 0)
            || (body_len.is_none() && fields.field("transfer-encoding") != Field::Absent);
        let first_chunk = if has_body {
            concat.check_takes_bytes()?;
            check_body_type(fields)?;
            Some(ChunkRequest { offset: 0, body_len, check: checksum::check(fields)? })
        } else {
            None
        };
        Ok(Self { length, concat, metadata, first_chunk })
    }
}

/// `Upload-Length`, or `Upload-Defer-Length: 1` for a length that is told later, and one of the two.
fn announced_length(fields: &impl Fields, max_upload_bytes: u64) -> Result<Option<u64>, TusError> {
    const DEFERRED: &str =
        "Upload-Defer-Length: 1 when the size is not known yet, else Upload-Length with the size in bytes";
    let length = optional(fields, header::LENGTH, LENGTH)?;
    match (length, optional(fields, header::DEFER_LENGTH, DEFERRED)?.map(str::trim)) {
        (None, None) => Err(TusError::LengthMissing),
        (None, Some("1")) => Ok(None),
        (None, Some(other)) => Err(bad(header::DEFER_LENGTH, printable(other), DEFERRED).into()),
        (Some(_), Some(_)) => Err(TusError::LengthBothKnownAndDeferred),
        (Some(text), None) => match digits(header::LENGTH, text, LENGTH)? {
            length if length > max_upload_bytes => Err(TusError::TooLarge { length, max: max_upload_bytes }),
            length => Ok(Some(length)),
        },
    }
}

impl Append {
    pub fn read(fields: &impl Fields) -> Result<Self, TusError> {
        const OFFSET: &str = "the byte where this chunk starts, as HEAD told it, such as Upload-Offset: 0";
        check_body_type(fields)?;
        let offset = number(fields, header::OFFSET, OFFSET)?;
        let length = optional(fields, header::LENGTH, LENGTH)?
            .map(|text| digits(header::LENGTH, text, LENGTH))
            .transpose()?;
        let body_len = content_length(fields)?;
        Ok(Self { chunk: ChunkRequest { offset, body_len, check: checksum::check(fields)? }, length })
    }
}

fn check_body_type(fields: &impl Fields) -> Result<(), TusError> {
    let received = match fields.field("content-type") {
        Field::Text(text) => {
            let essence = text.split(';').next().unwrap_or_default().trim();
            if essence.eq_ignore_ascii_case(BODY_TYPE) {
                return Ok(());
            }
            printable(text)
        }
        Field::Absent => "missing".to_owned(),
        Field::NotText | Field::Repeated => "unreadable".to_owned(),
    };
    Err(TusError::WrongBodyType { received })
}
