//! What a child can still do once it is confined, tried by a real child.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use reelyard_model::child::{Job, Limits, Message, PROTOCOL, Request};
use reelyard_sandbox::{
    confine::is_in_force,
    source::{Answer, Greeting, REQUEST_BYTES, ReadRequest},
    supervise::{ChildCommand, Outcome, Watch, start},
};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
};

async fn messages_of(behaviour: &str) -> Vec<Message> {
    messages_with(behaviour, tempfile::tempfile().unwrap().into()).await
}

async fn messages_with(behaviour: &str, source: OwnedFd) -> Vec<Message> {
    let scratch = tempfile::tempdir().unwrap();
    let mut running = start(ChildCommand {
        program: env!("CARGO_BIN_EXE_reelyard-sandbox-test-child").into(),
        arguments: vec![behaviour.to_owned()],
        request: Request { protocol: PROTOCOL, job: Job::Probe, limits: Limits::default() },
        source: Some(source),
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
async fn a_source_that_the_parent_serves_is_read_and_its_socket_is_good_for_nothing_else() {
    let (mut ours, childs) = UnixStream::pair().unwrap();
    let serving = std::thread::spawn(move || {
        ours.write_all(&Greeting { byte_len: 10 }.encode()).unwrap();
        let mut request = [0; REQUEST_BYTES];
        ours.read_exact(&mut request).unwrap();
        assert_eq!(ReadRequest::decode(&request), ReadRequest { offset: 0, length: 10 });
        ours.write_all(&Answer::Bytes(10).encode()).unwrap();
        ours.write_all(b"the source").unwrap();
        let mut more = Vec::new();
        ours.read_to_end(&mut more).unwrap();
        more
    });
    let messages = messages_with("asks", childs.into()).await;
    assert!(serving.join().unwrap().is_empty(), "nothing else came out of the child");
    let mut outcomes = messages.iter().filter_map(|message| match message {
        Message::Warning { text } => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(outcomes.next(), Some("read: the source"));
    let refused: Vec<&str> = outcomes.collect();
    assert_eq!(refused.len(), 4, "{refused:?}");
    assert!(refused.iter().all(|outcome| outcome.ends_with("(os error 38)")), "{refused:?}");
}

/// What was tried, with each outcome, and whether Landlock was in force.
async fn tried(behaviour: &str) -> (BTreeMap<String, String>, bool) {
    let messages = messages_of(behaviour).await;
    let landlock = layers(&messages).iter().any(|layer| layer.starts_with("landlock") && is_in_force(layer));
    let outcome = |message: &Message| match message {
        Message::Warning { text } => {
            text.split_once(": ").map(|(what, how)| (what.to_owned(), how.to_owned()))
        }
        _ => None,
    };
    let outcomes: BTreeMap<_, _> = messages.iter().filter_map(outcome).collect();
    assert_eq!(outcomes.len(), 24, "{outcomes:#?}");
    (outcomes, landlock)
}

fn nothing_but(allowed: &[&str], outcomes: BTreeMap<String, String>, landlock: bool) {
    for (what, outcome) in outcomes {
        let is_about_paths =
            ["read ", "reopen ", "write ", "list "].iter().any(|start| what.starts_with(start));
        if is_about_paths && !landlock {
            println!("skipped, this kernel has no Landlock: {what}: {outcome}");
        } else {
            assert_eq!(outcome == "allowed", allowed.contains(&what.as_str()), "{what}: {outcome}");
        }
    }
}

#[tokio::test]
async fn nothing_leads_out() {
    let (outcomes, landlock) = tried("walls").await;
    nothing_but(&[], outcomes, landlock);
}

#[tokio::test]
async fn a_graphics_card_costs_generated_code_and_a_look_at_itself() {
    let (mut outcomes, landlock) = tried("walls-with-devices").await;
    // The driver's library reads /proc. Of its own process only root may read this: it cannot be dumped.
    outcomes.remove("read /proc/self/environ");
    nothing_but(&["executable memory"], outcomes, landlock);
}

#[tokio::test]
async fn without_landlock_the_scratch_directory_is_the_root() {
    let messages = messages_of("walls-without-landlock").await;
    if !layers(&messages).iter().any(|layer| layer == "chroot") {
        println!(
            "skipped, this user may neither change the root nor have a namespace: {:?}",
            layers(&messages)
        );
        return;
    }
    let (mut outcomes, _) = tried("walls-without-landlock").await;
    // Above the root is the root: what is allowed here ends up inside.
    assert_eq!(outcomes.remove("write outside").as_deref(), Some("allowed"));
    assert_eq!(outcomes.remove("list outside").as_deref(), Some("allowed"));
    nothing_but(&[], outcomes, true);
}

#[tokio::test]
async fn a_layer_that_cannot_be_had_is_named_with_its_reason_and_the_others_hold() {
    for (kernel, missing) in [
        ("kernel-without-landlock", vec!["landlock missing: the kernel was built without it"]),
        ("landlock-switched-off", vec!["landlock missing: the kernel has it switched off at boot"]),
        ("nothing-to-be-had", vec!["landlock missing", "capabilities missing", "seccomp missing"]),
    ] {
        let messages = messages_of(kernel).await;
        let layers = layers(&messages);
        assert_eq!(layers.len(), 8, "{layers:?}");
        // Whether the root can be changed depends on who runs this.
        let not_in_force: Vec<&String> =
            layers.iter().filter(|layer| !is_in_force(layer) && !layer.starts_with("chroot")).collect();
        assert_eq!(not_in_force.len(), missing.len(), "{kernel}: {layers:?}");
        for (layer, told) in not_in_force.iter().zip(&missing) {
            assert!(layer.starts_with(told), "{kernel}: {layer:?} instead of {told:?}");
        }
    }
}
