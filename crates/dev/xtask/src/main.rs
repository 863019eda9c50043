//! Keeps the house in order: `cargo run -p triptych-xtask -- check`.
//!
//! | command | what it does |
//! |---|---|
//! | `check` | fails on a dependency edge that points up or sideways, a licence that is not allowed, a dependency twice in different major versions, a path in the docs that is not there, a drawing that is not current, a metric of ours that is not declared, a file that is too long without a reason |
//! | `graph` | draws the real graph of rooms into `docs/ARCHITECTURE.md` |

mod deps;
mod docs;
mod layers;
mod metadata;

use std::path::PathBuf;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let root = root();
    let metadata = metadata::read(&root)?;
    match std::env::args().nth(1).as_deref() {
        Some("check") => {
            let mut wrong = layers::check(&metadata);
            wrong.extend(deps::check(&metadata));
            wrong.extend(docs::check(&root, &layers::graph(&metadata))?);
            if wrong.is_empty() {
                println!("xtask check: {} rooms, every edge points down", metadata.workspace().count());
                return Ok(());
            }
            for line in &wrong {
                eprintln!("{line}");
            }
            bail!("{} things to mend", wrong.len());
        }
        Some("graph") => docs::write_graph(&root, &layers::graph(&metadata)),
        _ => bail!("usage: cargo run -p triptych-xtask -- check|graph"),
    }
}

fn root() -> PathBuf {
    // Asked when it runs: a target directory may be shared by several copies of the tree.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    here.ancestors().nth(3).unwrap_or(&here).to_path_buf()
}
