//! Who may upload how much: scopes, upload tokens, quotas, rates, seats and speed, against the real server.

use super::{
    server::Server,
    wire::{Answer, Request, read_answer, wait_until},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reelyard_model::TenantId;
use reelyard_sign::upload_token::{UploadKeys, UploadToken, Uses};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    io::Write as _,
    process::{Command, Output},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const CONDITION_LIMIT: Duration = Duration::from_secs(60);
/// A silence that is too long for the server, but longer than this test stands still on a machine with other work.
const IDLE_SECONDS: &str = "3";
/// What one body may take, the server's own work included.
const BODY_SECONDS: &str = "5";

fn command(server: &Server, arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_reelyard"))
        .args(arguments)
        .arg("--data-dir")
        .arg(&server.data)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn make_key(server: &Server, scopes: &str, tenant: &str) -> String {
    let output = command(server, &["keys", "add", "--label", "test", "--scopes", scopes, "--tenant", tenant]);
    printed(&output).trim().to_owned()
}

fn asked(server: &Server, bearer: &str, method: &str, path: &str) -> Request {
    server.bare(method, path).with("Authorization", &format!("Bearer {bearer}"))
}

fn tus(server: &Server, bearer: &str, method: &str, path: &str) -> Request {
    asked(server, bearer, method, path).with("Tus-Resumable", "1.0.0")
}

fn create(server: &Server, bearer: &str, length: usize) -> Answer {
    tus(server, bearer, "POST", "/uploads").with("Upload-Length", &length.to_string()).send(b"")
}

fn patch(server: &Server, bearer: &str, upload: &str, offset: usize) -> Request {
    tus(server, bearer, "PATCH", upload)
        .with("Upload-Offset", &offset.to_string())
        .with("Content-Type", "application/offset+octet-stream")
}

fn location(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.header("location").unwrap().to_owned()
}

/// Which refusal this is.
fn slug(answer: &Answer) -> (u16, String) {
    let name = answer.problem()["type"].as_str().unwrap().trim_start_matches("/problems/").to_owned();
    (answer.status, name)
}

fn is(status: u16, name: &str) -> (u16, String) {
    (status, name.to_owned())
}

fn token_of_server(server: &Server, wanted: &Value) -> String {
    let answer = asked(server, &server.key, "POST", "/v1/upload-tokens")
        .with("Content-Type", "application/json")
        .send(wanted.to_string().as_bytes());
    assert_eq!(answer.status, 201, "{answer:?}");
    let made: Value = serde_json::from_slice(&answer.body).unwrap();
    made["token"].as_str().unwrap().to_owned()
}

fn now_unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// As somebody makes it who was given the secret.
fn own_token(server: &Server, ttl_seconds: u64) -> String {
    let keys = std::fs::read_to_string(server.data.join("upload-keys.json")).unwrap();
    UploadKeys::from_json(&keys)
        .unwrap()
        .sign(&UploadToken {
            jti: "own".into(),
            tenant: TenantId::DEFAULT,
            upload: None,
            max_length: None,
            types: Vec::new(),
            preset: None,
            uses: Uses::ALL,
            max_uploads: 2,
            not_before_unix_seconds: None,
            expires_at_unix_seconds: now_unix_seconds() + ttl_seconds,
        })
        .unwrap()
}

#[test]
fn a_key_does_what_its_scopes_say_until_it_is_revoked() {
    let server = Server::start();
    let writer = make_key(&server, "uploads:write", "default");
    let reader = make_key(&server, "assets:read", "default");
    let refused = create(&server, &reader, 4);
    assert_eq!(slug(&refused), is(403, "missing-scope"));
    assert_eq!(refused.problem()["scope"], "uploads:write");
    let upload = location(&create(&server, &writer, 4));
    assert_eq!(tus(&server, &reader, "DELETE", &upload).send(b"").status, 403);
    assert_eq!(patch(&server, &writer, &upload, 0).send(b"film").status, 204);
    assert_eq!(asked(&server, &reader, "GET", "/v1/assets").send(b"").status, 200);
    assert_eq!(asked(&server, &reader, "GET", &upload).send(b"").body, b"film");
    for (method, path) in [("GET", "/v1/assets"), ("GET", "/v1/jobs"), ("GET", "/metrics"), ("GET", &upload)]
    {
        let refused = asked(&server, &writer, method, path).send(b"");
        assert_eq!(slug(&refused), is(403, "missing-scope"), "{method} {path}");
    }

    let list = printed(&command(&server, &["keys", "list"]));
    assert!(!list.contains(&writer), "keys are never shown again");
    let row = list.lines().find(|line| line.ends_with("uploads:write")).unwrap();
    command(&server, &["keys", "revoke", row.split(' ').next().unwrap()]);
    assert_eq!(slug(&create(&server, &writer, 4)), is(401, "unknown-key"));
}

#[test]
fn an_upload_token_works_in_every_dialect_and_opens_nothing_else() {
    let server = Server::start();
    let token = token_of_server(&server, &json!({}));
    // tus, every verb.
    let upload = location(&create(&server, &token, 8));
    assert_eq!(patch(&server, &token, &upload, 0).send(b"half").status, 204);
    assert_eq!(tus(&server, &token, "HEAD", &upload).send(b"").number("upload-offset"), 4);
    assert_eq!(patch(&server, &token, &upload, 4).send(b"half").status, 204);
    let given_up = location(&create(&server, &token, 8));
    assert_eq!(tus(&server, &token, "DELETE", &given_up).send(b"").status, 204);
    // The IETF draft.
    let ietf = asked(&server, &token, "POST", "/uploads").with("Upload-Draft-Interop-Version", "8");
    let ietf = location(&ietf.with("Upload-Complete", "?0").send(b"half"));
    let appended = asked(&server, &token, "PATCH", &ietf)
        .with("Upload-Draft-Interop-Version", "8")
        .with("Content-Type", "application/partial-upload")
        .with("Upload-Offset", "4")
        .with("Upload-Complete", "?1")
        .send(b"more");
    assert!(appended.header("reelyard-asset").is_some(), "{appended:?}");
    // Parts.
    let opened = asked(&server, &token, "POST", "/uploads/parts").with("Upload-Length", "4").send(b"");
    let id = opened.header("x-upload-id").unwrap_or_else(|| panic!("{opened:?}")).to_owned();
    let put = asked(&server, &token, "PUT", "/uploads/parts")
        .with("X-Upload-ID", &id)
        .with("X-Part-Number", "1")
        .with("X-Content-Range", "bytes 0-3/4")
        .send(b"part");
    assert!((200..300).contains(&put.status), "{put:?}");
    let listed = asked(&server, &token, "GET", "/uploads/parts").with("X-Upload-ID", &id).send(b"");
    assert_eq!(listed.status, 200, "{listed:?}");

    // Nothing else: what others began, the API, the bytes.
    let others = server.create(4);
    for (method, path) in [("HEAD", &others), ("DELETE", &others)] {
        assert_eq!(tus(&server, &token, method, path).send(b"").status, 403, "{method}");
    }
    let refused = patch(&server, &token, &others, 0).send(b"film");
    assert_eq!(slug(&refused), is(403, "outside-upload-token"));
    let refused = asked(&server, &token, "GET", "/uploads/parts")
        .with("X-Upload-ID", others.trim_start_matches("/uploads/"))
        .send(b"");
    assert_eq!(slug(&refused), is(403, "outside-upload-token"));
    for path in ["/v1/assets", "/v1/jobs", "/v1/events", "/metrics", &upload] {
        let refused = asked(&server, &token, "GET", path).send(b"");
        assert_eq!(slug(&refused), is(403, "outside-upload-token"), "{path}");
    }
    let refused = asked(&server, &token, "POST", "/v1/upload-tokens")
        .with("Content-Type", "application/json")
        .send(b"{}");
    assert_eq!(refused.status, 403, "a token makes no tokens");
}

#[test]
fn a_token_holds_its_upload_to_length_type_and_number() {
    let server = Server::start();
    let wanted =
        json!({ "max_length": 8, "types": ["video/*"], "max_uploads": 3, "preset": "web-h264-small" });
    let token = token_of_server(&server, &wanted);
    let with_type = |length: &str, filetype: &str| {
        tus(&server, &token, "POST", "/uploads")
            .with(if length == "deferred" { "Upload-Defer-Length" } else { "Upload-Length" }, {
                if length == "deferred" { "1" } else { length }
            })
            .with("Upload-Metadata", &format!("filetype {}", STANDARD.encode(filetype)))
            .send(b"")
    };
    assert_eq!(slug(&create(&server, &token, 4)), is(403, "outside-upload-token"), "no type was told");
    assert_eq!(slug(&with_type("4", "text/html")), is(403, "outside-upload-token"));
    let refused = with_type("9", "video/mp4");
    assert_eq!(
        (slug(&refused), &refused.problem()["max_bytes"]),
        (is(403, "outside-upload-token"), &json!(8))
    );

    // A length that is told later is held to the same, and so are bytes whose number nobody told.
    let deferred = location(&with_type("deferred", "video/mp4"));
    let told = patch(&server, &token, &deferred, 0).with("Upload-Length", "9").send(b"");
    assert_eq!(told.status, 413, "{told:?}");
    let beyond = patch(&server, &token, &deferred, 0).send(b"123456789");
    assert_eq!(beyond.status, 413, "{beyond:?}");
    assert_eq!(patch(&server, &token, &deferred, 0).with("Upload-Length", "8").send(b"12345678").status, 204);
    let piece = tus(&server, &token, "POST", "/uploads").with("Upload-Concat", "partial");
    location(&piece.with("Upload-Length", "4").send(b""));
    let second = with_type("8", "video/webm");
    location(&second);
    assert_eq!(slug(&with_type("8", "video/webm")), is(403, "outside-upload-token"), "three and no more");
}

#[test]
fn a_token_that_expires_under_a_body_lets_it_end_and_opens_nothing_afterwards() {
    // Long enough to begin under it, also where that takes a few seconds.
    const TOKEN_SECONDS: u64 = 8;
    let server = Server::start();
    let token = own_token(&server, TOKEN_SECONDS);
    let upload = location(&create(&server, &token, 10));
    let mut connection = patch(&server, &token, &upload, 0).begin(Some(10));
    connection.write_all(b"01234").unwrap();
    server.wait_until_receiving(1);
    let nothing = "/uploads/019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01";
    wait_until("the token has expired", || tus(&server, &token, "HEAD", nothing).send(b"").status == 401);
    connection.write_all(b"56789").unwrap();
    let answer = read_answer(&mut connection, false).unwrap();
    assert_eq!((answer.status, answer.number("upload-offset")), (204, 10), "{answer:?}");
    let refused = patch(&server, &token, &upload, 10).send(b"");
    assert_eq!(slug(&refused), is(401, "upload-token-expired"));
    assert!(refused.detail().contains("get a new one"), "{refused:?}");

    let other_secret = UploadKeys::new([3; 32]).to_json();
    let forged = UploadKeys::from_json(&other_secret).unwrap();
    let forged = forged.sign(&UploadToken {
        jti: "x".into(),
        tenant: TenantId::DEFAULT,
        upload: None,
        max_length: None,
        types: Vec::new(),
        preset: None,
        uses: Uses::ALL,
        max_uploads: 1,
        not_before_unix_seconds: None,
        expires_at_unix_seconds: now_unix_seconds() + 60,
    });
    assert_eq!(slug(&create(&server, &forged.unwrap(), 1)), is(401, "upload-token-not-valid"));
}

#[test]
fn a_tenant_stores_no_more_than_its_quota_and_gets_room_back() {
    let server = Server::start();
    command(&server, &["tenants", "set-quota", "default", "--storage-bytes", "1000"]);
    let first = server.create(600);
    let refused = create(&server, &server.key, 401);
    assert_eq!(slug(&refused), is(413, "quota-exceeded"));
    let problem = refused.problem();
    assert_eq!((&problem["allowed_bytes"], &problem["used_bytes"]), (&json!(1000), &json!(600)));
    // Nobody told how long this one is, nor this body: it is let in as far as there is room.
    let deferred = tus(&server, &server.key, "POST", "/uploads").with("Upload-Defer-Length", "1");
    let deferred = location(&deferred.send(b""));
    let refused = server.patch_request(&deferred, 0).send_chunked(&[&[7; 401]]);
    assert_eq!(slug(&refused), is(413, "quota-exceeded"));
    let taken = server.patch_request(&deferred, 0).send_chunked(&[&[7; 300], &[7; 100]]);
    assert_eq!((taken.status, taken.number("upload-offset")), (204, 400), "{taken:?}");
    assert_eq!(slug(&server.patch(&deferred, 400, b"x")), is(413, "quota-exceeded"));

    assert_eq!(server.tus("DELETE", &first).send(b"").status, 204);
    assert_eq!(server.patch(&deferred, 400, b"x").status, 204);
    server.create(599);
    command(&server, &["tenants", "set-quota", "default", "--storage-bytes", "none", "--open-uploads", "2"]);
    assert_eq!(slug(&create(&server, &server.key, 1)), is(429, "too-many-open-uploads"));
    let list = printed(&command(&server, &["tenants", "list"]));
    assert!(list.contains("open uploads 2"), "{list}");
}

#[test]
fn tenants_do_not_see_each_other_s_uploads() {
    let server = Server::start();
    command(&server, &["tenants", "add", "acme"]);
    let theirs = make_key(&server, "uploads:write", "acme");
    let ours = server.create(4);
    for method in ["HEAD", "DELETE"] {
        assert_eq!(tus(&server, &theirs, method, &ours).send(b"").status, 404);
    }
    assert_eq!(patch(&server, &theirs, &ours, 0).send(b"film").status, 404);
    assert_eq!(server.offset(&ours), 0);
}

#[test]
fn uploads_that_are_begun_too_fast_are_told_when_to_come_back() {
    let server = Server::start_with(&["--creations-per-second", "1"]);
    let refused = (0..200).map(|_| create(&server, &server.key, 1)).find(|answer| answer.status != 201);
    let refused = refused.expect("nobody was refused");
    assert_eq!(slug(&refused), is(429, "too-many-requests"));
    assert_eq!(refused.number("retry-after"), 1);
    assert_eq!(refused.header("ratelimit-policy"), Some("\"creations\";q=20;w=20"));
    assert_eq!(refused.header("ratelimit"), Some("\"creations\";r=0;t=1"));
    assert_eq!(
        asked(&server, &server.key, "GET", "/v1/assets").send(b"").status,
        200,
        "other requests go on"
    );
}

#[test]
fn an_address_that_fails_again_and_again_is_refused_but_a_good_key_from_there_is_not() {
    let server = Server::start();
    let mut answers = (0..300).map(|_| create(&server, "reelyard_wrong", 1));
    let refused = answers.find(|answer| answer.status != 401).expect("nobody was refused");
    assert_eq!(slug(&refused), is(429, "too-many-requests"));
    assert!(refused.number("retry-after") >= 1);
    location(&create(&server, &server.key, 1));
}

#[test]
fn a_silent_sender_is_cut_and_what_came_is_kept() {
    let server = Server::start_with(&["--upload-idle-seconds", IDLE_SECONDS]);
    let upload = server.create(10);
    let mut connection = server.patch_request(&upload, 0).begin(Some(10));
    connection.write_all(b"012").unwrap();
    let answer = read_answer(&mut connection, false).unwrap();
    assert_eq!(slug(&answer), is(408, "sender-too-slow"));
    assert_eq!(answer.number("upload-offset"), 3);
    assert_eq!(server.offset(&upload), 3);
    assert_eq!(server.patch(&upload, 3, b"3456789").status, 204);
}

#[test]
fn a_sender_that_trickles_is_cut_and_what_came_is_kept() {
    let server = Server::start_with(&["--upload-idle-seconds", IDLE_SECONDS, "--min-upload-speed", "1000"]);
    let upload = server.create(1_000_000);
    let mut connection = server.patch_request(&upload, 0).begin(Some(1_000_000));
    connection.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let began = Instant::now();
    // A byte for each time that no answer has come.
    while connection.peek(&mut [0]).is_err() {
        assert!(began.elapsed() < CONDITION_LIMIT, "the trickle went on");
        connection.write_all(b"x").unwrap();
    }
    connection.set_read_timeout(Some(CONDITION_LIMIT)).unwrap();
    let answer = read_answer(&mut connection, false).unwrap();
    assert_eq!(slug(&answer), is(408, "sender-too-slow"));
    let kept = answer.number("upload-offset");
    assert!(kept > 5, "{answer:?}");
    assert_eq!(server.offset(&upload), kept);
}

#[test]
fn a_body_longer_than_its_time_goes_on_in_the_next_request() {
    let server = Server::start_with(&["--max-body-seconds", BODY_SECONDS]);
    let upload = server.create(10);
    let mut connection = server.patch_request(&upload, 0).begin(Some(10));
    connection.write_all(b"01234").unwrap();
    let answer = read_answer(&mut connection, false).unwrap();
    assert_eq!((answer.status, answer.number("upload-offset")), (408, 5), "{answer:?}");
    assert_eq!(server.patch(&upload, 5, b"56789").status, 204);
}

#[test]
fn bodies_beyond_the_seats_wait_in_line_and_then_come_back() {
    let server = Server::start_with(&["--max-transfers", "1", "--transfer-wait-seconds", "1"]);
    let (first, second) = (server.create(10), server.create(4));
    let mut connection = server.patch_request(&first, 0).begin(Some(10));
    connection.write_all(b"01234").unwrap();
    server.wait_until_receiving(1);
    let refused = server.patch(&second, 0, b"film");
    assert_eq!(slug(&refused), is(503, "unavailable"));
    assert!(refused.number("retry-after") >= 1);
    assert_eq!(server.offset(&second), 0, "asking takes no seat");
    // A newer request for the same upload takes over seat and all.
    assert_eq!(server.patch(&first, server.offset(&first), b"56789").status, 204);
    assert_eq!(server.patch(&second, 0, b"film").status, 204);
}

#[test]
fn an_upload_token_cannot_ask_what_its_tenant_has_and_a_key_answers_its_own_questions_only() {
    let server = Server::start();
    let film = b"a short film";
    let upload = server.create(film.len());
    assert_eq!(server.patch(&upload, 0, film).status, 204);
    let digest = Sha256::digest(film);
    let claim = json!({ "length": film.len(), "sha256": hex::encode(digest) }).to_string();
    let ask = |bearer: &str| asked(&server, bearer, "POST", "/uploads/possession").send(claim.as_bytes());
    let token = token_of_server(&server, &json!({}));
    assert_eq!(slug(&ask(&token)), is(403, "outside-upload-token"));

    let question: Value = serde_json::from_slice(&ask(&server.key).body).unwrap();
    let nonce = hex::decode(question["nonce"].as_str().unwrap()).unwrap();
    let mut proof = Sha256::new_with_prefix(nonce);
    for range in question["ranges"].as_array().unwrap() {
        let number = |name: &str| usize::try_from(range[name].as_u64().unwrap()).unwrap();
        proof.update(&film[number("offset")..][..number("length")]);
    }
    let proof = json!({ "proof": hex::encode(proof.finalize()) }).to_string();
    let address = format!("/uploads/possession/{}", question["challenge"].as_str().unwrap());
    let answer = |bearer: &str| asked(&server, bearer, "POST", &address).send(proof.as_bytes());
    let other = make_key(&server, "uploads:write", "default");
    assert_eq!(slug(&answer(&other)), is(404, "not-found"));
    assert_eq!(slug(&answer(&token)), is(403, "outside-upload-token"));
    assert_eq!(answer(&server.key).status, 201);
    assert_eq!(answer(&server.key).status, 201, "its answer may have been lost");
    assert_eq!(slug(&answer(&other)), is(404, "not-found"));
}

#[test]
fn a_list_of_parts_is_not_read_before_its_sender_is_known() {
    let server = Server::start();
    let theirs = server.create(4);
    let token = token_of_server(&server, &json!({}));
    let path = "/uploads/parts/complete";
    for (bearer, upload, expected) in [
        (token.as_str(), theirs.trim_start_matches("/uploads/"), is(403, "outside-upload-token")),
        (server.key.as_str(), "019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01", is(404, "not-found")),
    ] {
        // A list that never comes: the answer does.
        let mut connection =
            asked(&server, bearer, "POST", path).with("X-Upload-ID", upload).begin(Some(1 << 20));
        let answer = read_answer(&mut connection, false).unwrap();
        assert_eq!(slug(&answer), expected);
    }
}

fn revoke(server: &Server, scopes: &str) {
    let list = printed(&command(server, &["keys", "list"]));
    let row = list.lines().find(|line| line.ends_with(scopes)).unwrap();
    command(server, &["keys", "revoke", row.split(' ').next().unwrap()]);
}

#[test]
fn what_a_revoked_key_sent_to_its_end_is_finished_by_somebody_who_may_and_by_nothing_else() {
    let mut server = Server::start();
    let writer = make_key(&server, "uploads:write", "default");
    let whole = location(&create(&server, &writer, 10));
    let piece = tus(&server, &writer, "POST", "/uploads").with("Upload-Concat", "partial");
    let piece = location(&piece.with("Upload-Length", "10").send(b""));
    let list = format!("final;{piece}");
    let joined = location(&server.tus("POST", "/uploads").with("Upload-Concat", &list).send(b""));
    let mut connections = [&whole, &piece].map(|upload| patch(&server, &writer, upload, 0).begin(Some(10)));
    for connection in &mut connections {
        connection.write_all(b"01234").unwrap();
    }
    server.wait_until_receiving(2);
    revoke(&server, "uploads:write");
    for connection in &mut connections {
        connection.write_all(b"56789").unwrap();
        assert_eq!(slug(&read_answer(connection, false).unwrap()), is(401, "unknown-key"));
    }
    server.kill();
    server.restart();
    let assets = |server: &Server| {
        let answer = asked(server, &server.key, "GET", "/v1/assets").send(b"");
        serde_json::from_slice::<Value>(&answer.body).unwrap()["items"].as_array().unwrap().len()
    };
    assert!(server.tus("HEAD", &joined).send(b"").header("reelyard-asset").is_none());
    assert_eq!(assets(&server), 0);
    assert!(server.tus("HEAD", &whole).send(b"").header("reelyard-asset").is_some());
    assert_eq!(server.offset(&piece), 10);
    assert!(server.tus("HEAD", &joined).send(b"").header("reelyard-asset").is_some());
    assert_eq!(assets(&server), 2);
}

#[test]
fn a_token_sends_to_no_upload_that_is_longer_than_it_allows() {
    let server = Server::start();
    let upload = server.create(10);
    let id = upload.trim_start_matches("/uploads/");
    let token = token_of_server(&server, &json!({ "upload": id, "max_length": 8 }));
    let refused = patch(&server, &token, &upload, 0).send(b"0123");
    assert_eq!(slug(&refused), is(403, "outside-upload-token"));
    let deferred = server.tus("POST", "/uploads").with("Upload-Defer-Length", "1");
    let deferred = location(&deferred.send(b""));
    let id = deferred.trim_start_matches("/uploads/");
    let token = token_of_server(&server, &json!({ "upload": id, "max_length": 8 }));
    assert_eq!(
        slug(&patch(&server, &token, &deferred, 0).send(b"123456789")),
        is(403, "outside-upload-token")
    );
    let told = patch(&server, &token, &deferred, 0).with("Upload-Length", "9").send(b"");
    assert_eq!(slug(&told), is(403, "outside-upload-token"));
    assert_eq!(patch(&server, &token, &deferred, 0).send_chunked(&[b"12345678", b"9"]).status, 413);
    assert_eq!(server.offset(&upload), 0);
}

#[test]
fn who_may_not_see_an_upload_is_not_told_in_which_dialect_it_was_made() {
    let server = Server::start();
    command(&server, &["tenants", "add", "acme"]);
    let theirs = make_key(&server, "admin", "acme");
    let ietf = asked(&server, &server.key, "POST", "/uploads").with("Upload-Draft-Interop-Version", "8");
    let ietf = location(&ietf.with("Upload-Complete", "?0").send(b"half"));
    let nothing = "/uploads/019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01";
    for method in ["HEAD", "GET", "DELETE"] {
        for bearer in ["reelyard_wrong", &theirs] {
            let told = |path: &str| asked(&server, bearer, method, path).send(b"").status;
            assert_eq!(told(&ietf), told(nothing), "{method} {bearer}");
        }
    }
    assert_eq!(asked(&server, &server.key, "HEAD", &ietf).send(b"").number("upload-offset"), 4);
}

#[test]
fn an_empty_list_of_types_makes_no_token() {
    let server = Server::start();
    let refused = asked(&server, &server.key, "POST", "/v1/upload-tokens")
        .with("Content-Type", "application/json")
        .send(br#"{ "types": [] }"#);
    assert_eq!((refused.status, &refused.problem()["parameter"]), (400, &json!("types")));
}

#[test]
fn a_tenant_without_a_limit_of_its_own_has_the_server_s_for_open_uploads() {
    let server = Server::start_with(&["--max-open-uploads-per-tenant", "2"]);
    let first = server.create(1);
    server.create(1);
    assert_eq!(slug(&create(&server, &server.key, 1)), is(429, "too-many-open-uploads"));
    assert_eq!(server.patch(&first, 0, b"x").status, 204);
    server.create(1);
    command(&server, &["tenants", "set-quota", "default", "--open-uploads", "3"]);
    server.create(1);
}
