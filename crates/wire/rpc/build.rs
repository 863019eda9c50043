//! Generates Rust from `proto/` without a system `protoc`.

use std::path::Path;

const FILES: [&str; 6] = ["common", "ingest", "metrics", "logs", "traces", "query"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked when it runs: a target directory may be shared by several copies of the tree.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo did not say where the package is")?;
    let root = Path::new(&package).join("../../../proto");
    let files: Vec<_> = FILES.iter().map(|f| root.join(format!("triptych/v1/{f}.proto"))).collect();
    let descriptors = protox::compile(&files, [&root])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed={}", root.display());
    Ok(())
}
