//! The headers of a request as the dialects see them: text, or a reason why there is none.
//!
//! The HTTP shell implements [`Fields`] over its header map; every dialect reads through the functions here, so that
//! what a number, a repeated header or an unreadable one is does not depend on the dialect.

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

/// What is wrong with one header. Each dialect makes an error of its own of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("the header {name} is missing; send {expected}")]
    Missing { name: &'static str, expected: &'static str },
    #[error("the header {name} cannot be read ({problem}); send {expected}")]
    Bad { name: &'static str, problem: String, expected: &'static str },
}

/// The header's text, if it was sent. Sent twice or not as text: an error.
pub fn optional<'a>(
    fields: &'a impl Fields,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<&'a str>, FieldError> {
    match fields.field(name) {
        Field::Absent => Ok(None),
        Field::Text(text) => Ok(Some(text)),
        Field::NotText => Err(bad(name, "not plain ASCII".to_owned(), expected)),
        Field::Repeated => Err(bad(name, "sent more than once".to_owned(), expected)),
    }
}

/// A number in decimal digits that has to be there.
pub fn number(fields: &impl Fields, name: &'static str, expected: &'static str) -> Result<u64, FieldError> {
    let text = optional(fields, name, expected)?.ok_or(FieldError::Missing { name, expected })?;
    digits(name, text, expected)
}

/// `Content-Length`.
pub fn content_length(fields: &impl Fields) -> Result<Option<u64>, FieldError> {
    const EXPECTED: &str = "the length of the body in bytes";
    optional(fields, "content-length", EXPECTED)?
        .map(|text| digits("content-length", text, EXPECTED))
        .transpose()
}

/// Digits only: `u64::from_str` would take a plus sign too. At most [`crate::MAX_UPLOAD_BYTES`].
pub fn digits(name: &'static str, text: &str, expected: &'static str) -> Result<u64, FieldError> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad(name, format!("{} is not a number", printable(text)), expected));
    }
    let value = text.parse().ok().filter(|value| *value <= crate::MAX_UPLOAD_BYTES);
    value.ok_or_else(|| bad(name, format!("{} is too large a number", printable(text)), expected))
}

pub fn bad(name: &'static str, problem: String, expected: &'static str) -> FieldError {
    FieldError::Bad { name, problem, expected }
}

/// What a client sent, short enough to send back.
pub fn printable(text: &str) -> String {
    const MAX_ECHO_CHARS: usize = 60;
    let mut shown: String =
        text.chars().take(MAX_ECHO_CHARS).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(MAX_ECHO_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}
