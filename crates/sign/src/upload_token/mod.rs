//! Upload tokens: what a browser may upload for whom, signed by somebody who holds a key of this server.
//!
//! A token is a JWT (RFC 7519) in a JWS of compact form (RFC 7515) with HMAC-SHA256, so that any JWT library can make
//! one. The algorithm is pinned: a token cannot choose how it is checked. Called by `src/http/auth.rs` on every request
//! of the upload routes, and by `POST /v1/upload-tokens`, which makes them. Pure: the clock and the keys come in as
//! arguments. No error holds a part of a token or of a key.

mod claims;
mod jws;
mod keys;
#[cfg(test)]
mod tests;

pub use claims::{DEFAULT_MAX_UPLOADS, Denied, UploadToken, Use, Uses, Wish};
pub use keys::{UPLOAD_KEYS_VERSION, UploadKeys, UploadKeysError};

/// Longest token looked at. Ours have some 500 bytes; servers before us cut headers at 8 KiB.
pub const MAX_UPLOAD_TOKEN_BYTES: usize = 4096;
/// The `aud` of a token, where it has one.
pub const UPLOAD_TOKEN_AUDIENCE: &str = "reelyard-uploads";
/// Clocks of other machines are so far behind or ahead; for `nbf` alone. An expiry is an expiry.
pub const CLOCK_LEEWAY_SECONDS: u64 = 60;

/// Why a token opens nothing. The texts are public: they tell whoever signs how to do it right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadTokenError {
    #[error("the upload token is longer than {MAX_UPLOAD_TOKEN_BYTES} bytes")]
    TooLong,
    /// Not three parts of base64url with JSON in the first.
    #[error("the upload token is not a JWT in compact form ({what})")]
    Malformed { what: &'static str },
    #[error("the upload token has to be signed with HS256 and nothing else")]
    WrongAlgorithm,
    #[error("the upload token names a key (`kid`) that this server does not have (any more)")]
    UnknownKey,
    #[error("the signature of the upload token does not fit")]
    Forged,
    #[error(
        "the upload token is of another tenant than the one that its key (`kid`) may sign for; use that tenant's key"
    )]
    ForeignTenant,
    /// Genuine, but it does not say what it has to say.
    #[error("the upload token's claim `{claim}` {needs}")]
    BadClaim { claim: String, needs: &'static str },
    #[error(
        "the upload token expired {expired_for_seconds} s ago; get a new one and go on where the upload stands"
    )]
    Expired { expired_for_seconds: u64 },
    #[error("the upload token is not valid before another {valid_in_seconds} s (`nbf`)")]
    NotYet { valid_in_seconds: u64 },
}

/// Whether this text has the form of a token rather than of an API key: those have no dots.
pub fn looks_like_token(text: &str) -> bool {
    text.bytes().filter(|&byte| byte == b'.').count() == 2
}
