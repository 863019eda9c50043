//! The binary starts and knows its config. (Also makes `cargo test --workspace` build it, which the scenarios in `e2e` use.)

use std::process::{Command, Output};

fn triptych(args: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_triptych")).args(args).output()
}

#[test]
fn version_and_reference() {
    let version = triptych(&["--version"]).unwrap();
    assert!(version.status.success());
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
    let docs = triptych(&["config", "docs"]).unwrap();
    assert!(docs.status.success());
    let docs = String::from_utf8_lossy(&docs.stdout);
    for key in ["server.listen", "limits.metrics.retention", "querier.promql_delayed_name_removal"] {
        assert!(docs.contains(&format!("`{key}`")), "{key} is not in the reference");
    }
    let own = triptych(&["telemetry", "docs"]).unwrap();
    assert!(
        String::from_utf8_lossy(&own.stdout).contains("| `triptych_wal_fsync_seconds` | histogram | `wal` |")
    );
    let wrong = triptych(&["all", "--set", "no.such.key=1"]).unwrap();
    assert!(!wrong.status.success());
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(said.starts_with("error: ") && said.contains("no") && said.lines().count() == 1, "{said}");
}
