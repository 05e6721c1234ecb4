//! Requests of the dialect: what a POST and a PATCH ask for, read from their headers.

use super::{BODY_TYPE, Metadata, TusError, VERSION, header};
use crate::{Algorithm, Checksum, ChunkRequest};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// One header of a request, as the edge found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    Absent,
    Text(&'a str),
    /// Bytes outside visible ASCII.
    NotText,
    /// More than once: which of them counts is anybody's guess, so none does.
    Repeated,
}

/// The headers of a request. `name` is lower case.
pub trait Fields {
    fn field(&self, name: &str) -> Field<'_>;
}

/// A POST that makes an upload, perhaps with its first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    pub length: u64,
    pub metadata: Metadata,
    /// The first chunk, when the body carries one (creation-with-upload).
    pub first_chunk: Option<ChunkRequest>,
}

/// A PATCH that appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    pub chunk: ChunkRequest,
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
    const EXPECTED: &str = "one of POST, HEAD, PATCH, DELETE, OPTIONS, GET";
    let Some(text) = optional(fields, header::METHOD_OVERRIDE, EXPECTED)? else { return Ok(None) };
    ["POST", "HEAD", "PATCH", "DELETE", "OPTIONS", "GET"]
        .into_iter()
        .find(|method| method.eq_ignore_ascii_case(text))
        .map(Some)
        .ok_or_else(|| bad(header::METHOD_OVERRIDE, printable(text), EXPECTED))
}

impl Creation {
    pub fn read(fields: &impl Fields, max_upload_bytes: u64) -> Result<Self, TusError> {
        const LENGTH: &str = "the size of the whole upload in bytes, such as Upload-Length: 1048576";
        if fields.field(header::CONCAT) != Field::Absent {
            return Err(TusError::UnsupportedExtension {
                extension: "concatenation",
                instead: "send the whole file as one upload, without Upload-Concat",
            });
        }
        if fields.field(header::DEFER_LENGTH) != Field::Absent {
            return Err(TusError::UnsupportedExtension {
                extension: "creation-defer-length",
                instead: "send Upload-Length with the size of the whole upload",
            });
        }
        let length = number(fields, header::LENGTH, LENGTH)?;
        if length > max_upload_bytes {
            return Err(TusError::TooLarge { length, max: max_upload_bytes });
        }
        let metadata = match fields.field(header::METADATA) {
            Field::Absent => Metadata::default(),
            Field::Text(text) => Metadata::parse(text)?,
            Field::NotText => return Err(bad(header::METADATA, "not plain ASCII".to_owned(), "ASCII text")),
            Field::Repeated => return Err(bad(header::METADATA, "sent twice".to_owned(), "it once")),
        };
        let body_len = content_length(fields)?;
        let has_body = body_len.is_some_and(|byte_len| byte_len > 0)
            || (body_len.is_none() && fields.field("transfer-encoding") != Field::Absent);
        let first_chunk = if !has_body {
            None
        } else {
            check_body_type(fields)?;
            Some(ChunkRequest { offset: 0, body_len, checksum: checksum(fields)? })
        };
        Ok(Self { length, metadata, first_chunk })
    }
}

impl Append {
    pub fn read(fields: &impl Fields) -> Result<Self, TusError> {
        const OFFSET: &str = "the byte where this chunk starts, as HEAD told it, such as Upload-Offset: 0";
        check_body_type(fields)?;
        let offset = number(fields, header::OFFSET, OFFSET)?;
        let chunk = ChunkRequest { offset, body_len: content_length(fields)?, checksum: checksum(fields)? };
        Ok(Self { chunk })
    }
}

