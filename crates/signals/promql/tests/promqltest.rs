//! Prometheus' own test files, read where they lie: `$TRIPTYCH_SHARED_DATA/promqltest`, by default `../shared/data/promqltest`
//! beside the workspace. Not there: skipped, with a line that says so.

use std::path::PathBuf;

use triptych_promql::promqltest::{EngineTarget, Report, run};
use triptych_promql::{Engine, EngineConfig};

fn data_dir() -> Option<PathBuf> {
    let dir = match std::env::var_os("TRIPTYCH_SHARED_DATA") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from("../../../../shared/data"),
    };
    let dir = dir.join("promqltest");
    if dir.is_dir() {
        return Some(dir);
    }
    println!("skipped: no Prometheus test files at {}", dir.display());
    None
}

async fn report(file: &str) -> Option<Report> {
    let path = data_dir()?.join(file);
    let script = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    // Prometheus' runner enables what is experimental.
    let config = EngineConfig { delayed_name_removal: true, ..EngineConfig::default() };
    let mut target = EngineTarget { engine: Engine::new(config), ..EngineTarget::default() };
    let report = run(&script, &mut target).await.unwrap_or_else(|e| panic!("{file}: {e}"));
    println!("{file}: {report}");
    Some(report)
}

macro_rules! files {
    ($($name:ident => $file:literal),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                if let Some(report) = report($file).await {
                    assert!(report.failed.is_empty(), "{}: {report}", $file);
                    assert!(report.passed > 0, "{}: nothing was run", $file);
                }
            }
        )*
    };
}

files! {
    aggregators => "aggregators.test",
    at_modifier => "at_modifier.test",
    collision => "collision.test",
    literals => "literals.test",
    name_label_dropping => "name_label_dropping.test",
    operators => "operators.test",
    range_queries => "range_queries.test",
    selectors => "selectors.test",
    staleness => "staleness.test",
    subquery => "subquery.test",
    trig_functions => "trig_functions.test",
    functions => "functions.test",
    histograms => "histograms.test",
    limit => "limit.test",
    fill_modifier => "fill-modifier.test",
    duration_expression => "duration_expression.test",
}
