//! Fields found in lines: what Loki's `detected_fields` and `detected_field/<name>/values` answer.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::stream::BoxStream;
use hashbrown::HashSet;
use triptych_logql::syntax::units::{parse_bytes, parse_duration_ns};
use triptych_logql::{ERROR_DETAILS_LABEL, ERROR_LABEL, LogLeaf, StreamPipeline};
use triptych_model::logs::{DetectedField, EntrySelect, LogEntry};
use triptych_model::{Labels, Result};
use triptych_runtime::QueryContext;

/// Lines looked at where the caller gives no limit (Loki's default for `line_limit`).
const LINES: usize = 1000;
/// Most fields that are found.
const FIELDS_MAX: usize = 1000;
/// Most values of a field that are told apart.
const VALUES_MAX: usize = 10_000;
/// Most bytes of values of one field that are told.
const VALUES_BYTES_MAX: usize = 4 << 20;

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

/// Where a field was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// In structured metadata, or by the query's own parsers.
    Known,
    Json,
    Logfmt,
}

/// Finds the fields of a line: an object is JSON, everything else logfmt.
struct Finder {
    json: StreamPipeline,
    logfmt: StreamPipeline,
}

impl Finder {
    fn new() -> Result<Self> {
        let parser = |expr| Ok(LogLeaf::compile(expr)?.pipeline().for_stream(&Labels::empty()));
        Ok(Self { json: parser(r#"{a="b"} | json"#)?, logfmt: parser(r#"{a="b"} | logfmt"#)? })
    }

    /// Calls `found` with the name and the value of each.
    fn fields(&mut self, entry: &LogEntry, mut found: impl FnMut(Origin, &str, &str)) {
        for (name, value) in entry.metadata.iter().chain(&entry.parsed) {
            if !matches!(name, ERROR_LABEL | ERROR_DETAILS_LABEL) {
                found(Origin::Known, name, value);
            }
        }
        let Ok(line) = std::str::from_utf8(&entry.line) else { return };
        let (parser, origin) = match line.trim_start().starts_with('{') {
            true => (&mut self.json, Origin::Json),
            false => (&mut self.logfmt, Origin::Logfmt),
        };
        let Some(processed) = parser.process(entry.ts_ns, line, std::iter::empty()) else { return };
        if processed.parsed.get(ERROR_LABEL).is_none() {
            processed.parsed.iter().for_each(|(name, value)| found(origin, name, value));
        }
    }
}

/// Walks the lines and names their fields.
pub(crate) async fn detect(
    mut lines: BoxStream<'static, Result<Vec<LogEntry>>>,
) -> Result<Vec<DetectedField>> {
    let mut finder = Finder::new()?;
    let mut fields = BTreeMap::new();
    while let Some(batch) = lines.next().await {
        for entry in &batch? {
            finder.fields(entry, |origin, name, value| note(&mut fields, origin, name, value));
        }
        tokio::task::yield_now().await;
    }
    Ok(fields.into_iter().map(detected).collect())
}

/// Walks the lines and collects the values of one field, sorted.
pub(crate) async fn values(
    ctx: &QueryContext,
    mut lines: BoxStream<'static, Result<Vec<LogEntry>>>,
    field: &str,
) -> Result<Vec<String>> {
    let mut finder = Finder::new()?;
    let mut values = BTreeSet::new();
    let mut bytes = 0;
    while let Some(batch) = lines.next().await {
        for entry in &batch? {
            finder.fields(entry, |_, name, value| {
                let fits = values.len() < VALUES_MAX && bytes + value.len() <= VALUES_BYTES_MAX;
                if name == field && !values.contains(value) {
                    if fits {
                        bytes += value.len();
                        values.insert(value.to_owned());
                    } else {
                        ctx.warn(format!("field {field:?} has more values than are told"));
                    }
                }
            });
        }
        tokio::task::yield_now().await;
    }
    Ok(values.into_iter().collect())
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

fn note(fields: &mut BTreeMap<String, Field>, origin: Origin, name: &str, value: &str) {
    if !fields.contains_key(name) {
        if fields.len() >= FIELDS_MAX {
            return;
        }
        fields.insert(name.to_owned(), Field::default());
    }
    let Some(field) = fields.get_mut(name) else { return };
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
    field.json |= origin == Origin::Json;
    field.logfmt |= origin == Origin::Logfmt;
}

fn detected((label, field): (String, Field)) -> DetectedField {
    let parsers = [("json", field.json), ("logfmt", field.logfmt)];
    DetectedField {
        label,
        kind: field.kind.unwrap_or("string").to_owned(),
        cardinality: field.values.len() as u64,
        parsers: parsers.iter().filter(|(_, used)| *used).map(|(name, _)| (*name).to_owned()).collect(),
    }
}
