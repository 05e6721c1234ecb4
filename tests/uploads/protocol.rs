//! tus 1.0.0, a test for each demand of its text (tus.io/protocols/resumable-upload).

use super::{
    server::Server,
    wire::{Request, read_answer, wait_until},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::io::{Read as _, Write as _};

fn sha1(bytes: &[u8]) -> String {
    format!("sha1 {}", STANDARD.encode(Sha1::digest(bytes)))
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256 {}", STANDARD.encode(Sha256::digest(bytes)))
}

fn with_body_type(request: Request) -> Request {
    request.with("Content-Type", "application/offset+octet-stream")
}

/// What is kept of uploads: for each a file of bytes and a journal.
fn left(server: &Server) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(server.data.join("uploads")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

// Core protocol

#[test]
fn head_tells_offset_and_length_and_is_not_cached() {
    let server = Server::start();
    let upload = server.create(10);
    assert_eq!(server.patch(&upload, 0, b"abc").status, 204);
    let answer = server.tus("HEAD", &upload).send(b"");
    assert_eq!(answer.status, 200);
    assert_eq!((answer.number("upload-offset"), answer.number("upload-length")), (3, 10));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("tus-resumable"), Some("1.0.0"));
    assert_eq!(answer.header("reelyard-asset"), None, "not done yet");
}

#[test]
fn head_of_an_unknown_upload_is_404_without_an_offset() {
    let server = Server::start();
    for path in
        ["/uploads/01a1f796-f79c-7406-9094-d9e8634960f4", "/uploads/nonsense", "/uploads/..%2fadmin.key"]
    {
        let answer = server.tus("HEAD", path).send(b"");
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("upload-offset"), None);
        assert_eq!(answer.header("tus-resumable"), Some("1.0.0"));
    }
}

#[test]
fn patch_answers_204_with_the_new_offset() {
    let server = Server::start();
    let upload = server.create(10);
    let answer = server.patch(&upload, 0, b"abcd");
    assert_eq!((answer.status, answer.number("upload-offset")), (204, 4));
    assert_eq!(answer.header("tus-resumable"), Some("1.0.0"));
    let answer = server.patch_request(&upload, 4).send_chunked(&[b"ef", b"g"]);
    assert_eq!((answer.status, answer.number("upload-offset")), (204, 7), "a body of untold length");
}

#[test]
fn a_client_that_asks_first_is_told_to_continue() {
    let server = Server::start();
    let upload = server.create(5);
    let mut connection = server.patch_request(&upload, 0).with("Expect", "100-continue").begin(Some(5));
    let mut told = [0; 12];
    connection.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 100");
    connection.read_exact(&mut [0; 13]).unwrap();
    connection.write_all(b"abcde").unwrap();
    assert_eq!(read_answer(&mut connection, false).unwrap().status, 204);
}

#[test]
fn patch_of_another_body_type_is_415() {
    let server = Server::start();
    let upload = server.create(10);
    let answer = server
        .tus("PATCH", &upload)
        .with("Upload-Offset", "0")
        .with("Content-Type", "video/mp4")
        .send(b"abc");
    assert_eq!(answer.status, 415);
    assert!(answer.detail().contains("application/offset+octet-stream"));
    assert_eq!(server.offset(&upload), 0);
}

#[test]
fn patch_at_another_offset_is_409_and_changes_nothing() {
    let server = Server::start();
    let upload = server.create(10);
    server.patch(&upload, 0, b"abc");
    for offset in [0, 2, 4, 11] {
        let answer = server.patch(&upload, offset, b"x");
        assert_eq!((answer.status, answer.number("upload-offset")), (409, 3));
        assert_eq!(answer.problem()["offset"], 3);
        // Whatever else is wrong with it.
        let answer =
            server.patch_request(&upload, offset).with("Upload-Checksum", &sha1(b"other")).send(b"x");
        assert_eq!(answer.status, 409);
        assert_eq!(server.patch_request(&upload, offset).with("Upload-Length", "9").send(b"x").status, 409);
    }
    assert_eq!(server.offset(&upload), 3);
    assert_eq!(server.tus("HEAD", &upload).send(b"").number("upload-length"), 10);
}

