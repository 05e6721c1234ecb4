//! What is sent back: status and headers of every answer of the dialect, final ones and `104`, ready to be copied.
//!
//! `Upload-Offset` stands in every answer about an upload, though the newest text asks for it in few: early versions
//! and tus-js-client cannot go on without, and it is a promise that the engine keeps anyway.

use super::{Dialect, IetfError, Limits, PARTIAL_UPLOAD, header};
use crate::{Algorithm, Checksum, digest_fields::format_digest};

/// Names are lower case.
pub type Headers = Vec<(&'static str, String)>;

/// Progress is told so often. A client sees 1 % steps of 400 MiB; at 10 Gbit/s some 300 small messages a second.
const PROGRESS_STEP_BYTES: u64 = 4 << 20;

/// What the server knows of an upload. `offset` is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub offset: u64,
    pub length: Option<u64>,
    /// The client said that it has sent all, and the file was taken over: an offset at the length is not that.
    pub is_complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
}

/// A `104 (Upload Resumption Supported)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interim {
    pub headers: Headers,
}

/// Says when progress is worth a `104`, and never less than before.
#[derive(Debug)]
pub struct Progress {
    dialect: Dialect,
    due: u64,
}

impl Dialect {
    /// The upload was made and is not complete. `location` is its address, the same in all answers to one request.
    pub fn created(self, location: &str, state: &State, limits: &Limits) -> Answer {
        let mut headers = self.about(state);
        headers.push(("location", location.to_owned()));
        self.push_limits(&mut headers, limits);
        Answer { status: 201, headers }
    }

    /// The body was appended, and the upload is not complete.
    pub fn appended(self, state: &State, limits: &Limits) -> Answer {
        let mut headers = self.about(state);
        self.push_limits(&mut headers, limits);
        Answer { status: if self.version().append_creates() { 201 } else { 204 }, headers }
    }

    /// The upload is complete. The same after one POST as after the last PATCH, and when it is asked for again.
    pub fn finished(self, location: &str, state: &State, sha256: [u8; 32]) -> Answer {
        let mut headers = self.about(&State { is_complete: true, ..*state });
        headers.push(("location", location.to_owned()));
        let checksum = Checksum::new(Algorithm::Sha256, sha256.to_vec());
        headers.extend(checksum.as_ref().and_then(format_digest).map(|digest| ("repr-digest", digest)));
        Answer { status: 201, headers }
    }

    /// To `HEAD` and `GET`.
    pub fn retrieved(self, state: &State, limits: &Limits) -> Answer {
        let mut headers = self.about(state);
        headers.extend(state.length.map(|length| (header::LENGTH, length.to_string())));
        self.push_limits(&mut headers, limits);
        headers.push(("cache-control", "no-store".to_owned()));
        Answer { status: 204, headers }
    }

    /// To `DELETE`.
    pub fn cancelled(self) -> Answer {
        Answer { status: 204, headers: self.own_version() }
    }

    /// To `OPTIONS`, at the address where uploads are created. `Accept-Patch` is of the draft's revisions 09 to 11.
    pub fn discovered(limits: &Limits) -> Headers {
        let dialect = Self::unnamed();
        vec![
            (header::LIMIT, limits.format(dialect.version())),
            (header::ACCEPT_PATCH, PARTIAL_UPLOAD.to_owned()),
        ]
    }

    /// Headers of an error. `state` where the request was about an upload that the client may see.
    pub fn refused(self, error: &IetfError, state: Option<&State>, limits: &Limits) -> Headers {
        let mut headers = match state {
            Some(state) => self.about(&State { is_complete: error.is_final(), ..*state }),
            None => {
                let mut headers = self.own_version();
                headers.push(self.completeness(error.is_final()));
                headers
            }
        };
        if error.status() == 413 {
            self.push_limits(&mut headers, limits);
        }
        headers
    }

    /// The first `104`: where the upload is, before its bytes are taken. `None` when the client may not have one.
    pub fn announced(self, location: &str, limits: &Limits) -> Option<Interim> {
        if !self.takes_interim() {
            return None;
        }
        let mut headers = self.own_version();
        headers.push(("location", location.to_owned()));
        self.push_limits(&mut headers, limits);
        Some(Interim { headers })
    }

    fn about(self, state: &State) -> Headers {
        let mut headers = self.own_version();
        headers.push((header::OFFSET, state.offset.to_string()));
        headers.push(self.completeness(state.is_complete));
        headers
    }

