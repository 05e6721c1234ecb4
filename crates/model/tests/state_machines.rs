//! Every (state, event) pair of every stored machine, against `state_machines.txt`.
//!
//! The table is the specification to review: a change of a machine shows there as a changed line. To write it anew:
//! `REELYARD_WRITE_GOLDENS=1 cargo test -p reelyard-model --test state_machines`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use reelyard_model::{
    asset_state::{self, AssetEvent, AssetState},
    publication_state::{self, PublicationEvent, PublicationState},
    state::Refused,
    task_state::{self, TaskEvent, TaskState},
    upload_state::{self, UploadEvent, UploadState},
};
use std::{fmt::Write, fs, path::Path};

fn table<S: Copy + Into<&'static str>, E: Copy + Into<&'static str>>(
    name: &str,
    states: &[S],
    events: &[E],
    next: impl Fn(S, E) -> Result<S, Refused>,
) -> String {
    let mut text = format!("# {name}\n");
    for &state in states {
        for &event in events {
            let (from, by): (&str, &str) = (state.into(), event.into());
            let to = match next(state, event) {
                Ok(to) => to.into(),
                Err(refused) => {
                    assert_eq!(
                        (refused.state, refused.event),
                        (from, by),
                        "a refusal names what was refused"
                    );
                    "-"
                }
            };
            writeln!(text, "{from:<12}{by:<20}{to}").unwrap();
        }
    }
    text
}

#[test]
fn every_pair_is_as_in_the_table() {
    let found = [
        table("upload", UploadState::ALL, UploadEvent::ALL, upload_state::next),
        table("asset", AssetState::ALL, AssetEvent::ALL, asset_state::next),
        table("task", TaskState::ALL, TaskEvent::ALL, task_state::next),
        table("publication", PublicationState::ALL, PublicationEvent::ALL, publication_state::next),
    ]
    .join("\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/state_machines.txt");
    if std::env::var_os("REELYARD_WRITE_GOLDENS").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "the machines differ from {}:\n{found}", path.display());
}

#[test]
fn names_are_read_as_they_are_written() {
    for state in TaskState::ALL {
        assert_eq!(state.as_str().parse::<TaskState>().as_ref(), Ok(state));
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
    for state in AssetState::ALL {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
    for state in UploadState::ALL {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
    assert!("Done".parse::<TaskState>().is_err());
}

/// Nothing leaves a terminal state but what a person asks for, and nothing gets a lease without a claim.
#[test]
fn terminal_means_terminal_and_leases_are_claimed() {
    for &state in TaskState::ALL {
        for &event in TaskEvent::ALL {
            let Ok(to) = task_state::next(state, event) else { continue };
            let asked_for = matches!(event, TaskEvent::Retry | TaskEvent::RetryBlocked);
            assert!(!state.is_terminal() || to == state || asked_for, "{state} --{event}--> {to}");
            let leased = to == TaskState::Leased && state != TaskState::Leased;
            assert!(!leased || event == TaskEvent::Claim, "{state} --{event}--> {to}");
        }
    }
}