#[test]
fn patch_without_an_offset_or_with_a_senseless_one_is_400() {
    let server = Server::start();
    let upload = server.create(10);
    assert_eq!(with_body_type(server.tus("PATCH", &upload)).send(b"x").status, 400);
    for offset in ["-1", "+0", "one", "", "99999999999999999999"] {
        let answer = with_body_type(server.tus("PATCH", &upload)).with("Upload-Offset", offset).send(b"x");
        assert_eq!(answer.status, 400, "{offset:?}");
        assert!(answer.detail().contains("upload-offset"), "{}", answer.detail());
    }
}

#[test]
fn patch_of_an_unknown_upload_is_404() {
    let server = Server::start();
    let answer = server.patch("/uploads/01a1f796-f79c-7406-9094-d9e8634960f4", 0, b"x");
    assert_eq!((answer.status, answer.header("upload-offset")), (404, None));
    assert_eq!(server.tus("DELETE", "/uploads/01a1f796-f79c-7406-9094-d9e8634960f4").send(b"").status, 404);
}

#[test]
fn patch_beyond_the_length_is_413_and_loses_nothing() {
    let server = Server::start();
    let upload = server.create(5);
    server.patch(&upload, 0, b"abc");
    assert_eq!(server.patch(&upload, 3, b"def").status, 413);
    assert_eq!(server.patch_request(&upload, 3).send_chunked(&[b"de", b"f"]).status, 413);
    assert_eq!(server.offset(&upload), 3);
    assert_eq!(server.patch(&upload, 3, b"de").status, 204);
}

#[test]
fn a_request_of_another_version_is_412_and_not_processed() {
    let server = Server::start();
    let upload = server.create(5);
    for version in [Some("0.2.2"), Some("1.0.1"), None] {
        for (method, path) in
            [("POST", "/uploads"), ("HEAD", &upload), ("PATCH", &upload), ("DELETE", &upload)]
        {
            let mut request =
                server.bare(method, path).with("Authorization", &format!("Bearer {}", server.key));
            request = with_body_type(request).with("Upload-Offset", "0").with("Upload-Length", "5");
            if let Some(version) = version {
                request = request.with("Tus-Resumable", version);
            }
            let answer = request.send(if method == "HEAD" { b"" } else { b"abc" });
            assert_eq!(answer.status, 412, "{method} {version:?}");
            assert_eq!(answer.header("tus-version"), Some("1.0.0"));
        }
    }
    assert_eq!(server.offset(&upload), 0);
    assert_eq!(left(&server).len(), 2, "no other upload was made");
}

#[test]
fn options_needs_neither_version_nor_key_and_tells_what_there_is() {
    let server = Server::start_with(&["--max-upload-bytes", "1000"]);
    for path in ["/uploads", "/uploads/", "/uploads/01a1f796-f79c-7406-9094-d9e8634960f4"] {
        let answer = server.bare("OPTIONS", path).send(b"");
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("tus-version"), Some("1.0.0"));
        assert_eq!(answer.header("tus-resumable"), Some("1.0.0"));
        assert_eq!(answer.header("tus-extension"), Some(reelyard_upload::tus::EXTENSIONS));
        assert_eq!(answer.header("tus-checksum-algorithm"), Some("sha1,sha256,md5,crc32,crc32c"));
        assert_eq!(answer.number("tus-max-size"), 1000);
    }
}

#[test]
fn the_method_override_counts_as_the_method() {
    let server = Server::start();
    let upload = server.create(3);
    let answer = with_body_type(server.tus("POST", &upload))
        .with("X-HTTP-Method-Override", "PATCH")
        .with("Upload-Offset", "0")
        .send(b"ab");
    assert_eq!((answer.status, answer.number("upload-offset")), (204, 2));
    let answer = server.patch_request(&upload, 2).with("X-HTTP-Method-Override", "HEAD").send(b"c");
    assert_eq!(
        (answer.status, answer.number("upload-offset")),
        (200, 2),
        "the line's method counts for nothing"
    );
    assert_eq!(
        server.patch_request(&upload, 2).with("X-HTTP-Method-Override", "BREW").send(b"c").status,
        400
    );
    assert_eq!(server.offset(&upload), 2);
    let created =
        server.tus("PUT", "/uploads").with("X-HTTP-Method-Override", "POST").with("Upload-Length", "3");
    assert_eq!(created.send(b"").status, 201);
    assert_eq!(server.tus("POST", &upload).with("X-HTTP-Method-Override", "DELETE").send(b"").status, 204);
    assert_eq!(server.tus("HEAD", &upload).send(b"").status, 410);
}

