//! POST: a new upload, perhaps with its first bytes (creation, creation-with-upload).

use super::{
    Asked,
    answer::{self, HeaderFields},
    body, empty,
    receive::{self, Progress},
};
use crate::{
    flow::{self, receive::Announcement},
    http::{
        problem::{Kind, Problem},
        trace,
    },
};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use reelyard_upload::{Transfer, tus};

pub(super) async fn create(asked: Asked) -> Result<Response, Problem> {
    let Asked { app, caller, holders, headers, body } = asked;
    let creation = match tus::Creation::read(&HeaderFields(&headers), app.max_upload_bytes) {
        Ok(creation) => creation,
        Err(error) => return Err(body::refuse(body, answer::refusal(error)).await),
    };
    let announcement = Announcement {
        tenant: caller.tenant,
        byte_len: creation.length,
        // `name` is what Uppy sends beside `filename`.
        file_name: creation.metadata.text("filename").or(creation.metadata.text("name")).map(str::to_owned),
        metadata: creation.metadata.header().to_owned(),
        preset: creation.metadata.text("preset").map(str::to_owned),
        traceparent: Some(trace::current_traceparent()),
    };
    let row = match flow::receive::create(&app, announcement).await {
        Ok(row) => row,
        Err(error) => return Err(body::refuse(body, receive::flow_problem(error)).await),
    };
    let mut progress = Progress { offset: 0, asset: None };
    if let Some(chunk) = creation.first_chunk {
        let received = receive::receive(app.clone(), holders, row.id, chunk, body).await;
        progress = match received {
            Ok(progress) => progress,
            Err(problem) => {
                // Its sender was not told the address, so a refused beginning is taken back whole.
                if matches!(problem.kind(), Kind::ChecksumMismatch | Kind::TooLarge)
                    && let Err(error) = flow::receive::terminate(&app, row.id).await
                {
                    tracing::warn!(upload = %row.id, %error, "receive: a refused upload was not removed; it will expire");
                }
                return Err(problem);
            }
        };
    } else if creation.length == 0 {
        progress.asset = Some(receive::finish(&app, row.id, &Transfer::new(0)).await?);
    }
    let mut answer_headers = HeaderMap::new();
    answer::put_text(&mut answer_headers, "location", &format!("/uploads/{}", row.id));
    progress.put(&mut answer_headers);
    Ok(empty(StatusCode::CREATED, answer_headers))
}
