//! What published clients really sent, replayed through the dialect and the engine.
//!
//! Each file in `captures/` is one client against a server that took everything: for each request its method, path
//! and number of body bytes, then its headers as they came (without those of the connection). The files were
//! uploaded in chunks, whole, in parallel, with the creation and with a length told at the end.

use super::{Append, Concat, Creation, Metadata, check_version, final_length, method_override};
use crate::{BodyEnd, Settled, Transfer, testing::Sent};
use std::collections::HashMap;

/// What each of them uploaded.
const FILE: &[u8] = b"hello brave new world";
const MAX_BYTES: u64 = 1000;

struct Upload {
    transfer: Transfer,
    concat: Concat,
    metadata: Metadata,
}

/// A server as far as the pure parts reach: it answers paths the way the captured one did, one after the other.
#[derive(Default)]
struct Server {
    uploads: HashMap<String, Upload>,
    deferred: usize,
    checked: usize,
    of_untold_length: usize,
}

impl Server {
    fn take(&mut self, request: &str) {
        let mut lines = request.lines();
        let mut first = lines.next().unwrap().split(' ');
        let mut word = || first.next().unwrap();
        let (method, path, body_len) = (word(), word(), word().parse().unwrap());
        let headers = lines.map(|line| line.split_once(':').unwrap());
        let fields =
            Sent(headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect());
        check_version(&fields).unwrap();
        match (method_override(&fields).unwrap().unwrap_or(method), path) {
            ("POST", "/uploads") => self.create(&fields, body_len),
            ("PATCH", path) => {
                let append = Append::read(&fields).unwrap();
                let upload = self.uploads.get_mut(path).unwrap();
                upload.concat.check_takes_bytes().unwrap();
                if let Some(length) = append.length {
                    upload.transfer.declare_length(length).unwrap();
                }
                self.checked += usize::from(append.chunk.check != crate::Check::None);
                self.of_untold_length += usize::from(append.chunk.body_len.is_none());
                receive(&mut upload.transfer, &append.chunk, body_len);
            }
            ("HEAD" | "DELETE", path) => assert!(self.uploads.contains_key(path)),
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, fields: &Sent, body_len: usize) {
        let creation = Creation::read(fields, MAX_BYTES).unwrap();
        let mut transfer = Transfer::new(creation.length, MAX_BYTES);
        if let Concat::Final(partials) = &creation.concat {
            let lengths = partials.iter().map(|partial| {
                let partial = &self.uploads[&format!("/uploads/{}", partial.id())];
                assert_eq!(partial.concat, Concat::Partial);
                partial.transfer.length()
            });
            let length = final_length(lengths.collect::<Vec<_>>(), MAX_BYTES).unwrap();
            assert_eq!(length, Some(FILE.len() as u64));
            transfer = Transfer::new(length, MAX_BYTES);
        } else {
            self.deferred += usize::from(creation.length.is_none());
        }
        match &creation.first_chunk {
            Some(chunk) => receive(&mut transfer, chunk, body_len),
            None => assert_eq!(body_len, 0),
        }
        let path = format!("/uploads/01a1f796-f79c-7406-9094-{:012x}", self.uploads.len() + 1);
        self.uploads.insert(path, Upload { transfer, concat: creation.concat, metadata: creation.metadata });
    }
}

fn receive(transfer: &mut Transfer, asked: &crate::ChunkRequest, body_len: usize) {
    let mut chunk = transfer.begin_chunk(asked).unwrap();
    chunk.take(&FILE[asked.offset as usize..][..body_len]).unwrap();
    let Ok(Settled::Advance(checkpoint)) = chunk.settle(BodyEnd::Complete) else { panic!("refused") };
    transfer.advance(checkpoint);
}

fn replay(capture: &str) -> Server {
    let mut server = Server::default();
    capture
        .split("\n\n")
        .filter(|request| !request.trim().is_empty())
        .for_each(|request| server.take(request));
    for (path, upload) in &server.uploads {
        let joined = matches!(upload.concat, Concat::Final(_));
        assert!(joined || upload.transfer.is_whole(), "{path} is not whole at the end");
    }
    server
}

/// Metadata of the uploads that become an asset: a partial upload has none of its own.
fn file_names(server: &Server) -> Vec<Option<&str>> {
    let wholes = server.uploads.values().filter(|upload| upload.concat != Concat::Partial);
    wholes.map(|upload| upload.metadata.text("filename")).collect()
}

#[test]
fn tus_js_client_4_is_understood_in_chunks_parallel_deferred_and_by_method_override() {
    let server = replay(include_str!("captures/tus-js-client-4.3.1.http"));
    assert_eq!((server.uploads.len(), server.deferred, server.of_untold_length), (9, 1, 0));
    assert!(file_names(&server).iter().all(|name| *name == Some("R\u{fc}gen 2026.mp4")));
}

#[test]
fn tus_js_client_5_is_understood_though_it_does_not_tell_the_lengths_of_its_bodies() {
    let server = replay(include_str!("captures/tus-js-client-5.0.0-pre2.http"));
    assert_eq!((server.uploads.len(), server.deferred, server.of_untold_length), (9, 1, 12));
    assert!(file_names(&server).iter().all(|name| *name == Some("R\u{fc}gen 2026.mp4")));
}

#[test]
fn tuspy_is_understood_with_checksums_and_with_metadata_of_no_length() {
    let server = replay(include_str!("captures/tuspy-1.1.0.http"));
    assert_eq!((server.uploads.len(), server.checked), (2, 3));
    let metadata =
        |n: usize| server.uploads[&format!("/uploads/01a1f796-f79c-7406-9094-{n:012x}")].metadata.clone();
    assert_eq!(metadata(1).pairs()[1], ("empty".to_owned(), Vec::new()));
    assert_eq!(metadata(2), Metadata::default());
}

#[test]
fn uppy_is_understood_in_chunks_parallel_and_with_the_creation() {
    let server = replay(include_str!("captures/uppy-tus-6.0.0.http"));
    assert_eq!(server.uploads.len(), 5);
    assert!(file_names(&server).iter().all(|name| *name == Some("clip.mp4")));
}