#[test]
fn a_trailing_slash_makes_no_difference() {
    let server = Server::start();
    let answer = server.tus("POST", "/uploads/").with("Upload-Length", "3").send(b"");
    assert_eq!(answer.status, 201);
    let upload = format!("{}/", answer.header("location").unwrap());
    assert_eq!(server.patch(&upload, 0, b"ab").status, 204);
    assert_eq!(server.offset(&upload), 2);
    assert_eq!(server.tus("DELETE", &upload).send(b"").status, 204);
}

#[test]
fn nothing_is_done_without_a_key() {
    let server = Server::start();
    let upload = server.create(3);
    for (method, path) in
        [("POST", "/uploads"), ("HEAD", &upload), ("PATCH", &upload), ("DELETE", &upload), ("GET", &upload)]
    {
        let request = with_body_type(server.bare(method, path)).with("Tus-Resumable", "1.0.0");
        let answer = request.with("Upload-Length", "3").with("Upload-Offset", "0").send(b"");
        assert_eq!(answer.status, 401, "{method}");
    }
    assert_eq!(server.offset(&upload), 0);
}

#[test]
fn other_methods_are_405_with_allow() {
    let server = Server::start();
    let upload = server.create(3);
    for (method, path, allow) in [("GET", "/uploads", "POST"), ("PUT", &upload, "PATCH")] {
        let answer = server.tus(method, path).send(b"");
        assert_eq!(answer.status, 405);
        assert!(answer.header("allow").unwrap().contains(allow));
    }
}

// Creation

#[test]
fn creation_answers_201_with_the_address_and_head_gives_the_metadata_back() {
    let server = Server::start();
    let metadata = "filename aG9saWRheS5tcDQ=,is_confidential,title SG9saWRheQ==";
    let answer =
        server.tus("POST", "/uploads").with("Upload-Length", "3").with("Upload-Metadata", metadata).send(b"");
    assert_eq!(answer.status, 201);
    let upload = answer.header("location").unwrap();
    assert_eq!(server.tus("HEAD", upload).send(b"").header("upload-metadata"), Some(metadata));
}

#[test]
fn creation_without_a_length_or_with_a_senseless_one_is_400() {
    let server = Server::start();
    assert_eq!(server.tus("POST", "/uploads").send(b"").status, 400);
    for length in ["-1", "many", "1.5"] {
        assert_eq!(
            server.tus("POST", "/uploads").with("Upload-Length", length).send(b"").status,
            400,
            "{length}"
        );
    }
    let deferred = server.tus("POST", "/uploads").with("Upload-Defer-Length", "2").send(b"");
    assert!(deferred.detail().contains("Upload-Defer-Length: 1"), "{deferred:?}");
}

#[test]
fn creation_beyond_the_largest_size_is_413() {
    let server = Server::start_with(&["--max-upload-bytes", "1000"]);
    let answer = server.tus("POST", "/uploads").with("Upload-Length", "1001").send(b"");
    assert_eq!(answer.status, 413);
    assert_eq!(answer.problem()["max_bytes"], 1000);
    server.create(1000);
}

#[test]
fn creation_with_bad_metadata_or_an_unknown_preset_is_400_and_says_why() {
    let server = Server::start();
    for (metadata, says) in [
        ("filename !!!", "filename"),
        ("filename YQ==!", "filename"),
        ("a YQ==,a YQ==", "twice"),
        ("a,a", "twice"),
        ("two words YQ==", "more than one value"),
        ("a YQ==,,b", "pair 2 has no key"),
        (",", "pair 1 has no key"),
        ("a YQ==,", "pair 2 has no key"),
        ("preset bm9uZQ==", "web-h264"),
    ] {
        let answer = server
            .tus("POST", "/uploads")
            .with("Upload-Length", "3")
            .with("Upload-Metadata", metadata)
            .send(b"");
        assert_eq!(answer.status, 400, "{metadata}");
        assert!(answer.detail().contains(says), "{}", answer.detail());
    }
    assert!(left(&server).is_empty(), "nothing was made");
}

#[test]
fn the_title_and_the_name_of_the_file_reach_the_asset() {
    let server = Server::start();
    for (metadata, title) in [
        ("filename aG9saWRheS5tcDQ=", "holiday"),
        ("filename aG9saWRheS5tcDQ=,title UsO8Z2VuIDIwMjY=", "R\u{fc}gen 2026"),
        ("preset d2ViLWgyNjQ=", "Untitled"),
    ] {
        let answer = server
            .tus("POST", "/uploads")
            .with("Upload-Length", "0")
            .with("Upload-Metadata", metadata)
            .send(b"");
        let address = format!("/v1/assets/{}", answer.header("reelyard-asset").unwrap());
        let asset =
            server.bare("GET", &address).with("Authorization", &format!("Bearer {}", server.key)).send(b"");
        let asset: serde_json::Value = serde_json::from_slice(&asset.body).unwrap();
        assert_eq!((&asset["title"], &asset["preset"]), (&title.into(), &"web-h264".into()));
    }
}

