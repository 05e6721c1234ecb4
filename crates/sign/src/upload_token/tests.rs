//! Tokens of three other libraries, every way to forge one that is known, and what tokens may say.

use super::{Denied, UploadKeys, UploadToken, UploadTokenError, Use, Uses, Wish, jws, looks_like_token};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use reelyard_model::{TenantId, UploadId};
use serde_json::{Value, json};
use uuid::Uuid;

const NOW: u64 = 1_800_000_000;

/// 0, 1, 2, ... 31, as the three programs below had it.
fn secret() -> [u8; 32] {
    std::array::from_fn(|index| index as u8)
}

fn keys() -> UploadKeys {
    UploadKeys::new(secret())
}

fn token() -> UploadToken {
    UploadToken {
        jti: "a-token".into(),
        tenant: TenantId::DEFAULT,
        upload: None,
        max_length: None,
        types: Vec::new(),
        preset: None,
        uses: Uses::ALL,
        max_uploads: 32,
        not_before_unix_seconds: None,
        expires_at_unix_seconds: NOW + 3600,
    }
}

/// A genuine token that says what no token of ours would.
fn verify_claims(claims: &Value) -> Result<UploadToken, UploadTokenError> {
    keys().verify(&jws::seal("u1", &secret(), claims.to_string().as_bytes()), NOW)
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = json!({ "tenant": TenantId::DEFAULT, "jti": "x", "exp": NOW + 60, "iss": "us", "iat": NOW, "sub": "someone" });
    claims[name] = value;
    claims
}

#[test]
fn tokens_of_pyjwt_jose_and_jsonwebtoken_are_read() {
    // PyJWT 2.15.1
    let read = keys().verify("eyJhbGciOiJIUzI1NiIsImtpZCI6InUxIiwidHlwIjoiSldUIn0.eyJ0ZW5hbnQiOiIwMDAwMDAwMC0wMDAwLTAwMDAtMDAwMC0wMDAwMDAwMDAwMDEiLCJqdGkiOiJmcm9tLXB5and0IiwiZXhwIjoxODAwMDAzNjAwLCJtYXhfbGVuZ3RoIjoxMDQ4NTc2LCJ0eXBlcyI6WyJ2aWRlby8qIl19.tKYZ1_bmIxjMVxiERE87ROi66SaS08AyF7K0W0qy8cE", NOW).unwrap();
    let said = UploadToken {
        jti: "from-pyjwt".into(),
        max_length: Some(1 << 20),
        types: vec!["video/*".into()],
        ..token()
    };
    assert_eq!(read, said);
    // jose 6.2.17
    let read = keys().verify("eyJhbGciOiJIUzI1NiIsImtpZCI6InUxIn0.eyJ0ZW5hbnQiOiIwMDAwMDAwMC0wMDAwLTAwMDAtMDAwMC0wMDAwMDAwMDAwMDEiLCJzY29wZSI6ImNyZWF0ZSBjb250aW51ZSIsImp0aSI6ImZyb20tam9zZSIsImV4cCI6MTgwMDAwMzYwMCwiYXVkIjoicmVlbHlhcmQtdXBsb2FkcyJ9.y42tIhT01X5Bl-YnBHmjPZn_e9iL0hRokVJahMVQ74Q", NOW).unwrap();
    let said =
        UploadToken { jti: "from-jose".into(), uses: Uses::of([Use::Create, Use::Continue]), ..token() };
    assert_eq!(read, said);
    // jsonwebtoken 9.0.3
    let read = keys().verify("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InUxIn0.eyJ0ZW5hbnQiOiIwMDAwMDAwMC0wMDAwLTAwMDAtMDAwMC0wMDAwMDAwMDAwMDEiLCJqdGkiOiJmcm9tLWpzb253ZWJ0b2tlbiIsImV4cCI6MTgwMDAwMzYwMCwiaWF0IjoxODAwMDAwMDAwLCJwcmVzZXQiOiJ3ZWItaDI2NCJ9.vECZHn9TNEwY6IQpWjFN9Tg2hBW5mWwlp3zMwwLJYYU", NOW).unwrap();
    let said = UploadToken { jti: "from-jsonwebtoken".into(), preset: Some("web-h264".into()), ..token() };
    assert_eq!(read, said);
}

#[test]
fn what_is_signed_is_what_is_read() {
    let full = UploadToken {
        upload: Some(UploadId::from_uuid(Uuid::from_u128(7))),
        max_length: Some(1 << 40),
        types: vec!["video/*".into(), "audio/mpeg".into()],
        preset: Some("web-h264".into()),
        uses: Uses::of([Use::Continue]),
        max_uploads: 1,
        not_before_unix_seconds: Some(NOW - 5),
        ..token()
    };
    for one in [token(), full] {
        let text = keys().sign(&one).unwrap();
        assert!(looks_like_token(&text));
        assert_eq!(keys().verify(&text, NOW), Ok(one));
    }
    assert!(!looks_like_token("reelyard_abc"));
}

