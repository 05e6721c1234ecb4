//! A stand-in for the media program in the agent's tests: speaks the real protocol, and does what its source says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "for tests only: what goes wrong here is the test's"
)]

use reelyard_model::{
    Failure, FailureCode,
    child::{Message, PROTOCOL, Request},
    output::{FileOutput, SegmentOutput, TrackFormat, TrackOutput},
};
use reelyard_sandbox::source::Source;
use std::{io::Read, time::Duration};

fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let request: Request = serde_json::from_str(&text).unwrap();
    let behaviour = read_source();
    say(&Message::Hello { protocol: PROTOCOL, ffmpeg: "none".to_owned(), sandbox: Vec::new() });
    eprintln!("asked to {behaviour} with {} threads", request.limits.threads);
    // Its progress tells the tests which process it is.
    say(&Message::Progress { done_us: i64::from(std::process::id()), total_us: i64::MAX });
    match behaviour.as_str() {
        "encode" => {
            let files: Vec<FileOutput> =
                (0..20).map(|number| make(&format!("240p/{number:05}.m4s"))).collect();
            encoded(make("240p/init.mp4"), files);
            say(&Message::Done);
        }
        "crash" => std::process::abort(),
        "crash once" => {
            let init = make("240p/init.mp4");
            if std::env::current_dir().unwrap().to_string_lossy().ends_with("run1") {
                std::process::abort();
            }
            encoded(init, Vec::new());
            say(&Message::Done);
        }
        "be silent" => loop {
            std::thread::park();
        },
        "work for ever" => {
            make("240p/init.mp4");
            // By which the tests find this process, before the first heartbeat tells them.
            let name = "240p/process_id";
            std::fs::write(name, std::process::id().to_string()).unwrap();
            let byte_len = std::fs::metadata(name).unwrap().len();
            say(&Message::File { file: name.to_owned(), byte_len });
            for more in 1.. {
                say(&Message::Progress {
                    done_us: i64::from(std::process::id()) + (more << 32),
                    total_us: i64::MAX,
                });
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        "lie" => {
            encoded(make("240p/init.mp4"), vec![file("240p/00000.m4s")]);
            say(&Message::Done);
        }
        "announce nothing" => {
            say(&Message::File { file: "240p/init.mp4".to_owned(), byte_len: 3 });
            say(&Message::Done);
        }
        "fail" => say(&Message::Failed {
            failure: reelyard_model::Failure::new(
                reelyard_model::FailureCode::NotMedia,
                "no demuxer knows it",
            ),
        }),
        other => panic!("no such behaviour: {other:?}"),
    }
}

/// The whole source, be it a file or served by the parent.
fn read_source() -> String {
    let source = Source::inherited().unwrap();
    let mut bytes = vec![0; source.byte_len() as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match source.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => panic!("the source ends early"),
            Ok(count) => filled += count,
            Err(error) => {
                let failure = Failure::new(FailureCode::SourceMissing, error.to_string());
                say(&Message::Failed { failure });
                std::process::exit(1);
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn say(message: &Message) {
    println!("{}", serde_json::to_string(message).unwrap());
}

fn file(name: &str) -> FileOutput {
    FileOutput { file: name.to_owned(), byte_len: name.len() as u64, sha256: String::new() }
}

fn make(name: &str) -> FileOutput {
    std::fs::create_dir_all("240p").unwrap();
    std::fs::write(name, name).unwrap();
    let made = file(name);
    say(&Message::File { file: made.file.clone(), byte_len: made.byte_len });
    made
}

fn encoded(init: FileOutput, segments: Vec<FileOutput>) {
    let segments = segments
        .into_iter()
        .zip(0..)
        .map(|(file, number)| SegmentOutput {
            file,
            start_ticks: number * 100,
            duration_ticks: 100,
            sync_points: Vec::new(),
        })
        .collect();
    let track = TrackOutput {
        rendition: "240p".to_owned(),
        format: TrackFormat::Video { width: 426, height: 240 },
        codecs: "avc1.640015".to_owned(),
        timescale: 90_000,
        init,
        segments,
    };
    say(&Message::Encoded { encoder: "none".to_owned(), tracks: vec![track] });
}
