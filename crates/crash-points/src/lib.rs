//! Named places where a test can end the program (as by `kill -9`), make it fail, or hold it up; and promises that a
//! test can switch off, to see that it notices.
//!
//! Used by the catalogue, the storage and the program at the moments where a crash would hurt most. Without the feature
//! `armed`, which no released build has, the macros are nothing: not a call, not a string. With it, the crate `fail`
//! reads what to do from `FAILPOINTS`, for example
//! `relay-after-confirm=1*return(kill);catalogue-before-commit=3*off->1*return(error)`.
//! Actions are `return(kill)`, `return(error)`, `return(delay MILLISECONDS)`; a switch is `without-fencing=return`.
//! Every place that is reached is written to the file `REELYARD_CRASH_POINTS_TRACE`, one line each, with what was done.

#[cfg(feature = "armed")]
mod armed;
#[cfg(feature = "armed")]
pub use armed::{is_switched_off, reach, reach_at};

/// Who called.
#[cfg(feature = "armed")]
pub type Site = &'static std::panic::Location<'static>;
/// Nothing.
#[cfg(not(feature = "armed"))]
#[derive(Clone, Copy, Debug)]
pub struct Site;

/// Every place. Those of the catalogue's commits are one for each calling line: `NAME@file.rs:line`.
pub const POINTS: [&str; 13] = [
    "catalogue-before-commit",
    "catalogue-after-commit",
    "objects-before-put",
    "objects-after-put",
    "upload-between-object-and-commit",
    "upload-before-answer",
    "publish-before-commit",
    "relay-before-issue",
    "relay-after-confirm",
    "publish-ticket-before-acknowledge",
    "worker-after-claim",
    "worker-before-report",
    "worker-after-report",
];

/// Promises that can be switched off.
pub const SWITCHES: [&str; 4] = ["without-fencing", "without-confirms", "without-sync", "without-safety-net"];

/// What a place answers that was told to fail.
#[derive(Debug)]
pub struct Injected(pub &'static str);

impl std::fmt::Display for Injected {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "the crash point {} was told to fail", self.0)
    }
}

impl std::error::Error for Injected {}

/// In an async function: `crash_point!("name")` is a `Result<(), Injected>`.
#[cfg(feature = "armed")]
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        $crate::reach($name).await
    };
    ($name:literal, $site:expr) => {
        $crate::reach_at($name, $site).await
    };
}

/// Nothing.
#[cfg(not(feature = "armed"))]
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        Ok::<(), $crate::Injected>(())
    };
    ($name:literal, $site:expr) => {{
        let _: $crate::Site = $site;
        Ok::<(), $crate::Injected>(())
    }};
}

/// Who called, in a function with `#[track_caller]`.
#[cfg(feature = "armed")]
#[macro_export]
macro_rules! site {
    () => {
        std::panic::Location::caller()
    };
}

/// Nothing.
#[cfg(not(feature = "armed"))]
#[macro_export]
macro_rules! site {
    () => {
        $crate::Site
    };
}

/// Whether a test has switched this promise off.
#[cfg(feature = "armed")]
#[macro_export]
macro_rules! switched_off {
    ($name:literal) => {
        $crate::is_switched_off($name)
    };
}

/// Never.
#[cfg(not(feature = "armed"))]
#[macro_export]
macro_rules! switched_off {
    ($name:literal) => {
        false
    };
}
