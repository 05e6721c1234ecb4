//! Digest headers of HTTP: `Content-Digest`, `Repr-Digest` and their `Want-` fields (RFC 9530), `Content-MD5` (RFC 1864).
//!
//! Read by the dialects whose clients speak plain HTTP; gives the engine's [`Checksum`]s. SHA-256 and SHA-512 are
//! understood; digests of other algorithms are ignored, as RFC 9530 section 2 allows. A digest of a known algorithm
//! that cannot be one is an error: to ignore it would take bytes for checked that were not.

use crate::{
    Algorithm, Check, Checksum,
    fields::{Field, FieldError, Fields, bad, optional},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

/// Which bytes a digest is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// Of the body of this request.
    Content,
    /// Of the whole file.
    Repr,
}

/// Highest preference that a `Want-` field can give (RFC 9530 section 4).
const STRONGEST_WISH: i64 = 10;
const CONTENT_MD5: &str = "content-md5";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not a header of that kind at all.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A digest that this algorithm never gives.
    #[error(
        "the {algorithm} digest in {field} cannot be one: {reason}; send the digest again, or leave the header out"
    )]
    Invalid { field: &'static str, algorithm: &'static str, reason: String },
}

/// What a client announced that is understood here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    pub sha256: Option<Checksum>,
    pub sha512: Option<Checksum>,
}

impl Integrity {
    pub const fn header(self) -> &'static str {
        match self {
            Self::Content => "content-digest",
            Self::Repr => "repr-digest",
        }
    }

    pub const fn wish_header(self) -> &'static str {
        match self {
            Self::Content => "want-content-digest",
            Self::Repr => "want-repr-digest",
        }
    }

    /// As documents write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Content => "Content-Digest",
            Self::Repr => "Repr-Digest",
        }
    }
}

impl Digests {
    pub fn read(fields: &impl Fields, which: Integrity) -> Result<Self, DigestError> {
        const EXPECTED: &str =
            "digests by algorithm, such as sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
        let Some(text) = optional(fields, which.header(), EXPECTED)? else { return Ok(Self::default()) };
        let dictionary: Dictionary = Parser::new(text)
            .parse()
            .map_err(|problem| bad(which.header(), problem.to_string(), EXPECTED))?;
        let digest = |algorithm: Algorithm| {
            let key = key_of(algorithm)?;
            let entry = dictionary.get(key)?;
            Some(checksum(algorithm, entry).map_err(|reason| DigestError::Invalid {
                field: which.name(),
                algorithm: key,
                reason,
            }))
        };
        Ok(Self {
            sha256: digest(Algorithm::Sha256).transpose()?,
            sha512: digest(Algorithm::Sha512).transpose()?,
        })
    }

    /// The one to compare with. Either would do; processors compute SHA-256 in hardware more often.
    pub fn best(self) -> Option<Checksum> {
        self.sha256.or(self.sha512)
    }
}

/// What the body of this request is to be checked against: `Content-Digest`, or else `Content-MD5`.
pub fn content_check(fields: &impl Fields) -> Result<Check, DigestError> {
    let digests = Digests::read(fields, Integrity::Content)?;
    let announced = match digests.best() {
        Some(checksum) => Some(checksum),
        None => content_md5(fields)?,
    };
    Ok(announced.map_or(Check::None, Check::Announced))
}

/// `Content-MD5`: the base64 of 16 bytes.
pub fn content_md5(fields: &impl Fields) -> Result<Option<Checksum>, DigestError> {
    const EXPECTED: &str = "the base64 of the body's MD5, such as Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==";
    let Some(text) = optional(fields, CONTENT_MD5, EXPECTED)? else { return Ok(None) };
    let digest =
        STANDARD.decode(text.trim()).map_err(|problem| bad(CONTENT_MD5, problem.to_string(), EXPECTED))?;
    let byte_len = digest.len();
    let checksum = Checksum::new(Algorithm::Md5, digest).ok_or_else(|| DigestError::Invalid {
        field: "Content-MD5",
        algorithm: "md5",
        reason: wrong_length(byte_len, Algorithm::Md5),
    })?;
    Ok(Some(checksum))
}

