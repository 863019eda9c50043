//! Where the `triptych` binary is.
//!
//! A test of this package gets no `CARGO_BIN_EXE_triptych`, since the binary belongs to another package. In
//! `cargo test --workspace` cargo has built `target/<profile>/triptych` before (for the smoke test of package `triptych`), and
//! it is taken from there. In `cargo test -p triptych-e2e` it may be missing or older than its sources (cargo writes them
//! into `triptych.d` beside it): then `cargo build --bin triptych` runs once per test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

/// The binary under test: `$TRIPTYCH_BIN`, or the one beside this test.
pub fn path() -> Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find().map_err(|e| format!("{e:#}")));
    found.as_deref().map_err(|e| anyhow::anyhow!("{e}"))
}

fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TRIPTYCH_BIN") {
        return Ok(path.into());
    }
    // <target>/<profile>/deps/<test>
    let test = std::env::current_exe()?;
    let profile_dir = test.parent().and_then(Path::parent).context("the test lies in no target directory")?;
    let binary = profile_dir.join("triptych");
    if is_fresh(&binary) {
        return Ok(binary);
    }
    let target = profile_dir.parent().context("no target directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    let package = std::env::var_os("CARGO_MANIFEST_DIR").context("run it with cargo, or set TRIPTYCH_BIN")?;
    build.current_dir(PathBuf::from(package).join(".."));
    build.args(["build", "--package", "triptych", "--bin", "triptych", "--target-dir"]).arg(target);
    match profile_dir.file_name().and_then(|n| n.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            build.args(["--profile", profile]);
        }
    }
    let status = build.status().context("cargo build")?;
    if !status.success() {
        bail!("cargo build --bin triptych: {status}");
    }
    Ok(binary)
}

/// Whether the binary is there and no source of it is newer.
fn is_fresh(binary: &Path) -> bool {
    let modified = |path: &Path| -> Option<SystemTime> { std::fs::metadata(path).ok()?.modified().ok() };
    let Some(built) = modified(binary) else { return false };
    let Ok(sources) = std::fs::read_to_string(binary.with_extension("d")) else { return false };
    // Make's format: `target: source source ..`, blanks in names escaped; a name with a blank counts as gone, hence old.
    let Some((_, sources)) = sources.split_once(": ") else { return false };
    sources.split_whitespace().all(|source| modified(Path::new(source)).is_some_and(|at| at <= built))
}
