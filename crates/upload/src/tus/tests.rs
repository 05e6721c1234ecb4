//! The dialect by example: a table for each header, what the published clients send, round trips, and headers that
//! nobody meant.

use super::{
    Append, BODY_TYPE, CHECKSUM_ALGORITHMS, Concat, Creation, EXTENSIONS, HeadAnswer, MAX_CONCAT_BYTES,
    MAX_PARTIALS, OFFERED_ALGORITHMS, TusError, check_version, final_length, format_checksum, format_concat,
    format_expires, method_override, trailing_checksum,
};
use crate::{
    Algorithm, BodyEnd, Check, Checksum, Refusal, Settled, Transfer,
    fields::{Field, Fields},
    testing::{Sent, sent},
};
use proptest::prelude::{any, prop, proptest};

/// A creation of at most 100 bytes.
fn creation(headers: &[(&str, &str)]) -> Result<Creation, TusError> {
    Creation::read(&sent(headers), 100)
}

/// An append at byte 0 with these headers added.
fn append(headers: &[(&str, &str)]) -> Result<Append, TusError> {
    Append::read(&sent(&[&[BODY, ("upload-offset", "0")], headers].concat()))
}

/// Bytes outside visible ASCII in one header.
struct Unreadable(&'static str);

impl Fields for Unreadable {
    fn field(&self, name: &str) -> Field<'_> {
        match name {
            "content-type" => Field::Text(BODY_TYPE),
            "upload-offset" | "upload-length" if name != self.0 => Field::Text("0"),
            name if name == self.0 => Field::NotText,
            _ => Field::Absent,
        }
    }
}

fn refused<T: std::fmt::Debug>(read: Result<T, TusError>, status: u16, names: &str) {
    let error = read.expect_err(names);
    assert_eq!(error.status(), status, "{error}");
    assert!(error.to_string().contains(names), "{names:?} is not in: {error}");
}

const BODY: (&str, &str) = ("content-type", BODY_TYPE);
const A: &str = "01a1f796-f79c-7406-9094-d9e8634960f4";
const B: &str = "01a1f796-f79c-7406-9094-d9e8634960f5";

// Tus-Resumable

#[test]
fn only_version_1_0_0_is_spoken() {
    assert_eq!(check_version(&sent(&[("tus-resumable", "1.0.0")])), Ok(()));
    for other in [
        &[("tus-resumable", "0.2.2")] as &[_],
        &[("tus-resumable", "1.0.1")],
        &[("tus-resumable", "")],
        &[("tus-resumable", "1.0.0"), ("tus-resumable", "1.0.0")],
        &[],
    ] {
        refused(check_version(&sent(other)), 412, "Tus-Resumable: 1.0.0");
    }
}

// Tus-Extension and Tus-Checksum-Algorithm

#[test]
fn the_extensions_are_those_of_the_text_and_each_comes_with_what_it_depends_on() {
    let extensions: Vec<&str> = EXTENSIONS.split(',').collect();
    assert_eq!(
        extensions,
        [
            "creation",
            "creation-with-upload",
            "creation-defer-length",
            "expiration",
            "checksum",
            "checksum-trailer",
            "termination",
            "concatenation",
            "concatenation-unfinished",
        ]
    );
}

#[test]
fn the_algorithms_are_offered_by_their_lower_case_names_and_sha1_is_among_them() {
    let names: Vec<&str> = OFFERED_ALGORITHMS.into_iter().map(Algorithm::as_str).collect();
    assert_eq!(names.join(","), CHECKSUM_ALGORITHMS);
    assert!(names.contains(&"sha1"));
    assert!(!CHECKSUM_ALGORITHMS.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()));
}

// X-HTTP-Method-Override

#[test]
fn the_method_override_names_a_method() {
    for (text, method) in [("PATCH", "PATCH"), ("patch", "PATCH"), ("Delete", "DELETE"), ("HEAD", "HEAD")] {
        assert_eq!(method_override(&sent(&[("x-http-method-override", text)])), Ok(Some(method)));
    }
    assert_eq!(method_override(&sent(&[])), Ok(None));
    for text in ["BREW", "", "PATCH, DELETE"] {
        refused(method_override(&sent(&[("x-http-method-override", text)])), 400, "one of POST, HEAD, PATCH");
    }
}

// Upload-Offset

