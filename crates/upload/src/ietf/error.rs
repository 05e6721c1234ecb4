//! What can be wrong with a request of this dialect: its status, its problem type, what the problem document says
//! beside the sentence, and whether the upload is lost.

use super::PARTIAL_UPLOAD;
use crate::{
    Algorithm, Check, Checksum,
    digest_fields::{DigestError, byte_sequence, key_of},
    engine::Refusal,
    fields::FieldError,
};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IetfError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Digest(#[from] DigestError),
    #[error(
        "the header {field} is missing or is no boolean; send {field}: ?1 or ?0, to say whether the upload ends with this body"
    )]
    MissingCompleteness { field: &'static str },
    #[error(
        "the header Upload-Offset is missing or is no integer; send the byte where this body starts, as HEAD tells it, such as Upload-Offset: 0"
    )]
    MissingOffset,
    #[error("the header {field} has no place in this request; send it without")]
    FieldNotHere { field: &'static str },
    #[error("the body type is {received}; send the bytes with Content-Type: {PARTIAL_UPLOAD}")]
    WrongBodyType { received: String },
    #[error(
        "the body starts at byte {provided}, but {expected} bytes are stored; send on from byte {expected}"
    )]
    OffsetMismatch { expected: u64, provided: u64 },
    #[error(
        "the request makes the upload {claimed} bytes long, and it has {known}; every request must give the same length"
    )]
    InconsistentLength { claimed: u64, known: u64 },
    #[error("{stored} bytes are stored already, so the upload cannot have {claimed} bytes")]
    LengthBelowOffset { claimed: u64, stored: u64 },
    #[error(
        "the body starts at byte {offset} and reaches past byte {length}, the end of the upload; send at most {} bytes",
        .length.saturating_sub(*.offset)
    )]
    BeyondLength { offset: u64, length: u64 },
    /// The bytes themselves went past the end.
    #[error(
        "more bytes came than the {length} that the upload was to have; it is not what was announced and cannot be continued, create a new upload"
    )]
    Overrun { length: u64 },
    #[error("the upload is complete; nothing can be appended to it")]
    CompletedUpload,
    #[error("the upload would be {length} bytes long; this server takes at most {max} bytes")]
    TooLarge { length: u64, max: u64 },
    #[error(
        "the upload would be {length} bytes long; this server takes resumable uploads from {min} bytes on"
    )]
    TooSmall { length: u64, min: u64 },
    #[error("the body has {body_len} bytes; send at most {max} in one request")]
    BodyTooLarge { body_len: u64, max: u64 },
    #[error(
        "the body has {body_len} bytes; send at least {min} in one request, unless it completes the upload"
    )]
    BodyTooSmall { body_len: u64, min: u64 },
    #[error("the upload may have {limit} bytes at most; send at most {room} bytes from byte {offset}")]
    BeyondLimit { offset: u64, room: u64, limit: u64 },
    #[error(
        "the body does not have the digest it came with; none of it was kept, send it again from byte {stored}"
    )]
    ContentMismatch { announced: Checksum, stored: u64 },
    /// All bytes are there, and they are not what was announced at the creation.
    #[error(
        "the file that was received does not have the digest in Repr-Digest; it is not kept, create a new upload"
    )]
    ReprMismatch { announced: Checksum },
    #[error(transparent)]
    Refused(Refusal),
}

/// A problem type of a registry, and its title there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    pub type_uri: &'static str,
    pub title: &'static str,
}

