//! Lines of container runtimes, and what the path of a pod's log tells.
//!
//! `2026-01-31T12:00:00.123456789Z stdout F text`: time, stream, flags (`P`: the line goes on in the next), text
//! (kubernetes/design-proposals, kubelet-cri-logging).

use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CriLine<'a> {
    pub ts_ns: i64,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// More of the line follows.
    pub partial: bool,
    pub text: &'a str,
}

pub fn parse(line: &str) -> Option<CriLine<'_>> {
    let (time, rest) = line.split_once(' ')?;
    let (stream, rest) = rest.split_once(' ')?;
    let (flags, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let time: jiff::Timestamp = time.parse().ok()?;
    let ts_ns = i64::try_from(time.as_nanosecond()).ok()?;
    if !matches!(stream, "stdout" | "stderr") {
        return None;
    }
    Some(CriLine { ts_ns, stream, partial: flags.split(':').any(|f| f == "P"), text })
}

/// `/var/log/pods/<namespace>_<pod>_<uid>/<container>/0.log`.
pub fn pod_labels(path: &Path) -> Vec<(&'static str, String)> {
    let mut parents = path.ancestors().skip(1).filter_map(|p| p.file_name()?.to_str());
    let (Some(container), Some(pod)) = (parents.next(), parents.next()) else { return vec![] };
    let mut parts = pod.splitn(3, '_');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(namespace), Some(pod), Some(_)) => vec![
            ("namespace", namespace.to_owned()),
            ("pod", pod.to_owned()),
            ("container", container.to_owned()),
        ],
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = parse("2026-01-31T12:00:00.000000007Z stderr P half a line").unwrap();
        assert_eq!(
            (line.ts_ns % 1_000_000_000, line.stream, line.partial, line.text),
            (7, "stderr", true, "half a line")
        );
        assert_eq!(parse("2026-01-31T12:00:00+01:00 stdout F ").unwrap().text, "");
        for wrong in
            ["", "x", "2026-01-31T12:00:00Z", "yesterday stdout F x", "2026-01-31T12:00:00Z pipe F x"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn paths() {
        let labels = pod_labels(Path::new("/var/log/pods/shop_cart-0_4f-22/app/0.log"));
        assert_eq!(
            labels,
            [("namespace", "shop".into()), ("pod", "cart-0".into()), ("container", "app".into())]
        );
        assert_eq!(pod_labels(Path::new("/x/y.log")), []);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(line in "\\PC{0,80}") {
            let _ = parse(&line);
        }
    }
}
