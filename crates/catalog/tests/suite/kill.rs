//! `kill -9` of the writing process: what was reported as done is there, and the database is sound.

use crate::support::{self, Place, open};
use reelyard_model::UploadId;
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};
use uuid::Uuid;

const PLACE: &str = "REELYARD_TEST_KILLED_WRITER";
/// Acknowledged rows before the kill; the kill then comes in the middle of the next ones.
const ROWS: usize = 60;

/// The child: writes for ever and tells each id once its transaction has committed. Does nothing in an ordinary run.
#[tokio::test]
async fn writer_that_is_killed() {
    let Ok(place) = std::env::var(PLACE) else { return };
    let catalog = open(&place).await;
    loop {
        let id = UploadId::from_uuid(Uuid::now_v7());
        catalog.create_upload(support::new_upload(id, 1)).await.unwrap();
        println!("\nacknowledged {id}");
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost() {
    let place = Place::new();
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::writer_that_is_killed", "--nocapture"])
            .env(PLACE, place.name())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acknowledged: Vec<UploadId> = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok())
            .take(ROWS)
            .collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(acknowledged.len(), ROWS);

        let catalog = open(&place.name()).await;
        for id in acknowledged {
            assert!(catalog.upload(id).await.unwrap().is_some(), "{id}");
        }
        catalog.check_integrity().await.unwrap();
        catalog.close().await;
    }
}
