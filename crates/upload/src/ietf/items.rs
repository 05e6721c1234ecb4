//! Structured field items (RFC 9651), as far as the dialect has them in requests: booleans and non-negative integers.
//!
//! The draft says of every one of its fields that a value of another form makes the whole field ignored (sections
//! 4.1.1 to 4.1.3), so nothing here is an error: a field is there and good, or it is not there. A repeated field is no
//! single item and counts as ignored too.

use crate::fields::{Field, Fields};
use sfv::{BareItem, Item, Parser};

pub(super) fn boolean(fields: &impl Fields, name: &str) -> Option<bool> {
    match bare_item(fields, name)? {
        BareItem::Boolean(value) => Some(value),
        _ => None,
    }
}

/// Structured fields end at 15 digits, which is below what the engine takes.
pub(super) fn non_negative(fields: &impl Fields, name: &str) -> Option<u64> {
    match bare_item(fields, name)? {
        BareItem::Integer(value) => u64::try_from(i64::from(value)).ok(),
        _ => None,
    }
}

/// Parameters are allowed and mean nothing.
fn bare_item(fields: &impl Fields, name: &str) -> Option<BareItem> {
    let Field::Text(text) = fields.field(name) else { return None };
    Parser::new(text).parse::<Item>().ok().map(|item| item.bare_item)
}

#[cfg(test)]
mod tests {
    use super::{boolean, non_negative};
    use crate::testing::sent;

    #[test]
    fn booleans_are_question_mark_zero_or_one_and_all_else_is_ignored() {
        for (value, expected) in [
            ("?1", Some(true)),
            ("?0", Some(false)),
            (" ?1 ", Some(true)),
            ("?1;why=x", Some(true)),
            ("?2", None),
            ("1", None),
            ("true", None),
            ("?1, ?1", None),
            ("", None),
        ] {
            assert_eq!(
                boolean(&sent(&[("upload-complete", value)]), "upload-complete"),
                expected,
                "{value:?}"
            );
        }
        let twice = sent(&[("upload-complete", "?1"), ("upload-complete", "?1")]);
        assert_eq!(boolean(&twice, "upload-complete"), None);
        assert_eq!(boolean(&sent(&[]), "upload-complete"), None);
    }

    #[test]
    fn integers_are_digits_and_all_else_is_ignored() {
        for (value, expected) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("123456789012345", Some(123_456_789_012_345)),
            ("5;unit=byte", Some(5)),
            ("1234567890123456", None),
            ("-1", None),
            ("-0", Some(0)),
            ("+1", None),
            ("1.0", None),
            ("0x1", None),
            ("\"1\"", None),
            ("1, 1", None),
            ("", None),
        ] {
            let fields = sent(&[("upload-offset", value)]);
            assert_eq!(non_negative(&fields, "upload-offset"), expected, "{value:?}");
        }
    }
}
