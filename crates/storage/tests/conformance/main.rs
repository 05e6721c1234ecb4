//! What every keeper of uploads promises, run against each: a disk, and S3 as SeaweedFS and as moto speak it.
//!
//! A group is a file of cases; a case gets a [`Bench`] with an empty store and knows nothing of what is behind it.
//! Without the S3 servers (`scripts/setup s3`) their runs are skipped with a line that says so.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bench;
#[cfg(feature = "s3")]
mod bucket;
mod chaos;
mod checksums;
#[cfg(feature = "s3")]
mod faults;
#[cfg(feature = "s3")]
mod fences;
#[cfg(feature = "s3")]
mod measure;
#[cfg(feature = "s3")]
mod memory;
#[cfg(feature = "s3")]
mod memory_ledger;
#[cfg(feature = "s3")]
mod object_faults;
mod objects;
mod parts;
mod sources;
mod uploads;

use bench::Bench;
use futures::future::BoxFuture;

/// A name that says what is promised, and what shows it.
type Case = (&'static str, fn(Bench) -> BoxFuture<'static, ()>);

/// Cases from the names of their functions.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        pub(crate) const CASES: &[crate::Case] =
            &[$((stringify!($case), |bench| Box::pin($case(bench)))),*];
    };
}
pub(crate) use cases;

/// Runs a group against one keeper; the last name printed is the case that failed.
fn run(cases: &[Case], mut bench: impl FnMut() -> Bench) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (name, case) in cases {
        eprintln!("{name}");
        runtime.block_on(async { case(bench()).await });
    }
}

macro_rules! groups {
    (everywhere: $($everywhere:ident),*; in_s3: $($in_s3:ident),*) => {
        mod on_a_disk {
            $(#[test] fn $everywhere() {
                crate::run(crate::$everywhere::CASES, crate::Bench::on_a_disk);
            })*
        }
        #[cfg(feature = "s3")]
        mod in_seaweedfs {
            $(#[test] fn $everywhere() {
                crate::run_in_s3(crate::$everywhere::CASES, reelyard_testkit::Kind::SeaweedFs);
            })*
            $(#[test] fn $in_s3() {
                crate::run_in_s3(crate::$in_s3::CASES, reelyard_testkit::Kind::SeaweedFs);
            })*
        }
        #[cfg(feature = "s3")]
        mod in_moto {
            $(#[test] fn $everywhere() {
                crate::run_in_s3(crate::$everywhere::CASES, reelyard_testkit::Kind::Moto);
            })*
            $(#[test] fn $in_s3() {
                crate::run_in_s3(crate::$in_s3::CASES, reelyard_testkit::Kind::Moto);
            })*
        }
    };
}

groups!(
    everywhere: uploads, checksums, sources, parts, objects, chaos;
    in_s3: fences, memory, bucket, faults, object_faults
);

#[cfg(feature = "s3")]
fn run_in_s3(cases: &[Case], kind: reelyard_testkit::Kind) {
    let Some(server) = reelyard_testkit::S3Server::start(kind) else { return };
    run(cases, || Bench::in_s3(kind, &server.endpoint()));
}
