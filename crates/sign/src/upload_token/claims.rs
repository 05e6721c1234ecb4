//! What a token says, and what it allows.

use super::{CLOCK_LEEWAY_SECONDS, UPLOAD_TOKEN_AUDIENCE, UploadTokenError};
use reelyard_model::{TenantId, UploadId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Uploads that one token may begin when it does not say: one file, sent in parallel by some parallel client, with
/// answers that got lost and were asked for again.
pub const DEFAULT_MAX_UPLOADS: u32 = 32;
/// Longest `jti`: stored with each upload.
const MAX_JTI_BYTES: usize = 128;
/// Longest list of content types, and longest of them (RFC 6838 section 4.2: 127 on each side).
const MAX_TYPES: usize = 64;
const MAX_TYPE_BYTES: usize = 255;
const MAX_PRESET_BYTES: usize = 128;
/// Unix seconds beyond this (the year 9999) are a slip: milliseconds, mostly.
const MAX_UNIX_SECONDS: u64 = 253_402_300_799;
/// All that a token may say. What is not listed is refused, although RFC 7519 section 4 lets others ignore it: a
/// restriction with a slip in its name must not be a restriction that is not there.
const KNOWN_CLAIMS: [&str; 14] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "tenant",
    "upload",
    "max_length",
    "types",
    "preset",
    "scope",
    "max_uploads",
];

/// What can be done with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Begin an upload.
    Create,
    /// Ask for its offset, send bytes, complete it.
    Continue,
    /// Give it up.
    Terminate,
}

impl Use {
    const ALL: [Self; 3] = [Self::Create, Self::Continue, Self::Terminate];

    /// The word in the claim `scope`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Continue => "continue",
            Self::Terminate => "terminate",
        }
    }
}

/// The claim `scope`: words separated by spaces, as in RFC 8693 section 4.2. Without the claim: all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uses(u8);

impl Uses {
    pub const ALL: Self = Self(0b111);

    pub fn of(uses: impl IntoIterator<Item = Use>) -> Self {
        Self(uses.into_iter().fold(0, |bits, one| bits | 1 << one as u8))
    }

    pub const fn allow(self, one: Use) -> bool {
        self.0 & (1 << one as u8) != 0
    }

    fn read(text: &str) -> Option<Self> {
        text.split(' ')
            .map(|word| Use::ALL.into_iter().find(|one| one.as_str() == word))
            .collect::<Option<Vec<_>>>()
            .map(Self::of)
    }

    fn words(self) -> String {
        Use::ALL.into_iter().filter(|&one| self.allow(one)).map(Use::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// A token's claims, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadToken {
    /// Its name: what it begins belongs to it.
    pub jti: String,
    pub tenant: TenantId,
    /// For this upload alone, which exists already.
    pub upload: Option<UploadId>,
    /// Longest upload.
    pub max_length: Option<u64>,
    /// `video/mp4` or `video/*`; empty: any, or none said.
    pub types: Vec<String>,
    /// The preset of everything that it begins.
    pub preset: Option<String>,
    pub uses: Uses,
    /// How many uploads it may begin.
    pub max_uploads: u32,
    pub not_before_unix_seconds: Option<u64>,
    pub expires_at_unix_seconds: u64,
}

/// What a client wants to begin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'text> {
    /// `None`: told later.
    pub length: Option<u64>,
    pub media_type: Option<&'text str>,
    pub preset: Option<&'text str>,
    /// Only a piece of an upload that is begun later, of which type and preset are told then.
    pub is_piece: bool,
}

/// The token is good, but not for this. The texts are public.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("the upload token does not allow to {}; its scope is `{allowed}`", wanted.as_str())]
    Use { wanted: Use, allowed: String },
    #[error("the upload token is for one upload that exists already and begins no other")]
    BoundToOne,
    #[error("the upload token belongs to another upload")]
    OtherUpload,
    #[error("the upload has {length} bytes; the upload token allows {max_length}")]
    TooLong { length: u64, max_length: u64 },
    #[error(
        "the upload token needs to know the content type (metadata `filetype`, or `Content-Type`); it allows {allowed}"
    )]
    NoType { allowed: String },
    #[error("the content type `{media_type}` is not allowed by the upload token, which allows {allowed}")]
    WrongType { media_type: String, allowed: String },
    #[error("the upload token is for the preset `{allowed}`; leave the preset out, or name that one")]
    WrongPreset { allowed: String },
}

impl UploadToken {
    /// Is this one of the things that it is for?
    pub fn check_use(&self, wanted: Use) -> Result<(), Denied> {
        if self.uses.allow(wanted) { Ok(()) } else { Err(Denied::Use { wanted, allowed: self.uses.words() }) }
    }

