//! What a child can still do once it is confined, tried by a real child.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use reelyard_model::child::{Job, Limits, Message, PROTOCOL, Request};
use reelyard_sandbox::{
    confine::is_in_force,
    supervise::{ChildCommand, Outcome, Watch, start},
};
use std::collections::BTreeMap;

async fn messages_of(behaviour: &str) -> Vec<Message> {
    let scratch = tempfile::tempdir().unwrap();
    let mut running = start(ChildCommand {
        program: env!("CARGO_BIN_EXE_reelyard-sandbox-test-child").into(),
        arguments: vec![behaviour.to_owned()],
        request: Request { protocol: PROTOCOL, job: Job::Probe, limits: Limits::default() },
        source: Some(tempfile::tempfile().unwrap()),
        scratch: scratch.path().to_owned(),
        watch: Watch::default(),
    })
    .await
    .unwrap();
    let mut messages = Vec::new();
    while let Some(message) = running.next().await {
        messages.push(message);
    }
    let ending = running.ended().await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.stderr_tail);
    messages
}

fn layers(messages: &[Message]) -> &[String] {
    match messages.first() {
        Some(Message::Hello { sandbox, .. }) => sandbox,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_layers_that_need_no_luck_are_in_force() {
    let messages = messages_of("threads").await;
    let layers = layers(&messages);
    println!("{layers:?}");
    for expected in ["descriptors", "rlimits", "no_new_privs", "capabilities", "parent_death", "seccomp"] {
        assert!(layers.iter().any(|layer| layer == expected), "{expected} is not in {layers:?}");
    }
}

#[tokio::test]
async fn work_goes_on_inside() {
    let messages = messages_of("threads").await;
    let worked =
        |message: &Message| matches!(message, Message::Warning { text } if text.starts_with("33554432 "));
    assert!(messages.iter().any(worked), "{messages:?}");
}

#[tokio::test]
async fn nothing_leads_out() {
    let messages = messages_of("walls").await;
    let landlock = layers(&messages).iter().any(|layer| layer.starts_with("landlock") && is_in_force(layer));
    let outcomes: BTreeMap<&str, &str> = messages
        .iter()
        .filter_map(|message| match message {
            Message::Warning { text } => text.split_once(": "),
            _ => None,
        })
        .collect();
    assert_eq!(outcomes.len(), 24, "{outcomes:#?}");
    for (what, outcome) in outcomes {
        let is_about_paths =
            ["read ", "reopen ", "write ", "list "].iter().any(|start| what.starts_with(start));
        if is_about_paths && !landlock {
            println!("skipped, this kernel has no Landlock: {what}: {outcome}");
            continue;
        }
        assert_ne!(outcome, "allowed", "{what}");
    }
}
