//! Portable SQL into the words of one database: parameters, and the larger of two numbers. Pure.
//!
//! What stands in quotes or in a comment is left alone. The texts are this crate's own, never a caller's.

use std::fmt::Write;

/// `?` becomes `$1`, `$2` and so on in their order, `?3` becomes `$3`. `None`: nothing is to be changed.
pub(crate) fn for_postgres(portable: &str) -> Option<String> {
    if !portable.contains('?') {
        return None;
    }
    let mut text = String::with_capacity(portable.len() + 16);
    let mut rest = portable;
    let mut count = 0;
    while let Some(at) = rest.find(['?', '\'', '"', '-']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let quoted = quoted_len(rest);
        if quoted > 0 {
            text.push_str(&rest[..quoted]);
            rest = &rest[quoted..];
            continue;
        }
        if let Some(after) = rest.strip_prefix('?') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 {
                text.push('$');
                text.push_str(&after[..digits]);
            } else {
                count += 1;
                // Writing into a String does not fail.
                let _ = write!(text, "${count}");
            }
            rest = &after[digits..];
        } else {
            // A lone minus.
            text.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    text.push_str(rest);
    Some(text)
}

/// `GREATEST(a, b)` becomes `MAX(a, b)`, which in SQLite with two arguments is no aggregate. `None`: nothing is to be
/// changed.
pub(crate) fn for_sqlite(portable: &str) -> Option<String> {
    portable.contains("GREATEST(").then(|| portable.replace("GREATEST(", "MAX("))
}

/// How long a literal, a quoted name or a comment is that begins here; 0: none does.
fn quoted_len(text: &str) -> usize {
    let (opening, closing) = match text.as_bytes() {
        [b'\'', ..] => (1, '\''),
        [b'"', ..] => (1, '"'),
        [b'-', b'-', ..] => (2, '\n'),
        _ => return 0,
    };
    // A doubled quote inside is two literals side by side, which comes to the same.
    text[opening..].find(closing).map_or(text.len(), |at| opening + at + 1)
}

#[cfg(test)]
mod tests {
    use super::{for_postgres, for_sqlite};

    #[test]
    fn parameters_are_numbered_and_text_is_left_alone() {
        for (portable, expected) in [
            ("a = ? AND b = ?", "a = $1 AND b = $2"),
            ("a = ?2 OR b = ?1 OR c = ?2", "a = $2 OR b = $1 OR c = $2"),
            ("a = '?' AND b = ?", "a = '?' AND b = $1"),
            ("a = 'it''s ?' AND b = ?", "a = 'it''s ?' AND b = $1"),
            ("\"odd?\" = ?", "\"odd?\" = $1"),
            ("a -- why?\n = ? - -1", "a -- why?\n = $1 - -1"),
            ("(?, ?, ?12)", "($1, $2, $12)"),
            ("x = ? AND y = 'open", "x = $1 AND y = 'open"),
        ] {
            assert_eq!(for_postgres(portable).as_deref(), Some(expected), "{portable}");
        }
        assert_eq!(for_postgres("SELECT 1"), None);
    }

    #[test]
    fn sqlite_has_another_name_for_the_larger_one() {
        assert_eq!(for_sqlite("SET a = GREATEST(a, ?)").as_deref(), Some("SET a = MAX(a, ?)"));
    }
}