    /// May this upload be begun? How many it has begun already is for the catalogue to count.
    pub fn check_creation(&self, wish: Wish<'_>) -> Result<(), Denied> {
        self.check_use(Use::Create)?;
        if self.upload.is_some() {
            return Err(Denied::BoundToOne);
        }
        if let Some(length) = wish.length {
            self.check_length(length)?;
        }
        if let (Some(allowed), Some(wanted)) = (&self.preset, wish.preset)
            && allowed != wanted
        {
            return Err(Denied::WrongPreset { allowed: allowed.clone() });
        }
        if wish.is_piece { Ok(()) } else { self.check_type(wish.media_type) }
    }

    /// On creation, when a deferred length is told, and again at the end.
    pub fn check_length(&self, length: u64) -> Result<(), Denied> {
        match self.max_length {
            Some(max_length) if length > max_length => Err(Denied::TooLong { length, max_length }),
            _ => Ok(()),
        }
    }

    /// Is this its upload? `begun_by`: the `jti` of the token that began it, if it was a token of the same tenant.
    pub fn check_upload(&self, id: UploadId, begun_by: Option<&str>) -> Result<(), Denied> {
        let own = self.upload == Some(id) || (self.upload.is_none() && begun_by == Some(self.jti.as_str()));
        if own { Ok(()) } else { Err(Denied::OtherUpload) }
    }

    fn check_type(&self, told: Option<&str>) -> Result<(), Denied> {
        if self.types.is_empty() {
            return Ok(());
        }
        let allowed = self.types.join(", ");
        // Without parameters (`; codecs=...`) and in lower case: types are compared so (RFC 9110 section 8.3.1).
        let told = told.map(|told| told.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let Some(media_type) = told.filter(|told| !told.is_empty()) else {
            return Err(Denied::NoType { allowed });
        };
        let fits = |pattern: &String| match pattern.strip_suffix("/*") {
            Some(family) => media_type.split_once('/').is_some_and(|(found, _)| found == family),
            None => *pattern == media_type,
        };
        if self.types.iter().any(fits) { Ok(()) } else { Err(Denied::WrongType { media_type, allowed }) }
    }

    pub(super) fn read(payload: &[u8], now_unix_seconds: u64) -> Result<Self, UploadTokenError> {
        let claims: Claims = serde_json::from_slice(payload)
            .map_err(|_| UploadTokenError::Malformed { what: "the payload is not a JSON object" })?;
        let Claims(claims) = claims;
        if let Some(unknown) = claims.keys().find(|name| !KNOWN_CLAIMS.contains(&name.as_str())) {
            // Genuine, so its text is not a stranger's; but bounded all the same.
            let name: String = unknown.chars().filter(|letter| !letter.is_control()).take(40).collect();
            return Err(UploadTokenError::BadClaim {
                claim: name,
                needs: "is not one that this server knows",
            });
        }
        let token = read_claims(&claims)?;
        match token.expires_at_unix_seconds.checked_sub(now_unix_seconds) {
            None | Some(0) => {
                return Err(UploadTokenError::Expired {
                    expired_for_seconds: now_unix_seconds.saturating_sub(token.expires_at_unix_seconds),
                });
            }
            Some(_) => {}
        }
        if let Some(not_before) = token.not_before_unix_seconds
            && not_before > now_unix_seconds.saturating_add(CLOCK_LEEWAY_SECONDS)
        {
            return Err(UploadTokenError::NotYet { valid_in_seconds: not_before - now_unix_seconds });
        }
        Ok(token)
    }

    pub(super) fn payload(&self) -> Vec<u8> {
        let own = OwnClaims {
            aud: UPLOAD_TOKEN_AUDIENCE,
            jti: &self.jti,
            tenant: self.tenant,
            upload: self.upload,
            max_length: self.max_length,
            types: &self.types,
            preset: self.preset.as_deref(),
            scope: (self.uses != Uses::ALL).then(|| self.uses.words()),
            max_uploads: self.max_uploads,
            nbf: self.not_before_unix_seconds,
            exp: self.expires_at_unix_seconds,
        };
        // Strings and numbers: there is nothing in it that cannot be written as JSON.
        serde_json::to_vec(&own).unwrap_or_default()
    }

    /// What a token may say, checked for a token that is about to be made: what this server would refuse to read, it
    /// does not sign.
    pub(super) fn check_form(&self) -> Result<(), UploadTokenError> {
        Self::read(&self.payload(), 0).map(drop).or_else(|error| match error {
            // Time is the caller's matter.
            UploadTokenError::NotYet { .. } => Ok(()),
            error => Err(error),
        })
    }
}

/// A JSON object in which no name stands twice (RFC 7519 section 4).
struct Claims(Map<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> serde::de::Visitor<'de> for Reader {
            type Value = Claims;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if claims.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a name stands twice"));
                    }
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[derive(Serialize)]
struct OwnClaims<'text> {
    aud: &'static str,
    jti: &'text str,
    tenant: TenantId,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload: Option<UploadId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_length: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    types: &'text [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    preset: Option<&'text str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    max_uploads: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    exp: u64,
}