#[test]
fn an_offset_is_digits_and_nothing_else() {
    for (text, offset) in [("0", 0), ("70", 70), ("007", 7), ("9223372036854775807", i64::MAX as u64)] {
        let read = Append::read(&sent(&[BODY, ("upload-offset", text)])).unwrap();
        assert_eq!(read.chunk.offset, offset);
    }
    for text in ["+1", "-1", "0x1", "", "1.5", "1,1", "one", "9223372036854775808"] {
        refused(Append::read(&sent(&[BODY, ("upload-offset", text)])), 400, "upload-offset");
    }
    refused(Append::read(&sent(&[BODY])), 400, "the header upload-offset is missing");
    refused(append(&[("upload-offset", "2")]), 400, "more than once");
    refused(Append::read(&Unreadable("upload-offset")), 400, "not plain ASCII");
}

// Content-Type and Content-Length

#[test]
fn bytes_come_with_the_one_body_type_or_get_415() {
    for text in ["application/offset+octet-stream", "Application/Offset+Octet-Stream; charset=x"] {
        assert!(Append::read(&sent(&[("content-type", text), ("upload-offset", "0")])).is_ok());
    }
    for headers in
        [&[("upload-offset", "0")] as &[_], &[("content-type", "video/mp4"), ("upload-offset", "0")]]
    {
        refused(Append::read(&sent(headers)), 415, BODY_TYPE);
    }
}

#[test]
fn a_creation_has_a_first_chunk_when_it_has_a_body() {
    let length = ("upload-length", "10");
    let chunk = creation(&[length, ("content-length", "4"), BODY]).unwrap().first_chunk.unwrap();
    assert_eq!((chunk.offset, chunk.body_len), (0, Some(4)));
    let chunk = creation(&[length, ("transfer-encoding", "chunked"), BODY]).unwrap().first_chunk.unwrap();
    assert_eq!((chunk.offset, chunk.body_len), (0, None));
    assert_eq!(creation(&[length]).unwrap().first_chunk, None);
    assert_eq!(creation(&[length, ("content-length", "0"), BODY]).unwrap().first_chunk, None);
    refused(creation(&[length, ("content-length", "4")]), 415, "missing");
    refused(creation(&[length, ("content-length", "four"), BODY]), 400, "content-length");
}

// Upload-Length and Upload-Defer-Length

#[test]
fn a_creation_tells_a_length_that_fits_or_says_that_it_will() {
    for (headers, length) in [
        (&[("upload-length", "100")] as &[_], Some(100)),
        (&[("upload-length", "0")], Some(0)),
        (&[("upload-defer-length", "1")], None),
    ] {
        assert_eq!(creation(headers).unwrap().length, length);
    }
    refused(creation(&[]), 400, "Upload-Defer-Length: 1");
    refused(creation(&[("upload-length", "1"), ("upload-defer-length", "1")]), 400, "has both");
    refused(creation(&[("upload-length", "101")]), 413, "at most 100 bytes");
    for text in ["-1", "+1", "many", "1.5", ""] {
        refused(creation(&[("upload-length", text)]), 400, "upload-length");
    }
    for text in ["0", "2", "true", "", "11"] {
        refused(creation(&[("upload-defer-length", text)]), 400, "send Upload-Defer-Length: 1");
    }
    refused(Creation::read(&Unreadable("upload-length"), 100), 400, "not plain ASCII");
}

#[test]
fn an_append_may_tell_the_length_that_was_not_known_before() {
    assert_eq!(append(&[]).unwrap().length, None);
    assert_eq!(append(&[("upload-length", "7")]).unwrap().length, Some(7));
    let last = append(&[("upload-length", "7"), ("content-length", "0")]).unwrap();
    assert_eq!((last.length, last.chunk.body_len), (Some(7), Some(0)), "tuspy ends so");
    refused(append(&[("upload-length", "seven")]), 400, "upload-length");
}

#[test]
fn a_deferred_length_can_be_told_once_and_not_changed() {
    let mut transfer = Transfer::new(creation(&[("upload-defer-length", "1")]).unwrap().length, 100);
    transfer.declare_length(append(&[("upload-length", "7")]).unwrap().length.unwrap()).unwrap();
    let again = append(&[("upload-length", "8")]).unwrap().length.unwrap();
    let error = TusError::from(transfer.declare_length(again).unwrap_err());
    assert_eq!((error.status(), transfer.length()), (400, Some(7)));
}

// Upload-Metadata

