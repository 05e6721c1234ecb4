//! The graphics cards of machines that we do not have: NVML itself is loaded and asked, only the library behind it is
//! our own, compiled here for each machine from `stand_in/nvml.c`. Without a C compiler these tests say so and pass.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use reelyard_agent::{GpuMemory, Gpus};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// A folder with the library of a machine; it goes with the value.
struct StandIn {
    folder: TempDir,
}

impl StandIn {
    /// `None`: no compiler.
    fn compile(machine: &[&str]) -> Option<Self> {
        let stand_in = Self { folder: tempfile::tempdir().unwrap() };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_in/nvml.c");
        let output = Command::new("cc")
            .args(["-std=c99", "-Wall", "-Werror", "-shared", "-fPIC"])
            .args(machine)
            .arg("-o")
            .arg(stand_in.library())
            .arg(&source)
            .output();
        match output {
            Err(error) => {
                eprintln!("SKIPPED: no C compiler (cc: {error}); scripts/setup installs one");
                None
            }
            Ok(output) => {
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                Some(stand_in)
            }
        }
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("libnvidia-ml.so.1")
    }
}

/// What is found on such a machine.
fn look(machine: &[&str]) -> Option<Gpus> {
    let stand_in = StandIn::compile(machine)?;
    Some(Gpus::look(&[stand_in.library()]))
}

fn reason(machine: &[&str]) -> Option<String> {
    match look(machine)? {
        Gpus::None(reason) => Some(reason),
        found @ Gpus::Found { .. } => panic!("{found:?}"),
    }
}

#[test]
fn two_cards_with_their_names_memory_and_encoders() {
    let Some(found) = look(&[]) else { return };
    let Gpus::Found { cards, silent } = found else { panic!("{found:?}") };
    let [first, second] = cards.as_slice() else { panic!("{cards:?}") };
    assert_eq!(first.name, "NVIDIA L4");
    assert_eq!(first.uuid, "GPU-00000000-0000-4000-8000-000000000001");
    assert_eq!(first.driver, "570.86.15");
    assert_eq!(first.memory, Some(GpuMemory { total_bytes: 23_034 << 20, free_bytes: 22_000 << 20 }));
    assert_eq!(first.h264_encoder_percent_free, Some(100));
    assert_eq!((second.name.as_str(), second.h264_encoder_percent_free), ("NVIDIA H200", None));
    assert!(silent.is_empty());
}

#[test]
fn a_lost_card_does_not_hide_the_other() {
    let Some(found) = look(&["-DFIRST_LOST=1"]) else { return };
    let Gpus::Found { cards, silent } = found else { panic!("{found:?}") };
    assert_eq!(cards.len(), 1);
    assert_eq!(silent.len(), 1);
    assert!(silent[0].starts_with("card 1 does not answer: device fell off the bus"), "{silent:?}");
}

#[test]
fn a_card_without_memory_of_its_own_is_a_card() {
    let Some(found) = look(&["-DCARDS=1", "-DMEMORY_ANSWER=3"]) else { return };
    let Gpus::Found { cards, .. } = found else { panic!("{found:?}") };
    assert_eq!((cards[0].name.as_str(), cards[0].memory), ("NVIDIA L4", None));
}

#[test]
fn each_error_is_a_reason() {
    for (machine, expected) in [
        (["-DCARDS=0"], "the driver lists no card"),
        (["-DINIT_ANSWER=9"], "NVML does not start: NVIDIA driver is not loaded"),
        (["-DINIT_ANSWER=18"], "NVML does not start: RM detects a driver/library version mismatch"),
        // A number that no header knows.
        (["-DINIT_ANSWER=4711"], "NVML does not start"),
        (["-DCOUNT_ANSWER=999"], "the driver does not say how many cards there are"),
        (["-DFIRST_LOST=0"], "card 0 does not answer: device fell off the bus"),
    ] {
        let Some(reason) = reason(&machine) else { return };
        assert!(reason.starts_with(expected), "{machine:?}: {reason}");
    }
}

#[test]
fn without_a_library_there_is_no_driver() {
    let nowhere = ["/nonexistent/libnvidia-ml.so.1", "/nonexistent/libnvidia-ml.so"];
    let expected = "/nonexistent/libnvidia-ml.so.1 is not installed: no NVIDIA driver";
    assert_eq!(Gpus::look(&nowhere), Gpus::None(expected.to_owned()));
}

#[test]
fn a_library_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libnvidia-ml.so.1");
    std::fs::write(&library, "not a library, and longer than the header of one: ........................")
        .unwrap();
    let Gpus::None(reason) = Gpus::look(&[&library]) else { panic!("found cards in a text file") };
    assert!(reason.contains("cannot be loaded") && reason.contains("invalid ELF header"), "{reason}");
}

/// Another program's library under that name, or a driver too old to have what we call.
#[test]
fn a_library_without_the_calls_is_a_reason() {
    let Some(stand_in) = StandIn::compile(&["-DnvmlInit_v2=nvmlInit_v1"]) else { return };
    let Gpus::None(reason) = Gpus::look(&[stand_in.library()]) else { panic!("found cards") };
    assert!(reason.starts_with("NVML does not start: function symbol failed to load"), "{reason}");
}

#[test]
fn the_second_library_is_tried() {
    let Some(stand_in) = StandIn::compile(&["-DCARDS=1"]) else { return };
    let libraries = [PathBuf::from("/nonexistent/libnvidia-ml.so.1"), stand_in.library()];
    let found = Gpus::look(&libraries);
    assert!(matches!(&found, Gpus::Found { cards, .. } if cards.len() == 1), "{found:?}");
}
