//! Prometheus remote read: `prometheus.ReadRequest` and its two forms of an answer (prometheus `prompb/remote.proto`).
//!
//! ```text
//! ReadRequest   { 1 queries*, 2 accepted_response_types* }
//! Query         { 1 start ms, 2 end ms, 3 matchers*, 4 hints }     both ends inclusive
//! LabelMatcher  { 1 type (= != =~ !~), 2 name, 3 value }
//!
//! ReadResponse  { 1 results* }      QueryResult   { 1 timeseries* }
//! TimeSeries    { 1 labels*, 2 samples* }
//!
//! ChunkedReadResponse { 1 chunked_series*, 2 query_index }
//! ChunkedSeries { 1 labels*, 2 chunks* }
//! Chunk         { 1 start ms, 2 end ms, 3 encoding, 4 data }
//! frame         length uvarint | CRC-32C of the message, 4 bytes, big end first | ChunkedReadResponse
//! ```
//! Samples come as one snappy block, chunks as a stream of frames with at most one series in each. Hints only say what a store
//! could leave out; nothing is left out.

use triptych_model::labels::put_uvarint;
use triptych_model::metrics::{SeriesChunks, SeriesSamples, SeriesSelect};
use triptych_model::{Error, Labels, MatchOp, Matcher, Result};

use crate::wire::{Fields, each_varint, put_bytes, put_fixed64, put_tag, put_varint, varint_len, wrap};

/// Most questions in a request. Prometheus asks one at a time.
pub const QUERIES_MAX: usize = 1000;
/// Most matchers in a question.
pub const MATCHERS_MAX: usize = 1000;
/// A frame is closed when it has this size (Prometheus' default), so that it is larger by one chunk at most.
const FRAME_BYTES: usize = 1 << 20;

/// What an answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One `ReadResponse` with samples.
    Samples,
    /// Frames of encoded chunks.
    Chunks,
}

impl Form {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Samples => "application/x-protobuf",
            Self::Chunks => "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse",
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadRequest {
    pub queries: Vec<SeriesSelect>,
    /// The first form the client names that there is.
    pub form: Form,
}

/// Decodes a plain `ReadRequest`. Everything that is wrong with it is `Invalid`.
pub fn decode(body: &[u8]) -> Result<ReadRequest> {
    let mut queries = Vec::new();
    let (mut form, mut unknown) = (None, None);
    for field in Fields::new(body) {
        match field? {
            (1, query) => {
                let count = queries.len() + 1;
                if count > QUERIES_MAX {
                    return Err(Error::invalid(format!("more than {QUERIES_MAX} queries in a read request")));
                }
                queries.push(decode_query(query.bytes("ReadRequest.queries")?)?);
            }
            (2, types) => each_varint(types, "ReadRequest.accepted_response_types", |kind| match kind {
                0 => _ = form.get_or_insert(Form::Samples),
                1 => _ = form.get_or_insert(Form::Chunks),
                other => unknown = Some(other),
            })?,
            _ => {}
        }
    }
    match (form, unknown) {
        (Some(form), _) => Ok(ReadRequest { queries, form }),
        (None, None) => Ok(ReadRequest { queries, form: Form::Samples }),
        (None, Some(other)) => Err(Error::invalid(format!(
            "none of the accepted response types is known, among them {other}; there are SAMPLES and STREAMED_XOR_CHUNKS"
        ))),
    }
}

fn decode_query(query: &[u8]) -> Result<SeriesSelect> {
    let mut select =
        SeriesSelect { matchers: Vec::new(), start_ms: 0, end_ms: 0, skip_chunks: false, shard: None };
    for field in Fields::new(query) {
        match field? {
            (1, t) => select.start_ms = t.varint("Query.start_timestamp_ms")? as i64,
            (2, t) => select.end_ms = t.varint("Query.end_timestamp_ms")? as i64,
            (3, matcher) => {
                if select.matchers.len() == MATCHERS_MAX {
                    return Err(Error::invalid(format!("more than {MATCHERS_MAX} matchers in a query")));
                }
                select.matchers.push(decode_matcher(matcher.bytes("Query.matchers")?)?);
            }
            _ => {}
        }
    }
    Ok(select)
}

fn decode_matcher(matcher: &[u8]) -> Result<Matcher> {
    let (mut op, mut name, mut value) = (MatchOp::Equal, "", "");
    for field in Fields::new(matcher) {
        match field? {
            (1, kind) => {
                op = match kind.varint("LabelMatcher.type")? {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    other => return Err(Error::invalid(format!("matcher type {other} is not known"))),
                }
            }
            (2, text) => name = text.text("LabelMatcher.name")?,
            (3, text) => value = text.text("LabelMatcher.value")?,
            _ => {}
        }
    }
    Matcher::new(op, name, value)
}

/// Appends `TimeSeries` to a `QueryResult`.
pub fn put_series(result: &mut Vec<u8>, series: &SeriesSamples) {
    let start = result.len();
    put_labels(result, &series.labels);
    for sample in &series.samples {
        let t = sample.t_ms as u64;
        put_tag(result, 2, 2);
        // Both tags, a double, the time.
        put_uvarint(result, (1 + 8 + 1 + varint_len(t)) as u64);
        put_fixed64(result, 1, sample.value.to_bits());
        put_varint(result, 2, t);
    }
    wrap(result, start, 1);
}

/// Appends a `QueryResult` to a `ReadResponse`.
pub fn put_result(response: &mut Vec<u8>, result: &[u8]) {
    put_bytes(response, 1, result);
}

/// A `ReadResponse` as it travels.
pub fn compress(response: &[u8]) -> Result<Vec<u8>> {
    snap::raw::Encoder::new()
        .compress_vec(response)
        .map_err(|e| Error::exhausted(format!("the answer of {} bytes is too large: {e}", response.len())))
}

/// Appends the frames of one series, which belongs to the query at that position.
pub fn put_frames(out: &mut Vec<u8>, series: &SeriesChunks, query: usize) {
    let mut labels = Vec::new();
    put_labels(&mut labels, &series.labels);
    let mut message = labels.clone();
    let mut chunks = series.chunks.iter().peekable();
    while let Some(chunk) = chunks.next() {
        let start = message.len();
        put_varint(&mut message, 1, chunk.start_ms as u64);
        put_varint(&mut message, 2, chunk.end_ms as u64);
        put_varint(&mut message, 3, chunk.encoding as u64);
        put_bytes(&mut message, 4, &chunk.data);
        wrap(&mut message, start, 2);
        if message.len() < FRAME_BYTES && chunks.peek().is_some() {
            continue;
        }
        wrap(&mut message, 0, 1);
        if query != 0 {
            put_varint(&mut message, 2, query as u64);
        }
        put_uvarint(out, message.len() as u64);
        out.extend_from_slice(&crc32c::crc32c(&message).to_be_bytes());
        out.extend_from_slice(&message);
        message.clone_from(&labels);
    }
}

fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    for (name, value) in labels.iter() {
        let start = out.len();
        put_bytes(out, 1, name.as_bytes());
        put_bytes(out, 2, value.as_bytes());
        wrap(out, start, 1);
    }
}

#[cfg(test)]
mod tests;
