//! The body of Loki's query answers: streams, and the statistics that Grafana and logcli read.

use std::collections::HashMap;
use std::time::Duration;

use http::HeaderMap;
use triptych_model::logs::LogEntry;
use triptych_model::{Labels, LabelsBuilder};
use triptych_runtime::ReadReport;

use crate::json;

/// Whether the client wants structured metadata and parsed labels apart from the stream's (Grafana does).
pub fn is_categorized(headers: &HeaderMap) -> bool {
    headers
        .get_all("x-loki-response-encoding-flags")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| v.split(',').any(|flag| flag.trim() == "categorize-labels"))
}

/// One stream label set out of three, as Loki merges them where they are not asked for apart.
fn merged(entry: &LogEntry) -> Labels {
    if entry.metadata.is_empty() && entry.parsed.is_empty() {
        return entry.labels.clone();
    }
    let mut builder: LabelsBuilder = entry.labels.to_builder();
    for (name, value) in entry.metadata.iter().chain(entry.parsed.iter()) {
        builder.set(name, value);
    }
    builder.build()
}

/// `"resultType":"streams","result":[..]`.
pub fn streams(out: &mut String, entries: &[LogEntry], categorized: bool) {
    out.push_str("\"resultType\":\"streams\",");
    if categorized {
        out.push_str("\"encodingFlags\":[\"categorize-labels\"],");
    }
    out.push_str("\"result\":");
    groups(out, entries, categorized);
}

/// `[{"stream":{..},"values":[..]},..]`: entries grouped by labels, in the order they came.
pub fn groups(out: &mut String, entries: &[LogEntry], categorized: bool) {
    let mut positions: HashMap<Labels, usize> = HashMap::new();
    let mut groups: Vec<(Labels, Vec<&LogEntry>)> = Vec::new();
    for entry in entries {
        let labels = if categorized { entry.labels.clone() } else { merged(entry) };
        let at = *positions.entry(labels).or_insert_with_key(|labels| {
            groups.push((labels.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(entry);
    }
    json::list(out, &groups, |out, (labels, entries)| {
        out.push_str("{\"stream\":");
        json::labels(out, labels);
        out.push_str(",\"values\":");
        json::list(out, entries, |out, entry| value(out, entry, categorized));
        out.push('}');
    });
}

/// `["<ns>","<line>"]`, and apart from it the categories where they were asked for.
fn value(out: &mut String, entry: &LogEntry, categorized: bool) {
    out.push_str("[\"");
    out.push_str(itoa::Buffer::new().format(entry.ts_ns));
    out.push_str("\",");
    json::string(out, &String::from_utf8_lossy(&entry.line));
    if categorized {
        out.push_str(",{");
        if !entry.metadata.is_empty() {
            out.push_str("\"structuredMetadata\":");
            json::labels(out, &entry.metadata);
        }
        if !entry.parsed.is_empty() {
            if !entry.metadata.is_empty() {
                out.push(',');
            }
            out.push_str("\"parsed\":");
            json::labels(out, &entry.parsed);
        }
        out.push('}');
    }
    out.push(']');
}

/// `,"stats":{..}`: what Grafana and logcli show of it. Reads are counted over all sources, so that what ingesters read stands
/// with the store's.
pub fn stats(out: &mut String, report: &ReadReport, took: Duration, returned: usize) {
    let seconds = took.as_secs_f64().max(1e-9);
    let store = |chunks: u64, bytes: u64, lines: u64, passed: usize| {
        serde_json::json!({
            "totalChunksRef": chunks,
            "totalChunksDownloaded": chunks,
            "chunksDownloadTime": 0,
            "chunk": {
                "headChunkBytes": 0,
                "headChunkLines": 0,
                "decompressedBytes": bytes,
                "decompressedLines": lines,
                "compressedBytes": 0,
                "totalDuplicates": 0,
                "postFilterLines": passed,
            },
        })
    };
    let stats = serde_json::json!({
        "summary": {
            "bytesProcessedPerSecond": (report.read_bytes as f64 / seconds) as u64,
            "linesProcessedPerSecond": (report.rows as f64 / seconds) as u64,
            "totalBytesProcessed": report.read_bytes,
            "totalLinesProcessed": report.rows,
            "execTime": took.as_secs_f64(),
            "queueTime": 0.0,
            "subqueries": 0,
            "totalEntriesReturned": returned,
            "splits": 0,
            "shards": 0,
            "totalPostFilterLines": returned,
            "totalStructuredMetadataBytesProcessed": 0,
        },
        "querier": {"store": store(report.chunks, report.read_bytes, report.rows, returned)},
        "ingester": {
            "totalReached": 0,
            "totalChunksMatched": 0,
            "totalBatches": 0,
            "totalLinesSent": 0,
            "store": store(0, 0, 0, 0),
        },
        "cache": {},
        "index": {"totalChunks": report.chunks, "postFilterChunks": report.chunks},
    });
    out.push_str(",\"stats\":");
    out.push_str(&stats.to_string());
}
