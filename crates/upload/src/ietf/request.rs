//! Requests of the dialect: what a POST, a PATCH, a HEAD and a DELETE ask for, and whether the state allows it.

use super::{
    Dialect, IetfError, Limits, PARTIAL_UPLOAD, State, error::inconsistent, header, items, metadata,
};
use crate::{
    Checksum, ChunkRequest, MAX_UPLOAD_BYTES,
    digest_fields::{Digests, Integrity, content_check},
    fields::{Field, Fields, content_length, printable},
    tus::Metadata,
};

/// A POST that makes an upload (section 4.2), perhaps with all its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    /// This body is the whole file.
    pub completes: bool,
    /// To be recorded with the upload.
    pub length: Option<u64>,
    /// `None` when there is no body.
    pub first_chunk: Option<ChunkRequest>,
    pub metadata: Metadata,
    /// SHA-256 of the whole file, to be compared when it is there. Digests of other algorithms are not: the server
    /// computes this one only.
    pub repr_digest: Option<Checksum>,
}

/// A PATCH that appends (section 4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    pub chunk: ChunkRequest,
    /// This body is the rest of the file.
    pub completes: bool,
    /// Length of the whole file as this request has it.
    pub length: Option<u64>,
}

/// What an append may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Receive the body. A length is news: record it first, and it holds even if the body is cut.
    Receive { declare: Option<u64> },
    /// The upload was completed before, and this asks for the lost answer: give it again, change nothing.
    Replay,
}

/// What the end of a body means for the upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// More may come, even where all bytes of the length are there (section 4.1.3).
    Open,
    /// The client said that this was the end: the upload has this many bytes, to be recorded if that is news.
    Whole { length: u64 },
}

impl Creation {
    pub fn read(dialect: Dialect, fields: &impl Fields, limits: &Limits) -> Result<Self, IetfError> {
        let body_len = body_len(fields)?;
        let said = Said::read(dialect, fields, 0, body_len)?;
        let completes = said
            .completes
            .ok_or(IetfError::MissingCompleteness { field: dialect.version().completeness().0 })?;
        limits.check_length(said.length)?;
        limits.check_body(body_len, !completes && body_len != Some(0))?;
        let first_chunk = match body_len {
            Some(0) => None,
            body_len => Some(ChunkRequest { offset: 0, body_len, check: content_check(fields)? }),
        };
        let repr_digest = Digests::read(fields, Integrity::Repr)?.sha256;
        Ok(Self {
            completes,
            length: said.length,
            first_chunk,
            metadata: metadata::read(fields),
            repr_digest,
        })
    }
}

impl Append {
    pub fn read(dialect: Dialect, fields: &impl Fields, limits: &Limits) -> Result<Self, IetfError> {
        let version = dialect.version();
        if version.has_partial_upload_type() && !has_partial_upload_type(fields) {
            return Err(IetfError::WrongBodyType { received: received_type(fields) });
        }
        let offset = items::non_negative(fields, header::OFFSET).ok_or(IetfError::MissingOffset)?;
        let body_len = body_len(fields)?;
        let said = Said::read(dialect, fields, offset, body_len)?;
        let silent = version.silent_append_completes().then_some(true);
        let completes = said
            .completes
            .or(silent)
            .ok_or(IetfError::MissingCompleteness { field: version.completeness().0 })?;
        limits.check_body(body_len, !completes)?;
        let chunk = ChunkRequest { offset, body_len, check: content_check(fields)? };
        Ok(Self { chunk, completes, length: said.length })
    }

    /// The offset is compared first: a client that is wrong about it is wrong about the rest too.
    pub fn admit(&self, dialect: Dialect, state: &State, limits: &Limits) -> Result<Admitted, IetfError> {
        let ChunkRequest { offset: provided, body_len, .. } = self.chunk;
        if provided != state.offset {
            return Err(IetfError::OffsetMismatch { expected: state.offset, provided });
        }
        if state.is_complete {
            return self.admit_to_completed(dialect);
        }
        if let Some(length) = self.length {
            if state.length.is_some_and(|known| known != length) || length < state.offset {
                return Err(inconsistent(length, state.length, state.offset));
            }
            limits.check_length(Some(length))?;
        }
        let end = body_len.and_then(|body_len| provided.checked_add(body_len));
        match (state.length.or(self.length), end) {
            (Some(length), Some(end)) if end > length => {
                Err(IetfError::BeyondLength { offset: provided, length })
            }
            _ => Ok(Admitted::Receive { declare: self.length.filter(|_| state.length.is_none()) }),
        }
    }