/// What a client sends as `Upload-Checksum`.
pub fn format_checksum(checksum: &Checksum) -> String {
    format!("{} {}", checksum.algorithm().as_str(), STANDARD.encode(checksum.digest()))
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

fn checksum(fields: &impl Fields) -> Result<Option<Checksum>, TusError> {
    const EXPECTED: &str = "the algorithm and the base64 of the digest, such as Upload-Checksum: sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=";
    let Some(text) = optional(fields, header::CHECKSUM, EXPECTED)? else { return Ok(None) };
    let (name, digest) = text
        .trim()
        .split_once(' ')
        .ok_or_else(|| bad(header::CHECKSUM, "no digest in it".to_owned(), EXPECTED))?;
    let algorithm = Algorithm::from_name(name)
        .ok_or_else(|| TusError::UnsupportedChecksum { received: printable(name) })?;
    let digest = STANDARD
        .decode(digest.trim())
        .map_err(|problem| bad(header::CHECKSUM, format!("the digest is not base64: {problem}"), EXPECTED))?;
    let byte_len = digest.len();
    Checksum::new(algorithm, digest).map(Some).ok_or_else(|| {
        let wanted = algorithm.digest_len();
        bad(header::CHECKSUM, format!("a digest of {byte_len} bytes where {wanted} are due"), EXPECTED)
    })
}

fn content_length(fields: &impl Fields) -> Result<Option<u64>, TusError> {
    const EXPECTED: &str = "the length of the body in bytes";
    optional(fields, "content-length", EXPECTED)?
        .map(|text| digits("content-length", text, EXPECTED))
        .transpose()
}

fn number(fields: &impl Fields, name: &'static str, expected: &'static str) -> Result<u64, TusError> {
    let text = optional(fields, name, expected)?.ok_or(TusError::MissingHeader { name, expected })?;
    digits(name, text, expected)
}

/// Digits only: `u64::from_str` would take a plus sign too.
fn digits(name: &'static str, text: &str, expected: &'static str) -> Result<u64, TusError> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad(name, format!("{} is not a number", printable(text)), expected));
    }
    let value = text.parse().ok().filter(|value| *value <= crate::MAX_UPLOAD_BYTES);
    value.ok_or_else(|| bad(name, format!("{} is too large a number", printable(text)), expected))
}

fn optional<'a>(
    fields: &'a impl Fields,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<&'a str>, TusError> {
    match fields.field(name) {
        Field::Absent => Ok(None),
        Field::Text(text) => Ok(Some(text)),
        Field::NotText => Err(bad(name, "not plain ASCII".to_owned(), expected)),
        Field::Repeated => Err(bad(name, "sent more than once".to_owned(), expected)),
    }
}

fn bad(name: &'static str, problem: String, expected: &'static str) -> TusError {
    TusError::BadHeader { name, problem, expected }
}

