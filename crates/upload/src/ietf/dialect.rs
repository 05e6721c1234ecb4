//! Which requests are of this dialect, and which interop version of the draft they speak.
//!
//! The draft changed on its way: each breaking change got a number that clients send as `Upload-Draft-Interop-Version`.
//! What differs between the numbers is said here once, by the name of the difference; the other files ask.

use super::{header, items};
use crate::fields::{Field, Fields};

/// An interop version, with the draft revisions that had it and clients known to speak it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Revision 01: iOS 17 and macOS 14.
    V3,
    /// Revision 02.
    V4,
    /// Revision 03: tus-js-client's `ietf-draft-03`.
    V5,
    /// Revisions 04 and 05: tus-js-client's `ietf-draft-05`.
    V6,
    /// Revisions 06 to 08.
    V7,
    /// Revision 09 to the text of July 2026: iOS 26.
    V8,
}

/// How a request is to be understood and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    version: Version,
    /// The request named this version: only then may it get a 104.
    named: bool,
}

impl Version {
    pub const ALL: [Self; 6] = [Self::V3, Self::V4, Self::V5, Self::V6, Self::V7, Self::V8];
    pub const NEWEST: Self = Self::V8;

    /// As `Upload-Draft-Interop-Version` has it.
    pub const fn number(self) -> u64 {
        match self {
            Self::V3 => 3,
            Self::V4 => 4,
            Self::V5 => 5,
            Self::V6 => 6,
            Self::V7 => 7,
            Self::V8 => 8,
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.number() == number)
    }

    /// Name of the field that tells whether the upload ends with this body, and whether `?1` in it means that it does:
    /// `Upload-Incomplete` became `Upload-Complete` in revision 02.
    pub(super) const fn completeness(self) -> (&'static str, bool) {
        match self {
            Self::V3 => (header::INCOMPLETE, false),
            _ => (header::COMPLETE, true),
        }
    }

    /// Up to revision 03 a PATCH without that field ends the upload; from 04 on the field has to be there.
    pub(super) fn silent_append_completes(self) -> bool {
        self <= Self::V5
    }

    /// From revision 04 on a PATCH has a media type of its own.
    pub(super) fn has_partial_upload_type(self) -> bool {
        self >= Self::V6
    }

    /// Up to revision 05 `HEAD` and `DELETE` with fields of an append are refused.
    pub(super) fn refuses_append_fields_elsewhere(self) -> bool {
        self <= Self::V6
    }

    /// Up to revision 05 an append that does not complete is answered 201, later 204.
    pub(super) fn append_creates(self) -> bool {
        self <= Self::V6
    }

    /// Progress in 104 came with revision 03. Before it every 104 had a `Location`.
    pub(super) fn has_progress(self) -> bool {
        self >= Self::V5
    }

    /// `Upload-Limit` came with revision 04.
    pub(super) fn has_limits(self) -> bool {
        self >= Self::V6
    }

    /// The lifetime was called `expires` in revisions 04 and 05.
    pub(super) fn lifetime_key(self) -> &'static str {
        if self <= Self::V6 { "expires" } else { "max-age" }
    }

    /// Revisions 04 to 08 refuse every append to a completed upload; before and after, a repeated last request may get
    /// the lost answer again.
    pub(super) fn may_replay(self) -> bool {
        !matches!(self, Self::V6 | Self::V7)
    }
}

impl Dialect {
    /// `None` when the request is not of this dialect. tus, which shares header names with it, always names itself.
    pub fn detect(fields: &impl Fields) -> Option<Self> {
        let is_there = |name: &str| fields.field(name) != Field::Absent;
        if is_there(crate::tus::header::RESUMABLE) {
            return None;
        }
        let spoken = items::non_negative(fields, header::INTEROP_VERSION).and_then(Version::from_number);
        if let Some(version) = spoken {
            return Some(Self { version, named: true });
        }
        if is_there(header::INCOMPLETE) && !is_there(header::COMPLETE) {
            return Some(Self { version: Version::V3, named: false });
        }
        let ours = is_there(header::INTEROP_VERSION)
            || is_there(header::COMPLETE)
            || super::request::has_partial_upload_type(fields);
        ours.then_some(Self::unnamed())
    }

    /// For a request to an upload resource that has no header of any dialect: `HEAD` and `DELETE` need none.
    pub const fn unnamed() -> Self {
        Self { version: Version::NEWEST, named: false }
    }

    pub const fn version(self) -> Version {
        self.version
    }

    /// Whether the client may be sent a 104: it named a version that is spoken here (appendix B of the draft).
    pub const fn takes_interim(self) -> bool {
        self.named
    }
}

#[cfg(test)]
mod tests {
    use super::{Dialect, Version};
    use crate::testing::sent;

    fn detected(headers: &[(&str, &str)]) -> Option<(Version, bool)> {
        Dialect::detect(&sent(headers)).map(|dialect| (dialect.version(), dialect.takes_interim()))
    }

    #[test]
    fn the_version_that_a_request_names_is_spoken() {
        for version in Version::ALL {
            let number = version.number().to_string();
            assert_eq!(detected(&[("upload-draft-interop-version", &number)]), Some((version, true)));
        }
    }

    #[test]
    fn ietf_no_104_without_a_version_that_is_spoken_here() {
        for headers in [
            &[("upload-complete", "?1")] as &[_],
            &[("upload-complete", "?1"), ("upload-draft-interop-version", "9")],
            &[("upload-draft-interop-version", "2")],
            &[("upload-draft-interop-version", "eight")],
            &[("upload-draft-interop-version", "8.0")],
            &[("upload-draft-interop-version", "8"), ("upload-draft-interop-version", "8")],
        ] {
            assert_eq!(detected(headers), Some((Version::NEWEST, false)), "{headers:?}");
        }
        assert!(!Dialect::unnamed().takes_interim());
    }

    #[test]
    fn without_a_version_the_header_names_tell_old_from_new() {
        assert_eq!(detected(&[("upload-incomplete", "?0")]), Some((Version::V3, false)));
        let both = [("upload-incomplete", "?0"), ("upload-complete", "?1")];
        assert_eq!(detected(&both), Some((Version::NEWEST, false)));
        let patch = [("content-type", "application/partial-upload"), ("upload-offset", "0")];
        assert_eq!(detected(&patch), Some((Version::NEWEST, false)));
    }

    #[test]
    fn tus_requests_and_plain_ones_are_not_of_this_dialect() {
        for headers in [
            &[] as &[_],
            &[("upload-offset", "0"), ("content-type", "application/offset+octet-stream")],
            &[("tus-resumable", "1.0.0"), ("upload-complete", "?1")],
            &[("tus-resumable", "1.0.0"), ("upload-draft-interop-version", "8")],
            &[("content-type", "video/mp4")],
        ] {
            assert_eq!(detected(headers), None, "{headers:?}");
        }
    }
}
