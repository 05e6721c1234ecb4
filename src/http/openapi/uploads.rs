//! The description of `/uploads`: one handler there answers all methods of an address, so its annotations stand here.
//!
//! The functions are only read by utoipa; nobody calls them.

#![allow(dead_code, reason = "utoipa reads the annotations; the handlers are in `http::uploads`")]

use super::ProblemBody;

/// Begin an upload.
///
/// tus 1.0.0 creation, with upload when the body has the content type `application/offset+octet-stream`: the first
/// bytes, or all of them. `Upload-Metadata` may hold `filename`, `title`, `preset` and `tier`.
#[utoipa::path(post, path = "/uploads", tag = "uploads",
    params(("Tus-Resumable" = String, Header, description = "`1.0.0`."),
           ("Upload-Length" = u64, Header, description = "Bytes of the whole."),
           ("Upload-Metadata" = Option<String>, Header, description = "`filename`, `title`, `preset` and `tier` (`urgent`, `normal`, `bulk`), values in base64.", example = "filename aG9saWRheS5tcDQ=,preset d2ViLWgyNjQ="),
           ("Upload-Checksum" = Option<String>, Header, description = "`sha1` or `sha256` of this body, in base64.")),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream", description = "The first bytes, or nothing."),
    responses((status = 201, description = "The upload exists; the bytes that came are on disk.",
               headers(("Location" = String, description = "Its address."), ("Upload-Offset" = u64, description = "Bytes on disk."),
                       ("Reelyard-Asset" = String, description = "The asset's id, once the upload is whole."))),
              (status = 412, description = "The tus version is not spoken here.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 413, description = "Longer than this server takes.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 460, description = "The bytes do not have the checksum.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 507, description = "The disk has no room for an upload of this length.", body = ProblemBody, content_type = "application/problem+json")))]
fn create_upload() {}

/// What this server speaks of tus.
#[utoipa::path(options, path = "/uploads", tag = "uploads", security(()),
    responses((status = 204, description = "Versions, extensions and limits.",
               headers(("Tus-Version" = String, description = "`1.0.0`."), ("Tus-Extension" = String, description = "Extensions."),
                       ("Tus-Max-Size" = u64, description = "Longest upload, in bytes."), ("Tus-Checksum-Algorithm" = String, description = "Checksums.")))))]
fn upload_options() {}

/// Ask how much of an upload is on disk.
#[utoipa::path(head, path = "/uploads/{id}", tag = "uploads",
    params(("id" = String, Path, description = "The upload's id."), ("Tus-Resumable" = String, Header, description = "`1.0.0`.")),
    responses((status = 200, description = "Go on from `Upload-Offset`.",
               headers(("Upload-Offset" = u64, description = "Bytes on disk."), ("Upload-Length" = u64, description = "Bytes of the whole."),
                       ("Reelyard-Asset" = String, description = "The asset's id, once the upload is whole."))),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 410, description = "It was ended.", body = ProblemBody, content_type = "application/problem+json")))]
fn upload_offset() {}

/// Send the next bytes.
#[utoipa::path(patch, path = "/uploads/{id}", tag = "uploads",
    params(("id" = String, Path, description = "The upload's id."), ("Tus-Resumable" = String, Header, description = "`1.0.0`."),
           ("Upload-Offset" = u64, Header, description = "Where these bytes begin: the offset that HEAD gave."),
           ("Upload-Checksum" = Option<String>, Header, description = "`sha1` or `sha256` of this body, in base64.")),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream"),
    responses((status = 204, description = "They are on disk.",
               headers(("Upload-Offset" = u64, description = "Bytes on disk."), ("Reelyard-Asset" = String, description = "The asset's id, once the upload is whole."))),
              (status = 409, description = "The offset is another one.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 460, description = "The bytes do not have the checksum: nothing was kept.", body = ProblemBody, content_type = "application/problem+json")))]
fn append_to_upload() {}

/// Give an upload up.
#[utoipa::path(delete, path = "/uploads/{id}", tag = "uploads",
    params(("id" = String, Path, description = "The upload's id."), ("Tus-Resumable" = String, Header, description = "`1.0.0`.")),
    responses((status = 204, description = "It is gone."),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json")))]
fn end_upload() {}

/// Get the bytes of a finished upload back.
#[utoipa::path(get, path = "/uploads/{id}", tag = "uploads", params(("id" = String, Path, description = "The upload's id.")),
    responses((status = 200, description = "The file as it came.", body = Vec<u8>, content_type = "application/octet-stream"),
              (status = 404, description = "There is none, or it is not yours.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 409, description = "It is not whole yet.", body = ProblemBody, content_type = "application/problem+json")))]
fn download_upload() {}
