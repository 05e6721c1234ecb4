//! Tokens: who may read which publication until when (playback), and who may upload what ([`upload_token`]).
//!
//! A playback URL is `/p/{token}/{playback_id}/{file}`. The token stands in the path so that every relative URI of a
//! playlist is covered by it. Called by publish and the API (to sign) and by the playback origin (to verify). The
//! crate is pure: the clock, the key bytes and the key file's text come in as arguments. Nothing here prints a key:
//! `Debug` of every type that holds one leaves it out.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod keyring;
mod path;
mod token;
pub mod upload_token;

pub use keyring::{KEYRING_VERSION, Keyring, KeyringError, SECRET_BYTES};
pub use path::{MAX_PATH_BYTES, PathError, safe_relative_path};
pub use token::{MAX_TOKEN_BYTES, TokenError, VerifiedToken};
