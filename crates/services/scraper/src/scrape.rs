//! One target's series: which text is which series, which were there last time, and the batch that a scrape gives.

use std::time::Duration;

use hashbrown::HashMap;
use triptych_intake::exposition::{ExposedSample, ExpositionSink, Format, parse};
use triptych_model::batch::MetricsBuilder;
use triptych_model::labels::METRIC_NAME;
use triptych_model::metrics::{MetricKind, STALE_NAN_BITS, Sample};
use triptych_model::{Error, Labels, LabelsBuilder, Result};

use crate::config::ScrapeConfig;
use crate::relabel::Rules;

/// What a scrape is checked against; 0: no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    pub samples_max: usize,
    pub labels_max: usize,
    pub label_name_bytes_max: usize,
    pub label_value_bytes_max: usize,
}

/// How a target's exposition becomes series.
#[derive(Debug, Clone, Default)]
pub struct Mapping {
    pub target: Labels,
    pub external: Labels,
    pub rules: Rules,
    pub honor_labels: bool,
    pub honor_timestamps: bool,
    pub track_timestamps_staleness: bool,
    pub limits: Limits,
}

impl Mapping {
    pub fn new(job: &ScrapeConfig, target: Labels, external: Labels) -> Result<Self> {
        Ok(Self {
            target,
            external,
            rules: Rules::new(&job.metric_relabel_configs)?,
            honor_labels: job.honor_labels,
            honor_timestamps: job.honor_timestamps,
            track_timestamps_staleness: job.track_timestamps_staleness,
            limits: Limits {
                samples_max: job.sample_limit,
                labels_max: job.label_limit,
                label_name_bytes_max: job.label_name_length_limit,
                label_value_bytes_max: job.label_value_length_limit,
            },
        })
    }

    /// `None`: relabelling dropped the sample.
    fn labels(&self, exposed: &[(&str, &str)]) -> Result<Option<Labels>> {
        let mut labels = LabelsBuilder::default();
        for (name, value) in exposed {
            labels.set(name, value);
        }
        for (name, value) in self.target.iter() {
            match labels.get(name).map(str::to_owned) {
                Some(_) if self.honor_labels => {}
                Some(theirs) => {
                    let mut renamed = format!("exported_{name}");
                    while labels.get(&renamed).is_some() || self.target.get(&renamed).is_some() {
                        renamed = format!("exported_{renamed}");
                    }
                    labels.set(&renamed, &theirs);
                    labels.set(name, value);
                }
                None => {
                    labels.set(name, value);
                }
            }
        }
        if !self.rules.apply(&mut labels) {
            return Ok(None);
        }
        for (name, value) in self.external.iter() {
            if labels.get(name).is_none() {
                labels.set(name, value);
            }
        }
        if labels.get(METRIC_NAME).is_none() {
            return Err(Error::invalid("a series has no name after relabelling"));
        }
        let labels = labels.build();
        self.check(&labels)?;
        Ok(Some(labels))
    }

    fn check(&self, labels: &Labels) -> Result<()> {
        let Limits { labels_max, label_name_bytes_max, label_value_bytes_max, .. } = self.limits;
        let over = |max: usize, value: usize| max > 0 && value > max;
        let count = labels.len();
        if over(labels_max, count) {
            return Err(Error::invalid(format!(
                "label_limit exceeded: {labels} has {count} labels, the limit is {labels_max}"
            )));
        }
        for (name, value) in labels.iter() {
            if over(label_name_bytes_max, name.len()) || over(label_value_bytes_max, value.len()) {
                return Err(Error::invalid(format!(
                    "label length limit exceeded: {name:?} with {} bytes and a value of {} bytes, the limits are {label_name_bytes_max} and {label_value_bytes_max}",
                    name.len(),
                    value.len()
                )));
            }
        }
        Ok(())
    }
}

struct Known {
    hash: u64,
    /// `None`: dropped by relabelling.
    labels: Option<Labels>,
    /// The scrape that saw it last.
    seen: u64,
    /// Gets a staleness marker when it is gone.
    tracked: bool,
    /// Was written by a scrape that succeeded.
    written: bool,
}

/// A target's memory between scrapes.
#[derive(Default)]
pub struct Series {
    known: HashMap<Box<str>, Known>,
    metadata: HashMap<String, (MetricKind, String, String)>,
    scrapes: u64,
}

/// What a scrape gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub exposed: usize,
    pub kept: usize,
    pub added: usize,
}

struct Sink<'a> {
    mapping: &'a Mapping,
    series: &'a mut Series,
    batch: &'a mut MetricsBuilder,
    now_ms: i64,
    counts: Counts,
}

