//! OTLP logs as Loki streams, as Loki's own OTLP endpoint does by default.
//!
//! - Resource attributes in [`INDEX_ATTRIBUTES`] become stream labels; without `service.name` the label `service_name` is taken
//!   from the first index label that tells one, else it is `unknown_service`.
//! - All others, the scope's name, version and attributes, the record's attributes and fields become structured metadata. Where
//!   a name occurs twice the more specific one counts (record, then scope, then resource).
//! - Names: see [`names`](super::names). Maps are flattened (`a: {b: 1}` is `a_b`), lists are JSON.
//! - The line is the body as text; maps and lists are JSON. Without a timestamp the observed one counts, without both `now_ns`.

use std::fmt::Write as _;

use triptych_model::{Error, Result};

use super::value::{AnyValue, each_pair, read_pair};
use super::{DEPTH_MAX, names, schema};
use crate::sink::{LogsSink, check_pairs, recycle, sort_last_wins};
use crate::wire::Fields;

/// Resource attributes that become stream labels: Loki's default list.
pub const INDEX_ATTRIBUTES: [&str; 18] = [
    "cloud.availability_zone",
    "cloud.region",
    "container.name",
    "deployment.environment",
    "deployment.environment.name",
    "k8s.cluster.name",
    "k8s.container.name",
    "k8s.cronjob.name",
    "k8s.daemonset.name",
    "k8s.deployment.name",
    "k8s.job.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.replicaset.name",
    "k8s.statefulset.name",
    "service.instance.id",
    "service.name",
    "service.namespace",
];

/// Index labels that may stand in for `service_name`: those of [`SERVICE_NAME_LABELS`] that an index attribute can yield.
const SERVICE_NAME_FROM: [&str; 3] = ["container_name", "k8s_container_name", "k8s_job_name"];

/// Labels that Loki takes a missing `service_name` from, in this order (its default `discover_service_name`).
pub const SERVICE_NAME_LABELS: [&str; 13] = [
    "service",
    "app",
    "application",
    "app_name",
    "name",
    "app_kubernetes_io_name",
    "container",
    "container_name",
    "k8s_container_name",
    "component",
    "workload",
    "job",
    "k8s_job_name",
];

/// Most bytes that the names of a record's nested attributes may unfold to: each leaf repeats all names above it.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// The label, and its value where nobody tells the service.
pub const SERVICE_NAME: &str = "service_name";
pub const UNKNOWN_SERVICE: &str = "unknown_service";

/// Decodes `ExportLogsServiceRequest` (the same bytes as `LogsData`).
pub fn decode(body: &[u8], now_ns: i64, sink: &mut impl LogsSink) -> Result<()> {
    let mut decoder =
        Decoder { now_ns, resource: Pieces::default(), scope: Pieces::default(), record: Pieces::default() };
    let mut pairs = Vec::new();
    for field in Fields::new(body) {
        if let (1, v) = field? {
            pairs = decoder.resource_logs(v.bytes("resource_logs")?, recycle(pairs), sink)?;
        }
    }
    Ok(())
}

/// The same from OTLP/JSON.
pub fn decode_json(body: &[u8], now_ns: i64, sink: &mut impl LogsSink) -> Result<()> {
    decode(&super::json::to_protobuf(&schema::LOGS, body)?, now_ns, sink)
}

/// Part of a name or value: borrowed from the body, or written into the text of its [`Pieces`].
#[derive(Clone, Copy)]
enum Piece<'a> {
    Body(&'a str),
    Text(usize, usize),
}

/// Pairs whose names and values may have had to be written anew. Cleared, not freed, from record to record.
#[derive(Default)]
struct Pieces<'a> {
    text: String,
    pairs: Vec<(Piece<'a>, Piece<'a>)>,
}

impl<'a> Pieces<'a> {
    fn clear(&mut self) {
        self.text.clear();
        self.pairs.clear();
    }

    fn get(&self, piece: Piece<'a>) -> &str {
        match piece {
            Piece::Body(text) => text,
            Piece::Text(start, end) => &self.text[start..end],
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (self.get(*n), self.get(*v)))
    }