/// Value of an extension member of a problem document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    Number(u64),
    /// A list of one object with these texts.
    Entry(Vec<(&'static str, String)>),
}

const MISMATCHING_OFFSET: Registered = Registered {
    type_uri: "https://iana.org/assignments/http-problem-types#mismatching-upload-offset",
    title: "Mismatching Upload Offset",
};
const INCONSISTENT_LENGTH: Registered = Registered {
    type_uri: "https://iana.org/assignments/http-problem-types#inconsistent-upload-length",
    title: "Inconsistent Upload Length Values",
};
/// In the draft's revisions 04 to 11.
const COMPLETED_UPLOAD: Registered = Registered {
    type_uri: "https://iana.org/assignments/http-problem-types#completed-upload",
    title: "Upload Is Completed",
};
/// These two are of draft-ietf-httpapi-digest-fields-problem-types-06.
const INVALID_DIGEST: Registered = Registered {
    type_uri: "https://iana.org/assignments/http-problem-types#digest-invalid-values",
    title: "Invalid Digest Values",
};
const MISMATCHING_DIGEST: Registered = Registered {
    type_uri: "https://iana.org/assignments/http-problem-types#digest-mismatching-values",
    title: "Mismatching Digest Values",
};

impl IetfError {
    /// What the engine said before a byte of the body was taken.
    pub fn before_body(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OffsetMismatch { claimed, durable } => {
                Self::OffsetMismatch { expected: durable, provided: claimed }
            }
            Refusal::BeyondLength { offset, length, .. } => Self::BeyondLength { offset, length },
            Refusal::BeyondLimit { offset, room, limit } => Self::BeyondLimit { offset, room, limit },
            Refusal::LengthChanged { known, claimed } => Self::InconsistentLength { claimed, known },
            Refusal::LengthBelowOffset { claimed, durable } => {
                Self::LengthBelowOffset { claimed, stored: durable }
            }
            other => Self::Refused(other),
        }
    }

    /// What the engine said while it took the body, or at its end. `check` is the one that the body was taken with.
    pub fn of_body(refusal: Refusal, check: &Check) -> Self {
        match (refusal, check) {
            // Section 4.4.2: the resource is marked invalid once the offset exceeds the length.
            (Refusal::BeyondLength { length, .. }, _) => Self::Overrun { length },
            (Refusal::ChecksumMismatch { durable, .. }, Check::Announced(announced)) => {
                Self::ContentMismatch { announced: announced.clone(), stored: durable }
            }
            (refusal, _) => Self::before_body(refusal),
        }
    }

    pub fn status(&self) -> u16 {
        match self {
            Self::OffsetMismatch { .. } => 409,
            Self::WrongBodyType { .. } => 415,
            Self::TooLarge { .. } | Self::BodyTooLarge { .. } | Self::BeyondLimit { .. } => 413,
            _ => 400,
        }
    }

    /// `None`: no registry has a type for it, the server uses one of its own.
    pub fn registered(&self) -> Option<Registered> {
        match self {
            Self::OffsetMismatch { .. } => Some(MISMATCHING_OFFSET),
            Self::InconsistentLength { .. }
            | Self::LengthBelowOffset { .. }
            | Self::BeyondLength { .. }
            | Self::Overrun { .. } => Some(INCONSISTENT_LENGTH),
            Self::CompletedUpload => Some(COMPLETED_UPLOAD),
            Self::Digest(DigestError::Invalid { .. }) => Some(INVALID_DIGEST),
            Self::ContentMismatch { .. } | Self::ReprMismatch { .. } => Some(MISMATCHING_DIGEST),
            _ => None,
        }
    }

    /// Extension members of the problem document.
    pub fn members(&self) -> Vec<(&'static str, Member)> {
        match self {
            Self::OffsetMismatch { expected, provided } => vec![
                ("expected-offset", Member::Number(*expected)),
                ("provided-offset", Member::Number(*provided)),
            ],
            Self::Digest(DigestError::Invalid { field, algorithm, reason }) => vec![(
                "invalid-digests",
                Member::Entry(vec![
                    ("algorithm", (*algorithm).to_owned()),
                    ("header", (*field).to_owned()),
                    ("reason", reason.clone()),
                ]),
            )],
            Self::ContentMismatch { announced, .. } => vec![mismatch(announced, content_header(announced))],
            Self::ReprMismatch { announced } => vec![mismatch(announced, "Repr-Digest")],
            _ => Vec::new(),
        }
    }

    /// The upload cannot be continued: no request may reach it from now on.
    pub fn ends_upload(&self) -> bool {
        matches!(self, Self::Overrun { .. } | Self::ReprMismatch { .. })
    }

    /// The answer is about the whole file, not about sending it (section 4.1.2): the client is not to resume.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::ReprMismatch { .. })
    }
}

/// `claimed` cannot be the length, because of the `known` one or because `offset` bytes are there.
pub(super) fn inconsistent(claimed: u64, known: Option<u64>, offset: u64) -> IetfError {
    match known {
        Some(known) if known != claimed => IetfError::InconsistentLength { claimed, known },
        _ => IetfError::LengthBelowOffset { claimed, stored: offset },
    }
}

fn content_header(announced: &Checksum) -> &'static str {
    if announced.algorithm() == Algorithm::Md5 { "Content-MD5" } else { "Content-Digest" }
}

/// What the server found is not told: the problem type's text warns of oracles.
fn mismatch(announced: &Checksum, header: &str) -> (&'static str, Member) {
    let algorithm = key_of(announced.algorithm()).unwrap_or(announced.algorithm().as_str());
    let entry = vec![
        ("algorithm", algorithm.to_owned()),
        ("provided-digest", byte_sequence(announced.digest())),
        ("header", header.to_owned()),
    ];
    ("mismatching-digests", Member::Entry(entry))
}

#[cfg(test)]
mod tests {
    use super::{IetfError, Member};
    use crate::{
        Algorithm, Check, Checksum, ChunkRequest, Transfer,
        digest_fields::DigestError,
        ietf::{Dialect, Limits, State},
    };

