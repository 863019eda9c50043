//! A sink that writes down what it gets, and damage for property tests.

use std::fmt;

use proptest::prelude::*;
use triptych_model::Result;
use triptych_model::metrics::{MetricKind, Sample};
use triptych_model::traces::TraceId;

use crate::exposition::{ExposedSample, ExpositionSink};
use crate::sink::{LogsSink, MetricsSink, Pairs, TracesSink};

pub type Owned = Vec<(String, String)>;

pub fn own(pairs: &Pairs<'_>) -> Owned {
    assert!(pairs.is_sorted_by(|a, b| a.0 < b.0), "sorted and unique: {pairs:?}");
    assert!(pairs.iter().all(|(_, v)| !v.is_empty()), "no empty values: {pairs:?}");
    pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

/// One line per item.
#[derive(Debug, Default, PartialEq)]
pub struct Recorder {
    pub lines: Vec<String>,
    pub spans: Vec<(TraceId, i64, i64, u32, Vec<u8>)>,
}

fn show(pairs: &Pairs<'_>) -> String {
    let pairs: Vec<String> = own(pairs).iter().map(|(n, v)| format!("{n}={v:?}")).collect();
    format!("{{{}}}", pairs.join(","))
}

fn show_value(value: f64) -> String {
    if value.is_nan() { format!("NaN({:x})", value.to_bits()) } else { value.to_string() }
}

impl MetricsSink for Recorder {
    fn series(&mut self, labels: &Pairs<'_>, samples: &[Sample]) -> Result<()> {
        let samples: Vec<String> =
            samples.iter().map(|s| format!("{}@{}", show_value(s.value), s.t_ms)).collect();
        self.lines.push(format!("{} {}", show(labels), samples.join(" ")));
        Ok(())
    }
    fn metadata(&mut self, metric: &str, kind: MetricKind, help: &str, unit: &str) -> Result<()> {
        self.lines.push(format!("# {metric} {} {help:?} {unit:?}", kind.as_str()));
        Ok(())
    }
    fn exemplar(&mut self, labels: &Pairs<'_>, exemplar: &Pairs<'_>, sample: Sample) -> Result<()> {
        self.lines.push(format!("{} # {} {}@{}", show(labels), show(exemplar), sample.value, sample.t_ms));
        Ok(())
    }
    fn refuse(&mut self, reason: &'static str, items: u64, why: fmt::Arguments<'_>) {
        self.lines.push(format!("! {reason} {items} {why}"));
    }
}

impl LogsSink for Recorder {
    fn stream(&mut self, labels: &Pairs<'_>) -> Result<()> {
        self.lines.push(show(labels));
        Ok(())
    }
    fn entry(&mut self, ts_ns: i64, line: &str, metadata: &Pairs<'_>) -> Result<()> {
        self.lines.push(format!("{ts_ns} {line:?} {}", show(metadata)));
        Ok(())
    }
    fn refuse(&mut self, reason: &'static str, items: u64, why: fmt::Arguments<'_>) {
        self.lines.push(format!("! {reason} {items} {why}"));
    }
}

impl TracesSink for Recorder {
    fn spans(&mut self, id: &TraceId, start_ns: i64, end_ns: i64, count: u32, otlp: &[u8]) -> Result<()> {
        self.spans.push((*id, start_ns, end_ns, count, otlp.to_vec()));
        Ok(())
    }
    fn refuse(&mut self, reason: &'static str, items: u64, why: fmt::Arguments<'_>) {
        self.lines.push(format!("! {reason} {items} {why}"));
    }
}

impl ExpositionSink for Recorder {
    fn sample(&mut self, s: &ExposedSample<'_>) -> Result<()> {
        let mut line = format!("{} {}", show(s.labels), show_value(s.value));
        if let Some(t_ms) = s.t_ms {
            line += &format!("@{t_ms}");
        }
        if let Some(e) = s.exemplar {
            line += &format!(" # {} {}", show(e.labels), e.value);
            if let Some(t_ms) = e.t_ms {
                line += &format!("@{t_ms}");
            }
        }
        self.lines.push(line);
        Ok(())
    }
    fn kind(&mut self, metric: &str, kind: MetricKind) -> Result<()> {
        self.lines.push(format!("TYPE {metric} {}", kind.as_str()));
        Ok(())
    }
    fn help(&mut self, metric: &str, help: &str) -> Result<()> {
        self.lines.push(format!("HELP {metric} {help:?}"));
        Ok(())
    }
    fn unit(&mut self, metric: &str, unit: &str) -> Result<()> {
        self.lines.push(format!("UNIT {metric} {unit}"));
        Ok(())
    }
}

/// What a hostile or broken sender may do to good bytes: flip, cut, insert, repeat.
#[derive(Debug, Clone)]
pub enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Repeat(prop::sample::Index, prop::sample::Index),
}

pub fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(i, b)| Damage::Flip(i, b)),
        any::<prop::sample::Index>().prop_map(Damage::Cut),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(i, b)| Damage::Insert(i, b)),
        (any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(i, j)| Damage::Repeat(i, j)),
    ];
    proptest::collection::vec(one, 1..4)
}

pub fn apply(bytes: &[u8], damage: &[Damage]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for d in damage {
        if out.is_empty() {
            break;
        }
        match d {
            Damage::Flip(i, b) => {
                let i = i.index(out.len());
                out[i] ^= b | 1;
            }
            Damage::Cut(i) => out.truncate(i.index(out.len())),
            Damage::Insert(i, b) => out.insert(i.index(out.len()), *b),
            Damage::Repeat(i, j) => {
                let (i, j) = (i.index(out.len()), j.index(out.len()));
                let piece = out[i.min(j)..i.max(j)].to_vec();
                out.extend(piece);
            }
        }
    }
    out
}
