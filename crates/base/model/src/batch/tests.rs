use proptest::prelude::*;

use super::*;
use crate::Labels;

#[test]
fn metrics_round_trip() {
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "x")]);
    let mut builder = MetricsBuilder::default();
    let samples = [Sample { t_ms: 1, value: 2.5 }, Sample { t_ms: i64::MAX, value: f64::INFINITY }];
    builder.series(labels.hash64(), labels.as_encoded(), &samples);
    builder.metadata("up", MetricKind::Gauge, "whether it is", "");
    builder.exemplar(7, labels.as_encoded(), &[], samples[0]);
    assert_eq!(builder.items(), 2);

    let plain = open(&builder.seal(), 1 << 20).unwrap();
    let records: Vec<_> = MetricsReader::new(&plain).unwrap().collect::<Result<_>>().unwrap();
    let MetricsRecord::Series { hash, labels: encoded, samples: read } = records[0] else { panic!() };
    assert_eq!((hash, encoded), (labels.hash64(), labels.as_encoded()));
    assert_eq!(read.iter().collect::<Vec<_>>(), samples);
    assert!(matches!(records[1], MetricsRecord::Metadata { metric: "up", kind: MetricKind::Gauge, .. }));
    assert!(matches!(records[2], MetricsRecord::Exemplar { hash: 7, .. }));
}

#[test]
fn logs_and_traces_round_trip() {
    let metadata = Labels::from_pairs([("trace_id", "abc")]);
    let entries = [
        LogRecordEntry { ts_ns: 5, line: "hello", metadata: metadata.as_encoded() },
        LogRecordEntry { ts_ns: -1, line: "", metadata: &[] },
    ];
    let mut logs = LogsBuilder::default();
    logs.stream(9, &[], entries.into_iter());
    let record = LogsReader::new(logs.plain()).unwrap().next().unwrap().unwrap();
    assert_eq!(record.entries().collect::<Vec<_>>(), entries);
    let mut one_by_one = LogsBuilder::default();
    let stream = one_by_one.begin(9, &[]);
    entries.into_iter().for_each(|entry| one_by_one.entry(stream, entry));
    assert_eq!((one_by_one.plain(), one_by_one.items()), (logs.plain(), 2));

    let mut traces = TracesBuilder::default();
    traces.trace(&[3; 16], 1, 2, 4, b"otlp");
    let record = TracesReader::new(traces.plain()).unwrap().next().unwrap().unwrap();
    assert_eq!((record.trace_id, record.spans, record.otlp), (&[3; 16], 4, &b"otlp"[..]));
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    let mut sealed = u32::MAX.to_le_bytes().to_vec();
    sealed.extend_from_slice(&[0; 8]);
    assert_eq!(open(&sealed, 1 << 20).unwrap_err().kind, crate::Kind::Exhausted);
}

proptest! {
    #[test]
    fn damaged_input_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = open(&bytes, 1 << 16);
        if let Some(first) = bytes.first_mut() { *first = VERSION; }
        if let Ok(r) = MetricsReader::new(&bytes) { r.for_each(drop); }
        if let Ok(r) = LogsReader::new(&bytes) { r.flatten().for_each(|r| r.entries().for_each(drop)); }
        if let Ok(r) = TracesReader::new(&bytes) { r.for_each(drop); }
    }
}
