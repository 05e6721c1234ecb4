//! Uploads in parts: the headers of a part, the JSON of opening and completing, and the set that they meet.

use crate::message::Message;
use reelyard_upload::parts::{Completion, Opening, PartSet, PartUpload, PartsError, upload_id};

const MAX_UPLOAD_BYTES: u64 = 1 << 40;
const LENGTH: u64 = 1 << 24;

/// A part that is admitted lies inside the upload; a list that is taken names nothing that is not there.
pub(crate) fn message(bytes: &[u8]) {
    let message = Message::read(bytes);
    let told = |error: &PartsError| {
        assert!((400..500).contains(&error.status()));
        assert!(!error.to_string().is_empty());
    };
    let _ = upload_id(&message).inspect_err(told);
    let opened = Opening::read(&message, message.body, MAX_UPLOAD_BYTES);
    if let Ok(opening) = opened.inspect_err(told) {
        let _ = opening;
    }
    if let Ok(part) = PartUpload::read(&message).inspect_err(told)
        && let Ok(request) = part.within(LENGTH).inspect_err(told)
    {
        let mut set = PartSet::new(LENGTH);
        if let Ok(chunk) = set.begin(&request) {
            assert!(chunk.range().start < chunk.range().end && chunk.range().end <= LENGTH);
        }
    }
    if let Ok(completion) = Completion::read(&message, message.body).inspect_err(told) {
        let _ = completion;
    }
}
