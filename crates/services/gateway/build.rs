//! Builds the crate again when the page was built: what is embedded is listed at compile time, and files that were not there
//! then would stay unknown.

use std::path::Path;

fn main() {
    let page = "../../../ui/dist";
    // A path that is not there counts as changed at every build; then the whole of `ui/` is watched, which has few files
    // where nothing was built.
    let watched = if Path::new(page).is_dir() { page } else { "../../../ui" };
    println!("cargo::rerun-if-changed={watched}");
}
