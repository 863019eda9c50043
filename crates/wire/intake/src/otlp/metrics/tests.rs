use opentelemetry_proto::tonic::common::v1::{AnyValue as ProtoValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::Exemplar as ProtoExemplar;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric as ProtoMetric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar, metric::Data, number_data_point, summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::testing::{Recorder, apply, damage};

const MS: u64 = 1_000_000;

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(ProtoValue { value: Some(Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

fn data(resource: Vec<KeyValue>, name: &str, unit: &str, metric: Data) -> MetricsData {
    MetricsData {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes: resource, ..Default::default() }),
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![ProtoMetric {
                    name: name.into(),
                    description: "help".into(),
                    unit: unit.into(),
                    metadata: vec![],
                    data: Some(metric),
                }],
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn point(attributes: Vec<KeyValue>, value: f64) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        time_unix_nano: 7 * MS + 999,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}

fn check(data: &MetricsData, want: &[&str]) {
    let (mut from_protobuf, mut from_json) = (Recorder::default(), Recorder::default());
    decode(&data.encode_to_vec(), &mut from_protobuf).unwrap();
    assert_eq!(from_protobuf.lines, want);
    decode_json(serde_json::to_string(data).unwrap().as_bytes(), &mut from_json).unwrap();
    assert_eq!(from_json, from_protobuf);
}

#[test]
fn gauges_and_target_info() {
    let resource = vec![
        text("service.namespace", "shop"),
        text("service.name", "api"),
        text("service.instance.id", "i1"),
        text("host.name", "h"),
    ];
    let mut int = point(vec![text("a.b", "1")], 0.0);
    int.value = Some(number_data_point::Value::AsInt(-3));
    let gauge = Data::Gauge(Gauge { data_points: vec![int] });
    check(
        &data(resource, "queue.length", "By", gauge.clone()),
        &[
            r##"# queue_length_bytes gauge "help" "bytes""##,
            r#"{__name__="queue_length_bytes",a_b="1",instance="i1",job="shop/api"} -3@7"#,
            r##"# target_info gauge "Target metadata" """##,
            r#"{__name__="target_info",host_name="h",instance="i1",job="shop/api"} 1@7"#,
        ],
    );
    // Nothing to tell, or nobody to join: no target_info.
    for resource in [vec![text("service.name", "api")], vec![text("host.name", "h")], vec![]] {
        let mut sink = Recorder::default();
        decode(&data(resource, "x", "", gauge.clone()).encode_to_vec(), &mut sink).unwrap();
        assert_eq!(sink.lines.len(), 2, "{:?}", sink.lines);
    }
}

#[test]
fn attributes_that_become_one_label() {
    let attributes =
        vec![text("a_b", "2"), text("a.b", "1"), text("job", "mine"), text("__name__", "x"), text("e", "")];
    let gauge = Data::Gauge(Gauge { data_points: vec![point(attributes, 1.0)] });
    check(
        &data(vec![text("service.name", "api")], "x", "1", gauge),
        &[r##"# x_ratio gauge "help" """##, r#"{__name__="x_ratio",a_b="1;2",job="api"} 1@7"#],
    );
}

#[test]
fn sums() {
    let sum = |temporality, monotonic, p: NumberDataPoint| {
        Data::Sum(Sum { data_points: vec![p], aggregation_temporality: temporality, is_monotonic: monotonic })
    };
    let mut with_exemplar = point(vec![], 3.0);
    with_exemplar.exemplars = vec![ProtoExemplar {
        filtered_attributes: vec![text("u", "v")],
        time_unix_nano: 6 * MS,
        span_id: vec![2; 8],
        trace_id: vec![1; 16],
        value: Some(exemplar::Value::AsInt(9)),
    }];
    check(
        &data(vec![], "req", "", sum(2, true, with_exemplar)),
        &[
            r##"# req_total counter "help" """##,
            r#"{__name__="req_total"} 3@7"#,
            concat!(
                r#"{__name__="req_total"} # {span_id="0202020202020202","#,
                r#"trace_id="01010101010101010101010101010101",u="v"} 9@6"#
            ),
        ],
    );
    let mut stale = point(vec![], 3.0);
    stale.flags = 1;
    check(
        &data(vec![], "req", "", sum(2, false, stale)),
        &[r##"# req gauge "help" """##, r#"{__name__="req"} NaN(7ff0000000000002)@7"#],
    );
    check(
        &data(vec![], "req", "", sum(1, true, point(vec![], 1.0))),
        &[r#"! delta_temporality 1 delta temporality is not supported, send cumulative: metric "req""#],
    );
    check(
        &data(vec![], "req", "", sum(0, true, point(vec![], 1.0))),
        &[
            r#"! unspecified_temporality 1 unspecified temporality is not supported, send cumulative: metric "req""#,
        ],
    );
    let empty = NumberDataPoint { time_unix_nano: 7 * MS, ..Default::default() };
    check(
        &data(vec![], "req", "", sum(2, false, empty)),
        &[r##"# req gauge "help" """##, r#"! missing_value 1 data point without a value: metric "req""#],
    );
    check(
        &data(vec![], "...", "", sum(2, false, point(vec![], 1.0))),
        &[r#"! metric_name_invalid 1 normalization for metric "..." resulted in invalid name """#],
    );
}

#[test]
fn histograms_and_summaries() {
    let histogram = Data::Histogram(Histogram {
        aggregation_temporality: 2,
        data_points: vec![HistogramDataPoint {
            attributes: vec![text("le", "x"), text("z", "1")],
            time_unix_nano: 7 * MS,
            count: 6,
            sum: Some(2.5),
            bucket_counts: vec![1, 2, 3],
            explicit_bounds: vec![0.005, 10.0],
            exemplars: vec![ProtoExemplar {
                value: Some(exemplar::Value::AsDouble(0.1)),
                ..Default::default()
            }],
            ..Default::default()
        }],
    });
    check(
        &data(vec![], "lat", "s", histogram),
        &[
            r##"# lat_seconds histogram "help" "seconds""##,
            r#"{__name__="lat_seconds_sum",le="x",z="1"} 2.5@7"#,
            r#"{__name__="lat_seconds_count",le="x",z="1"} 6@7"#,
            r#"{__name__="lat_seconds_bucket",le="0.005",z="1"} 1@7"#,
            r#"{__name__="lat_seconds_bucket",le="10",z="1"} 3@7"#,
            r#"{__name__="lat_seconds_bucket",le="+Inf",z="1"} 6@7"#,
            r#"{__name__="lat_seconds_bucket",le="10",z="1"} # {} 0.1@0"#,
        ],
    );
    let summary = Data::Summary(Summary {
        data_points: vec![SummaryDataPoint {
            time_unix_nano: 7 * MS,
            count: 2,
            sum: 3.0,
            quantile_values: vec![ValueAtQuantile { quantile: 0.99, value: 1.5 }],
            ..Default::default()
        }],
    });
    check(
        &data(vec![], "s", "", summary),
        &[
            r##"# s summary "help" """##,
            r#"{__name__="s_sum"} 3@7"#,
            r#"{__name__="s_count"} 2@7"#,
            r#"{__name__="s",quantile="0.99"} 1.5@7"#,
        ],
    );
    let exponential = Data::ExponentialHistogram(ExponentialHistogram {
        aggregation_temporality: 2,
        data_points: vec![ExponentialHistogramDataPoint { scale: -3, ..Default::default() }; 2],
    });
    check(
        &data(vec![], "e", "", exponential),
        &[r#"! native_histograms_unsupported 2 exponential histograms are not supported: metric "e""#],
    );
}

#[test]
fn target_info_spans_the_batch() {
    let at = |ms: u64| NumberDataPoint { time_unix_nano: ms * MS, ..point(vec![], 1.0) };
    let gauge = Data::Gauge(Gauge { data_points: vec![at(0), at(400_000)] });
    let mut sink = Recorder::default();
    let resource = vec![text("service.name", "a"), text("x", "y")];
    decode(&data(resource, "g", "", gauge).encode_to_vec(), &mut sink).unwrap();
    let info = sink.lines.last().unwrap();
    assert!(info.ends_with(" 1@0 1@150000 1@300000 1@400000"), "{info}");
}

#[test]
fn too_many_attributes() {
    let attributes = (0..2000).map(|i| text(&format!("a{i}"), "x")).collect();
    let gauge = Data::Gauge(Gauge { data_points: vec![point(attributes, 1.0)] });
    let error = decode(&data(vec![], "g", "", gauge).encode_to_vec(), &mut Recorder::default()).unwrap_err();
    assert!(error.to_string().contains("1024 attributes"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn damage_never_panics(damage in damage()) {
        let histogram = Data::Histogram(Histogram {
            aggregation_temporality: 2,
            data_points: vec![HistogramDataPoint {
                attributes: vec![text("a.b", "x"), text("a_b", "1")],
                bucket_counts: vec![1, 2, 3],
                explicit_bounds: vec![0.005, 10.0],
                ..Default::default()
            }],
        });
        let data = data(vec![text("service.name", "a"), text("x", "y")], "lat", "s", histogram);
        let _ = decode(&apply(&data.encode_to_vec(), &damage), &mut Recorder::default());
        let _ = decode_json(&apply(serde_json::to_string(&data).unwrap().as_bytes(), &damage), &mut Recorder::default());
    }
}