fn read_claims(claims: &Map<String, Value>) -> Result<UploadToken, UploadTokenError> {
    let bad = |claim: &str, needs| UploadTokenError::BadClaim { claim: claim.to_owned(), needs };
    check_audience(claims)?;
    let text = |name: &'static str, needs: &'static str| match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(bad(name, needs)),
    };
    const JTI: &str = "has to be 1 to 128 printable ASCII characters without spaces, another for each token";
    let jti = text("jti", JTI)?
        .filter(|jti| {
            (1..=MAX_JTI_BYTES).contains(&jti.len()) && jti.bytes().all(|byte| byte.is_ascii_graphic())
        })
        .ok_or_else(|| bad("jti", JTI))?;
    const TENANT: &str = "has to be the tenant's UUID (`reelyard tenants list`)";
    let tenant = text("tenant", TENANT)?
        .and_then(|tenant| tenant.parse().ok())
        .ok_or_else(|| bad("tenant", TENANT))?;
    const UPLOAD: &str = "has to be the UUID of an upload";
    let upload = text("upload", UPLOAD)?
        .map(|upload| upload.parse().map_err(|_| bad("upload", UPLOAD)))
        .transpose()?;
    const PRESET: &str = "has to be the name of a preset";
    let preset = text("preset", PRESET)?;
    if preset.is_some_and(|preset| !(1..=MAX_PRESET_BYTES).contains(&preset.len())) {
        return Err(bad("preset", PRESET));
    }
    const SCOPE: &str = "has to be words of `create`, `continue` and `terminate`, with one space between two";
    let uses =
        text("scope", SCOPE)?.map_or(Some(Uses::ALL), Uses::read).ok_or_else(|| bad("scope", SCOPE))?;
    const BYTES: &str = "has to be a whole number of bytes above zero";
    let max_length = match claims.get("max_length") {
        None => None,
        Some(value) => {
            Some(value.as_u64().filter(|&length| length > 0).ok_or_else(|| bad("max_length", BYTES))?)
        }
    };
    const COUNT: &str = "has to be a whole number above zero";
    let max_uploads = match claims.get("max_uploads") {
        None => DEFAULT_MAX_UPLOADS,
        Some(value) => value
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .filter(|&count| count > 0)
            .ok_or_else(|| bad("max_uploads", COUNT))?,
    };
    Ok(UploadToken {
        jti: jti.to_owned(),
        tenant,
        upload,
        max_length,
        types: read_types(claims)?,
        preset: preset.map(str::to_owned),
        uses,
        max_uploads,
        not_before_unix_seconds: read_time(claims, "nbf")?,
        expires_at_unix_seconds: read_time(claims, "exp")?.ok_or_else(|| bad("exp", TIME))?,
    })
}

/// RFC 7519 section 4.1.3: a token for somebody else is not for us.
fn check_audience(claims: &Map<String, Value>) -> Result<(), UploadTokenError> {
    let ours = match claims.get("aud") {
        None => true,
        Some(Value::String(one)) => one == UPLOAD_TOKEN_AUDIENCE,
        Some(Value::Array(many)) => many.iter().any(|one| one == UPLOAD_TOKEN_AUDIENCE),
        Some(_) => false,
    };
    if ours {
        return Ok(());
    }
    Err(UploadTokenError::BadClaim {
        claim: "aud".into(),
        needs: "has to be `reelyard-uploads`, or left out",
    })
}

const TIME: &str = "has to be a time in seconds since 1970 (UTC)";

/// A NumericDate (section 2), which may have a fraction.
fn read_time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, UploadTokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_u64().or_else(|| {
        // Within the bound below a double holds whole seconds exactly.
        let seconds = value.as_f64().filter(|&seconds| (0.0..=MAX_UNIX_SECONDS as f64).contains(&seconds))?;
        Some(seconds as u64)
    });
    seconds
        .filter(|&seconds| seconds <= MAX_UNIX_SECONDS)
        .map(Some)
        .ok_or_else(|| UploadTokenError::BadClaim { claim: name.to_owned(), needs: TIME })
}

fn read_types(claims: &Map<String, Value>) -> Result<Vec<String>, UploadTokenError> {
    let bad = || UploadTokenError::BadClaim {
        claim: "types".into(),
        needs: "has to be a list of content types such as `video/mp4` or `video/*`",
    };
    let Some(value) = claims.get("types") else { return Ok(Vec::new()) };
    // An empty list allows nothing, which nobody means.
    let list = value.as_array().filter(|list| (1..=MAX_TYPES).contains(&list.len())).ok_or_else(bad)?;
    list.iter()
        .map(|one| {
            let pattern = one.as_str().filter(|one| one.len() <= MAX_TYPE_BYTES).ok_or_else(bad)?;
            let (family, kind) = pattern.split_once('/').ok_or_else(bad)?;
            let is_name = |name: &str| {
                !name.is_empty()
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
            };
            if is_name(family) && (kind == "*" || is_name(kind)) {
                Ok(pattern.to_ascii_lowercase())
            } else {
                Err(bad())
            }
        })
        .collect()
}
