//! `Upload-Metadata`: comma-separated pairs of a key and a base64 value, the value optional.
//!
//! The header is kept as the client sent it, because `HEAD` must give it back so.

use super::{TusError, header};
use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use std::collections::HashSet;

/// Clients leave the padding out at times; it carries nothing.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Whole header: it is stored with the upload and sent back on every HEAD; HTTP servers on the way stop at 8 KiB.
pub const MAX_METADATA_BYTES: usize = 8 << 10;
/// Pairs in one header: real clients send fewer than ten.
pub const MAX_METADATA_PAIRS: usize = 64;
const EXPECTED: &str =
    "comma-separated pairs of a key and a base64 value, such as: filename aG9saWRheS5tcDQ=,draft";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    header: String,
    pairs: Vec<(String, Vec<u8>)>,
}

impl Metadata {
    /// An empty header is no metadata.
    pub fn parse(text: &str) -> Result<Self, TusError> {
        let bad = |problem: String| TusError::from(crate::fields::bad(header::METADATA, problem, EXPECTED));
        if text.len() > MAX_METADATA_BYTES {
            return Err(bad(format!("{} bytes, more than {MAX_METADATA_BYTES}", text.len())));
        }
        let header = text.trim().to_owned();
        if header.is_empty() {
            return Ok(Self::default());
        }
        let mut pairs = Vec::new();
        let mut seen = HashSet::new();
        for (index, pair) in header.split(',').enumerate() {
            if index == MAX_METADATA_PAIRS {
                return Err(bad(format!("more than {MAX_METADATA_PAIRS} pairs")));
            }
            let mut words = pair.split(' ').filter(|word| !word.is_empty());
            let key = words.next().ok_or_else(|| bad(format!("pair {} has no key", index + 1)))?;
            if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(bad(format!("the key of pair {} is not plain ASCII", index + 1)));
            }
            let value = words.next().unwrap_or_default();
            if words.next().is_some() {
                return Err(bad(format!("more than one value for {key}")));
            }
            let value = LENIENT
                .decode(value)
                .map_err(|problem| bad(format!("the value of {key} is not base64: {problem}")))?;
            if !seen.insert(key) {
                return Err(bad(format!("the key {key} stands there twice")));
            }
            pairs.push((key.to_owned(), value));
        }
        Ok(Self { header, pairs })
    }

    /// What a client sends for these pairs; an empty value is left out.
    pub fn format(pairs: &[(&str, &[u8])]) -> String {
        let pairs = pairs.iter().map(|(key, value)| {
            if value.is_empty() {
                (*key).to_owned()
            } else {
                format!("{key} {}", base64::engine::general_purpose::STANDARD.encode(value))
            }
        });
        pairs.collect::<Vec<_>>().join(",")
    }

    /// The header as it came, for `HEAD`; empty when there was none.
    pub fn header(&self) -> &str {
        &self.header
    }

    pub fn pairs(&self) -> &[(String, Vec<u8>)] {
        &self.pairs
    }

    /// A value as text: `None` when the key is missing, empty, or not UTF-8.
    pub fn text(&self, key: &str) -> Option<&str> {
        let (_, value) = self.pairs.iter().find(|(name, _)| name == key)?;
        std::str::from_utf8(value).ok().filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_METADATA_BYTES, Metadata};
    use proptest::prelude::{any, prop, proptest};

    #[test]
    fn keys_without_values_are_kept() {
        let metadata = Metadata::parse("filename d29ybGQubXA0,is_confidential").unwrap();
        assert_eq!(metadata.text("filename"), Some("world.mp4"));
        assert_eq!(metadata.pairs()[1], ("is_confidential".to_owned(), Vec::new()));
        assert_eq!(metadata.header(), "filename d29ybGQubXA0,is_confidential");
    }

    #[test]
    fn errors_name_the_pair() {
        for (text, names) in [
            ("filename d29y,,x", "pair 2 has no key"),
            ("a !!!", "value of a is not base64"),
            ("a YQ==,a YQ==", "key a stands there twice"),
            ("a YQ== YQ==", "more than one value for a"),
            ("k\u{e9}y YQ==", "key of pair 1 is not plain ASCII"),
        ] {
            let error = Metadata::parse(text).unwrap_err();
            assert_eq!(error.status(), 400);
            assert!(error.to_string().contains(names), "{text}: {error}");
        }
        assert!(Metadata::parse(&"a".repeat(MAX_METADATA_BYTES + 1)).is_err());
        assert!(Metadata::parse(&(0..65).map(|n| format!("k{n}")).collect::<Vec<_>>().join(",")).is_err());
    }

    #[test]
    fn clients_that_leave_out_padding_or_put_blanks_are_understood() {
        let metadata = Metadata::parse(" a YQ , b Yg== ").unwrap();
        assert_eq!((metadata.text("a"), metadata.text("b")), (Some("a"), Some("b")));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = Metadata::parse(&text);
        }

        #[test]
        fn what_is_formatted_is_read_back(
            pairs in prop::collection::hash_map("[!-+\\--~]{1,12}", prop::collection::vec(any::<u8>(), 0..40), 1..10),
        ) {
            let pairs: Vec<(String, Vec<u8>)> = pairs.into_iter().collect();
            let borrowed: Vec<(&str, &[u8])> =
                pairs.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
            let text = Metadata::format(&borrowed);
            assert_eq!(Metadata::parse(&text).unwrap().pairs(), pairs);
        }
    }
}
