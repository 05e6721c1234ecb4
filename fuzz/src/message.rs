//! Arbitrary bytes as a message: lines `name: value` up to an empty one, then the body.
//!
//! Looser than HTTP on purpose: a name may come twice and a value may be no text, as header maps can have it.

use reelyard_upload::fields::{Field, Fields};

pub(crate) struct Message<'a> {
    lines: Vec<(String, &'a [u8])>,
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Self {
        let mut rest = bytes;
        let mut lines = Vec::new();
        loop {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let (line, behind) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                return Self { lines, body: behind };
            }
            if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
                lines.push((name, line[colon + 1..].trim_ascii()));
            }
            rest = behind;
        }
    }
}

impl Fields for Message<'_> {
    fn field(&self, name: &str) -> Field<'_> {
        let mut values = self.lines.iter().filter(|(key, _)| key == name);
        match (values.next(), values.next()) {
            (None, _) => Field::Absent,
            (Some(_), Some(_)) => Field::Repeated,
            (Some((_, value)), None) => match std::str::from_utf8(value) {
                // As HTTP libraries have it: text is visible ASCII and blanks.
                Ok(text) if text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) => Field::Text(text),
                _ => Field::NotText,
            },
        }
    }
}