    fn admit_to_completed(&self, dialect: Dialect) -> Result<Admitted, IetfError> {
        if !dialect.version().may_replay() {
            return Err(IetfError::CompletedUpload);
        }
        match (self.chunk.body_len, self.completes) {
            (Some(0), true) => Ok(Admitted::Replay),
            (Some(0), false) => Err(IetfError::CompletedUpload),
            // Revision 11 of the draft calls it so.
            _ => Err(IetfError::BeyondLength { offset: self.chunk.offset, length: self.chunk.offset }),
        }
    }
}

/// The body of a request came to its end, not to a cut: is the upload complete? `offset` counts its bytes.
pub fn completion(completes: bool, offset: u64, length: Option<u64>) -> Result<Completion, IetfError> {
    match length {
        _ if !completes => Ok(Completion::Open),
        Some(length) if length != offset => Err(inconsistent(offset, Some(length), offset)),
        _ => Ok(Completion::Whole { length: offset }),
    }
}

/// `HEAD`, `GET` and `DELETE` name an upload and nothing else. Only early versions mind when they do.
pub fn check_bare(dialect: Dialect, fields: &impl Fields) -> Result<(), IetfError> {
    if !dialect.version().refuses_append_fields_elsewhere() {
        return Ok(());
    }
    let (completeness, _) = dialect.version().completeness();
    match [header::OFFSET, completeness].into_iter().find(|name| fields.field(name) != Field::Absent) {
        Some(field) => Err(IetfError::FieldNotHere { field }),
        None => Ok(()),
    }
}

/// What the fields say about the end of the upload.
struct Said {
    completes: Option<bool>,
    length: Option<u64>,
}

impl Said {
    /// The two indicators of the length (section 4.1.3): `Upload-Length`, and the length of a body that is the rest.
    fn read(
        dialect: Dialect,
        fields: &impl Fields,
        offset: u64,
        body_len: Option<u64>,
    ) -> Result<Self, IetfError> {
        let by_header = items::non_negative(fields, header::LENGTH);
        let (name, when_true) = dialect.version().completeness();
        // tus-js-client leaves the field out when a stream turns out to have ended with the chunk before: no body, and
        // a length that is reached. It has nothing more to say.
        let ended = (body_len == Some(0) && by_header == Some(offset)).then_some(true);
        let completes = items::boolean(fields, name).map(|value| value == when_true).or(ended);
        let by_content = match body_len {
            Some(body_len) if completes == Some(true) => Some(
                offset
                    .checked_add(body_len)
                    .filter(|end| *end <= MAX_UPLOAD_BYTES)
                    .ok_or(IetfError::TooLarge { length: u64::MAX, max: MAX_UPLOAD_BYTES })?,
            ),
            _ => None,
        };
        match (by_header, by_content) {
            (Some(by_header), Some(by_content)) if by_header != by_content => {
                Err(IetfError::InconsistentLength { claimed: by_header, known: by_content })
            }
            _ => Ok(Self { completes, length: by_header.or(by_content) }),
        }
    }
}

/// `Some(0)` when there is no body; `None` when there is one that says its length by its end.
fn body_len(fields: &impl Fields) -> Result<Option<u64>, IetfError> {
    let announced = content_length(fields)?;
    if announced.is_none() && fields.field("transfer-encoding") == Field::Absent {
        return Ok(Some(0));
    }
    Ok(announced)
}

pub(super) fn has_partial_upload_type(fields: &impl Fields) -> bool {
    let Field::Text(text) = fields.field("content-type") else { return false };
    text.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(PARTIAL_UPLOAD))
}

