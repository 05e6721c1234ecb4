//! `reelyard-media`: the child process that parses what strangers upload. One process, one job.
//!
//! Started by the worker agent (or by hand, for tests and benches) with the source as descriptor 3 and its scratch
//! directory as working directory. Reads one request from standard input, answers on standard output; see
//! `reelyard_model::child`. It never opens a path of the uploader's or an address, never writes outside its working
//! directory, and confines itself before it looks at the source. Whatever goes wrong ends in `Failed`, or in a dead
//! process that its parent reports.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod capabilities;
mod context;
mod encode;
mod messages;
mod normalise;
mod packets;
mod picture_times;
mod pictures;
mod probe;
mod recognise;

mod audio;
mod stills;

use context::Context;
use messages::Messages;
use reelyard_model::{
    Failure, FailureCode,
    child::{Job, MAX_LINE_BYTES, Message, PROTOCOL, Request},
};
use std::{
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
};

fn main() -> ExitCode {
    reelyard_ffmpeg::capture_log_to_stderr();
    let messages = Messages::to_standard_output();
    let outcome = catch_unwind(AssertUnwindSafe(|| run(&messages)));
    // The panic's own words are on standard error, which the parent keeps.
    let outcome =
        outcome.unwrap_or_else(|_| Err(Failure::new(FailureCode::Internal, "the media child panicked")));
    match outcome {
        Ok(()) => {
            messages.send(&Message::Done);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            messages.send(&Message::Failed { failure });
            ExitCode::FAILURE
        }
    }
}

fn run(messages: &Messages) -> Result<(), Failure> {
    let request = read_request()?;
    let sandbox = confine(&request);
    messages.send(&Message::Hello {
        protocol: PROTOCOL,
        ffmpeg: reelyard_ffmpeg::version(),
        sandbox: sandbox.clone(),
    });
    let open = || Context::open(request.limits, messages);
    let answer = match request.job {
        Job::Capabilities => Message::Capabilities { capabilities: capabilities::measure(sandbox) },
        Job::Probe => Message::Probed { info: Box::new(probe::run(&open()?)?) },
        Job::Encode { video, chunk, encoder } => {
            let (encoder, tracks) = encode::run(&open()?, &video, chunk, encoder)?;
            Message::Encoded { encoder, tracks }
        }
        Job::Audio { audio } => {
            Message::Encoded { encoder: "aac".to_owned(), tracks: audio::run(&open()?, &audio)? }
        }
        Job::Stills { stills } => Message::Stills { stills: stills::run(&open()?, &stills)? },
    };
    messages.send(&answer);
    Ok(())
}

fn confine(request: &Request) -> Vec<String> {
    let devices = match request.job {
        Job::Capabilities | Job::Encode { .. } => reelyard_sandbox::Devices::present(),
        _ => reelyard_sandbox::Devices::None,
    };
    reelyard_sandbox::confine(&request.limits, Path::new("."), devices)
}

fn read_request() -> Result<Request, Failure> {
    let refuse = |reason: String| Failure::new(FailureCode::Internal, reason);
    let mut text = String::new();
    let limit = MAX_LINE_BYTES as u64 + 1;
    std::io::stdin()
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|error| refuse(format!("the request could not be read from standard input: {error}")))?;
    if text.len() > MAX_LINE_BYTES {
        return Err(refuse(format!("the request is longer than {MAX_LINE_BYTES} bytes")));
    }
    let request: Request = serde_json::from_str(&text)
        .map_err(|error| refuse(format!("the request on standard input is not understood: {error}")))?;
    if request.protocol != PROTOCOL {
        return Err(refuse(format!(
            "the parent speaks protocol {}, this child speaks {PROTOCOL}: build both from the same source",
            request.protocol
        )));
    }
    Ok(request)
}