#[test]
fn the_algorithm_is_pinned() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
    let good = keys().sign(&token()).unwrap();
    let payload = good.split('.').nth(1).unwrap();
    for alg in ["none", "None", "hs256", "HS384", "HS512", "RS256", "ES256", "EdDSA", ""] {
        let header = BASE64.encode(json!({ "alg": alg, "kid": "u1" }).to_string());
        for mac in ["", &BASE64.encode([0; 32]), good.rsplit('.').next().unwrap()] {
            let refused = keys().verify(&format!("{header}.{payload}.{mac}"), NOW);
            assert_eq!(refused, Err(UploadTokenError::WrongAlgorithm), "{alg}");
        }
    }
}

#[test]
fn headers_that_want_more_than_a_signature_are_refused() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
    for header in [
        r#"{"alg":"HS256","kid":"u1","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","kid":"u1","typ":"at+jwt"}"#,
        r#"{"alg":"HS256","kid":"u1","alg":"none"}"#,
        r#"{"alg":"HS256"}"#,
        r#"["HS256"]"#,
        "",
    ] {
        let text = format!("{}.e30.{}", BASE64.encode(header), BASE64.encode([0; 32]));
        assert!(matches!(keys().verify(&text, NOW), Err(UploadTokenError::Malformed { .. })), "{header}");
    }
    // A key that the token brings along is not looked at.
    let header = BASE64.encode(r#"{"alg":"HS256","kid":"u1","jwk":{"kty":"oct","k":"AAAA"}}"#);
    let text = format!("{header}.e30.{}", BASE64.encode([0; 32]));
    assert_eq!(keys().verify(&text, NOW), Err(UploadTokenError::Forged));
}

#[test]
fn another_secret_another_kid_and_playback_secrets_open_nothing() {
    let other = UploadKeys::new([9; 32]).sign(&token()).unwrap();
    assert_eq!(keys().verify(&other, NOW), Err(UploadTokenError::Forged));
    let unknown = jws::seal("u2", &secret(), b"{}");
    assert_eq!(keys().verify(&unknown, NOW), Err(UploadTokenError::UnknownKey));
    assert_eq!(keys().verify(&"a.".repeat(3000), NOW), Err(UploadTokenError::TooLong));
}

#[test]
fn a_token_begins_and_ends_when_it_says() {
    let timed = UploadToken { not_before_unix_seconds: Some(NOW), ..token() };
    let text = keys().sign(&timed).unwrap();
    assert!(keys().verify(&text, NOW + 3599).is_ok());
    assert_eq!(keys().verify(&text, NOW + 3600), Err(UploadTokenError::Expired { expired_for_seconds: 0 }));
    assert_eq!(keys().verify(&text, NOW + 3610), Err(UploadTokenError::Expired { expired_for_seconds: 10 }));
    assert!(keys().verify(&text, NOW - 60).is_ok(), "clocks differ a little");
    assert_eq!(keys().verify(&text, NOW - 61), Err(UploadTokenError::NotYet { valid_in_seconds: 61 }));
    let expired_and_forged = UploadKeys::new([9; 32]).sign(&timed).unwrap();
    assert_eq!(keys().verify(&expired_and_forged, NOW + 9999), Err(UploadTokenError::Forged));
}

