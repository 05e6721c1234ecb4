//! Tells cargo to embed the console again when it was built anew: `console/dist` may come and go.
//!
//! Watches the two folders that are embedded. A folder that is not there is watched through its parent, because a
//! missing path would make every build a full one.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=console/pages");
    let dist = Path::new("console/dist");
    println!("cargo::rerun-if-changed={}", if dist.exists() { "console/dist" } else { "console" });
}
