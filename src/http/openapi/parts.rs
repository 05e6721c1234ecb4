//! The description of `/uploads/parts`: one handler there answers all methods of an address, so its annotations stand
//! here. The functions are only read by utoipa; nobody calls them.

#![allow(dead_code, reason = "utoipa reads the annotations; the handlers are in `http::uploads::parts`")]

use super::ProblemBody;

/// Begin an upload in parts.
///
/// For clients that send several parts at once, or the end of a file first. The length is told in `Upload-Length` or as
/// `length` in a JSON body, which may also hold `filename`, `content_type`, `preset`, `title`, `tier` and `sha256`.
#[utoipa::path(post, path = "/uploads/parts", tag = "uploads",
    params(("Upload-Length" = Option<u64>, Header, description = "Bytes of the whole."),
           ("Upload-Metadata" = Option<String>, Header, description = "`filename`, `title`, `preset` and `tier` (`urgent`, `normal`, `bulk`), values in base64."),
           ("Repr-Digest" = Option<String>, Header, description = "`sha-256` of the whole (RFC 9530).")),
    responses((status = 201, description = "Send the parts.",
               headers(("X-Upload-ID" = String, description = "Goes with every further request."),
                       ("X-Part-Size" = u64, description = "Recommended bytes of a part."),
                       ("X-Part-Min-Size" = u64, description = "Fewest bytes of all parts but the one that ends the upload."),
                       ("X-Part-Max-Size" = u64, description = "Most bytes of a part."),
                       ("X-Parts-Max" = u64, description = "Most parts."))),
              (status = 413, description = "Longer than this server takes.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 507, description = "The disk has no room for an upload of this length.", body = ProblemBody, content_type = "application/problem+json")))]
fn begin_parts() {}

/// Send a part.
///
/// Parts may come at the same time and in any order. The same bytes again are a success.
#[utoipa::path(put, path = "/uploads/parts", tag = "uploads",
    params(("X-Upload-ID" = String, Header, description = "The upload."),
           ("X-Part-Number" = u32, Header, description = "From 1."),
           ("X-Content-Range" = String, Header, description = "`bytes first-last/length`."),
           ("Content-Digest" = Option<String>, Header, description = "`sha-256` or `sha-512` of this body (RFC 9530)."),
           ("Content-MD5" = Option<String>, Header, description = "MD5 of this body, in base64.")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204, description = "The part is durable.", headers(("ETag" = String, description = "SHA-256 of the part, for the list at the end."))),
              (status = 409, description = "It contradicts what is stored.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 416, description = "The upload does not have these bytes.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 423, description = "A newer request sends this part.", body = ProblemBody, content_type = "application/problem+json")))]
fn send_part() {}

/// Ask which parts are durable and what is missing.
#[utoipa::path(get, path = "/uploads/parts", tag = "uploads",
    params(("X-Upload-ID" = String, Header, description = "The upload.")),
    responses((status = 200, description = "`parts` can be sent to `complete` as it is; `missing` lists ranges. `asset` is there once the upload is complete."),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json")))]
fn list_parts() {}

/// Give an upload in parts up.
#[utoipa::path(delete, path = "/uploads/parts", tag = "uploads",
    params(("X-Upload-ID" = String, Header, description = "The upload.")),
    responses((status = 204, description = "It is gone."),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json")))]
fn give_up_parts() {}

/// Complete an upload in parts.
///
/// The body lists all parts: `[{"part_number": 1, "etag": "..."}]`, or `{"parts": [...], "sha256": "..."}`. Asking again
/// gives the same answer.
#[utoipa::path(post, path = "/uploads/parts/complete", tag = "uploads",
    params(("X-Upload-ID" = String, Header, description = "The upload."),
           ("Repr-Digest" = Option<String>, Header, description = "`sha-256` of the whole (RFC 9530).")),
    responses((status = 200, description = "`asset` and the `sha256` of the whole.", headers(("Reelyard-Asset" = String, description = "The asset's id."))),
              (status = 409, description = "Parts are missing, or the list is another one.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 422, description = "The whole does not have the digest that was told.", body = ProblemBody, content_type = "application/problem+json")))]
fn complete_parts() {}
