//! Fields found in lines: what Loki's `detected_fields` answers.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::stream::BoxStream;
use hashbrown::HashSet;
use triptych_logql::syntax::units::{parse_bytes, parse_duration_ns};
use triptych_logql::{ERROR_DETAILS_LABEL, ERROR_LABEL, LogLeaf, StreamPipeline};
use triptych_model::logs::{DetectedField, EntrySelect, LogEntry};
use triptych_model::{Labels, Result};

/// Lines looked at where the caller gives no limit (Loki's default for `line_limit`).
const LINES: usize = 1000;
/// Most fields that are found.
const FIELDS_MAX: usize = 1000;
/// Most values of a field that are told apart.
const VALUES_MAX: usize = 10_000;

/// The question for the lines to look at.
pub(crate) fn sample_of(select: &EntrySelect) -> EntrySelect {
    EntrySelect { limit: if select.limit == 0 { LINES } else { select.limit }, ..select.clone() }
}

#[derive(Debug, Default)]
struct Field {
    kind: Option<&'static str>,
    values: HashSet<u64>,
    json: bool,
    logfmt: bool,
}

struct Detector {
    json: StreamPipeline,
    logfmt: StreamPipeline,
    fields: BTreeMap<String, Field>,
}

/// Walks the lines and names their fields.
pub(crate) async fn detect(
    mut lines: BoxStream<'static, Result<Vec<LogEntry>>>,
) -> Result<Vec<DetectedField>> {
    let parser = |expr| {
        Ok::<_, triptych_model::Error>(LogLeaf::compile(expr)?.pipeline().for_stream(&Labels::empty()))
    };
    let mut detector = Detector {
        json: parser(r#"{a="b"} | json"#)?,
        logfmt: parser(r#"{a="b"} | logfmt"#)?,
        fields: BTreeMap::new(),
    };
    while let Some(batch) = lines.next().await {
        batch?.iter().for_each(|entry| detector.entry(entry));
        tokio::task::yield_now().await;
    }
    Ok(detector.done())
}

/// As Loki decides, in this order.
fn kind_of(value: &str) -> &'static str {
    if value.parse::<i64>().is_ok() {
        "int"
    } else if value.parse::<f64>().is_ok() {
        "float"
    } else if matches!(value, "true" | "false" | "True" | "False" | "TRUE" | "FALSE" | "t" | "T" | "f" | "F")
    {
        "boolean"
    } else if parse_duration_ns(value).is_some() {
        "duration"
    } else if value.starts_with(|c: char| c.is_ascii_digit()) && parse_bytes(value).is_some() {
        "bytes"
    } else {
        "string"
    }
}

impl Detector {
    fn entry(&mut self, entry: &LogEntry) {
        for (name, value) in entry.metadata.iter().chain(&entry.parsed) {
            self.value(name, value);
        }
        let Ok(line) = std::str::from_utf8(&entry.line) else { return };
        let is_json = line.trim_start().starts_with('{');
        let parser = if is_json { &mut self.json } else { &mut self.logfmt };
        let Some(processed) = parser.process(entry.ts_ns, line, std::iter::empty()) else { return };
        if processed.parsed.get(ERROR_LABEL).is_some() {
            return;
        }
        for (name, value) in &processed.parsed {
            if let Some(field) = self.value(name, value) {
                field.json |= is_json;
                field.logfmt |= !is_json;
            }
        }
    }

    fn value(&mut self, name: &str, value: &str) -> Option<&mut Field> {
        if matches!(name, ERROR_LABEL | ERROR_DETAILS_LABEL) {
            return None;
        }
        if !self.fields.contains_key(name) {
            if self.fields.len() >= FIELDS_MAX {
                return None;
            }
            self.fields.insert(name.to_owned(), Field::default());
        }
        let field = self.fields.get_mut(name)?;
        let kind = kind_of(value);
        field.kind = Some(match field.kind {
            None => kind,
            Some(known) if known == kind => kind,
            Some("int" | "float") if matches!(kind, "int" | "float") => "float",
            Some(_) => "string",
        });
        if field.values.len() < VALUES_MAX {
            field.values.insert(xxhash_rust::xxh3::xxh3_64(value.as_bytes()));
        }
        Some(field)
    }

    fn done(self) -> Vec<DetectedField> {
        let field = |(label, field): (String, Field)| {
            let parsers = [("json", field.json), ("logfmt", field.logfmt)];
            DetectedField {
                label,
                kind: field.kind.unwrap_or("string").to_owned(),
                cardinality: field.values.len() as u64,
                parsers: parsers
                    .iter()
                    .filter(|(_, used)| *used)
                    .map(|(name, _)| (*name).to_owned())
                    .collect(),
            }
        };
        self.fields.into_iter().map(field).collect()
    }
}
