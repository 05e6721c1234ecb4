//! The IETF draft: detection, requests of every interop version, and what is answered to them.

use crate::message::Message;
use reelyard_upload::{Algorithm, digest_fields::Digests};
use reelyard_upload::{
    digest_fields::{Integrity, content_check, content_md5, wanted},
    ietf::{Admitted, Append, Creation, Dialect, IetfError, Limits, State, check_bare, completion},
};

const LIMITS: Limits = Limits {
    max_size: Some(1 << 40),
    min_size: None,
    max_append_size: Some(1 << 36),
    min_append_size: None,
    max_age_seconds: Some(3600),
};
const STATES: [State; 4] = [
    State { offset: 0, length: None, is_complete: false },
    State { offset: 5, length: Some(10), is_complete: false },
    State { offset: 10, length: Some(10), is_complete: false },
    State { offset: 10, length: Some(10), is_complete: true },
];

/// An append is taken only where it starts at the offset and ends within the length; every refusal can be answered.
pub(crate) fn headers(bytes: &[u8]) {
    let message = Message::read(bytes);
    let _ = content_check(&message);
    let _ = content_md5(&message);
    let _ = wanted(&message, Integrity::Repr, &[Algorithm::Sha256]);
    if let Ok(digests) = Digests::read(&message, Integrity::Content) {
        let _ = digests.best();
    }
    let dialect = Dialect::detect(&message).unwrap_or(Dialect::unnamed());
    let _ = check_bare(dialect, &message).inspect_err(|error| answered(dialect, error, None));
    let created = Creation::read(dialect, &message, &LIMITS);
    if let Ok(creation) = created.inspect_err(|error| answered(dialect, error, None)) {
        assert!(creation.length.is_none_or(|length| length <= 1 << 40));
        if let Some(chunk) = &creation.first_chunk {
            assert_eq!(chunk.offset, 0);
        }
    }
    let read = Append::read(dialect, &message, &LIMITS);
    let Ok(append) = read.inspect_err(|error| answered(dialect, error, None)) else { return };
    for state in &STATES {
        match append.admit(dialect, state, &LIMITS) {
            Ok(Admitted::Replay) => assert!(state.is_complete && append.chunk.body_len == Some(0)),
            Ok(Admitted::Receive { declare }) => {
                assert!(!state.is_complete && append.chunk.offset == state.offset);
                assert!(declare.is_none_or(|length| state.length.is_none() && length >= state.offset));
                let length = state.length.or(declare);
                let end = append.chunk.body_len.map(|body_len| state.offset.saturating_add(body_len));
                assert!(end.zip(length).is_none_or(|(end, length)| end <= length));
                let _ = completion(append.completes, end.unwrap_or(state.offset), length);
            }
            Err(error) => answered(dialect, &error, Some(state)),
        }
    }
}

fn answered(dialect: Dialect, error: &IetfError, state: Option<&State>) {
    assert!((400..500).contains(&error.status()));
    assert!(!error.to_string().is_empty());
    for (_, value) in dialect.refused(error, state, &LIMITS) {
        assert!(value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')), "{value:?}");
    }
    let _ = (error.registered(), error.members(), error.ends_upload());
}
