//! The reference of our own metrics, from what each crate declares.

use std::fmt::Write as _;

use triptych_model::telemetry::Metric;

/// By room, in the order of the reference.
const ROOMS: [(&str, &[Metric]); 12] = [
    ("Every process", triptych_runtime::TELEMETRY),
    ("Memory", crate::budget::TELEMETRY),
    ("Distributor", triptych_distributor::TELEMETRY),
    ("Ingester", triptych_ingester::TELEMETRY),
    ("Write-ahead log", triptych_wal::TELEMETRY),
    ("Object storage", triptych_blob::TELEMETRY),
    ("Store-gateway", triptych_store_gateway::TELEMETRY),
    ("Querier", triptych_querier::TELEMETRY),
    ("Gateway", triptych_gateway::TELEMETRY),
    ("Compactor", triptych_compactor::TELEMETRY),
    ("Scraper", triptych_scraper::TELEMETRY),
    ("Agent", triptych_agent::TELEMETRY),
];

/// Every metric of ours.
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    ROOMS.iter().flat_map(|(_, metrics)| metrics.iter())
}

/// The page `docs/metrics.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\nWhat each process says of itself at `/metrics`, and `triptych all` scrapes by itself (job `triptych`). A metric \
         appears when the first of it is counted. Histograms have the series `_bucket`, `_sum` and `_count`. This page is made by \
         `triptych telemetry docs`.\n",
    );
    for (room, metrics) in ROOMS {
        let _ = write!(page, "\n## {room}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
        for metric in metrics {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let (kind, labels) = (metric.kind.as_str(), labels.join(", "));
            let _ = writeln!(page, "| `{}` | {kind} | {labels} | {} |", metric.name, metric.meaning());
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use triptych_model::telemetry::MetricKind;

    use super::*;

    #[test]
    fn the_reference_is_current() {
        let written = std::fs::read_to_string("../../docs/metrics.md").unwrap_or_default();
        assert!(written == reference(), "docs/metrics.md is old: run `make docs`");
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        let mut seen = BTreeSet::new();
        for metric in metrics() {
            let name = metric.name;
            assert!(name.starts_with("triptych_") && seen.insert(name), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
        }
    }
}
