//! `Upload-Concat` (extensions concatenation and concatenation-unfinished): partial uploads, and the final upload
//! that joins them in the order in which it names them.
//!
//! Read at the creation, kept as text with the upload, and given back on HEAD as it came. Whether a reference leads
//! to a partial upload of the same owner is the caller's to find out; the errors for it are here.

use super::{TusError, header};
use crate::fields::{FieldError, Fields, bad, optional, printable};
use reelyard_model::UploadId;

/// Whole header: it is stored with the upload and sent back on every HEAD; HTTP servers on the way stop at 8 KiB.
pub const MAX_CONCAT_BYTES: usize = 8 << 10;
/// Partial uploads of one final upload: each is a row to read and a file to join in one step. Parallel clients make
/// fewer than twenty.
pub const MAX_PARTIALS: usize = 128;

const EXPECTED: &str = "Upload-Concat: partial, or final; and the addresses of the partial uploads with one blank between them, such as Upload-Concat: final;/uploads/a /uploads/b";
const PARTIAL: &str = "partial";
const FINAL: &str = "final;";

/// What an upload is to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Concat {
    /// A whole of its own.
    #[default]
    None,
    /// A piece: it becomes no asset, and waits to be joined.
    Partial,
    /// The joined pieces, in this order. It has no body of its own.
    Final(Vec<UploadReference>),
}

/// A partial upload as a client names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadReference {
    id: UploadId,
    url: String,
}

impl UploadReference {
    /// Absolute or relative, below whatever prefix a proxy shows, with or without a trailing slash, query and
    /// fragment: the last segment of the path is the id.
    fn parse(url: &str) -> Result<Self, FieldError> {
        if url.is_empty() {
            return Err(bad(header::CONCAT, "an address in the list is empty".to_owned(), EXPECTED));
        }
        let bad = |what: &str| bad(header::CONCAT, format!("{} {what}", printable(url)), EXPECTED);
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad("is not plain ASCII"));
        }
        // Of `/uploads/a,/uploads/b` only the last would be seen, and the first left out in silence.
        if url.contains([',', ';']) {
            return Err(bad("has a comma or a semicolon in it"));
        }
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let path = path.strip_suffix('/').unwrap_or(path);
        let last = path.rsplit('/').next().unwrap_or_default();
        let id = last.parse().map_err(|_| bad("is not the address of an upload"))?;
        Ok(Self { id, url: url.to_owned() })
    }

    pub fn id(&self) -> UploadId {
        self.id
    }

    /// As it came.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// There is no such upload, or none of this owner.
    pub fn unknown(&self) -> TusError {
        TusError::UnknownPartial { url: printable(&self.url) }
    }

    /// There is, but it was created as something else.
    pub fn not_partial(&self) -> TusError {
        TusError::NotPartial { url: printable(&self.url) }
    }
}

impl Concat {
    pub fn read(fields: &impl Fields) -> Result<Self, TusError> {
        optional(fields, header::CONCAT, EXPECTED)?.map_or(Ok(Self::None), Self::parse)
    }

    /// The header's text, from a request or from where [`format_concat`]'s was kept.
    pub fn parse(text: &str) -> Result<Self, TusError> {
        if text.len() > MAX_CONCAT_BYTES {
            let problem = format!("{} bytes, more than {MAX_CONCAT_BYTES}", text.len());
            return Err(bad(header::CONCAT, problem, "fewer partial uploads of more bytes each").into());
        }
        let text = text.trim();
        if text == PARTIAL {
            return Ok(Self::Partial);
        }
        let list = text.strip_prefix(FINAL).ok_or_else(|| {
            bad(header::CONCAT, format!("{} is neither partial nor final", printable(text)), EXPECTED)
        })?;
        let count = list.split(' ').count();
        if count > MAX_PARTIALS {
            return Err(TusError::TooManyPartials { count });
        }
        let partials = list.split(' ').map(UploadReference::parse).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::Final(partials))
    }

    /// Whether bytes may be sent to it: a PATCH against a final upload is 403 and changes nothing.
    pub fn check_takes_bytes(&self) -> Result<(), TusError> {
        match self {
            Self::None | Self::Partial => Ok(()),
            Self::Final(_) => Err(TusError::FinalTakesNoBytes),
        }
    }
}

/// The header as it came, for HEAD; `None` when there was none.
pub fn format_concat(concat: &Concat) -> Option<String> {
    match concat {
        Concat::None => None,
        Concat::Partial => Some(PARTIAL.to_owned()),
        Concat::Final(partials) => {
            let urls: Vec<&str> = partials.iter().map(UploadReference::url).collect();
            Some(format!("{FINAL}{}", urls.join(" ")))
        }
    }
}

/// The length of a final upload: the sum of the lengths of its partial uploads, unknown while one of them is. What is
/// known already may be too much.
pub fn final_length(
    partial_lengths: impl IntoIterator<Item = Option<u64>>,
    max_upload_bytes: u64,
) -> Result<Option<u64>, TusError> {
    let (mut sum, mut all_known) = (0_u64, true);
    for length in partial_lengths {
        sum = sum.saturating_add(length.unwrap_or_default());
        all_known &= length.is_some();
    }
    if sum > max_upload_bytes {
        return Err(TusError::TooLarge { length: sum, max: max_upload_bytes });
    }
    Ok(all_known.then_some(sum))
}