fn received_type(fields: &impl Fields) -> String {
    match fields.field("content-type") {
        Field::Text(text) => printable(text),
        Field::Absent => "missing".to_owned(),
        Field::NotText | Field::Repeated => "unreadable".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Admitted, Append, Completion, Creation, check_bare, completion};
    use crate::{
        Algorithm, Check, Checksum, ChunkRequest,
        ietf::{Dialect, IetfError, Limits, State, Version},
        testing::{sent, sent_owned},
    };
    use proptest::prelude::{Just, prop, prop_oneof, proptest};

    const NONE: Limits = Limits {
        max_size: None,
        min_size: None,
        max_append_size: None,
        min_append_size: None,
        max_age_seconds: None,
    };
    const PATCH: (&str, &str) = ("content-type", "application/partial-upload");

    fn dialect(version: Version) -> Dialect {
        let number = version.number().to_string();
        Dialect::detect(&sent(&[("upload-draft-interop-version", &number)])).unwrap()
    }

    fn creation_in(version: Version, headers: &[(&str, &str)]) -> Result<Creation, IetfError> {
        Creation::read(dialect(version), &sent(headers), &NONE)
    }

    fn creation(headers: &[(&str, &str)]) -> Result<Creation, IetfError> {
        creation_in(Version::NEWEST, headers)
    }

    fn append_in(version: Version, headers: &[(&str, &str)]) -> Result<Append, IetfError> {
        let mut all = vec![PATCH];
        all.extend_from_slice(headers);
        Append::read(dialect(version), &sent(&all), &NONE)
    }

    fn append(headers: &[(&str, &str)]) -> Result<Append, IetfError> {
        append_in(Version::NEWEST, headers)
    }

    fn open(offset: u64, length: Option<u64>) -> State {
        State { offset, length, is_complete: false }
    }

    fn admit(append: &Append, state: State) -> Result<Admitted, IetfError> {
        append.admit(dialect(Version::NEWEST), &state, &NONE)
    }

    #[test]
    fn ietf_the_length_is_recorded_from_a_whole_body_or_from_upload_length() {
        for (headers, completes, length) in [
            (&[("upload-complete", "?1"), ("content-length", "100")] as &[_], true, Some(100)),
            (&[("upload-complete", "?0"), ("content-length", "100")], false, None),
            (&[("upload-complete", "?0"), ("upload-length", "500")], false, Some(500)),
            (&[("upload-complete", "?1"), ("transfer-encoding", "chunked")], true, None),
            (
                &[("upload-complete", "?1"), ("transfer-encoding", "chunked"), ("upload-length", "7")],
                true,
                Some(7),
            ),
            (&[("upload-complete", "?1")], true, Some(0)),
            (&[("upload-complete", "?0")], false, None),
        ] {
            let read = creation(headers).unwrap();
            assert_eq!((read.completes, read.length), (completes, length), "{headers:?}");
        }
    }

    #[test]
    fn ietf_two_indicators_of_the_length_in_one_request_must_match() {
        let twice = |length| {
            creation(&[("upload-complete", "?1"), ("content-length", "100"), ("upload-length", length)])
        };
        assert_eq!(twice("100").unwrap().length, Some(100));
        let error = twice("101").unwrap_err();
        assert_eq!(error, IetfError::InconsistentLength { claimed: 101, known: 100 });
        // A body that is not the rest indicates nothing.
        let part = [("upload-complete", "?0"), ("content-length", "100"), ("upload-length", "101")];
        assert_eq!(creation(&part).unwrap().length, Some(101));
    }

    #[test]
    fn ietf_indicators_of_the_length_in_several_requests_must_match() {
        let rest = append(&[("upload-offset", "60"), ("upload-complete", "?1"), ("content-length", "40")]);
        let rest = rest.unwrap();
        assert_eq!(admit(&rest, open(60, None)), Ok(Admitted::Receive { declare: Some(100) }));
        assert_eq!(admit(&rest, open(60, Some(100))), Ok(Admitted::Receive { declare: None }));
        let error = admit(&rest, open(60, Some(101))).unwrap_err();
        assert_eq!(error, IetfError::InconsistentLength { claimed: 100, known: 101 });
        let short = append(&[("upload-offset", "60"), ("upload-complete", "?0"), ("upload-length", "59")]);
        let error = admit(&short.unwrap(), open(60, None)).unwrap_err();
        assert_eq!(error, IetfError::LengthBelowOffset { claimed: 59, stored: 60 });
    }

    #[test]
    fn ietf_a_field_with_another_value_is_ignored_as_a_whole() {
        // Without a usable Upload-Complete it is no request of the protocol, and /uploads takes no others.
        for value in ["1", "?2", "true", ""] {
            let error = creation(&[("upload-complete", value)]).unwrap_err();
            assert_eq!(error, IetfError::MissingCompleteness { field: "upload-complete" });
        }
        for value in ["-1", "1.5", "ten", "1234567890123456"] {
            let error = append(&[("upload-offset", value), ("upload-complete", "?0")]).unwrap_err();
            assert_eq!(error, IetfError::MissingOffset, "{value}");
            let length = creation(&[("upload-complete", "?0"), ("upload-length", value)]).unwrap().length;
            assert_eq!(length, None, "{value}");
        }
    }

    #[test]
    fn ietf_a_creation_without_a_body_only_makes_the_upload() {
        let empty = creation(&[("upload-complete", "?0"), ("content-length", "0"), PATCH]).unwrap();
        assert_eq!((empty.first_chunk, empty.completes), (None, false));
        let with_body = creation(&[("upload-complete", "?0"), ("content-length", "5")]).unwrap();
        let chunk = ChunkRequest { offset: 0, body_len: Some(5), check: Check::None };
        assert_eq!(with_body.first_chunk, Some(chunk));
        let chunked = creation(&[("upload-complete", "?0"), ("transfer-encoding", "chunked")]).unwrap();
        assert_eq!(chunked.first_chunk.unwrap().body_len, None);
    }

    #[test]
    fn an_append_has_the_media_type_of_the_draft_from_revision_04_on() {
        let headers = [("upload-offset", "0"), ("upload-complete", "?1"), ("content-length", "1")];
        for version in Version::ALL {
            let read = Append::read(dialect(version), &sent(&headers), &NONE);
            let takes_any = version <= Version::V5;
            assert_eq!(read.is_ok(), takes_any, "{version:?}");
            if let Err(error) = read {
                assert_eq!((error.status(), error.to_string().contains("missing")), (415, true));
            }
        }
        let with_parameter = [("content-type", "Application/Partial-Upload; x=y"), headers[0], headers[1]];
        assert!(Append::read(dialect(Version::V8), &sent(&with_parameter), &NONE).is_ok());
    }

    #[test]
    fn version_3_says_incomplete_and_turns_the_meaning_round() {
        let complete = creation_in(Version::V3, &[("upload-incomplete", "?0"), ("content-length", "9")]);
        assert_eq!((complete.clone().unwrap().completes, complete.unwrap().length), (true, Some(9)));
        let part = creation_in(Version::V3, &[("upload-incomplete", "?1"), ("content-length", "9")]).unwrap();
        assert_eq!((part.completes, part.length), (false, None));
        assert!(creation_in(Version::V3, &[("upload-complete", "?1")]).is_err());
    }

    #[test]
    fn an_append_that_is_silent_about_the_end_completes_up_to_revision_03_and_is_refused_later() {
        for version in Version::ALL {
            let read = append_in(version, &[("upload-offset", "0"), ("content-length", "5")]);
            match read {
                Ok(append) => assert!(version <= Version::V5 && append.completes, "{version:?}"),
                Err(error) => {
                    assert!(version >= Version::V6, "{version:?}");
                    assert_eq!(error, IetfError::MissingCompleteness { field: "upload-complete" });
                }
            }
        }
    }

    #[test]
    fn tus_js_client_ends_a_stream_without_a_body_and_without_upload_complete() {
        let headers = [("upload-offset", "5"), ("upload-length", "5"), ("content-length", "0")];
        assert!(append_in(Version::V6, &headers).unwrap().completes);
        assert!(creation_in(Version::V6, &[("upload-length", "0")]).unwrap().completes);
        assert!(append_in(Version::V6, &headers[1..]).is_err());
        let explicit = [headers[0], headers[1], ("upload-complete", "?0")];
        assert!(!append_in(Version::V6, &explicit).unwrap().completes);
    }

    #[test]
    fn ietf_a_wrong_offset_is_refused_before_anything_else_is_compared() {
        let headers = [("upload-offset", "25"), ("upload-complete", "?1"), ("content-length", "1000")];
        let read = append(&headers).unwrap();
        let expected = Err(IetfError::OffsetMismatch { expected: 12, provided: 25 });
        for state in [open(12, None), open(12, Some(100)), State { is_complete: true, ..open(12, Some(12)) }]
        {
            assert_eq!(admit(&read, state), expected);
        }
    }

    #[test]
    fn ietf_an_offset_at_the_length_is_not_completion() {
        assert_eq!(completion(false, 100, Some(100)), Ok(Completion::Open));
        assert_eq!(completion(true, 100, Some(100)), Ok(Completion::Whole { length: 100 }));
        // The empty request that completes it afterwards.
        let last = append(&[("upload-offset", "100"), ("upload-complete", "?1")]).unwrap();
        assert_eq!(admit(&last, open(100, Some(100))), Ok(Admitted::Receive { declare: None }));
        assert_eq!(completion(true, 100, None), Ok(Completion::Whole { length: 100 }));
    }

    #[test]
    fn a_body_that_was_to_be_the_rest_and_is_not_does_not_complete() {
        let error = completion(true, 50, Some(100)).unwrap_err();
        assert_eq!(error, IetfError::InconsistentLength { claimed: 50, known: 100 });
        assert!(!error.ends_upload());
    }

    #[test]
    fn ietf_a_body_announced_beyond_the_length_is_refused_before_it_is_taken() {
        let read = append(&[("upload-offset", "90"), ("upload-complete", "?0"), ("content-length", "11")]);
        let error = admit(&read.unwrap(), open(90, Some(100))).unwrap_err();
        assert_eq!(error, IetfError::BeyondLength { offset: 90, length: 100 });
        assert!(!error.ends_upload());
        let own = [("upload-offset", "0"), ("upload-complete", "?0"), ("content-length", "11")];
        let own = append(&[own[0], own[1], own[2], ("upload-length", "10")]).unwrap();
        assert_eq!(admit(&own, open(0, None)), Err(IetfError::BeyondLength { offset: 0, length: 10 }));
    }

    #[test]
    fn ietf_nothing_is_appended_to_a_completed_upload() {
        let done = State { is_complete: true, ..open(100, Some(100)) };
        let request = |complete, byte_len| {
            append(&[("upload-offset", "100"), ("upload-complete", complete), ("content-length", byte_len)])
                .unwrap()
        };
        assert_eq!(admit(&request("?1", "0"), done), Ok(Admitted::Replay));
        assert_eq!(admit(&request("?0", "0"), done), Err(IetfError::CompletedUpload));
        let more = admit(&request("?1", "5"), done).unwrap_err();
        assert!(more.registered().unwrap().type_uri.ends_with("#inconsistent-upload-length"));
        for version in [Version::V6, Version::V7] {
            let repeated = request("?1", "0").admit(dialect(version), &done, &NONE);
            assert_eq!(repeated, Err(IetfError::CompletedUpload));
        }
    }

    #[test]
    fn requests_beyond_the_limits_are_refused_when_they_announce_it() {
        let limits = Limits {
            max_size: Some(100),
            max_append_size: Some(50),
            min_append_size: Some(10),
            ..Limits::default()
        };
        let newest = dialect(Version::NEWEST);
        let create = |headers: &[(&str, &str)]| Creation::read(newest, &sent(headers), &limits);
        assert_eq!(create(&[("upload-complete", "?0"), ("upload-length", "101")]).unwrap_err().status(), 413);
        assert_eq!(create(&[("upload-complete", "?1"), ("content-length", "51")]).unwrap_err().status(), 413);
        assert_eq!(create(&[("upload-complete", "?0"), ("content-length", "9")]).unwrap_err().status(), 400);
        for exempt in [("upload-complete", "?0"), ("upload-complete", "?1")] {
            assert!(create(&[exempt, ("content-length", "0")]).is_ok());
        }
        assert!(create(&[("upload-complete", "?1"), ("content-length", "9")]).is_ok());
        let headers = [PATCH, ("upload-offset", "90"), ("upload-complete", "?1"), ("content-length", "11")];
        let read = Append::read(newest, &sent(&headers), &limits).unwrap();
        let error = read.admit(newest, &open(90, None), &limits).unwrap_err();
        assert_eq!(error, IetfError::TooLarge { length: 101, max: 100 });
    }

    #[test]
    fn digests_of_the_body_and_of_the_file_are_read() {
        let sha256 = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
        let hello = Checksum::of(Algorithm::Sha256, b"hello");
        let headers = [
            ("upload-complete", "?1"),
            ("content-length", "5"),
            ("content-digest", sha256),
            ("repr-digest", sha256),
        ];
        let read = creation(&headers).unwrap();
        assert_eq!(read.repr_digest, Some(hello.clone()));
        assert_eq!(read.first_chunk.unwrap().check, Check::Announced(hello.clone()));
        let patch = [("upload-offset", "0"), headers[0], headers[1], headers[2]];
        assert_eq!(append(&patch).unwrap().chunk.check, Check::Announced(hello));
        let broken = creation(&[headers[0], ("repr-digest", "sha-256=:YWJj:")]).unwrap_err();
        assert!(matches!(broken, IetfError::Digest(_)));
    }

    #[test]
    fn early_versions_refuse_append_fields_in_head_and_delete() {
        for version in Version::ALL {
            let (completeness, _) = version.completeness();
            for name in ["upload-offset", completeness] {
                let refused = check_bare(dialect(version), &sent(&[(name, "?1")])).is_err();
                assert_eq!(refused, version <= Version::V6, "{version:?} {name}");
            }
            assert_eq!(check_bare(dialect(version), &sent(&[])), Ok(()));
        }
    }

    #[test]
    fn lengths_that_no_number_can_hold_are_refused() {
        let headers =
            [("upload-offset", "5"), ("upload-complete", "?1"), ("content-length", "9223372036854775807")];
        assert_eq!(append(&headers).unwrap_err().status(), 413);
    }

    proptest! {
        #[test]
        fn no_headers_make_it_panic(
            headers in prop::collection::vec(
                (
                    prop::sample::select(vec![
                        "upload-draft-interop-version", "upload-complete", "upload-incomplete", "upload-offset",
                        "upload-length", "content-length", "content-type", "content-disposition", "content-digest",
                        "repr-digest", "content-md5", "upload-metadata", "transfer-encoding", "tus-resumable",
                    ]),
                    prop_oneof![
                        "\\PC{0,60}",
                        "[0-9]{1,19}",
                        Just("?1".to_owned()),
                        Just("?0".to_owned()),
                        Just("application/partial-upload".to_owned()),
                    ],
                ),
                0..10,
            ),
            offset in 0_u64..20, length in prop::option::of(0_u64..20), is_complete: bool,
        ) {
            let fields = sent_owned(headers);
            let dialect = Dialect::detect(&fields).unwrap_or(Dialect::unnamed());
            let state = State { offset, length, is_complete };
            let _ = check_bare(dialect, &fields);
            for error in [
                Creation::read(dialect, &fields, &NONE).err(),
                Append::read(dialect, &fields, &NONE).and_then(|read| read.admit(dialect, &state, &NONE)).err(),
            ] {
                let Some(error) = error else { continue };
                assert!((400..500).contains(&error.status()));
                let _ = (error.to_string(), error.members(), dialect.refused(&error, Some(&state), &NONE));
            }
        }

        #[test]
        fn what_is_admitted_starts_at_the_offset_and_fits_the_length(
            provided in 0_u64..12, body_len in 0_u64..12, complete: bool, by_header in prop::option::of(0_u64..12),
            offset in 0_u64..12, known in prop::option::of(0_u64..12),
        ) {
            let mut headers = vec![
                ("content-type", PATCH.1.to_owned()), ("upload-offset", provided.to_string()),
                ("content-length", body_len.to_string()),
                ("upload-complete", if complete { "?1" } else { "?0" }.to_owned()),
            ];
            headers.extend(by_header.map(|length| ("upload-length", length.to_string())));
            let newest = dialect(Version::NEWEST);
            if let Ok(read) = Append::read(newest, &sent_owned(headers), &NONE)
                && let Ok(Admitted::Receive { declare }) = read.admit(newest, &open(offset, known), &NONE)
            {
                let length = known.or(declare);
                assert_eq!(provided, offset);
                assert!(length.is_none_or(|length| offset + body_len <= length));
                assert!(known.is_none() || declare.is_none());
                assert!(!complete || length == Some(offset + body_len));
            }
        }
    }
}
