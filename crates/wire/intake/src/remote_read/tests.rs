//! Against messages as protobuf libraries write and read them.

use prost::Message;
use triptych_model::metrics::{ChunkEncoding, EncodedChunk, Sample};

use super::*;

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    queries: Vec<Query>,
    #[prost(int32, repeated, tag = "2")]
    accepted: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Query {
    #[prost(int64, tag = "1")]
    start: i64,
    #[prost(int64, tag = "2")]
    end: i64,
    #[prost(message, repeated, tag = "3")]
    matchers: Vec<LabelMatcher>,
    #[prost(bytes = "vec", tag = "4")]
    hints: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelMatcher {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, repeated, tag = "1")]
    results: Vec<QueryResult>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryResult {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<WireSample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct WireSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    t_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Chunked {
    #[prost(message, repeated, tag = "1")]
    series: Vec<ChunkedSeries>,
    #[prost(int64, tag = "2")]
    query: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ChunkedSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    chunks: Vec<WireChunk>,
}

#[derive(Clone, PartialEq, Message)]
struct WireChunk {
    #[prost(int64, tag = "1")]
    start: i64,
    #[prost(int64, tag = "2")]
    end: i64,
    #[prost(int32, tag = "3")]
    encoding: i32,
    #[prost(bytes = "vec", tag = "4")]
    data: Vec<u8>,
}

fn matcher(kind: i32, name: &str, value: &str) -> LabelMatcher {
    LabelMatcher { kind, name: name.into(), value: value.into() }
}

fn query(matchers: Vec<LabelMatcher>) -> Query {
    Query { start: -5, end: 1000, matchers, hints: vec![8, 1] }
}

#[test]
fn requests_are_understood() {
    let matchers = vec![
        matcher(0, "__name__", "up"),
        matcher(1, "a", "b"),
        matcher(2, "c", "d.*"),
        matcher(3, "e", "f|g"),
    ];
    let read = decode(
        &Request { queries: vec![query(matchers), query(vec![])], accepted: vec![7, 1, 0] }.encode_to_vec(),
    )
    .unwrap();
    assert_eq!((read.form, read.queries.len()), (Form::Chunks, 2));
    let first = &read.queries[0];
    assert_eq!((first.start_ms, first.end_ms), (-5, 1000));
    let shown: Vec<_> = first.matchers.iter().map(ToString::to_string).collect();
    assert_eq!(shown, [r#"__name__="up""#, r#"a!="b""#, r#"c=~"d.*""#, r#"e!~"f|g""#]);
    assert_eq!(decode(&[]).unwrap(), ReadRequest { queries: vec![], form: Form::Samples });
    assert_eq!(decode(&[0x10, 1]).unwrap().form, Form::Chunks);
}

#[test]
fn hostile_requests_are_refused() {
    let with = |matcher| Request { queries: vec![query(vec![matcher])], accepted: vec![] }.encode_to_vec();
    for (body, text) in [
        (Request { queries: vec![], accepted: vec![5] }.encode_to_vec(), "accepted response types"),
        (with(matcher(9, "a", "b")), "matcher type 9"),
        (with(matcher(2, "a", "(")), "regex"),
        (
            Request { queries: vec![Query::default(); QUERIES_MAX + 1], accepted: vec![] }.encode_to_vec(),
            "1000 queries",
        ),
        (
            Request { queries: vec![query(vec![matcher(0, "a", "b"); MATCHERS_MAX + 1])], accepted: vec![] }
                .encode_to_vec(),
            "1000 matchers",
        ),
        (b"\x0a\xff\xff\xff\xff\x0f".to_vec(), "claims"),
        (b"\x08\x01".to_vec(), "wire type"),
    ] {
        let error = decode(&body).unwrap_err();
        assert!(error.kind == triptych_model::Kind::Invalid && error.message.contains(text), "{error}");
    }
}

#[test]
fn samples_are_what_a_library_reads() {
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "é")]);
    let samples = vec![Sample { t_ms: -1, value: 1.5 }, Sample { t_ms: 1 << 40, value: -0.0 }];
    let mut result = Vec::new();
    put_series(&mut result, &SeriesSamples { labels, samples });
    put_series(&mut result, &SeriesSamples { labels: Labels::empty(), samples: vec![] });
    let mut response = Vec::new();
    put_result(&mut response, &result);
    put_result(&mut response, &[]);
    let plain = snap::raw::Decoder::new().decompress_vec(&compress(&response).unwrap()).unwrap();
    let read = Response::decode(&plain[..]).unwrap();
    assert_eq!((read.results.len(), read.results[0].series.len()), (2, 2));
    let series = &read.results[0].series[0];
    assert_eq!(series.labels[1], Label { name: "job".into(), value: "é".into() });
    assert_eq!(
        series.samples,
        [WireSample { value: 1.5, t_ms: -1 }, WireSample { value: -0.0, t_ms: 1 << 40 }]
    );
}

#[test]
fn frames_hold_one_series_and_are_cut_by_size() {
    let chunk = |i: i64| EncodedChunk {
        start_ms: i * 10,
        end_ms: i * 10 + 9,
        encoding: ChunkEncoding::Xor,
        data: vec![i as u8; 400_000].into(),
    };
    let series =
        SeriesChunks { labels: Labels::from_pairs([("a", "b")]), chunks: (0..5).map(chunk).collect() };
    let mut bytes = Vec::new();
    put_frames(&mut bytes, &series, 2);
    put_frames(&mut bytes, &SeriesChunks { labels: Labels::empty(), chunks: vec![] }, 2);
    let mut rest = &bytes[..];
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let length = triptych_model::labels::take_uvarint(&mut rest).unwrap() as usize;
        let (sum, tail) = rest.split_first_chunk::<4>().unwrap();
        let (message, tail) = tail.split_at(length);
        assert_eq!(u32::from_be_bytes(*sum), crc32c::crc32c(message));
        frames.push(Chunked::decode(message).unwrap());
        rest = tail;
    }
    let sizes: Vec<_> = frames.iter().map(|f| f.series[0].chunks.len()).collect();
    assert_eq!(sizes, [3, 2]);
    for frame in &frames {
        assert_eq!((frame.query, frame.series.len(), &*frame.series[0].labels[0].name), (2, 1, "a"));
    }
    let last = &frames[1].series[0].chunks[1];
    assert_eq!((last.start, last.end, last.encoding, last.data.len()), (40, 49, 1, 400_000));
}