#[test]
fn an_empty_upload_is_done_at_once() {
    let server = Server::start();
    let answer = server.tus("POST", "/uploads").with("Upload-Length", "0").send(b"");
    assert_eq!(answer.status, 201);
    let asset = answer.header("reelyard-asset").expect("the asset exists before the answer").to_owned();
    let head = server.tus("HEAD", answer.header("location").unwrap()).send(b"");
    assert_eq!((head.number("upload-offset"), head.number("upload-length")), (0, 0));
    assert_eq!(head.header("reelyard-asset"), Some(asset.as_str()));
}

// Creation with upload

#[test]
fn creation_with_upload_tells_what_it_kept() {
    let server = Server::start();
    let request = with_body_type(server.tus("POST", "/uploads")).with("Upload-Length", "5");
    let answer = request.clone().send(b"abc");
    assert_eq!((answer.status, answer.number("upload-offset")), (201, 3));
    assert_eq!(server.offset(answer.header("location").unwrap()), 3);
    let answer = request.send(b"abcde");
    assert_eq!((answer.status, answer.number("upload-offset")), (201, 5));
    assert!(answer.header("reelyard-asset").is_some());
}

#[test]
fn creation_with_upload_of_another_body_type_is_415() {
    let server = Server::start();
    assert_eq!(server.tus("POST", "/uploads").with("Upload-Length", "5").send(b"abc").status, 415);
}

#[test]
fn creation_with_upload_with_a_wrong_checksum_is_460() {
    let server = Server::start();
    let request = with_body_type(server.tus("POST", "/uploads")).with("Upload-Length", "5");
    assert_eq!(request.clone().with("Upload-Checksum", &sha1(b"abd")).send(b"abc").status, 460);
    assert!(left(&server).is_empty(), "nobody knows its address, so nothing is kept");
    assert_eq!(request.with("Upload-Checksum", &sha1(b"abc")).send(b"abc").status, 201);
}

/// Nobody was told its address, so nobody could go on with it; its sender makes another one.
#[test]
fn a_beginning_whose_sender_goes_away_leaves_nothing_behind() {
    let server = Server::start();
    let whole = vec![7; 1 << 20];
    let mut connection = with_body_type(server.tus("POST", "/uploads"))
        .with("Upload-Length", &whole.len().to_string())
        .begin(Some(whole.len()));
    std::io::Write::write_all(&mut connection, &whole[..whole.len() / 2]).unwrap();
    wait_until("it is begun", || left(&server).len() == 2);
    drop(connection);
    wait_until("it is removed", || left(&server).is_empty());
}

// Checksum

#[test]
fn a_chunk_counts_when_its_checksum_fits() {
    let server = Server::start();
    let upload = server.create(6);
    assert_eq!(
        server.patch_request(&upload, 0).with("Upload-Checksum", &sha1(b"abc")).send(b"abc").status,
        204
    );
    assert_eq!(
        server.patch_request(&upload, 3).with("Upload-Checksum", &sha256(b"def")).send(b"def").status,
        204
    );
}

#[test]
fn a_chunk_with_a_wrong_checksum_is_460_and_not_a_byte_of_it_counts() {
    let server = Server::start();
    let upload = server.create(6 << 20);
    let body = vec![7; 3 << 20];
    for checksum in [sha1(b"other"), sha256(b"other")] {
        let answer = server.patch_request(&upload, 0).with("Upload-Checksum", &checksum).send(&body);
        assert_eq!((answer.status, answer.number("upload-offset")), (460, 0));
        assert_eq!(server.offset(&upload), 0);
    }
    assert_eq!(
        server.patch_request(&upload, 0).with("Upload-Checksum", &sha1(&body)).send(&body).status,
        204
    );
}