    /// The field that says whether the upload is complete, for answers that are not made here.
    pub fn completeness(self, is_complete: bool) -> (&'static str, String) {
        let (name, when_true) = self.version().completeness();
        (name, if is_complete == when_true { "?1" } else { "?0" }.to_owned())
    }

    /// Demanded in a `104`, useful in the others.
    fn own_version(self) -> Headers {
        if self.takes_interim() {
            vec![(header::INTEROP_VERSION, self.version().number().to_string())]
        } else {
            Vec::new()
        }
    }

    fn push_limits(self, headers: &mut Headers, limits: &Limits) {
        if self.version().has_limits() {
            headers.push((header::LIMIT, limits.format(self.version())));
        }
    }
}

impl Interim {
    pub const STATUS: u16 = 104;
    pub const REASON: &'static str = "Upload Resumption Supported";
}

impl Progress {
    /// `offset` is where the body starts.
    pub fn new(dialect: Dialect, offset: u64) -> Self {
        Self { dialect, due: offset.saturating_add(PROGRESS_STEP_BYTES) }
    }

    /// So many bytes are durable now. It has no `Location`: that is for the first `104` only.
    pub fn reached(&mut self, offset: u64) -> Option<Interim> {
        let may = self.dialect.takes_interim() && self.dialect.version().has_progress();
        if !may || offset < self.due {
            return None;
        }
        self.due = offset.saturating_add(PROGRESS_STEP_BYTES);
        let mut headers = self.dialect.own_version();
        headers.push((header::OFFSET, offset.to_string()));
        Some(Interim { headers })
    }
}

#[cfg(test)]
mod tests {
    use super::{Headers, Progress, State};
    use crate::{
        ietf::{Dialect, IetfError, Limits, Version},
        testing::sent,
    };

    const OPEN: State = State { offset: 60, length: Some(100), is_complete: false };
    const LIMITS: Limits = Limits {
        max_size: Some(1000),
        min_size: None,
        max_append_size: None,
        min_append_size: None,
        max_age_seconds: Some(3600),
    };

    fn dialect(version: Version) -> Dialect {
        let number = version.number().to_string();
        Dialect::detect(&sent(&[("upload-draft-interop-version", &number)])).unwrap()
    }

    fn newest() -> Dialect {
        dialect(Version::NEWEST)
    }

    fn value<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
        headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn ietf_a_creation_that_goes_on_is_answered_201_with_location_and_limits() {
        let answer = newest().created("/uploads/a", &OPEN, &LIMITS);
        assert_eq!(answer.status, 201);
        for (name, expected) in [
            ("location", "/uploads/a"),
            ("upload-complete", "?0"),
            ("upload-offset", "60"),
            ("upload-limit", "max-size=1000, max-age=3600"),
        ] {
            assert_eq!(value(&answer.headers, name), Some(expected));
        }
    }

    #[test]
    fn ietf_an_append_that_goes_on_is_answered_2xx_with_upload_complete_false() {
        for version in Version::ALL {
            let answer = dialect(version).appended(&OPEN, &LIMITS);
            assert_eq!(answer.status, if version <= Version::V6 { 201 } else { 204 });
            let (name, no) =
                if version == Version::V3 { ("upload-incomplete", "?1") } else { ("upload-complete", "?0") };
            assert_eq!(value(&answer.headers, name), Some(no));
            assert_eq!(value(&answer.headers, "upload-offset"), Some("60"));
            assert_eq!(value(&answer.headers, "location"), None);
        }
    }

    #[test]
    fn ietf_the_final_answer_says_upload_complete_true() {
        let whole = State { offset: 100, ..OPEN };
        let answer = newest().finished("/uploads/a", &whole, [0; 32]);
        assert_eq!((answer.status, value(&answer.headers, "upload-complete")), (201, Some("?1")));
        let digest = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
        assert_eq!(value(&answer.headers, "repr-digest"), Some(digest));
        assert_eq!(value(&answer.headers, "upload-offset"), Some("100"));
        let old = dialect(Version::V3).finished("/uploads/a", &whole, [0; 32]);
        assert_eq!(value(&old.headers, "upload-incomplete"), Some("?0"));
    }

