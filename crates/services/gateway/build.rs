//! Builds the crate again when the page was built: what is embedded is listed at compile time, and files that were not there
//! then would stay unknown. Generates Tempo's streaming service from `proto/` without a system `protoc`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let page = "../../../ui/dist";
    // A path that is not there counts as changed at every build; then the whole of `ui/` is watched, which has few files
    // where nothing was built.
    let watched = if Path::new(page).is_dir() { page } else { "../../../ui" };
    println!("cargo::rerun-if-changed={watched}");

    let proto = "../../../proto/tempopb/streaming.proto";
    println!("cargo::rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["../../../proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
