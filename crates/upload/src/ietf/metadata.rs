//! What a creation says about the file, in the fields that HTTP has for it: `Content-Type` and `Content-Disposition`
//! (section 4.2.1). The result has the form of tus metadata, so that the catalogue keeps one form.
//!
//! tus-js-client sends `Upload-Metadata` in this dialect too; it is taken where the HTTP fields say nothing. None of
//! this is trusted: a name is cut down to a plain file name, and what cannot be read is as if it had not been sent.

use super::PARTIAL_UPLOAD;
use crate::{
    fields::{Field, Fields},
    tus::{self, Metadata},
};
use std::borrow::Cow;

/// File systems end there, and nobody reads further.
const MAX_FILE_NAME_CHARS: usize = 255;
/// The longest registered media types have some 90; parameters are cut off.
const MAX_MEDIA_TYPE_BYTES: usize = 127;

pub(super) fn read(fields: &impl Fields) -> Metadata {
    let sent = match fields.field(tus::header::METADATA) {
        Field::Text(text) => Metadata::parse(text).unwrap_or_default(),
        _ => Metadata::default(),
    };
    let disposition = match fields.field("content-disposition") {
        Field::Text(text) => file_name(text),
        _ => None,
    };
    let said = [("filename", disposition), ("filetype", media_type(fields))];
    let mut pairs: Vec<(&str, &[u8])> =
        said.iter().filter_map(|(key, value)| Some((*key, value.as_ref()?.as_bytes()))).collect();
    for (key, value) in sent.pairs() {
        if !pairs.iter().any(|(taken, _)| taken == key) {
            pairs.push((key, value));
        }
    }
    // Too much of it in all: what tus-js-client sent goes first.
    Metadata::parse(&Metadata::format(&pairs)).unwrap_or_default()
}

/// The body's type on a creation is the file's, unless it says that it is a part of one.
fn media_type(fields: &impl Fields) -> Option<String> {
    let Field::Text(text) = fields.field("content-type") else { return None };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(is_token_byte);
    let is_type = essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    (is_type && essence.len() <= MAX_MEDIA_TYPE_BYTES && essence != PARTIAL_UPLOAD).then_some(essence)
}

/// The file name in a `Content-Disposition` (RFC 6266), whatever its type: `filename*` counts before `filename`.
fn file_name(text: &str) -> Option<String> {
    let (mut plain, mut extended) = (None, None);
    let mut rest = text.split_once(';')?.1;
    while let Some((name, value, behind)) = parameter(rest) {
        match name.to_ascii_lowercase().as_str() {
            "filename" => plain = plain.or(Some(value.into_owned())),
            "filename*" => extended = extended.or_else(|| decode_extended(&value)),
            _ => {}
        }
        rest = behind;
    }
    extended.or(plain).and_then(|name| plain_file_name(&name))
}

/// The first parameter: its name, its value unquoted, and what stands behind it. `None` at the end or where the text
/// has no such form.
fn parameter(text: &str) -> Option<(&str, Cow<'_, str>, &str)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim_matches(|c: char| c == ';' || c.is_whitespace());
    let value = value.trim_start();
    let Some(quoted) = value.strip_prefix('"') else {
        let (value, behind) = value.split_once(';').unwrap_or((value, ""));
        return Some((name, Cow::Borrowed(value.trim_end()), behind));
    };
    let mut unquoted = String::new();
    let mut chars = quoted.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Some((name, Cow::Owned(unquoted), &quoted[index + 1..])),
            '\\' => unquoted.push(chars.next()?.1),
            c => unquoted.push(c),
        }
    }
    None
}

/// `UTF-8'en'na%C3%AFve.mp4` (RFC 8187). The other character set that the form allows is Latin-1.
fn decode_extended(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _language, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let mut bytes = Vec::new();
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.extend(hex::decode(digits).ok()?);
    }
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" => String::from_utf8(bytes).ok(),
        "iso-8859-1" => Some(bytes.into_iter().map(char::from).collect()),
        _ => None,
    }
}

/// The last part of a path, with nothing in it that is not to be seen (RFC 6266 section 4.3).
fn plain_file_name(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next()?;
    let name: String = last.chars().filter(|c| !c.is_control()).take(MAX_FILE_NAME_CHARS).collect();
    let name = name.trim();
    (!name.is_empty() && name != "." && name != "..").then(|| name.to_owned())
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::{file_name, read};
    use crate::testing::sent;
    use proptest::prelude::proptest;

    #[test]
    fn the_file_name_comes_from_the_content_disposition() {
        for (text, expected) in [
            (
                "inline; filename=\"file name.jpg\"; filename*=UTF-8''file%20n%C3%A4me.jpg",
                Some("file näme.jpg"),
            ),
            ("attachment; filename=plain.mp4", Some("plain.mp4")),
            ("inline;FILENAME = \"a;b=c.mp4\" ; x=y", Some("a;b=c.mp4")),
            (r#"inline; filename="say \"hi\".mp4""#, Some("say \"hi\".mp4")),
            ("inline; filename*=iso-8859-1'en'%A3.mp4", Some("£.mp4")),
            ("inline; filename=a.mp4; filename*=UTF-16''x", Some("a.mp4")),
            ("inline; filename=a.mp4; filename*=UTF-8''%C3", Some("a.mp4")),
            ("inline; filename=\"../../etc/passwd\"", Some("passwd")),
            (r"inline; filename=C:\video\a.mp4", Some("a.mp4")),
            ("inline; filename*=UTF-8''a%0Ab.mp4", Some("ab.mp4")),
            ("inline; filename=..", None),
            ("inline; filename=\"\"", None),
            ("inline; filename=\"open", None),
            ("inline", None),
            ("filename=x", None),
        ] {
            assert_eq!(file_name(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_media_type_of_a_creation_is_the_files() {
        for (value, expected) in [
            ("video/MP4; codecs=avc1", Some("video/mp4")),
            ("application/partial-upload", None),
            ("nonsense", None),
            ("video/", None),
            ("video/a b", None),
        ] {
            let metadata = read(&sent(&[("content-type", value)]));
            assert_eq!(metadata.text("filetype"), expected, "{value}");
        }
    }

    #[test]
    fn tus_metadata_is_taken_where_the_http_fields_say_nothing() {
        let metadata = read(&sent(&[
            ("upload-metadata", "filename b2xkLm1wNA==,preset d2Vi"),
            ("content-disposition", "inline; filename=new.mp4"),
        ]));
        assert_eq!(metadata.text("filename"), Some("new.mp4"));
        assert_eq!(metadata.text("preset"), Some("web"));
        let alone = read(&sent(&[("upload-metadata", "filename b2xkLm1wNA==")]));
        assert_eq!(alone.text("filename"), Some("old.mp4"));
        assert_eq!(read(&sent(&[("upload-metadata", "filename ???")])).pairs(), []);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_names_are_plain(text in "(inline; ?)?(filename\\*?=)?\\PC{0,80}") {
            if let Some(name) = file_name(&text) {
                assert!(!name.is_empty() && !name.contains(['/', '\\']) && !name.chars().any(char::is_control));
            }
        }
    }
}