impl ExpositionSink for Sink<'_> {
    fn sample(&mut self, sample: &ExposedSample<'_>) -> Result<()> {
        self.counts.exposed += 1;
        let max = self.mapping.limits.samples_max;
        if max > 0 && self.counts.kept >= max {
            return Err(Error::invalid(format!("sample_limit exceeded: more than {max} samples")));
        }
        let scrape = self.series.scrapes;
        if !self.series.known.contains_key(sample.series_text) {
            let labels = self.mapping.labels(sample.labels)?;
            self.counts.added += usize::from(labels.is_some());
            let hash = labels.as_ref().map_or(0, Labels::hash64);
            let known = Known { hash, labels, seen: 0, tracked: false, written: false };
            self.series.known.insert(sample.series_text.into(), known);
        }
        let Some(known) = self.series.known.get_mut(sample.series_text) else { return Ok(()) };
        known.seen = scrape;
        let Some(labels) = &known.labels else { return Ok(()) };
        let own_time = sample.t_ms.filter(|_| self.mapping.honor_timestamps);
        known.tracked = own_time.is_none() || self.mapping.track_timestamps_staleness;
        let t_ms = own_time.unwrap_or(self.now_ms);
        self.batch.series(known.hash, labels.as_encoded(), &[Sample { t_ms, value: sample.value }]);
        self.counts.kept += 1;
        if let Some(exemplar) = &sample.exemplar {
            let exemplar_labels = Labels::from_sorted(exemplar.labels.iter().copied());
            self.batch.exemplar(
                known.hash,
                labels.as_encoded(),
                exemplar_labels.as_encoded(),
                exemplar.sample(t_ms),
            );
        }
        Ok(())
    }

    fn kind(&mut self, metric: &str, kind: MetricKind) -> Result<()> {
        self.describe(metric, |m| m.0 = kind);
        Ok(())
    }

    fn help(&mut self, metric: &str, help: &str) -> Result<()> {
        self.describe(metric, |m| help.clone_into(&mut m.1));
        Ok(())
    }

    fn unit(&mut self, metric: &str, unit: &str) -> Result<()> {
        self.describe(metric, |m| unit.clone_into(&mut m.2));
        Ok(())
    }
}

impl Sink<'_> {
    fn describe(&mut self, metric: &str, change: impl FnOnce(&mut (MetricKind, String, String))) {
        change(self.series.metadata.entry_ref(metric).or_default());
    }
}

impl Series {
    /// Appends what the target exposes to `batch`, and staleness markers for what it exposed last time and no longer. On an error
    /// nothing of the body is appended, and everything goes stale.
    pub fn body(
        &mut self,
        mapping: &Mapping,
        body: &[u8],
        format: Format,
        now_ms: i64,
        batch: &mut MetricsBuilder,
    ) -> Result<Counts> {
        self.scrapes += 1;
        let mut whole = MetricsBuilder::default();
        let mut sink = Sink { mapping, series: self, batch: &mut whole, now_ms, counts: Counts::default() };
        let parsed = parse(body, format, &mut sink);
        let counts = sink.counts;
        if let Err(error) = parsed {
            self.stale(now_ms, true, batch);
            return Err(error);
        }
        // Metadata changes seldom and is small: it goes along with every tenth scrape, and the first.
        if self.scrapes % 10 == 1 {
            for (metric, (kind, help, unit)) in &self.metadata {
                whole.metadata(metric, *kind, help, unit);
            }
        }
        self.stale(now_ms, false, &mut whole);
        *batch = whole;
        Ok(counts)
    }

    /// Marks as stale what was not seen in this scrape (`all`: everything), and forgets it.
    pub fn stale(&mut self, now_ms: i64, all: bool, batch: &mut MetricsBuilder) {
        let scrape = self.scrapes;
        let marker = [Sample { t_ms: now_ms, value: f64::from_bits(STALE_NAN_BITS) }];
        self.known.retain(|_, known| {
            if known.seen == scrape && !all {
                known.written = true;
                return true;
            }
            if let (true, Some(labels)) = (known.tracked && known.written, &known.labels) {
                batch.series(known.hash, labels.as_encoded(), &marker);
            }
            false
        });
    }

    /// Appends `up` and `scrape_*`.
    pub fn report(
        mapping: &Mapping,
        counts: Option<Counts>,
        took: Duration,
        now_ms: i64,
        batch: &mut MetricsBuilder,
    ) {
        let up = f64::from(u8::from(counts.is_some()));
        let counts = counts.unwrap_or_default();
        for (name, value) in [
            ("up", up),
            ("scrape_duration_seconds", took.as_secs_f64()),
            ("scrape_samples_scraped", counts.exposed as f64),
            ("scrape_samples_post_metric_relabeling", counts.kept as f64),
            ("scrape_series_added", counts.added as f64),
        ] {
            let labels = report_labels(mapping, name);
            batch.series(labels.hash64(), labels.as_encoded(), &[Sample { t_ms: now_ms, value }]);
        }
    }