#[test]
fn a_restriction_that_cannot_be_read_is_never_a_restriction_that_is_not_there() {
    for (name, value) in [
        ("max_lenght", json!(5)),
        ("maxLength", json!(5)),
        ("max_length", json!("5")),
        ("max_length", json!(0)),
        ("max_length", json!(-5)),
        ("max_length", json!(1.5)),
        ("max_length", Value::Null),
        ("max_uploads", json!(0)),
        ("max_uploads", json!(5_000_000_000_u64)),
        ("types", json!([])),
        ("types", json!("video/mp4")),
        ("types", json!(["video"])),
        ("types", json!(["*/*"])),
        ("types", json!(["video/mp4;codecs=avc1"])),
        ("scope", json!("")),
        ("scope", json!("create,continue")),
        ("scope", json!("admin")),
        ("scope", json!(["create"])),
        ("upload", json!("mine")),
        ("preset", json!("")),
        ("preset", json!(7)),
        ("jti", json!("")),
        ("jti", json!("with space")),
        ("jti", json!("x".repeat(129))),
        ("tenant", json!("default")),
        ("tenant", Value::Null),
        ("exp", json!("tomorrow")),
        ("exp", json!(1_800_000_060_000_u64)),
        ("exp", json!(-1)),
        ("nbf", json!([])),
        ("aud", json!("somebody-else")),
        ("aud", json!(["a", "b"])),
        ("aud", json!(7)),
    ] {
        match verify_claims(&claims_with(name, value.clone())) {
            Err(UploadTokenError::BadClaim { claim, .. }) => assert_eq!(claim, name, "{value}"),
            other => panic!("{name} {value}: {other:?}"),
        }
    }
    for missing in ["exp", "jti", "tenant"] {
        let mut claims = claims_with("max_length", json!(5));
        claims.as_object_mut().unwrap().remove(missing);
        assert!(matches!(verify_claims(&claims), Err(UploadTokenError::BadClaim { .. })), "{missing}");
    }
    let twice = format!(
        r#"{{"tenant":"{}","jti":"x","exp":{},"max_length":5,"max_length":6}}"#,
        TenantId::DEFAULT,
        NOW + 60
    );
    let twice = jws::seal("u1", &secret(), twice.as_bytes());
    assert!(matches!(keys().verify(&twice, NOW), Err(UploadTokenError::Malformed { .. })));
}

#[test]
fn times_may_have_a_fraction_and_audiences_may_be_several() {
    let mut claims = claims_with("exp", json!(NOW as f64 + 60.5));
    claims["aud"] = json!(["someone", "reelyard-uploads"]);
    assert_eq!(verify_claims(&claims).unwrap().expires_at_unix_seconds, NOW + 60);
}

#[test]
fn what_this_server_would_not_read_it_does_not_sign() {
    for bad in [
        UploadToken { jti: String::new(), ..token() },
        UploadToken { max_length: Some(0), ..token() },
        UploadToken { types: vec!["everything".into()], ..token() },
    ] {
        assert!(matches!(keys().sign(&bad), Err(UploadTokenError::BadClaim { .. })), "{bad:?}");
    }
}

