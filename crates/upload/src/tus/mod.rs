//! The tus 1.0.0 dialect (tus.io/protocols/resumable-upload): request headers in, typed requests or typed errors out.
//!
//! Called by `src/http/uploads` with the headers of a request; never touches the wire itself. Every error carries
//! the status the protocol asks for and a sentence that says what was wrong and what to send instead.

mod error;
mod metadata;
mod request;

pub use error::TusError;
pub use metadata::{MAX_METADATA_BYTES, MAX_METADATA_PAIRS, Metadata};
pub use request::{Append, Creation, Field, Fields, check_version, format_checksum, method_override};

/// The one version that is spoken.
pub const VERSION: &str = "1.0.0";
/// Extensions, as `Tus-Extension` lists them.
pub const EXTENSIONS: &str = "creation,creation-with-upload,termination,checksum";
/// Algorithms, as `Tus-Checksum-Algorithm` lists them.
pub const CHECKSUM_ALGORITHMS: &str = "sha1,sha256";
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
    pub const METHOD_OVERRIDE: &str = "x-http-method-override";
}