#[test]
fn a_checksum_of_an_algorithm_that_is_not_offered_is_400() {
    let server = Server::start();
    let upload = server.create(6);
    for checksum in ["sha512 kAFQmDzST7DWlj99KOF/cg==", "sha1", "sha1 !!!", "sha1 YWJj"] {
        let answer = server.patch_request(&upload, 0).with("Upload-Checksum", checksum).send(b"abc");
        assert_eq!(answer.status, 400, "{checksum}");
    }
    assert_eq!(server.offset(&upload), 0);
}

// Termination

#[test]
fn a_terminated_upload_is_gone() {
    let server = Server::start();
    let upload = server.create(6);
    server.patch(&upload, 0, b"abc");
    assert_eq!(server.tus("DELETE", &upload).send(b"").status, 204);
    assert_eq!(server.tus("HEAD", &upload).send(b"").status, 410);
    assert_eq!(server.patch(&upload, 3, b"def").status, 410);
    assert_eq!(server.tus("DELETE", &upload).send(b"").status, 410);
    assert!(left(&server).is_empty(), "its bytes are freed");
}

// The end

#[test]
fn the_last_chunk_is_answered_with_the_asset_and_asking_again_gives_the_same() {
    let server = Server::start();
    let upload = server.create(6);
    server.patch(&upload, 0, b"abc");
    let answer = server.patch(&upload, 3, b"def");
    assert_eq!(answer.status, 204);
    let asset = answer.header("reelyard-asset").unwrap().to_owned();
    let head = server.tus("HEAD", &upload).send(b"");
    assert_eq!((head.number("upload-offset"), head.header("reelyard-asset")), (6, Some(asset.as_str())));
    assert_eq!(
        head.header("repr-digest"),
        Some(format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(b"abcdef"))).as_str())
    );
    let again = server.patch(&upload, 6, b"");
    assert_eq!((again.status, again.header("reelyard-asset")), (204, Some(asset.as_str())));
    assert_eq!(server.patch(&upload, 3, b"def").status, 409);
    assert_eq!(server.patch(&upload, 6, b"x").status, 413);
    let stored = std::fs::read(server.data.join("sources").join(&asset)).unwrap();
    assert_eq!(stored, b"abcdef");
}

#[test]
fn a_finished_upload_can_be_read_in_ranges_by_its_owner() {
    let server = Server::start();
    let upload = server.create(6);
    let key = format!("Bearer {}", server.key);
    let get = |range: Option<&str>| {
        let request = server.bare("GET", &upload).with("Authorization", &key);
        match range {
            Some(range) => request.with("Range", range).send(b""),
            None => request.send(b""),
        }
    };
    assert_eq!(get(None).status, 409, "not complete yet");
    server.patch(&upload, 0, b"abcdef");
    let whole = get(None);
    assert_eq!((whole.status, whole.body.as_slice()), (200, b"abcdef".as_slice()));
    assert_eq!(whole.header("content-disposition"), Some("attachment"));
    let part = get(Some("bytes=2-3"));
    assert_eq!((part.status, part.body.as_slice()), (206, b"cd".as_slice()));
    assert_eq!(part.header("content-range"), Some("bytes 2-3/6"));
    assert_eq!(get(Some("bytes=6-")).status, 416);
}

// Browsers

#[test]
fn a_page_of_another_origin_may_do_all_of_it() {
    let server = Server::start();
    let preflight = server
        .bare("OPTIONS", "/uploads")
        .with("Origin", "https://app.example")
        .with("Access-Control-Request-Method", "POST")
        .with("Access-Control-Request-Headers", "authorization,tus-resumable,upload-length")
        .send(b"");
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    for method in ["POST", "HEAD", "PATCH", "DELETE", "GET", "OPTIONS"] {
        assert!(preflight.header("access-control-allow-methods").unwrap().contains(method), "{method}");
    }
    for name in [
        "authorization",
        "content-type",
        "tus-resumable",
        "upload-offset",
        "upload-length",
        "upload-metadata",
        "upload-checksum",
        "x-http-method-override",
        "x-requested-with",
        "x-request-id",
    ] {
        assert!(preflight.header("access-control-allow-headers").unwrap().contains(name), "{name}");
    }
    let refused = server.bare("POST", "/uploads").with("Origin", "https://app.example").send(b"");
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"), "errors must be readable too");
    let created = server
        .tus("POST", "/uploads")
        .with("Origin", "https://app.example")
        .with("Upload-Length", "3")
        .send(b"");
    for name in ["location", "upload-offset", "upload-length", "tus-resumable", "reelyard-asset"] {
        assert!(created.header("access-control-expose-headers").unwrap().contains(name), "{name}");
    }
}
