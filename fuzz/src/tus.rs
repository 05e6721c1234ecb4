//! tus 1.0.0: everything that is read from headers and trailers.

use crate::message::Message;
use reelyard_upload::tus::{
    Append, Concat, Creation, HeadAnswer, Metadata, TusError, check_version, final_length, format_checksum,
    format_concat, method_override, trailing_checksum,
};
use reelyard_upload::{Check, fields::Field, fields::Fields};

const MAX_UPLOAD_BYTES: u64 = 1 << 40;

/// Each refusal has a status of its protocol and a sentence; what was understood can be said again.
pub(crate) fn headers(bytes: &[u8]) {
    let message = Message::read(bytes);
    let told = |error: &TusError| {
        assert!((400..500).contains(&error.status()));
        assert!(!error.to_string().is_empty() && !error.to_string().contains('\n'));
    };
    let _ = check_version(&message).inspect_err(told);
    let _ = method_override(&message).inspect_err(told);
    if let Ok(append) = Append::read(&message).inspect_err(told) {
        let _ = trailing_checksum(&append.chunk.check, &message);
        if let Check::Announced(checksum) = &append.chunk.check {
            said_again(&format_checksum(checksum), append);
        }
    }
    if let Ok(creation) = Creation::read(&message, MAX_UPLOAD_BYTES).inspect_err(told) {
        assert!(creation.length.is_none_or(|length| length <= MAX_UPLOAD_BYTES));
        kept_and_shown(&creation);
    }
}

/// What is kept of a creation fits into the headers of HEAD and is read back from there as it was.
fn kept_and_shown(creation: &Creation) {
    assert_eq!(Metadata::parse(creation.metadata.header()).as_ref(), Ok(&creation.metadata));
    if let Some(text) = format_concat(&creation.concat) {
        assert_eq!(Concat::parse(&text).as_ref(), Ok(&creation.concat));
    }
    if let Concat::Final(partials) = &creation.concat {
        let _ = final_length(partials.iter().map(|_| creation.length), MAX_UPLOAD_BYTES);
    }
    let answer = HeadAnswer {
        offset: Some(0),
        length: creation.length,
        metadata: creation.metadata.header(),
        concat: &creation.concat,
        expires_ms: Some(i64::MAX),
    };
    for (_, value) in answer.headers() {
        assert!(value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')), "{value:?}");
    }
}

fn said_again(checksum: &str, append: Append) {
    struct One<'a>(&'a str, String);
    impl Fields for One<'_> {
        fn field(&self, name: &str) -> Field<'_> {
            match name {
                "upload-checksum" => Field::Text(self.0),
                "upload-offset" => Field::Text(&self.1),
                "content-type" => Field::Text("application/offset+octet-stream"),
                _ => Field::Absent,
            }
        }
    }
    let again = Append::read(&One(checksum, append.chunk.offset.to_string()));
    assert_eq!(again.map(|again| again.chunk.check), Ok(append.chunk.check));
}
