//! Generates Rust from `proto/` without a system `protoc`.

use std::path::Path;

const FILES: [&str; 6] = ["common", "ingest", "metrics", "logs", "traces", "query"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../proto");
    let files: Vec<_> = FILES.iter().map(|f| root.join(format!("triptych/v1/{f}.proto"))).collect();
    let descriptors = protox::compile(&files, [&root])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed={}", root.display());
    Ok(())
}