#[test]
fn metadata_is_kept_as_it_came_and_may_be_absent_or_empty() {
    let text = "filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential";
    let metadata = creation(&[("upload-length", "1"), ("upload-metadata", text)]).unwrap().metadata;
    assert_eq!(metadata.header(), text);
    assert_eq!(metadata.text("filename"), Some("world_domination_plan.pdf"));
    assert_eq!(metadata.pairs()[1], ("is_confidential".to_owned(), Vec::new()));
    for absent in [&[("upload-length", "1")] as &[_], &[("upload-length", "1"), ("upload-metadata", "")]] {
        assert_eq!(creation(absent).unwrap().metadata.header(), "");
    }
    let twice = [("upload-length", "1"), ("upload-metadata", "a YQ=="), ("upload-metadata", "b")];
    refused(creation(&twice), 400, "more than once");
    refused(Creation::read(&Unreadable("upload-metadata"), 100), 400, "not plain ASCII");
}

// Upload-Checksum, as a header

#[test]
fn a_checksum_names_an_offered_algorithm_and_a_digest_of_its_length() {
    let hello = append(&[("upload-checksum", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=")]).unwrap();
    assert_eq!(hello.chunk.check, Check::Announced(Checksum::of(Algorithm::Sha1, b"hello world")));
    let crc = append(&[("upload-checksum", "crc32 y/Q5Jg==")]).unwrap();
    assert_eq!(crc.chunk.check, Check::Announced(Checksum::of(Algorithm::Crc32, b"123456789")));
    for (text, names) in [
        ("sha512 abc", "not offered; use one of sha1,sha256,md5,crc32,crc32c"),
        ("whirlpool abc", "not offered"),
        ("sha1", "no digest"),
        ("", "no digest"),
        ("sha1 ???", "not base64"),
        ("sha1 YWJj", "3 bytes where 20"),
        ("md5 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "20 bytes where 16"),
    ] {
        refused(append(&[("upload-checksum", text)]), 400, names);
    }
    refused(append(&[("upload-checksum", "sha1 a"), ("upload-checksum", "md5 b")]), 400, "more than once");
}

// Upload-Checksum, as a trailer

#[test]
fn a_checksum_behind_the_body_is_announced_by_name() {
    for names in ["Upload-Checksum", "upload-checksum", "Server-Timing, Upload-Checksum ,X"] {
        assert_eq!(append(&[("trailer", names)]).unwrap().chunk.check, Check::Trailing, "{names}");
        let headers = [("upload-length", "9"), ("transfer-encoding", "chunked"), BODY, ("trailer", names)];
        assert_eq!(creation(&headers).unwrap().first_chunk.unwrap().check, Check::Trailing);
    }
    for names in ["", "Server-Timing", "X-Upload-Checksum"] {
        assert_eq!(append(&[("trailer", names)]).unwrap().chunk.check, Check::None, "{names}");
    }
    let checksum = format_checksum(&Checksum::of(Algorithm::Md5, b"abc"));
    let both = [("trailer", "Upload-Checksum"), ("upload-checksum", checksum.as_str())];
    refused(append(&both), 400, "not as both");
    refused(append(&[("trailer", "Upload-Checksum"), ("trailer", "X")]), 400, "in one header");
}

#[test]
fn a_checksum_behind_the_body_is_read_from_the_trailer() {
    let checksum = Checksum::of(Algorithm::Crc32c, b"abc");
    let text = format_checksum(&checksum);
    let trailer = sent(&[("upload-checksum", &text)]);
    assert_eq!(trailing_checksum(&Check::Trailing, &trailer), Ok(Some(checksum.clone())));
    for check in [Check::None, Check::Trailing, Check::Announced(checksum.clone())] {
        assert_eq!(trailing_checksum(&check, &sent(&[])), Ok(None));
    }
    refused(trailing_checksum(&Check::Announced(checksum), &trailer), 400, "not as both");
    refused(trailing_checksum(&Check::None, &trailer), 400, "Trailer: Upload-Checksum");
    for (text, names) in [("sha512 abc", "not offered"), ("sha1", "no digest"), ("sha1 ?", "not base64")] {
        refused(trailing_checksum(&Check::Trailing, &sent(&[("upload-checksum", text)])), 400, names);
    }
}

#[test]
fn bytes_wait_for_the_checksum_behind_them() {
    let asked = append(&[("trailer", "Upload-Checksum")]).unwrap().chunk;
    for (said, status) in [(Some(b"abc"), None), (Some(b"abd"), Some(460)), (None, Some(400))] {
        let mut chunk = Transfer::new(Some(3), 100).begin_chunk(&asked).unwrap();
        chunk.take(b"abc").unwrap();
        assert!(chunk.checkpoint().is_none());
        let text = said.map(|bytes| format_checksum(&Checksum::of(Algorithm::Sha256, bytes)));
        let trailers = sent(text.as_deref().map(|text| ("upload-checksum", text)).as_slice());
        let end = trailing_checksum(&asked.check, &trailers).unwrap();
        let settled = chunk.settle(end.map_or(BodyEnd::Complete, BodyEnd::CompleteWith));
        assert_eq!(settled.as_ref().err().map(|refusal| TusError::from(refusal.clone()).status()), status);
        assert_eq!(matches!(settled, Ok(Settled::Advance(_))), status.is_none());
    }
}

// Upload-Concat

#[test]
fn a_partial_upload_is_created_like_any_other() {
    for headers in [
        &[("upload-concat", "partial"), ("upload-length", "5")] as &[_],
        &[("upload-concat", "partial"), ("upload-defer-length", "1")],
        &[("upload-concat", "partial"), ("upload-length", "5"), ("content-length", "5"), BODY],
    ] {
        let read = creation(headers).unwrap();
        assert_eq!(read.concat, Concat::Partial);
        assert_eq!(read.concat.check_takes_bytes(), Ok(()));
    }
    refused(creation(&[("upload-concat", "partial")]), 400, "Upload-Length");
    refused(creation(&[("upload-concat", "partial"), ("upload-length", "101")]), 413, "at most 100");
    assert!(append(&[("upload-concat", "partial")]).is_ok(), "tus-js-client says so with every chunk");
}

#[test]
fn a_final_upload_names_its_partial_uploads_in_order_by_any_form_of_address() {
    let text = format!("final;/uploads/{A} https://example.org/v/uploads/{B}/?token=x#y");
    let read = creation(&[("upload-concat", &text), ("upload-metadata", "filename YQ==")]).unwrap();
    let Concat::Final(partials) = &read.concat else { panic!("{:?}", read.concat) };
    assert_eq!(partials[0].id(), A.parse().unwrap());
    assert_eq!(partials[0].url(), format!("/uploads/{A}"));
    assert_eq!(partials[1].id(), B.parse().unwrap());
    assert_eq!((read.length, read.first_chunk), (None, None));
    assert_eq!(read.metadata.text("filename"), Some("a"));
    assert_eq!(format_concat(&read.concat), Some(text));
    let one = format!("final;{A}");
    assert!(matches!(Concat::parse(&one), Ok(Concat::Final(partials)) if partials.len() == 1));
}

#[test]
fn a_final_upload_has_neither_a_length_nor_a_body() {
    let text = format!("final;/uploads/{A} /uploads/{B}");
    let concat = ("upload-concat", text.as_str());
    for length in [("upload-length", "11"), ("upload-defer-length", "1")] {
        refused(creation(&[concat, length]), 400, "without Upload-Length");
    }
    for body in [("content-length", "1"), ("transfer-encoding", "chunked")] {
        refused(creation(&[concat, body, BODY]), 403, "takes none itself");
    }
    assert!(creation(&[concat, ("content-length", "0")]).is_ok());
    let read = creation(&[concat]).unwrap();
    refused(read.concat.check_takes_bytes(), 403, "partial upload");
}

#[test]
fn what_is_wrong_with_a_list_of_partial_uploads_is_named() {
    let many = |count: u128| {
        let urls = (0..count).map(|n| format!("/{}", uuid_text(n)));
        format!("final;{}", urls.collect::<Vec<_>>().join(" "))
    };
    for (text, names) in [
        ("final".to_owned(), "neither partial nor final"),
        ("Partial".to_owned(), "neither partial nor final"),
        (String::new(), "neither partial nor final"),
        ("final;".to_owned(), "address in the list is empty"),
        (format!("final;/u/{A}  /u/{B}"), "address in the list is empty"),
        ("final;/uploads/abc".to_owned(), "/uploads/abc is not the address of an upload"),
        ("final;https://example.org/".to_owned(), "is not the address of an upload"),
        (format!("final;/u/{A}//"), "is not the address of an upload"),
        (format!("final;/u/{A},/u/{B}"), "has a comma"),
        (format!("final;/u/{A};/u/{B}"), "has a comma or a semicolon"),
        (format!("final;/u/{A}\t/u/{B}"), "is not plain ASCII"),
        (many(MAX_PARTIALS as u128 + 1), "129 partial uploads; name at most 128"),
        (format!("final;/{}/{A}", "u".repeat(MAX_CONCAT_BYTES)), "more than 8192"),
    ] {
        refused(creation(&[("upload-concat", &text)]), 400, names);
    }
    assert!(creation(&[("upload-concat", &many(MAX_PARTIALS as u128))]).is_ok());
    refused(creation(&[("upload-concat", "partial"), ("upload-concat", "partial")]), 400, "more than once");
    let Ok(Concat::Final(partials)) = Concat::parse(&format!("final;/u/{A}")) else { panic!() };
    refused::<()>(Err(partials[0].unknown()), 400, A);
    refused::<()>(Err(partials[0].not_partial()), 400, "Upload-Concat: partial");
}

#[test]
fn a_partial_upload_may_be_named_twice() {
    let Ok(Concat::Final(partials)) = Concat::parse(&format!("final;/u/{A} /v/{A}/")) else { panic!() };
    assert_eq!(partials[0].id(), partials[1].id());
}

#[test]
fn a_final_upload_is_as_long_as_its_partial_uploads_together() {
    for (lengths, sum) in [
        (&[Some(5_u64), Some(6)] as &[_], Some(11)),
        (&[Some(0)], Some(0)),
        (&[Some(5), None], None),
        (&[Some(50), Some(50)], Some(100)),
    ] {
        assert_eq!(final_length(lengths.iter().copied(), 100), Ok(sum));
    }
    for lengths in [[Some(50), Some(51)], [None, Some(101)], [Some(u64::MAX), Some(1)]] {
        refused(final_length(lengths, 100), 413, "at most 100 bytes");
    }
}

// HEAD

#[test]
fn head_tells_the_offset_always_and_the_length_or_that_it_is_deferred() {
    let headers = |length, offset| {
        HeadAnswer { offset, length, metadata: "", concat: &Concat::None, expires_ms: None }.headers()
    };
    let no_store = ("cache-control", "no-store".to_owned());
    let offset = ("upload-offset", "0".to_owned());
    let length = ("upload-length", "9".to_owned());
    assert_eq!(headers(Some(9), Some(0)), [no_store.clone(), length.clone(), offset.clone()]);
    let deferred = ("upload-defer-length", "1".to_owned());
    assert_eq!(headers(None, Some(0)), [no_store.clone(), deferred, offset]);
    assert_eq!(headers(Some(9), None), [no_store, length], "a final upload that is not joined yet");
}

#[test]
fn head_gives_metadata_and_concatenation_back_as_they_came() {
    let concat = format!("final;/uploads/{A} https://example.org/uploads/{B}");
    let text = Concat::parse(&concat).unwrap();
    let answer = HeadAnswer {
        offset: Some(11),
        length: Some(11),
        metadata: "filename YQ==,is_confidential",
        concat: &text,
        expires_ms: Some(1_403_712_000_000),
    };
    for header in [
        ("upload-metadata", "filename YQ==,is_confidential"),
        ("upload-concat", &concat),
        ("upload-expires", "Wed, 25 Jun 2014 16:00:00 GMT"),
    ] {
        assert!(answer.headers().contains(&(header.0, header.1.to_owned())), "{}", header.0);
    }
}

// Upload-Expires

#[test]
fn an_expiry_is_told_as_http_tells_dates() {
    for (unix_ms, text) in [
        (1_403_712_000_000, "Wed, 25 Jun 2014 16:00:00 GMT"),
        (784_111_777_999, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (951_782_400_000, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (-1, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (i64::MIN, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (i64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ] {
        assert_eq!(format_expires(unix_ms), text);
    }
}

// What the engine refuses

#[test]
fn every_refusal_of_the_engine_has_the_status_of_the_text() {
    for (refusal, status) in [
        (Refusal::OffsetMismatch { claimed: 1, durable: 0 }, 409),
        (Refusal::BeyondLength { offset: 0, room: 1, length: 1 }, 413),
        (Refusal::BeyondLimit { offset: 0, room: 1, limit: 1 }, 413),
        (Refusal::LengthChanged { known: 1, claimed: 2 }, 400),
        (Refusal::LengthBelowOffset { claimed: 1, durable: 2 }, 400),
        (Refusal::ChecksumMissing { durable: 0 }, 400),
        (Refusal::ChecksumMismatch { algorithm: "sha1", durable: 0 }, 460),
    ] {
        assert_eq!(TusError::from(refusal).status(), status);
    }
}

fn uuid_text(n: u128) -> String {
    let hex = format!("{n:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

const EVERY_HEADER: [&str; 12] = [
    "tus-resumable",
    "x-http-method-override",
    "upload-offset",
    "upload-length",
    "upload-defer-length",
    "upload-metadata",
    "upload-checksum",
    "upload-concat",
    "trailer",
    "content-length",
    "content-type",
    "transfer-encoding",
];

proptest! {
    #[test]
    fn no_headers_make_it_panic(
        headers in prop::collection::vec(
            (
                prop::sample::select(EVERY_HEADER.to_vec()),
                prop::sample::select(vec!["", "1", "final;", "partial", "sha1 ", "a YQ==,", BODY_TYPE, "Upload-Checksum"]),
                "\\PC{0,80}",
            ),
            0..10,
        ),
    ) {
        let fields = Sent(headers.into_iter().map(|(name, known, rest)| (name.to_owned(), format!("{known}{rest}"))).collect());
        let _ = (check_version(&fields), method_override(&fields), Append::read(&fields), Creation::read(&fields, 1000));
        let _ = (trailing_checksum(&Check::None, &fields), trailing_checksum(&Check::Trailing, &fields));
    }

    /// What is kept goes back into an answer: it must never break out of its header.
    #[test]
    fn what_is_kept_of_a_creation_fits_into_a_header(metadata in "[ -~\\r\\n\\t]{0,60}", concat in "(final;)?[ -~\\r\\n\\t]{0,60}") {
        let is_plain = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if let Ok(read) = Concat::parse(&concat) {
            assert!(is_plain(&format_concat(&read).unwrap()));
        }
        if let Ok(read) = super::Metadata::parse(&metadata) {
            assert!(is_plain(read.header()));
        }
    }

    #[test]
    fn a_formatted_checksum_is_read_back_as_header_and_as_trailer(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
        for algorithm in OFFERED_ALGORITHMS {
            let checksum = Checksum::of(algorithm, &bytes);
            let text = format_checksum(&checksum);
            let read = append(&[("upload-checksum", &text)]).unwrap();
            assert_eq!(read.chunk.check, Check::Announced(checksum.clone()));
            let trailers = sent(&[("upload-checksum", &text)]);
            assert_eq!(trailing_checksum(&Check::Trailing, &trailers), Ok(Some(checksum)));
        }
    }

    #[test]
    fn a_list_of_partial_uploads_is_given_back_as_it_came(
        partials in prop::collection::hash_map(any::<u128>(), ("(https://[a-z.]{1,9}(:[0-9]{1,4})?)?(/[a-z]{1,6}){0,3}/", "/?", "(\\?[a-z=&]{0,9})?"), 1..20),
    ) {
        let urls: Vec<String> = partials.iter().map(|(id, (before, slash, query))| format!("{before}{}{slash}{query}", uuid_text(*id))).collect();
        let text = format!("final;{}", urls.join(" "));
        let read = Concat::parse(&text).unwrap();
        let Concat::Final(references) = &read else { panic!("{read:?}") };
        let ids: Vec<u128> = references.iter().map(|reference| reference.id().as_uuid().as_u128()).collect();
        assert_eq!(ids, partials.keys().copied().collect::<Vec<_>>());
        assert_eq!(format_concat(&read), Some(text));
    }

    #[test]
    fn every_expiry_is_read_back_by_the_second(unix_ms in 0_i64..253_402_300_800_000) {
        let read = httpdate::parse_http_date(&format_expires(unix_ms)).unwrap();
        let seconds = read.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(seconds, (unix_ms / 1000) as u64);
    }

    #[test]
    fn no_expiry_makes_it_panic(unix_ms in any::<i64>()) {
        assert!(format_expires(unix_ms).ends_with(" GMT"));
    }
}

// docs/conformance/tus.md

/// Rows that say "to be written" are about tests that may be missing yet.
#[test]
fn every_test_that_the_conformance_table_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut code = String::new();
    for folder in ["tests/uploads", "crates/upload/src", "crates/upload/src/tus"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                code.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let table = std::fs::read_to_string(root.join("docs/conformance/tus.md")).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(" | ").collect()).collect();
    let rows = rows.iter().filter(|row| row.len() == 4 && row[0] != "| section");
    let mut names_checked = 0;
    for row in rows {
        let names: Vec<&str> = row[2].split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{} {} has no test", row[0], row[1]);
        let may_miss = row[3].contains("to be written");
        for name in names {
            let is_there = code.contains(&format!("fn {name}("));
            assert!(is_there || may_miss && name.starts_with("tus_"), "{name} is no test");
            names_checked += 1;
        }
    }
    assert!(names_checked > 100, "{names_checked} names: is the table still read?");
}
