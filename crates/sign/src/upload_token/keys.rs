//! The keys of upload tokens: a JWK Set (RFC 7517) of symmetric keys, the form that JWT libraries read.
//!
//! `reelyard serve` keeps it in `upload-keys.json` (mode 0600) and makes the first key. The first key signs what this
//! server makes; all of them verify. An operator who wants a tenant's engineers to sign for themselves adds a key with
//! the member `tenant`: it is good for that tenant alone. Taking a key out ends all tokens that it signed.

use super::{MAX_UPLOAD_TOKEN_BYTES, UploadToken, UploadTokenError, jws};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reelyard_model::TenantId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of the file form.
pub const UPLOAD_KEYS_VERSION: u32 = 1;
/// RFC 7518 section 3.2: no shorter than the hash. Longer ones gain nothing, but are taken.
const MIN_SECRET_BYTES: usize = 32;
const MAX_SECRET_BYTES: usize = 256;
const MAX_KID_BYTES: usize = 64;
/// More than an operator looks after by hand.
const MAX_KEYS: usize = 256;

#[derive(Clone, PartialEq, Eq)]
struct Key {
    kid: String,
    secret: Vec<u8>,
    /// Signs for this tenant only.
    tenant: Option<TenantId>,
}

/// The live keys. `Debug` shows their names only.
#[derive(Clone, PartialEq, Eq)]
pub struct UploadKeys(Vec<Key>);

#[derive(Debug, thiserror::Error)]
pub enum UploadKeysError {
    #[error(
        "the file of upload keys cannot be used ({reason}); mend it, restore it from a backup, or delete it to have a \
         new key made (every upload token given out so far then stops working)"
    )]
    Unreadable { reason: String },
    #[error(
        "the file of upload keys has version {found}, this program knows version {UPLOAD_KEYS_VERSION}: it was written \
         by another release of reelyard; start that release, or restore the file from before"
    )]
    UnknownVersion { found: u32 },
}

impl UploadKeys {
    /// A first set. `secret` must come from the operating system's random source.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(vec![Key { kid: "u1".into(), secret: secret.to_vec(), tenant: None }])
    }

    /// Signs with the first key that may sign for this tenant. The claims must be such that this server would read them.
    pub fn sign(&self, token: &UploadToken) -> Result<String, UploadTokenError> {
        token.check_form()?;
        let may_sign = |key: &&Key| key.tenant.is_none_or(|tenant| tenant == token.tenant);
        let key = self.0.iter().find(may_sign).ok_or(UploadTokenError::UnknownKey)?;
        let text = jws::seal(&key.kid, &key.secret, &token.payload());
        if text.len() > MAX_UPLOAD_TOKEN_BYTES {
            return Err(UploadTokenError::TooLong);
        }
        Ok(text)
    }

    /// What a genuine token says, while it is valid.
    pub fn verify(&self, text: &str, now_unix_seconds: u64) -> Result<UploadToken, UploadTokenError> {
        if text.len() > MAX_UPLOAD_TOKEN_BYTES {
            return Err(UploadTokenError::TooLong);
        }
        let envelope = jws::Envelope::open(text)?;
        // A kid is public, so an early way out on it tells nothing.
        let key = self.0.iter().find(|key| key.kid == envelope.kid).ok_or(UploadTokenError::UnknownKey)?;
        let token = UploadToken::read(&envelope.verified(&key.secret)?, now_unix_seconds)?;
        if key.tenant.is_some_and(|tenant| tenant != token.tenant) {
            return Err(UploadTokenError::ForeignTenant);
        }
        Ok(token)
    }

    /// Reads the file form.
    pub fn from_json(text: &str) -> Result<Self, UploadKeysError> {
        let unreadable = |reason: String| UploadKeysError::Unreadable { reason };
        // Without serde's own message: that may quote a piece of a secret.
        let position = |error: serde_json::Error| {
            unreadable(format!("line {}, column {}", error.line(), error.column()))
        };
        let VersionOnly { version } = serde_json::from_str(text).map_err(position)?;
        if version != UPLOAD_KEYS_VERSION {
            return Err(UploadKeysError::UnknownVersion { found: version });
        }
        let file: KeysFile = serde_json::from_str(text).map_err(position)?;
        if !(1..=MAX_KEYS).contains(&file.keys.len()) {
            return Err(unreadable(format!("it has to hold 1 to {MAX_KEYS} keys")));
        }
        let mut keys: Vec<Key> = Vec::with_capacity(file.keys.len());
        for (index, one) in file.keys.into_iter().enumerate() {
            let wrong = |what: &str| unreadable(format!("key {}: {what}", index + 1));
            if one.kty != "oct" || one.alg.is_some_and(|alg| alg != "HS256") {
                return Err(wrong("`kty` has to be `oct` and `alg` HS256"));
            }
            let for_signatures = one.r#use.is_none_or(|purpose| purpose == "sig")
                && one.key_ops.is_none_or(|uses| uses.iter().any(|one| one == "verify"));
            if !for_signatures {
                return Err(wrong("it is not for signatures (`use`, `key_ops`)"));
            }
            let good_kid = (1..=MAX_KID_BYTES).contains(&one.kid.len())
                && one.kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            if !good_kid || keys.iter().any(|key| key.kid == one.kid) {
                return Err(wrong(
                    "`kid` has to be letters, digits, `.`, `_`, `-`, and another for each key",
                ));
            }
            let secret = URL_SAFE_NO_PAD
                .decode(&one.k)
                .ok()
                .filter(|secret| (MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&secret.len()))
                .ok_or_else(|| wrong("`k` has to be 32 to 256 bytes in base64url without padding"))?;
            keys.push(Key { kid: one.kid, secret, tenant: one.tenant });
        }
        Ok(Self(keys))
    }

    /// Writes the file form. The caller keeps it at mode 0600.
    pub fn to_json(&self) -> String {
        let entry = |key: &Key| KeyFile {
            kty: "oct".into(),
            alg: Some("HS256".into()),
            kid: key.kid.clone(),
            k: URL_SAFE_NO_PAD.encode(&key.secret),
            tenant: key.tenant,
            r#use: None,
            key_ops: None,
        };
        let file = KeysFile { version: UPLOAD_KEYS_VERSION, keys: self.0.iter().map(entry).collect() };
        // Strings and a number: there is nothing in it that cannot be written as JSON.
        let mut text = serde_json::to_string_pretty(&file).unwrap_or_default();
        text.push('\n');
        text
    }
}

impl fmt::Debug for UploadKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.kid)).finish()
    }
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// `upload-keys.json`: a JWK Set with a version (RFC 7517 section 5 allows further members).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    version: u32,
    keys: Vec<KeyFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    kty: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    kid: String,
    k: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<TenantId>,
    /// Other programs write them beside the key; they must not forbid what it is here for (sections 4.2 and 4.3).
    #[serde(skip_serializing)]
    r#use: Option<String>,
    #[serde(skip_serializing)]
    key_ops: Option<Vec<String>>,
}
