//! Which way an edge may point: `triptych -> services -> (signals | wire) -> base`.

use std::collections::BTreeMap;

use crate::metadata::{Metadata, Package};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Base,
    Wire,
    Signals,
    Services,
    Binary,
    /// Tools and end-to-end tests: may look at everything, nothing but tests may look at them.
    Dev,
}

fn layer(folder: &str) -> Option<Layer> {
    Some(match folder.split('/').collect::<Vec<_>>()[..] {
        ["crates", "base", _] => Layer::Base,
        ["crates", "wire", _] => Layer::Wire,
        ["crates", "signals", _] => Layer::Signals,
        ["crates", "services", _] => Layer::Services,
        ["crates", "triptych"] => Layer::Binary,
        ["crates", "dev", _] | ["e2e"] => Layer::Dev,
        _ => return None,
    })
}

/// The store of a signal knows its language. The only edges inside the signals' layer.
const WITHIN_SIGNALS: [(&str, &str); 3] = [("metrics", "promql"), ("logs", "logql"), ("traces", "traceql")];

/// Edges inside the base layer that stay a line: each names why in its crate's docs.
const BASE_ORDER: [&str; 7] = ["model", "config", "runtime", "telemetry", "blob", "wal", "ring"];

fn room(folder: &str) -> &str {
    folder.rsplit('/').next().unwrap_or(folder)
}

/// Why the edge is not allowed, if it is not.
fn verdict(from: &str, to: &str) -> Option<String> {
    let (Some(a), Some(b)) = (layer(from), layer(to)) else {
        return Some(format!("{from} -> {to}: a room outside of the layers"));
    };
    let (x, y) = (room(from), room(to));
    let reason = match (a, b) {
        (Layer::Dev, _) => return None,
        (_, Layer::Dev) => "nothing but tests may depend on dev",
        (Layer::Base, Layer::Base) => {
            let position = |name| BASE_ORDER.iter().position(|n| *n == name);
            match (position(x), position(y)) {
                (Some(i), Some(j)) if j < i => return None,
                _ => {
                    "base rooms may only know those before them: model, config, runtime, telemetry, blob, wal, ring"
                }
            }
        }
        (Layer::Signals, Layer::Signals) if WITHIN_SIGNALS.contains(&(x, y)) => return None,
        (Layer::Signals, Layer::Signals) => "never between signals",
        (Layer::Services, Layer::Services) => "never sideways between services: they talk through rpc",
        (Layer::Wire, Layer::Wire) => "never between rpc and intake",
        (Layer::Signals, Layer::Wire) => "signals do not see the wire",
        (Layer::Wire, Layer::Signals) => "the wire does not see stores",
        _ if b < a => return None,
        _ => "points up",
    };
    Some(format!("{from} -> {to}: {reason}"))
}

/// Edges of the product; of tests only those that would point up.
pub fn check(metadata: &Metadata) -> Vec<String> {
    edges(metadata, true).filter_map(|(from, to)| verdict(from, to)).collect()
}

fn edges(metadata: &Metadata, product_only: bool) -> impl Iterator<Item = (&str, &str)> {
    let ours: BTreeMap<&str, &Package> = metadata.workspace().map(|p| (p.name.as_str(), p)).collect();
    metadata.workspace().flat_map(move |package| {
        let ours = ours.clone();
        package
            .dependencies
            .iter()
            .filter(move |d| !product_only || d.kind.as_deref() != Some("dev"))
            .filter_map(move |d| ours.get(d.name.as_str()).copied())
            .map(move |to| (metadata.folder(package), metadata.folder(to)))
    })
}

/// A Mermaid drawing, reduced: an edge that follows from two others is left out.
pub fn graph(metadata: &Metadata) -> String {
    let mut below: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in edges(metadata, true).filter(|(from, _)| layer(from) != Some(Layer::Dev)) {
        below.entry(from).or_default().push(to);
    }
    let reaches = |from: &str, to: &str| {
        let mut seen = vec![from];
        let mut at = 0;
        while at < seen.len() {
            for next in below.get(seen[at]).into_iter().flatten() {
                if *next == to {
                    return true;
                }
                if !seen.contains(next) {
                    seen.push(next);
                }
            }
            at += 1;
        }
        false
    };
    let mut out = String::from("```mermaid\nflowchart TD\n");
    let id = |folder: &str| room(folder).replace('-', "_");
    for (name, wanted) in [
        ("services", Layer::Services),
        ("signals", Layer::Signals),
        ("wire", Layer::Wire),
        ("base", Layer::Base),
    ] {
        out.push_str(&format!("  subgraph {name}\n"));
        let mut rooms: Vec<_> =
            metadata.workspace().map(|p| metadata.folder(p)).filter(|f| layer(f) == Some(wanted)).collect();
        rooms.sort_unstable();
        for folder in rooms {
            out.push_str(&format!("    {}[{}]\n", id(folder), room(folder)));
        }
        out.push_str("  end\n");
    }
    for (from, targets) in &below {
        let mut targets = targets.clone();
        targets.sort_unstable();
        targets.dedup();
        for to in &targets {
            if !targets.iter().any(|other| other != to && reaches(other, to)) {
                out.push_str(&format!("  {} --> {}\n", id(from), id(to)));
            }
        }
    }
    out.push_str("```\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_point_down() {
        for (from, to) in [
            ("crates/triptych", "crates/services/gateway"),
            ("crates/services/gateway", "crates/signals/promql"),
            ("crates/signals/metrics", "crates/signals/promql"),
            ("crates/signals/logs", "crates/base/blob"),
            ("crates/base/blob", "crates/base/model"),
            ("e2e", "crates/triptych"),
        ] {
            assert_eq!(verdict(from, to), None);
        }
        for (from, to) in [
            ("crates/base/model", "crates/base/blob"),
            ("crates/base/model", "crates/wire/rpc"),
            ("crates/signals/promql", "crates/signals/metrics"),
            ("crates/signals/metrics", "crates/signals/logs"),
            ("crates/signals/metrics", "crates/wire/rpc"),
            ("crates/wire/rpc", "crates/signals/metrics"),
            ("crates/wire/rpc", "crates/wire/intake"),
            ("crates/services/gateway", "crates/services/querier"),
            ("crates/services/gateway", "crates/dev/testkit"),
        ] {
            assert!(verdict(from, to).is_some(), "{from} -> {to}");
        }
    }
}
