//! The tus 1.0.0 dialect (tus.io/protocols/resumable-upload), all of its extensions: request headers in, typed
//! requests or typed errors out, and back: what HEAD and OPTIONS answer.
//!
//! Called by `src/http/uploads` with the headers of a request; never touches the wire itself. Every error carries
//! the status the protocol asks for and a sentence that says what was wrong and what to send instead.
//! `docs/conformance/tus.md` names the test of each demand of the text.

mod checksum;
#[cfg(test)]
mod clients_tests;
mod concat;
mod error;
mod head;
mod metadata;
mod request;
#[cfg(test)]
mod tests;

pub use checksum::{format_checksum, trailing_checksum};
pub use concat::{Concat, MAX_CONCAT_BYTES, MAX_PARTIALS, UploadReference, final_length, format_concat};
pub use error::TusError;
pub use head::{HeadAnswer, format_expires};
pub use metadata::{MAX_METADATA_BYTES, MAX_METADATA_PAIRS, Metadata};
pub use request::{Append, Creation, check_version, method_override};

use crate::Algorithm;

/// The one version that is spoken.
pub const VERSION: &str = "1.0.0";
/// Extensions, as `Tus-Extension` lists them.
pub const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,expiration,checksum,\
                              checksum-trailer,termination,concatenation,concatenation-unfinished";
/// Algorithms, as `Tus-Checksum-Algorithm` lists them.
pub const CHECKSUM_ALGORITHMS: &str = "sha1,sha256,md5,crc32,crc32c";
/// The same as values. SHA-512 is left to the other dialects: no tus client sends it.
pub const OFFERED_ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Md5, Algorithm::Crc32, Algorithm::Crc32c];
/// The only body type that appends bytes.
pub const BODY_TYPE: &str = "application/offset+octet-stream";

/// Header names, in lower case as HTTP libraries keep them.
pub mod header {
    pub const RESUMABLE: &str = "tus-resumable";
    pub const VERSION: &str = "tus-version";
    pub const EXTENSION: &str = "tus-extension";
    pub const MAX_SIZE: &str = "tus-max-size";
    pub const CHECKSUM_ALGORITHM: &str = "tus-checksum-algorithm";
    pub const OFFSET: &str = "upload-offset";
    pub const LENGTH: &str = "upload-length";
    pub const DEFER_LENGTH: &str = "upload-defer-length";
    pub const CONCAT: &str = "upload-concat";
    pub const METADATA: &str = "upload-metadata";
    pub const CHECKSUM: &str = "upload-checksum";
    pub const EXPIRES: &str = "upload-expires";
    pub const METHOD_OVERRIDE: &str = "x-http-method-override";
}