/// Of the `offered` algorithms the one that the client asks for most; `None` when it asks for none of them. A wish that
/// cannot be read is no wish.
pub fn wanted(fields: &impl Fields, which: Integrity, offered: &[Algorithm]) -> Option<Algorithm> {
    let Field::Text(text) = fields.field(which.wish_header()) else { return None };
    let dictionary: Dictionary = Parser::new(text).parse().ok()?;
    let wish = |algorithm: Algorithm| match dictionary.get(key_of(algorithm)?)? {
        ListEntry::Item(Item { bare_item: BareItem::Integer(wish), .. }) => Some(i64::from(*wish)),
        _ => None,
    };
    let wishes = offered.iter().filter_map(|algorithm| Some((*algorithm, wish(*algorithm)?)));
    // Zero says: not this one. Of two wishes of the same strength the one offered first.
    wishes
        .filter(|(_, wish)| (1..=STRONGEST_WISH).contains(wish))
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .map(|(algorithm, _)| algorithm)
}

/// A value for `Content-Digest` or `Repr-Digest`; `None` for algorithms that RFC 9530 has no name for.
pub fn format_digest(checksum: &Checksum) -> Option<String> {
    Some(format!("{}={}", key_of(checksum.algorithm())?, byte_sequence(checksum.digest())))
}

/// Bytes as a structured field has them (RFC 9651 section 4.1.8).
pub fn byte_sequence(bytes: &[u8]) -> String {
    format!(":{}:", STANDARD.encode(bytes))
}

/// The name in RFC 9530's registry, of those understood here.
pub const fn key_of(algorithm: Algorithm) -> Option<&'static str> {
    match algorithm {
        Algorithm::Sha256 => Some("sha-256"),
        Algorithm::Sha512 => Some("sha-512"),
        // Deprecated by RFC 9530 section 5, or not a whole digest.
        Algorithm::Sha1 | Algorithm::Md5 | Algorithm::Crc32 | Algorithm::Crc32c => None,
    }
}

fn checksum(algorithm: Algorithm, entry: &ListEntry) -> Result<Checksum, String> {
    let ListEntry::Item(Item { bare_item: BareItem::ByteSequence(digest), .. }) = entry else {
        return Err("it is no byte sequence between colons".to_owned());
    };
    Checksum::new(algorithm, digest.clone()).ok_or_else(|| wrong_length(digest.len(), algorithm))
}

fn wrong_length(byte_len: usize, algorithm: Algorithm) -> String {
    format!("it has {byte_len} bytes where {} are due", algorithm.digest_len())
}

#[cfg(test)]
mod tests {
    use super::{DigestError, Digests, Integrity, content_check, content_md5, format_digest, wanted};
    use crate::{Algorithm, Check, Checksum, testing::sent};
    use proptest::prelude::{any, prop, proptest};

    const BYTES: &[u8] = b"hello";

    fn of(algorithm: Algorithm) -> Checksum {
        Checksum::of(algorithm, BYTES)
    }

    fn formatted(algorithm: Algorithm) -> String {
        format_digest(&of(algorithm)).unwrap()
    }

    #[test]
    fn the_example_of_the_rfc_is_read() {
        // RFC 9530 appendix B.1: {"hello": "world"} and a line feed.
        let value = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        let digests = Digests::read(&sent(&[("repr-digest", value)]), Integrity::Repr).unwrap();
        assert_eq!(digests.sha256, Some(Checksum::of(Algorithm::Sha256, b"{\"hello\": \"world\"}\n")));
    }

    #[test]
    fn sha_256_and_sha_512_are_understood_and_other_algorithms_ignored() {
        let both = format!("{}, {}", formatted(Algorithm::Sha512), formatted(Algorithm::Sha256));
        for (value, sha256, sha512) in [
            (both, true, true),
            (formatted(Algorithm::Sha256), true, false),
            (formatted(Algorithm::Sha512), false, true),
            ("md5=:CY9rzUYh03PK3k6DJie09g==:, unixsum=4, x".to_owned(), false, false),
            (String::new(), false, false),
        ] {
            let digests =
                Digests::read(&sent(&[("content-digest", value.as_str())]), Integrity::Content).unwrap();
            assert_eq!((digests.sha256.is_some(), digests.sha512.is_some()), (sha256, sha512), "{value}");
        }
    }

