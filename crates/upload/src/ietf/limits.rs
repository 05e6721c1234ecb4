//! `Upload-Limit`: what the server takes, told before it is tried (section 4.1.4 of the draft).
//!
//! The limits are formatted for every answer that carries them and kept when a request announces more. What is not
//! announced is kept by the engine while the bytes come.

use super::{IetfError, Version};

/// Largest integer that a structured field can hold (RFC 9651 section 3.3.1). A limit above it is told as this one.
const LARGEST_ITEM: u64 = 999_999_999_999_999;

/// All sizes in bytes; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub max_size: Option<u64>,
    pub min_size: Option<u64>,
    /// Of the body of one request.
    pub max_append_size: Option<u64>,
    /// Of the body of one request that neither completes the upload nor is an empty creation.
    pub min_append_size: Option<u64>,
    /// What is left of the upload's life when the answer is made; none before there is an upload.
    pub max_age_seconds: Option<u64>,
}

impl Limits {
    /// The header's value. Where nothing is limited it says so: it must not be empty.
    pub fn format(&self, version: Version) -> String {
        let members = [
            ("max-size", self.max_size),
            ("min-size", self.min_size),
            ("max-append-size", self.max_append_size),
            ("min-append-size", self.min_append_size),
            (version.lifetime_key(), self.max_age_seconds),
        ];
        let members: Vec<String> = members
            .into_iter()
            .filter_map(|(key, limit)| Some(format!("{key}={}", limit?.min(LARGEST_ITEM))))
            .collect();
        if members.is_empty() { "min-size=0".to_owned() } else { members.join(", ") }
    }

    /// The length of the whole upload, once it is announced.
    pub(super) fn check_length(&self, length: Option<u64>) -> Result<(), IetfError> {
        match (length, self.max_size, self.min_size) {
            (Some(length), Some(max), _) if length > max => Err(IetfError::TooLarge { length, max }),
            (Some(length), _, Some(min)) if length < min => Err(IetfError::TooSmall { length, min }),
            _ => Ok(()),
        }
    }

    /// The length of one body, where it was announced.
    pub(super) fn check_body(&self, body_len: Option<u64>, min_applies: bool) -> Result<(), IetfError> {
        match (body_len, self.max_append_size, self.min_append_size) {
            (Some(body_len), Some(max), _) if body_len > max => {
                Err(IetfError::BodyTooLarge { body_len, max })
            }
            (Some(body_len), _, Some(min)) if min_applies && body_len < min => {
                Err(IetfError::BodyTooSmall { body_len, min })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;
    use crate::ietf::{IetfError, Version};

    const FULL: Limits = Limits {
        max_size: Some(1000),
        min_size: Some(5),
        max_append_size: Some(100),
        min_append_size: Some(10),
        max_age_seconds: Some(3600),
    };

    #[test]
    fn limits_are_a_dictionary_of_integers() {
        let text = "max-size=1000, min-size=5, max-append-size=100, min-append-size=10, max-age=3600";
        assert_eq!(FULL.format(Version::V8), text);
        assert_eq!(FULL.format(Version::V6), text.replace("max-age", "expires"));
        let dictionary = sfv::Parser::new(text).parse::<sfv::Dictionary>().unwrap();
        assert_eq!(dictionary.len(), 5);
    }

    #[test]
    fn ietf_no_limits_are_told_as_min_size_0() {
        assert_eq!(Limits::default().format(Version::NEWEST), "min-size=0");
    }

    #[test]
    fn a_limit_that_no_structured_field_can_hold_is_told_as_the_largest_one() {
        let limits = Limits { max_size: Some(i64::MAX as u64), ..Limits::default() };
        assert_eq!(limits.format(Version::NEWEST), "max-size=999999999999999");
    }

    #[test]
    fn what_is_announced_beyond_a_limit_is_refused() {
        assert_eq!(FULL.check_length(Some(1001)), Err(IetfError::TooLarge { length: 1001, max: 1000 }));
        assert_eq!(FULL.check_length(Some(4)), Err(IetfError::TooSmall { length: 4, min: 5 }));
        assert_eq!(FULL.check_length(Some(1000)).and(FULL.check_length(None)), Ok(()));
        assert_eq!(
            FULL.check_body(Some(101), true),
            Err(IetfError::BodyTooLarge { body_len: 101, max: 100 })
        );
        assert_eq!(FULL.check_body(Some(9), true), Err(IetfError::BodyTooSmall { body_len: 9, min: 10 }));
        assert_eq!(FULL.check_body(Some(9), false).and(FULL.check_body(None, true)), Ok(()));
    }
}