    /// Staleness markers for a target that is gone: its series and its report.
    pub fn end(&mut self, mapping: &Mapping, now_ms: i64, batch: &mut MetricsBuilder) {
        self.stale(now_ms, true, batch);
        let marker = [Sample { t_ms: now_ms, value: f64::from_bits(STALE_NAN_BITS) }];
        for name in [
            "up",
            "scrape_duration_seconds",
            "scrape_samples_scraped",
            "scrape_samples_post_metric_relabeling",
            "scrape_series_added",
        ] {
            let labels = report_labels(mapping, name);
            batch.series(labels.hash64(), labels.as_encoded(), &marker);
        }
    }
}

fn report_labels(mapping: &Mapping, name: &str) -> Labels {
    let mut labels = mapping.target.to_builder();
    for (external, value) in mapping.external.iter() {
        if labels.get(external).is_none() {
            labels.set(external, value);
        }
    }
    labels.set(METRIC_NAME, name);
    labels.build()
}

#[cfg(test)]
mod tests {
    use triptych_model::batch::{MetricsReader, MetricsRecord};
    use triptych_model::metrics::is_stale;

    use super::*;

    fn read(batch: &MetricsBuilder) -> Vec<String> {
        let mut lines = Vec::new();
        for record in MetricsReader::new(batch.plain()).unwrap() {
            if let MetricsRecord::Series { labels, samples, .. } = record.unwrap() {
                for s in samples.iter() {
                    let value = if is_stale(s.value) { "stale".to_owned() } else { s.value.to_string() };
                    lines.push(format!("{} {value} {}", Labels::from_encoded(labels).unwrap(), s.t_ms));
                }
            }
        }
        lines.sort();
        lines
    }

    fn mapping() -> Mapping {
        Mapping {
            target: Labels::from_pairs([("job", "j"), ("instance", "i")]),
            honor_timestamps: true,
            ..Default::default()
        }
    }

    #[test]
    fn what_vanishes_goes_stale() {
        let (mapping, mut series) = (mapping(), Series::default());
        let mut scrape = |body: &str, t| {
            let mut batch = MetricsBuilder::default();
            let counts = series.body(&mapping, body.as_bytes(), Format::Text, t, &mut batch);
            (counts, read(&batch))
        };
        let (counts, lines) = scrape("a 1\nb{job=\"theirs\"} 2\nc 3 7\n", 10);
        assert_eq!(counts.unwrap(), Counts { exposed: 3, kept: 3, added: 3 });
        assert_eq!(
            lines,
            [
                r#"{__name__="a", instance="i", job="j"} 1 10"#,
                r#"{__name__="b", exported_job="theirs", instance="i", job="j"} 2 10"#,
                r#"{__name__="c", instance="i", job="j"} 3 7"#,
            ]
        );
        // b is gone; c had a timestamp of its own and is not marked.
        let (counts, lines) = scrape("a 1\n", 20);
        assert_eq!(counts.unwrap().added, 0);
        assert_eq!(
            lines,
            [
                r#"{__name__="a", instance="i", job="j"} 1 20"#,
                r#"{__name__="b", exported_job="theirs", instance="i", job="j"} stale 20"#,
            ]
        );
        // A body that cannot be read makes all stale and gives nothing of itself.
        let (counts, lines) = scrape("x 5\nrubbish{", 30);
        assert!(counts.is_err());
        assert_eq!(lines, [r#"{__name__="a", instance="i", job="j"} stale 30"#]);
    }

    #[test]
    fn limits_fail_the_scrape() {
        let check = |limits: Limits, text: &str| {
            let mapping = Mapping { limits, ..mapping() };
            let mut batch = MetricsBuilder::default();
            let error = Series::default()
                .body(&mapping, b"a{b=\"ccc\"} 1\nd 2\n", Format::Text, 1, &mut batch)
                .unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        };
        check(Limits { samples_max: 1, ..Default::default() }, "more than 1 samples");
        check(Limits { labels_max: 3, ..Default::default() }, "has 4 labels");
        check(Limits { label_value_bytes_max: 2, ..Default::default() }, "label length limit");
    }

    #[test]
    fn the_report_and_the_end() {
        let (mapping, mut batch) = (mapping(), MetricsBuilder::default());
        Series::report(
            &mapping,
            Some(Counts { exposed: 2, kept: 1, added: 1 }),
            Duration::from_millis(500),
            9,
            &mut batch,
        );
        let lines = read(&batch);
        assert!(lines.contains(&r#"{__name__="up", instance="i", job="j"} 1 9"#.to_owned()), "{lines:?}");
        assert!(
            lines
                .contains(&r#"{__name__="scrape_duration_seconds", instance="i", job="j"} 0.5 9"#.to_owned())
        );
        let mut batch = MetricsBuilder::default();
        Series::default().end(&mapping, 10, &mut batch);
        assert!(read(&batch).iter().all(|l| l.ends_with("stale 10")));
    }
}
