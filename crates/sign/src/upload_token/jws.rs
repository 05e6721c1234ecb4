//! The envelope: JWS compact serialisation with HMAC-SHA256 (RFC 7515 sections 3.1 and 5, RFC 7518 section 3.2).

use super::UploadTokenError;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use sha2::Sha256;
use subtle::ConstantTimeEq;

const MAC_BYTES: usize = 32;
const ALGORITHM: &str = "HS256";
const TYPE: &str = "JWT";

/// What is read of the protected header. Keys that a token brings along (`jwk`, `jku`, `x5u`) are never looked at.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    /// Extensions that have to be understood: there are none here (section 4.1.11).
    crit: Option<IgnoredAny>,
}

#[derive(Serialize)]
struct OwnHeader<'text> {
    alg: &'static str,
    typ: &'static str,
    kid: &'text str,
}

/// A token taken apart; nothing of it is believed yet.
pub(super) struct Envelope<'text> {
    pub(super) kid: String,
    signed: &'text str,
    payload: &'text str,
    mac: [u8; MAC_BYTES],
}

impl<'text> Envelope<'text> {
    pub(super) fn open(text: &'text str) -> Result<Self, UploadTokenError> {
        let malformed = |what| UploadTokenError::Malformed { what };
        let (signed, mac_text) = text.rsplit_once('.').ok_or(malformed("it has no signature"))?;
        let (header_text, payload) = signed.split_once('.').ok_or(malformed("it has two parts"))?;
        if payload.contains('.') {
            return Err(malformed("it has more than three parts"));
        }
        let header = decode(header_text).ok_or(malformed("the header is not base64url"))?;
        let header: Header =
            serde_json::from_slice(&header).map_err(|_| malformed("the header is not JSON with `alg`"))?;
        // Before any key is looked at: `none`, RS256 with our secret as a public key, and what else was tried.
        if header.alg != ALGORITHM {
            return Err(UploadTokenError::WrongAlgorithm);
        }
        if header.crit.is_some() {
            return Err(malformed("the header demands extensions (`crit`)"));
        }
        if header.typ.is_some_and(|typ| !typ.eq_ignore_ascii_case(TYPE)) {
            return Err(malformed("the header's `typ` is not `JWT`"));
        }
        let kid = header.kid.ok_or(malformed("the header has no `kid`"))?;
        let mac = decode(mac_text)
            .and_then(|bytes| <[u8; MAC_BYTES]>::try_from(bytes).ok())
            .ok_or(malformed("the signature is not 32 bytes in base64url"))?;
        Ok(Self { kid, signed, payload, mac })
    }

    /// The payload, if `secret` signed it.
    pub(super) fn verified(&self, secret: &[u8]) -> Result<Vec<u8>, UploadTokenError> {
        // Constant time: an early way out would tell a forger how many bytes are right.
        if !bool::from(mac_of(self.signed, secret).ct_eq(&self.mac)) {
            return Err(UploadTokenError::Forged);
        }
        decode(self.payload).ok_or(UploadTokenError::Malformed { what: "the payload is not base64url" })
    }
}

pub(super) fn seal(kid: &str, secret: &[u8], payload: &[u8]) -> String {
    // Three strings: there is nothing in it that cannot be written as JSON.
    let header = serde_json::to_vec(&OwnHeader { alg: ALGORITHM, typ: TYPE, kid }).unwrap_or_default();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let mac = URL_SAFE_NO_PAD.encode(mac_of(&signed, secret));
    format!("{signed}.{mac}")
}

/// Unpadded, and with no bits left over, so that each part has one spelling.
fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn mac_of(signed: &str, secret: &[u8]) -> [u8; MAC_BYTES] {
    // HMAC takes keys of any length: RFC 2104 pads short ones and hashes long ones.
    let mut mac = match Hmac::<Sha256>::new_from_slice(secret) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC refused a key"),
    };
    mac.update(signed.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::mac_of;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    /// RFC 7515 appendix A.1, to the letter.
    #[test]
    fn the_rfc_s_own_example_has_the_rfc_s_own_signature() {
        let secret = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let signed = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        assert_eq!(
            URL_SAFE_NO_PAD.encode(mac_of(signed, &secret)),
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        );
    }
}