    /// Writes into the text.
    fn write(&mut self, write: impl FnOnce(&mut String) -> Result<()>) -> Result<Piece<'a>> {
        let start = self.text.len();
        write(&mut self.text)?;
        Ok(Piece::Text(start, self.text.len()))
    }

    fn label_name(&mut self, key: &'a str) -> Result<Piece<'a>> {
        if names::is_label_name(key) {
            return Ok(Piece::Body(key));
        }
        self.write(|text| {
            names::append_label_name(key, text);
            Ok(())
        })
    }

    /// Adds an attribute; maps are flattened.
    fn attribute(&mut self, key: &'a str, value: AnyValue<'a>) -> Result<()> {
        if key.is_empty() {
            return Ok(());
        }
        check_pairs(self.pairs.len(), "attributes")?;
        match value {
            AnyValue::Map(map) => {
                let name = self.label_name(key)?;
                self.flatten(name, map, 1)
            }
            AnyValue::Text(text) => {
                let name = self.label_name(key)?;
                self.pairs.push((name, Piece::Body(text)));
                Ok(())
            }
            other => {
                let name = self.label_name(key)?;
                let value = self.write(|text| other.append_text(text))?;
                self.pairs.push((name, value));
                Ok(())
            }
        }
    }

    fn flatten(&mut self, prefix: Piece<'a>, map: &'a [u8], depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::invalid(format!("attributes: nested deeper than {DEPTH_MAX}")));
        }
        each_pair(map, 1, |key, value| {
            check_pairs(self.pairs.len(), "attributes")?;
            let start = self.text.len();
            if start > TEXT_BYTES_MAX {
                return Err(Error::invalid(format!("attributes unfold to more than {TEXT_BYTES_MAX} bytes")));
            }
            match prefix {
                Piece::Body(text) => self.text.push_str(text),
                Piece::Text(from, to) => self.text.extend_from_within(from..to),
            }
            self.text.push('_');
            self.text.extend(key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
            let name = Piece::Text(start, self.text.len());
            match value {
                AnyValue::Map(inner) => self.flatten(name, inner, depth + 1)?,
                other => {
                    let value = self.write(|text| other.append_text(text))?;
                    self.pairs.push((name, value));
                }
            }
            Ok(())
        })
    }

    /// Adds a field that has a fixed name; empty values and zeros are left to the caller.
    fn field(&mut self, name: &'static str, value: impl std::fmt::Display) {
        let start = self.text.len();
        let _ = write!(self.text, "{value}");
        self.pairs.push((Piece::Body(name), Piece::Text(start, self.text.len())));
    }
}

struct Decoder<'a> {
    now_ns: i64,
    resource: Pieces<'a>,
    scope: Pieces<'a>,
    record: Pieces<'a>,
}