    fn type_of(error: &IetfError) -> &'static str {
        error.registered().map_or("", |registered| registered.type_uri)
    }

    #[test]
    fn ietf_the_problem_of_a_wrong_offset_has_both_offsets() {
        let error = IetfError::OffsetMismatch { expected: 12_500_000, provided: 25_000_000 };
        assert_eq!(error.status(), 409);
        assert_eq!(
            type_of(&error),
            "https://iana.org/assignments/http-problem-types#mismatching-upload-offset"
        );
        let members = vec![
            ("expected-offset", Member::Number(12_500_000)),
            ("provided-offset", Member::Number(25_000_000)),
        ];
        assert_eq!(error.members(), members);
    }

    #[test]
    fn ietf_lengths_that_do_not_fit_are_one_problem_type() {
        for error in [
            IetfError::InconsistentLength { claimed: 1, known: 2 },
            IetfError::LengthBelowOffset { claimed: 1, stored: 2 },
            IetfError::BeyondLength { offset: 1, length: 2 },
            IetfError::Overrun { length: 2 },
        ] {
            let expected = "https://iana.org/assignments/http-problem-types#inconsistent-upload-length";
            assert_eq!((error.status(), type_of(&error)), (400, expected));
        }
    }

    #[test]
    fn ietf_a_completed_upload_has_its_problem_type() {
        let error = IetfError::CompletedUpload;
        let expected = "https://iana.org/assignments/http-problem-types#completed-upload";
        assert_eq!((error.status(), type_of(&error)), (400, expected));
    }

    #[test]
    fn ietf_bytes_beyond_the_length_end_the_upload() {
        let transfer = Transfer::new(Some(3), 100);
        let mut chunk = transfer.begin_chunk(&ChunkRequest::default()).unwrap();
        let error = IetfError::of_body(chunk.take(b"four").unwrap_err(), &Check::None);
        assert_eq!(error, IetfError::Overrun { length: 3 });
        assert!(error.ends_upload());
        let announced = ChunkRequest { body_len: Some(4), ..ChunkRequest::default() };
        let before = IetfError::before_body(transfer.begin_chunk(&announced).err().unwrap());
        assert!(!before.ends_upload());
    }

    #[test]
    fn what_the_engine_refuses_has_its_problem() {
        let mut transfer = Transfer::new(Some(3), 100);
        let wrong = ChunkRequest { offset: 1, ..ChunkRequest::default() };
        let refused = IetfError::before_body(transfer.begin_chunk(&wrong).err().unwrap());
        assert_eq!(refused, IetfError::OffsetMismatch { expected: 0, provided: 1 });
        let changed = IetfError::before_body(transfer.declare_length(4).unwrap_err());
        assert_eq!(changed, IetfError::InconsistentLength { claimed: 4, known: 3 });
        let beyond = IetfError::before_body(Transfer::new(None, 100).declare_length(101).unwrap_err());
        assert_eq!(beyond.status(), 413);
    }

    #[test]
    fn a_body_without_its_digest_names_the_header_and_the_digest() {
        let announced = Checksum::of(Algorithm::Sha256, b"other");
        let check = Check::Announced(announced.clone());
        let transfer = Transfer::new(None, 100);
        let request = ChunkRequest { check: check.clone(), ..ChunkRequest::default() };
        let mut chunk = transfer.begin_chunk(&request).unwrap();
        chunk.take(b"hello").unwrap();
        let refusal = chunk.settle(crate::BodyEnd::Complete).unwrap_err();
        let error = IetfError::of_body(refusal, &check);
        assert_eq!(error, IetfError::ContentMismatch { announced, stored: 0 });
        assert!(type_of(&error).ends_with("#digest-mismatching-values"));
        let [("mismatching-digests", Member::Entry(entry))] = &error.members()[..] else {
            panic!("{error:?}")
        };
        assert_eq!(entry[0], ("algorithm", "sha-256".to_owned()));
        assert_eq!(entry[2], ("header", "Content-Digest".to_owned()));
        let md5 = IetfError::ContentMismatch { announced: Checksum::of(Algorithm::Md5, b""), stored: 0 };
        let [(_, Member::Entry(entry))] = &md5.members()[..] else { panic!("{md5:?}") };
        assert_eq!((entry[0].1.as_str(), entry[2].1.as_str()), ("md5", "Content-MD5"));
    }

    #[test]
    fn a_file_without_its_digest_ends_the_upload_and_the_client_is_not_to_resume() {
        let error = IetfError::ReprMismatch { announced: Checksum::of(Algorithm::Sha256, b"") };
        assert!(error.ends_upload());
        let state = State { offset: 5, length: Some(5), is_complete: false };
        let headers = Dialect::unnamed().refused(&error, Some(&state), &Limits::default());
        assert!(headers.contains(&("upload-complete", "?1".to_owned())));
    }

    #[test]
    fn an_impossible_digest_says_why() {
        let error = IetfError::from(DigestError::Invalid {
            field: "Repr-Digest",
            algorithm: "sha-256",
            reason: "too short".to_owned(),
        });
        assert!(type_of(&error).ends_with("#digest-invalid-values"));
        let [("invalid-digests", Member::Entry(entry))] = &error.members()[..] else { panic!("{error:?}") };
        assert_eq!(entry[2], ("reason", "too short".to_owned()));
    }

    #[test]
    fn every_error_says_what_to_do() {
        for error in [
            IetfError::MissingCompleteness { field: "upload-complete" },
            IetfError::MissingOffset,
            IetfError::FieldNotHere { field: "upload-offset" },
            IetfError::WrongBodyType { received: "missing".to_owned() },
            IetfError::BodyTooSmall { body_len: 1, min: 2 },
        ] {
            assert!(error.to_string().contains("send"), "{error}");
            assert_eq!(error.registered(), None);
        }
    }
}
