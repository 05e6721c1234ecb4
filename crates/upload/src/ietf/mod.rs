//! The IETF dialect, Resumable Uploads for HTTP (draft-ietf-httpbis-resumable-upload, the editor's text of July 2026,
//! interop version 8, and versions 3 to 7 by header): request headers in, typed requests, answers and errors out.
//!
//! Called by `src/http/uploads` with the headers of a request and the state of the upload; what it returns is only
//! copied to the wire. It never touches bytes, clock or store. [`Dialect::detect`] says whether a request is of this
//! dialect and in which version; [`Creation`] and [`Append`] are what requests ask; [`Append::admit`] and [`completion`]
//! decide; [`Dialect`] makes the answers, `104` included. An [`IetfError`] carries its status, the problem type of the
//! draft, and whether the upload is lost with it.
//!
//! Section numbers in this module are the draft's. `docs/conformance/ietf-resumable-upload.md` has all its demands.

mod answer;
mod dialect;
mod error;
mod items;
mod limits;
mod metadata;
mod request;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Headers, Interim, Progress, State};
pub use dialect::{Dialect, Version};
pub use error::{IetfError, Member, Registered};
pub use limits::Limits;
pub use request::{Admitted, Append, Completion, Creation, check_bare, completion};

/// Media type of a body that is appended (section 6).
pub const PARTIAL_UPLOAD: &str = "application/partial-upload";

/// Header names, in lower case as HTTP libraries keep them.
pub mod header {
    pub const INTEROP_VERSION: &str = "upload-draft-interop-version";
    pub const COMPLETE: &str = "upload-complete";
    /// `Upload-Complete` turned round, in interop version 3.
    pub const INCOMPLETE: &str = "upload-incomplete";
    pub const OFFSET: &str = "upload-offset";
    pub const LENGTH: &str = "upload-length";
    pub const LIMIT: &str = "upload-limit";
    pub const ACCEPT_PATCH: &str = "accept-patch";
}
