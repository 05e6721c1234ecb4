//! `Upload-Checksum`, before the body or behind it (extensions checksum and checksum-trailer).
//!
//! A checksum that comes behind the body has to be announced with `Trailer: Upload-Checksum` (RFC 9110 section
//! 6.6.2): otherwise its bytes would count before they could be compared.

use super::{OFFERED_ALGORITHMS, TusError, header};
use crate::{
    Algorithm, Check, Checksum,
    fields::{Fields, bad, optional, printable},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

const EXPECTED: &str =
    "the algorithm and the base64 of the digest, such as Upload-Checksum: sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=";
const TRAILER: &str = "trailer";

/// What a client sends as `Upload-Checksum`.
pub fn format_checksum(checksum: &Checksum) -> String {
    format!("{} {}", checksum.algorithm().as_str(), STANDARD.encode(checksum.digest()))
}

/// What the header of a request with a body says about the checksum of that body.
pub(super) fn check(fields: &impl Fields) -> Result<Check, TusError> {
    const NAMES: &str = "the names of all trailer fields in one header, such as Trailer: Upload-Checksum";
    let announced = read(fields)?;
    let trailing = optional(fields, TRAILER, NAMES)?
        .is_some_and(|names| names.split(',').any(|name| name.trim().eq_ignore_ascii_case(header::CHECKSUM)));
    match (announced, trailing) {
        (None, false) => Ok(Check::None),
        (None, true) => Ok(Check::Trailing),
        (Some(announced), false) => Ok(Check::Announced(announced)),
        (Some(_), true) => Err(TusError::ChecksumTwice),
    }
}

/// The checksum among the trailer fields of a body whose header asked for `check`, for
/// [`crate::BodyEnd::CompleteWith`]. `None`: it did not come, which the engine judges. On an error the body must be
/// settled as [`crate::BodyEnd::Cut`]: nothing that waited for the checksum counts.
pub fn trailing_checksum(check: &Check, trailers: &impl Fields) -> Result<Option<Checksum>, TusError> {
    match (check, read(trailers)?) {
        (_, None) => Ok(None),
        (Check::Trailing, Some(checksum)) => Ok(Some(checksum)),
        (Check::Announced(_), Some(_)) => Err(TusError::ChecksumTwice),
        (Check::None, Some(_)) => Err(TusError::ChecksumUnannounced),
    }
}

fn read(fields: &impl Fields) -> Result<Option<Checksum>, TusError> {
    let Some(text) = optional(fields, header::CHECKSUM, EXPECTED)? else { return Ok(None) };
    let (name, digest) = text
        .trim()
        .split_once(' ')
        .ok_or_else(|| bad(header::CHECKSUM, "no digest in it".to_owned(), EXPECTED))?;
    let algorithm = Algorithm::from_name(name)
        .filter(|algorithm| OFFERED_ALGORITHMS.contains(algorithm))
        .ok_or_else(|| TusError::UnsupportedChecksum { received: printable(name) })?;
    let digest = STANDARD
        .decode(digest.trim())
        .map_err(|problem| bad(header::CHECKSUM, format!("the digest is not base64: {problem}"), EXPECTED))?;
    let byte_len = digest.len();
    Checksum::new(algorithm, digest).map(Some).ok_or_else(|| {
        let wanted = algorithm.digest_len();
        bad(header::CHECKSUM, format!("a digest of {byte_len} bytes where {wanted} are due"), EXPECTED).into()
    })
}
