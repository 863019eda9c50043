//! Names of attributes and metrics as Prometheus and Loki write them: strategy `UnderscoreEscapingWithSuffixes`, the rules of
//! github.com/prometheus/otlptranslator with Prometheus' defaults (several underscores in a label are kept, a single leading
//! one gets `key` before it).

/// The type of a metric, as far as its name depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricShape {
    Gauge,
    /// A sum that only grows.
    Counter,
    Other,
}

/// Whether an attribute's name is a label's name already.
#[inline]
pub fn is_label_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let Some(first) = bytes.first() else { return false };
    (first.is_ascii_alphabetic() || name.starts_with("__"))
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// Appends the label's name for an attribute: everything but letters, digits and `_` becomes `_`.
pub fn append_label_name(name: &str, out: &mut String) {
    match name.chars().next() {
        Some(c) if c.is_ascii_digit() => out.push_str("key_"),
        Some(c) if !c.is_ascii_alphanumeric() => {
            // What becomes a single leading underscore.
            let second = name.chars().nth(1);
            if second.is_none_or(|c| c.is_ascii_alphanumeric()) {
                out.push_str("key");
            }
        }
        _ => {}
    }
    out.extend(name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
}

/// The name of a Prometheus metric: tokens of the name, then the unit (`seconds`, `bytes_per_second`), then `total` for
/// counters or `ratio` for gauges of unit 1.
pub fn metric_name(name: &str, unit: &str, shape: MetricShape) -> String {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == ':';
    let mut tokens: Vec<&str> = name.split(|c| !valid(c)).filter(|t| !t.is_empty()).collect();
    let (main, per) = unit_suffixes(unit);
    let main = if tokens.contains(&main.as_str()) { "" } else { main.as_str() };
    let per = if tokens.contains(&per.as_str()) { "" } else { per.as_str() };
    let main = if per.is_empty() { main } else { main.trim_end_matches('_') };
    tokens.extend([main, per].into_iter().filter(|t| !t.is_empty()));
    let suffix = match shape {
        MetricShape::Counter => Some("total"),
        MetricShape::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    };
    if let Some(suffix) = suffix {
        tokens.retain(|t| *t != suffix);
        tokens.push(suffix);
    }
    let mut out = tokens.join("_");
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

/// The unit in metadata: both parts in words.
pub fn unit_name(unit: &str) -> String {
    let (main, per) = unit_suffixes(unit);
    match (main.is_empty(), per.is_empty()) {
        (false, false) => format!("{main}_{per}"),
        (false, true) => main,
        _ => per,
    }
    .trim_matches('_')
    .to_owned()
}

/// `By/s` to (`bytes`, `per_second`). Annotations in braces are no unit.
fn unit_suffixes(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let plain = |part: &str| {
        let part = part.trim();
        if part.contains(['{', '}']) { String::new() } else { part.to_owned() }
    };
    let (main, per) = (plain(main), plain(per));
    let main = clean_unit(main_unit(&main));
    let per = if per.is_empty() { String::new() } else { clean_unit(&format!("per_{}", per_unit(&per))) };
    let per = per.strip_suffix('_').unwrap_or(&per).to_owned();
    (main, if per == "per" { String::new() } else { per })
}

fn main_unit(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "1" => "",
        "%" => "percent",
        other => other,
    }
}

fn per_unit(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}

/// Invalid characters become `_`, runs of `_` one, a leading one goes.
fn clean_unit(unit: &str) -> String {
    let mut out = String::with_capacity(unit.len());
    for c in unit.chars() {
        let c = if c.is_ascii_alphanumeric() || c == ':' { c } else { '_' };
        if c != '_' || !out.ends_with('_') {
            out.push(c);
        }
    }
    out.strip_prefix('_').unwrap_or(&out).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for (attribute, label) in [
            ("http.method", "http_method"),
            ("a", "a"),
            ("1a", "key_1a"),
            ("_a", "key_a"),
            (".a", "key_a"),
            ("__a", "__a"),
            ("a..b", "a__b"),
            ("ü", "key_"),
            ("größe", "gr__e"),
        ] {
            let mut out = String::new();
            append_label_name(attribute, &mut out);
            assert_eq!(out, label, "{attribute}");
            if is_label_name(attribute) {
                assert_eq!(attribute, label);
            }
        }
    }

    #[test]
    fn metrics() {
        use MetricShape::*;
        for (name, unit, shape, want) in [
            ("http.server.duration", "s", Other, "http_server_duration_seconds"),
            ("http.server.duration", "ms", Other, "http_server_duration_milliseconds"),
            ("requests", "1", Counter, "requests_total"),
            ("requests.total", "", Counter, "requests_total"),
            ("system.io", "By/s", Gauge, "system_io_bytes_per_second"),
            ("memory.usage.bytes", "By", Gauge, "memory_usage_bytes"),
            ("cpu.utilization", "1", Gauge, "cpu_utilization_ratio"),
            ("queue", "{items}", Gauge, "queue"),
            ("io.count", "{packets}/s", Counter, "io_count_per_second_total"),
            ("2xx", "", Other, "_2xx"),
            ("a.__b", "", Other, "a_b"),
            ("disk", "%", Gauge, "disk_percent"),
            ("x", "km/h", Gauge, "x_km_per_hour"),
            ("...", "", Gauge, ""),
        ] {
            assert_eq!(metric_name(name, unit, shape), want, "{name} {unit}");
        }
        assert_eq!(unit_name("By/s"), "bytes_per_second");
        assert_eq!(unit_name("1"), "");
    }
}