/// What a client sent, short enough to send back.
fn printable(text: &str) -> String {
    const MAX_ECHO_CHARS: usize = 60;
    let mut shown: String =
        text.chars().take(MAX_ECHO_CHARS).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(MAX_ECHO_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{Append, Creation, Field, Fields, check_version, format_checksum, method_override};
    use crate::{Algorithm, Checksum};
    use proptest::prelude::{any, prop, proptest};

    struct Sent(Vec<(String, String)>);

    impl Fields for Sent {
        fn field(&self, name: &str) -> Field<'_> {
            let mut values = self.0.iter().filter(|(key, _)| key == name);
            match (values.next(), values.next()) {
                (None, _) => Field::Absent,
                (Some((_, text)), None) => Field::Text(text),
                (Some(_), Some(_)) => Field::Repeated,
            }
        }
    }

    fn sent(headers: &[(&str, &str)]) -> Sent {
        Sent(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    const BODY: (&str, &str) = ("content-type", "application/offset+octet-stream");

    #[test]
    fn only_version_1_0_0_is_spoken() {
        assert!(check_version(&sent(&[("tus-resumable", "1.0.0")])).is_ok());
        for other in [&[("tus-resumable", "0.2.2")] as &[_], &[]] {
            let error = check_version(&sent(other)).unwrap_err();
            assert_eq!(error.status(), 412);
            assert!(error.to_string().contains("1.0.0"));
        }
    }

    #[test]
    fn offsets_are_digits_and_nothing_else() {
        for (text, status) in [
            ("0", None),
            ("+1", Some(400)),
            ("-1", Some(400)),
            ("0x1", Some(400)),
            ("", Some(400)),
            ("9223372036854775808", Some(400)),
        ] {
            let read = Append::read(&sent(&[BODY, ("upload-offset", text)]));
            assert_eq!(read.err().map(|error| error.status()), status, "{text:?}");
        }
    }

    #[test]
    fn headers_sent_twice_are_refused() {
        let error = Append::read(&sent(&[BODY, ("upload-offset", "1"), ("upload-offset", "2")])).unwrap_err();
        assert!(error.to_string().contains("more than once"));
    }

    #[test]
    fn a_body_of_another_type_is_415() {
        for headers in
            [&[("upload-offset", "0")] as &[_], &[("content-type", "video/mp4"), ("upload-offset", "0")]]
        {
            assert_eq!(Append::read(&sent(headers)).unwrap_err().status(), 415);
        }
    }

    #[test]
    fn a_creation_needs_a_length_that_fits() {
        assert_eq!(Creation::read(&sent(&[]), 10).unwrap_err().status(), 400);
        assert_eq!(Creation::read(&sent(&[("upload-length", "11")]), 10).unwrap_err().status(), 413);
        assert_eq!(Creation::read(&sent(&[("upload-length", "10")]), 10).unwrap().length, 10);
        assert!(Creation::read(&sent(&[("upload-length", "1"), ("upload-concat", "partial")]), 10).is_err());
        assert!(Creation::read(&sent(&[("upload-defer-length", "1")]), 10).is_err());
    }

    #[test]
    fn a_creation_with_a_body_carries_its_first_chunk() {
        let headers = [("upload-length", "10"), ("content-length", "4"), BODY];
        let chunk = Creation::read(&sent(&headers), 10).unwrap().first_chunk.unwrap();
        assert_eq!((chunk.offset, chunk.body_len), (0, Some(4)));
        let without = [("upload-length", "10"), ("content-length", "0")];
        assert_eq!(Creation::read(&sent(&without), 10).unwrap().first_chunk, None);
        let other_type = [("upload-length", "10"), ("content-length", "4")];
        assert_eq!(Creation::read(&sent(&other_type), 10).unwrap_err().status(), 415);
    }

    #[test]
    fn checksums_name_an_offered_algorithm_and_a_digest_of_its_length() {
        for (text, names) in [
            ("md5 abc", "not offered"),
            ("sha1", "no digest"),
            ("sha1 ???", "not base64"),
            ("sha1 YWJj", "3 bytes where 20"),
        ] {
            let error =
                Append::read(&sent(&[BODY, ("upload-offset", "0"), ("upload-checksum", text)])).unwrap_err();
            assert_eq!(error.status(), 400);
            assert!(error.to_string().contains(names), "{text}: {error}");
        }
    }

    #[test]
    fn the_method_override_is_read() {
        assert_eq!(method_override(&sent(&[("x-http-method-override", "patch")])), Ok(Some("PATCH")));
        assert_eq!(method_override(&sent(&[])), Ok(None));
        assert!(method_override(&sent(&[("x-http-method-override", "BREW")])).is_err());
    }

    proptest! {
        #[test]
        fn no_headers_make_it_panic(
            headers in prop::collection::vec(
                (prop::sample::select(vec![
                    "upload-offset", "upload-length", "upload-checksum", "upload-metadata", "content-length",
                    "content-type", "tus-resumable", "x-http-method-override", "upload-concat", "transfer-encoding",
                ]), "\\PC{0,80}"),
                0..8,
            ),
        ) {
            let fields = Sent(headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
            let _ = (check_version(&fields), method_override(&fields), Append::read(&fields), Creation::read(&fields, 1000));
        }

        #[test]
        fn a_formatted_checksum_is_read_back(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            for algorithm in Algorithm::ALL {
                let checksum = Checksum::of(algorithm, &bytes);
                let text = format_checksum(&checksum);
                let read = Append::read(&sent(&[BODY, ("upload-offset", "7"), ("upload-checksum", &text)])).unwrap();
                assert_eq!(read.chunk.checksum, Some(checksum));
            }
        }
    }
}