#[test]
fn a_key_of_one_tenant_signs_for_that_tenant_alone() {
    let (ours, theirs) = (TenantId::from_uuid(Uuid::from_u128(5)), TenantId::from_uuid(Uuid::from_u128(6)));
    let file = |order: [&str; 2]| {
        let keys: Vec<Value> = order
            .iter()
            .map(|&kid| match kid {
                "all" => {
                    json!({ "kty": "oct", "kid": kid, "k": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8" })
                }
                _ => json!({ "kty": "oct", "kid": kid, "alg": "HS256", "use": "sig", "tenant": ours,
                             "k": "ICECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8" }),
            })
            .collect();
        UploadKeys::from_json(&json!({ "version": 1, "keys": keys }).to_string()).unwrap()
    };
    let ring = file(["acme", "all"]);
    let of = |tenant| UploadToken { tenant, ..token() };
    assert_eq!(ring.verify(&ring.sign(&of(ours)).unwrap(), NOW), Ok(of(ours)));
    assert_eq!(ring.verify(&ring.sign(&of(theirs)).unwrap(), NOW), Ok(of(theirs)), "the other key signed it");
    let mut own_secret = secret();
    own_secret[0] = 0x20;
    own_secret[1] = 0x21;
    let overreach = jws::seal("acme", &own_secret, &of(theirs).payload());
    assert_eq!(ring.verify(&overreach, NOW), Err(UploadTokenError::ForeignTenant));
    assert!(!format!("{ring:?}").contains("ICE"));
}

#[test]
fn the_file_form_goes_both_ways_and_damaged_ones_are_refused_without_quoting_a_secret() {
    let text = keys().to_json();
    assert!(text.contains(r#""k": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8""#), "{text}");
    assert_eq!(UploadKeys::from_json(&text).unwrap(), keys());
    let key = |k: &str, kid: &str| json!({ "kty": "oct", "kid": kid, "k": k });
    let good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    for bad in [
        json!({ "version": 1, "keys": [] }),
        json!({ "version": 1, "keys": [key("AAEC", "u1")] }),
        json!({ "version": 1, "keys": [key(good, "")] }),
        json!({ "version": 1, "keys": [key(good, "u 1")] }),
        json!({ "version": 1, "keys": [key(good, "u1"), key(good, "u1")] }),
        json!({ "version": 1, "keys": [{ "kty": "RSA", "kid": "u1", "k": good }] }),
        json!({ "version": 1, "keys": [{ "kty": "oct", "kid": "u1", "k": good, "alg": "HS512" }] }),
        json!({ "version": 1, "keys": [{ "kty": "oct", "kid": "u1", "k": good, "tenants": "x" }] }),
        json!({ "version": 1, "keys": [{ "kty": "oct", "kid": "u1", "k": good, "use": "enc" }] }),
        json!({ "version": 1, "keys": [{ "kty": "oct", "kid": "u1", "k": good, "key_ops": ["wrapKey"] }] }),
        json!([]),
    ] {
        let error = UploadKeys::from_json(&bad.to_string()).unwrap_err().to_string();
        assert!(!error.contains("AAEC"), "{error}");
    }
    assert!(matches!(
        UploadKeys::from_json(r#"{"version":2,"keys":0}"#),
        Err(super::UploadKeysError::UnknownVersion { found: 2 })
    ));
}

#[test]
fn creation_is_held_to_length_type_preset_and_scope() {
    let restricted = UploadToken {
        max_length: Some(100),
        types: vec!["video/*".into(), "audio/mpeg".into()],
        preset: Some("small".into()),
        ..token()
    };
    let wish =
        Wish { length: Some(100), media_type: Some("Video/MP4; codecs=avc1"), preset: None, is_piece: false };
    assert_eq!(restricted.check_creation(wish), Ok(()));
    assert_eq!(
        restricted.check_creation(Wish { length: None, ..wish }),
        Ok(()),
        "held to it when it is told"
    );
    assert_eq!(restricted.check_creation(Wish { media_type: Some("audio/mpeg"), ..wish }), Ok(()));
    assert_eq!(
        restricted.check_creation(Wish { length: Some(101), ..wish }),
        Err(Denied::TooLong { length: 101, max_length: 100 })
    );
    for other in ["audio/wav", "video", "videos/mp4", "text/video/mp4"] {
        let refused = restricted.check_creation(Wish { media_type: Some(other), ..wish });
        assert!(matches!(refused, Err(Denied::WrongType { .. })), "{other}");
    }
    for nothing in [None, Some(""), Some(" ;x")] {
        let refused = restricted.check_creation(Wish { media_type: nothing, ..wish });
        assert!(matches!(refused, Err(Denied::NoType { .. })), "{nothing:?}");
    }
    let piece = Wish { media_type: None, is_piece: true, ..wish };
    assert_eq!(restricted.check_creation(piece), Ok(()), "parallel clients tell the type with the whole");
    assert!(restricted.check_creation(Wish { length: Some(101), ..piece }).is_err());
    assert_eq!(restricted.check_creation(Wish { preset: Some("small"), ..wish }), Ok(()));
    let refused = restricted.check_creation(Wish { preset: Some("large"), ..wish });
    assert!(matches!(refused, Err(Denied::WrongPreset { .. })));
    let finisher = UploadToken { uses: Uses::of([Use::Continue]), ..token() };
    assert!(matches!(finisher.check_creation(wish), Err(Denied::Use { wanted: Use::Create, .. })));
    assert_eq!(finisher.check_use(Use::Continue), Ok(()));
    assert!(finisher.check_use(Use::Terminate).unwrap_err().to_string().contains("`continue`"));
}

#[test]
fn a_token_is_good_for_its_own_uploads_alone() {
    let [first, second] = [1, 2].map(|number| UploadId::from_uuid(Uuid::from_u128(number)));
    assert_eq!(token().check_upload(first, Some("a-token")), Ok(()));
    assert_eq!(token().check_upload(first, Some("b-token")), Err(Denied::OtherUpload));
    assert_eq!(token().check_upload(first, None), Err(Denied::OtherUpload), "made with an API key");
    let bound = UploadToken { upload: Some(first), ..token() };
    assert_eq!(bound.check_upload(first, None), Ok(()));
    assert_eq!(bound.check_upload(second, Some("a-token")), Err(Denied::OtherUpload));
    assert_eq!(bound.check_creation(Wish::default()), Err(Denied::BoundToOne));
}

proptest! {
    #[test]
    fn no_text_panics_or_opens_anything(text: String, claims: String) {
        prop_assert!(keys().verify(&text, NOW).is_err());
        let genuine = jws::seal("u1", &secret(), claims.as_bytes());
        prop_assert!(keys().verify(&genuine, NOW).is_err());
    }

    #[test]
    fn one_character_of_change_is_seen(at in any::<proptest::sample::Index>(), with in "[A-Za-z0-9_.-]") {
        let good = keys().sign(&token()).unwrap();
        let at = at.index(good.len());
        let mut changed = good.clone();
        changed.replace_range(at..=at, &with);
        prop_assert_eq!(keys().verify(&changed, NOW).is_ok(), changed == good);
    }
}