impl<'a> Decoder<'a> {
    fn resource_logs<'p>(
        &mut self,
        resource_logs: &'a [u8],
        scratch: Vec<(&'p str, &'p str)>,
        sink: &mut impl LogsSink,
    ) -> Result<Vec<(&'p str, &'p str)>> {
        // The resource may stand after its records.
        self.resource.clear();
        let mut index = Pieces::default();
        for field in Fields::new(resource_logs) {
            let (1, resource) = field? else { continue };
            let resource = resource.bytes("ResourceLogs.resource")?;
            each_pair(resource, 1, |key, value| {
                let index_label = INDEX_ATTRIBUTES.contains(&key);
                if index_label { &mut index } else { &mut self.resource }.attribute(key, value)
            })?;
            for field in Fields::new(resource) {
                check_pairs(self.resource.pairs.len(), "Resource")?;
                if let (2, v) = field? {
                    let dropped = v.varint("Resource.dropped_attributes_count")?;
                    if dropped != 0 {
                        self.resource.field("resource_dropped_attributes_count", dropped);
                    }
                }
            }
        }
        let mut labels: Vec<(&str, &str)> = index.iter().filter(|(_, value)| !value.is_empty()).collect();
        if !labels.iter().any(|(name, _)| *name == SERVICE_NAME) {
            let told = labels.iter().find(|(name, _)| SERVICE_NAME_FROM.contains(name));
            let value = told.map_or(UNKNOWN_SERVICE, |(_, value)| value);
            labels.push((SERVICE_NAME, value));
        }
        sort_last_wins(&mut labels);
        sink.stream(&labels)?;
        let mut scratch = scratch;
        for field in Fields::new(resource_logs) {
            if let (2, v) = field? {
                scratch = self.scope_logs(v.bytes("ResourceLogs.scope_logs")?, scratch, sink)?;
            }
        }
        Ok(scratch)
    }

    fn scope_logs<'p>(
        &mut self,
        scope_logs: &'a [u8],
        scratch: Vec<(&'p str, &'p str)>,
        sink: &mut impl LogsSink,
    ) -> Result<Vec<(&'p str, &'p str)>> {
        self.scope.clear();
        for field in Fields::new(scope_logs) {
            let (1, scope) = field? else { continue };
            for field in Fields::new(scope.bytes("ScopeLogs.scope")?) {
                check_pairs(self.scope.pairs.len(), "InstrumentationScope")?;
                match field? {
                    (1, v) => {
                        let name = v.text("InstrumentationScope.name")?;
                        self.scope.pairs.push((Piece::Body("scope_name"), Piece::Body(name)));
                    }
                    (2, v) => {
                        let version = v.text("InstrumentationScope.version")?;
                        self.scope.pairs.push((Piece::Body("scope_version"), Piece::Body(version)));
                    }
                    (3, v) => {
                        let (key, value) = read_pair(v.bytes("InstrumentationScope.attributes")?)?;
                        self.scope.attribute(key, value)?;
                    }
                    (4, v) => {
                        let dropped = v.varint("InstrumentationScope.dropped_attributes_count")?;
                        if dropped != 0 {
                            let name = "scope_dropped_attributes_count";
                            self.scope.field(name, dropped);
                        }
                    }
                    _ => {}
                }
            }
        }
        let mut pairs = scratch;
        for field in Fields::new(scope_logs) {
            if let (2, v) = field? {
                pairs = self.record(v.bytes("ScopeLogs.log_records")?, pairs, sink)?;
            }
        }
        Ok(pairs)
    }

    fn record<'p>(
        &mut self,
        record: &'a [u8],
        scratch: Vec<(&'p str, &'p str)>,
        sink: &mut impl LogsSink,
    ) -> Result<Vec<(&'p str, &'p str)>> {
        self.record.clear();
        let out = &mut self.record;
        let (mut time_ns, mut observed_ns) = (0, 0);
        let mut body = AnyValue::Empty;
        for field in Fields::new(record) {
            check_pairs(out.pairs.len(), "LogRecord")?;
            match field? {
                (1, v) => time_ns = v.fixed64("LogRecord.time_unix_nano")?,
                (2, v) => {
                    let number = v.varint("LogRecord.severity_number")?;
                    if number != 0 {
                        out.field("severity_number", number as i32);
                    }
                }
                (3, v) => {
                    let text = v.text("LogRecord.severity_text")?;
                    out.pairs.push((Piece::Body("severity_text"), Piece::Body(text)));
                }
                (5, v) => body = AnyValue::read(v.bytes("LogRecord.body")?)?,
                (6, v) => {
                    let (key, value) = read_pair(v.bytes("LogRecord.attributes")?)?;
                    out.attribute(key, value)?;
                }
                (7, v) => {
                    let dropped = v.varint("LogRecord.dropped_attributes_count")?;
                    if dropped != 0 {
                        out.field("dropped_attributes_count", dropped);
                    }
                }
                (8, v) => {
                    let flags = v.fixed32("LogRecord.flags")?;
                    if flags != 0 {
                        out.field("flags", flags);
                    }
                }
                (9, v) => put_id(out, "trace_id", v.bytes("LogRecord.trace_id")?)?,
                (10, v) => put_id(out, "span_id", v.bytes("LogRecord.span_id")?)?,
                (11, v) => {
                    observed_ns = v.fixed64("LogRecord.observed_time_unix_nano")?;
                    if observed_ns != 0 {
                        out.field("observed_timestamp", observed_ns);
                    }
                }
                (12, v) => {
                    let name = v.text("LogRecord.event_name")?;
                    out.pairs.push((Piece::Body("event_name"), Piece::Body(name)));
                }
                _ => {}
            }
        }
        let line = match body {
            AnyValue::Text(text) => Piece::Body(text),
            other => out.write(|text| other.append_text(text))?,
        };
        let ts_ns = match (time_ns, observed_ns) {
            (0, 0) => self.now_ns,
            (0, ns) | (ns, _) => i64::try_from(ns).unwrap_or(i64::MAX),
        };
        let mut pairs = recycle(scratch);
        pairs.extend(self.resource.iter().chain(self.scope.iter()).chain(self.record.iter()));
        sort_last_wins(&mut pairs);
        sink.entry(ts_ns, self.record.get(line), &pairs)?;
        Ok(recycle(pairs))
    }
}

/// Ids of 16 or 8 bytes in hexadecimal; zeros mean absent.
fn put_id(out: &mut Pieces<'_>, name: &'static str, id: &[u8]) -> Result<()> {
    if id.iter().all(|b| *b == 0) {
        return Ok(());
    }
    if id.len() > 16 {
        return Err(Error::invalid(format!("{name} has {} bytes", id.len())));
    }
    let start = out.text.len();
    for byte in id {
        let _ = write!(out.text, "{byte:02x}");
    }
    out.pairs.push((Piece::Body(name), Piece::Text(start, out.text.len())));
    Ok(())
}

#[cfg(test)]
mod tests;
