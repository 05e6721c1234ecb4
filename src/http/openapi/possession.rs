//! The description of `/uploads/possession`: one handler there answers all methods of an address, so its annotations stand
//! here. The functions are only read by utoipa; nobody calls them.

#![allow(dead_code, reason = "utoipa reads the annotations; the handlers are in `http::uploads::possession`")]

use super::ProblemBody;

/// Ask to upload what is here already, without sending it.
///
/// For API keys: upload tokens cannot ask, and the key that asks is the one that may answer.
///
/// The body is that of `POST /uploads/parts`: `length` and `sha256`, and `filename`, `content_type`, `preset`, `title`
/// and `tier` where wanted. The answer names ranges to read: see the next request.
#[utoipa::path(post, path = "/uploads/possession", tag = "uploads",
    request_body(content = serde_json::Value, description = "`length` in bytes and `sha256` in hexadecimal are needed."),
    responses((status = 200, description = "`challenge`, `nonce` (hexadecimal), `ranges` of `offset` and `length`, and `expires_at`, a minute from now.", body = serde_json::Value),
              (status = 403, description = "An upload token cannot ask; send the bytes.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 404, description = "Send the bytes.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 429, description = "Too often.", body = ProblemBody, content_type = "application/problem+json")))]
fn ask_for_possession() {}

/// Show that you have it.
///
/// `proof` is the SHA-256, in hexadecimal, over the 32 bytes of the nonce and the bytes of the ranges in their order.
/// One answer is taken; the right one may be sent again and gives the same upload.
#[utoipa::path(post, path = "/uploads/possession/{id}", tag = "uploads",
    params(("id" = String, Path, description = "The `challenge`.")),
    request_body(content = serde_json::Value, description = "`{\"proof\": \"...\"}`"),
    responses((status = 201, description = "The upload is finished, and its asset exists.", body = serde_json::Value,
               headers(("Location" = String, description = "Its address."), ("Reelyard-Asset" = String, description = "The asset's id."))),
              (status = 403, description = "That was not it, and there is no second answer.", body = ProblemBody, content_type = "application/problem+json"),
              (status = 404, description = "No such open question, or the bytes have to be sent after all.", body = ProblemBody, content_type = "application/problem+json")))]
fn show_possession() {}