    #[test]
    fn a_digest_that_cannot_be_one_is_an_error_and_no_absence() {
        for (value, says) in [
            ("sha-256=:YWJj:", "3 bytes where 32"),
            ("sha-512=\"abc\"", "no byte sequence"),
            ("sha-256", "no byte sequence"),
            ("sha-256=(:YWJj:)", "no byte sequence"),
        ] {
            let error = Digests::read(&sent(&[("repr-digest", value)]), Integrity::Repr).unwrap_err();
            assert!(matches!(error, DigestError::Invalid { field: "Repr-Digest", .. }), "{value}");
            assert!(error.to_string().contains(says), "{value}: {error}");
        }
    }

    #[test]
    fn a_header_that_is_no_dictionary_or_comes_twice_is_an_error() {
        for headers in [
            &[("content-digest", "sha-256=:YWJj")] as &[_],
            &[("content-digest", "SHA-256=:YWJj:")],
            &[("content-digest", "sha-256=:????:")],
            &[("content-digest", "x=1"), ("content-digest", "x=1")],
        ] {
            let error = Digests::read(&sent(headers), Integrity::Content).unwrap_err();
            assert!(matches!(error, DigestError::Field(_)), "{headers:?}");
        }
    }

    #[test]
    fn content_md5_is_the_base64_of_sixteen_bytes() {
        let md5 = |value| content_md5(&sent(&[("content-md5", value)]));
        assert_eq!(md5("XUFAKrxLKna5cZ2REBfFkg=="), Ok(Some(of(Algorithm::Md5))));
        assert!(matches!(md5("YWJj"), Err(DigestError::Invalid { .. })));
        assert!(matches!(md5("5d41402abc4b2a76b9719d911017c592?"), Err(DigestError::Field(_))));
        assert_eq!(content_md5(&sent(&[])), Ok(None));
    }

    #[test]
    fn a_body_is_checked_against_its_content_digest_or_else_its_md5() {
        let sha256 = formatted(Algorithm::Sha256);
        let md5 = ("content-md5", "XUFAKrxLKna5cZ2REBfFkg==");
        let both = content_check(&sent(&[("content-digest", &sha256), md5])).unwrap();
        assert_eq!(both, Check::Announced(of(Algorithm::Sha256)));
        let md5_alone = content_check(&sent(&[("content-digest", "sha=:YWJj:"), md5])).unwrap();
        assert_eq!(md5_alone, Check::Announced(of(Algorithm::Md5)));
        assert_eq!(content_check(&sent(&[])), Ok(Check::None));
    }

    #[test]
    fn of_the_wanted_algorithms_the_strongest_wish_wins() {
        let offered = [Algorithm::Sha256, Algorithm::Sha512];
        for (value, expected) in [
            ("sha-512=3, sha-256=10", Some(Algorithm::Sha256)),
            ("sha-512=3, sha-256=2, md5=10", Some(Algorithm::Sha512)),
            ("sha-512=3, sha-256=3", Some(Algorithm::Sha256)),
            ("sha-512=0", None),
            ("sha-512=11", None),
            ("sha-512=-1", None),
            ("sha-512=:YWJj:", None),
            ("md5=1", None),
            ("???", None),
        ] {
            let fields = sent(&[("want-repr-digest", value)]);
            assert_eq!(wanted(&fields, Integrity::Repr, &offered), expected, "{value}");
            assert_eq!(wanted(&fields, Integrity::Content, &offered), None);
        }
        let fields = sent(&[("want-repr-digest", "sha-512=10")]);
        assert_eq!(wanted(&fields, Integrity::Repr, &[Algorithm::Sha256]), None);
    }

    #[test]
    fn algorithms_without_a_name_in_the_registry_are_not_formatted() {
        assert_eq!(format_digest(&of(Algorithm::Sha1)), None);
        assert_eq!(formatted(Algorithm::Sha256), "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,120}", name in prop::sample::select(vec![
            "content-digest", "repr-digest", "want-content-digest", "want-repr-digest", "content-md5",
        ])) {
            let fields = sent(&[(name, text.as_str())]);
            for which in [Integrity::Content, Integrity::Repr] {
                let _ = (Digests::read(&fields, which), wanted(&fields, which, &Algorithm::ALL));
            }
            let _ = (content_check(&fields), content_md5(&fields));
        }

        #[test]
        fn what_is_formatted_is_read_back(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let checksum = Checksum::of(algorithm, &bytes);
                let value = format_digest(&checksum).unwrap();
                let digests = Digests::read(&sent(&[("repr-digest", &value)]), Integrity::Repr).unwrap();
                assert_eq!(digests.best(), Some(checksum));
            }
        }
    }
}
