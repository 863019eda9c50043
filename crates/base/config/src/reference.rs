//! The reference page: every key with its default and meaning, made from the JSON schema (doc comments) and the defaults.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// A Markdown table per section of the config `T`.
pub fn markdown<T: JsonSchema + Serialize + Default>() -> String {
    let schema = schemars::schema_for!(T).to_value();
    let defaults = serde_json::to_value(T::default()).unwrap_or(Value::Null);
    let mut out = String::new();
    let mut sections = vec![(String::new(), schema.clone(), defaults)];
    while !sections.is_empty() {
        let (path, node, values) = sections.remove(0);
        let Some(properties) = node.get("properties").and_then(Value::as_object) else { continue };
        let title = if path.is_empty() { "Top level" } else { &path };
        let _ = writeln!(out, "\n## {title}\n");
        if let Some(text) = node.get("description").and_then(Value::as_str).filter(|_| !path.is_empty()) {
            let _ = writeln!(out, "{}\n", one_line(text));
        }
        let _ = writeln!(out, "| key | default | meaning |\n|---|---|---|");
        let mut below = Vec::new();
        for (key, property) in properties {
            let target = resolve(&schema, property);
            let value = values.get(key).cloned().unwrap_or(Value::Null);
            let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let description =
                [property, target].iter().find_map(|p| p.get("description").and_then(Value::as_str));
            let text = description.map(one_line).unwrap_or_default();
            if target.get("properties").is_some() {
                let _ = writeln!(out, "| `{full}` | | {text} See [{full}](#{}). |", full.replace('.', ""));
                below.push((full, target.clone(), value));
            } else {
                let _ = writeln!(out, "| `{full}` | `{value}` | {text} |");
            }
        }
        below.extend(sections);
        sections = below;
    }
    out
}

fn resolve<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    let reference =
        node.get("$ref").or_else(|| node.get("allOf")?.get(0)?.get("$ref")).and_then(Value::as_str);
    match reference.and_then(|r| root.pointer(r.strip_prefix('#')?)) {
        Some(target) => target,
        None => node,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_key_of_the_limits_is_there() {
        let page = super::markdown::<crate::Limits>();
        for key in ["metrics.series_max", "query.timeout", "logs.line_bytes_max"] {
            assert!(page.contains(&format!("| `{key}` |")), "{key} in:\n{page}");
        }
        assert!(page.contains("| `\"256KiB\"` |"), "{page}");
    }
}