    #[test]
    fn ietf_offset_retrieval_tells_offset_completeness_length_and_limits_uncached() {
        for (state, complete, length) in [
            (OPEN, "?0", Some("100")),
            (State { length: None, ..OPEN }, "?0", None),
            (State { offset: 100, ..OPEN }, "?0", Some("100")),
            (State { offset: 100, is_complete: true, ..OPEN }, "?1", Some("100")),
        ] {
            let answer = newest().retrieved(&state, &LIMITS);
            assert_eq!(answer.status, 204);
            assert_eq!(value(&answer.headers, "upload-offset"), Some(state.offset.to_string().as_str()));
            assert_eq!(value(&answer.headers, "upload-complete"), Some(complete));
            assert_eq!(value(&answer.headers, "upload-length"), length);
            assert_eq!(value(&answer.headers, "upload-limit"), Some("max-size=1000, max-age=3600"));
            assert_eq!(value(&answer.headers, "cache-control"), Some("no-store"));
        }
    }

    #[test]
    fn limits_are_told_to_versions_that_have_them() {
        for version in Version::ALL {
            let headers = dialect(version).retrieved(&OPEN, &LIMITS).headers;
            let expected = match version {
                Version::V3 | Version::V4 | Version::V5 => None,
                Version::V6 => Some("max-size=1000, expires=3600"),
                Version::V7 | Version::V8 => Some("max-size=1000, max-age=3600"),
            };
            assert_eq!(value(&headers, "upload-limit"), expected, "{version:?}");
        }
    }

    #[test]
    fn ietf_options_tells_the_limits() {
        let headers = Dialect::discovered(&LIMITS);
        assert_eq!(value(&headers, "upload-limit"), Some("max-size=1000, max-age=3600"));
        assert_eq!(value(&headers, "accept-patch"), Some("application/partial-upload"));
        assert_eq!(value(&Dialect::discovered(&Limits::default()), "upload-limit"), Some("min-size=0"));
    }

    #[test]
    fn a_cancellation_is_answered_without_content() {
        assert_eq!(newest().cancelled().status, 204);
    }

    #[test]
    fn ietf_the_first_104_has_version_location_and_limits() {
        let interim = newest().announced("/uploads/a", &LIMITS).unwrap();
        let expected = vec![
            ("upload-draft-interop-version", "8".to_owned()),
            ("location", "/uploads/a".to_owned()),
            ("upload-limit", "max-size=1000, max-age=3600".to_owned()),
        ];
        assert_eq!(interim.headers, expected);
        let old = dialect(Version::V3).announced("/uploads/a", &LIMITS).unwrap();
        assert_eq!(value(&old.headers, "upload-draft-interop-version"), Some("3"));
    }

    #[test]
    fn ietf_no_104_to_a_client_that_named_no_version() {
        assert_eq!(Dialect::unnamed().announced("/uploads/a", &LIMITS), None);
        assert_eq!(Progress::new(Dialect::unnamed(), 0).reached(1 << 40), None);
    }

    #[test]
    fn ietf_progress_has_the_offset_and_no_location_and_never_falls() {
        let mut progress = Progress::new(newest(), 10);
        let mut told = Vec::new();
        for offset in [10, 1 << 20, 5 << 20, 5 << 20, 4 << 20, 6 << 20, 9 << 20, u64::MAX, u64::MAX - 1] {
            let Some(interim) = progress.reached(offset) else { continue };
            assert_eq!(value(&interim.headers, "location"), None);
            assert_eq!(value(&interim.headers, "upload-draft-interop-version"), Some("8"));
            told.push(value(&interim.headers, "upload-offset").unwrap().parse::<u64>().unwrap());
        }
        assert_eq!(told, [5 << 20, 9 << 20, u64::MAX]);
    }

    #[test]
    fn progress_is_not_told_to_versions_that_do_not_know_it() {
        for version in Version::ALL {
            let told = Progress::new(dialect(version), 0).reached(1 << 30).is_some();
            assert_eq!(told, version >= Version::V5, "{version:?}");
        }
    }

    #[test]
    fn ietf_a_wrong_offset_is_answered_409_with_the_right_one_and_upload_complete_false() {
        let error = IetfError::OffsetMismatch { expected: 60, provided: 70 };
        for is_complete in [false, true] {
            let headers = newest().refused(&error, Some(&State { is_complete, ..OPEN }), &LIMITS);
            assert_eq!(error.status(), 409);
            assert_eq!(value(&headers, "upload-offset"), Some("60"));
            assert_eq!(value(&headers, "upload-complete"), Some("?0"));
        }
    }

    #[test]
    fn a_413_tells_the_limits() {
        let error = IetfError::TooLarge { length: 2000, max: 1000 };
        let headers = newest().refused(&error, None, &LIMITS);
        assert_eq!(value(&headers, "upload-limit"), Some("max-size=1000, max-age=3600"));
        assert_eq!(value(&headers, "upload-complete"), Some("?0"));
        assert_eq!(value(&headers, "upload-offset"), None);
    }
}
