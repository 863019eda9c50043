//! What a leaf compiles: log queries and sample extractors, from the text that travelled.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::{Equivalent, HashSet};
use triptych_model::{Error, Labels, Matcher, Result, labels};

use crate::pipeline::label_filter::LabelFilter;
use crate::pipeline::labels::{LineLabels, Pairs};
use crate::pipeline::parsers::Needs;
use crate::pipeline::{LineFilter, Pipeline, StreamPipeline};
use crate::syntax::ast::{Conversion, Expr, Grouping, MetricExpr, RangeAgg, RangeOp};
use crate::syntax::parser::parse_tree;
use crate::syntax::units::{parse_bytes, parse_duration_ns};
use crate::{ERROR_DETAILS_LABEL, ERROR_LABEL};

/// A log query, ready to run at a leaf: `EntrySelect.expr`.
#[derive(Debug, Clone)]
pub struct LogLeaf {
    matchers: Arc<[Matcher]>,
    pipeline: Pipeline,
}

impl LogLeaf {
    pub fn compile(expr: &str) -> Result<Self> {
        match parse_tree(expr)? {
            Expr::Log(log) => {
                Ok(Self { pipeline: Pipeline::compile(&log.stages)?, matchers: log.matchers.into() })
            }
            Expr::Metric(_) => {
                Err(Error::invalid(format!("a log query is wanted, {expr:?} is a metric query")))
            }
        }
    }

    pub fn matchers(&self) -> &[Matcher] {
        &self.matchers
    }

    pub fn pipeline(&self) -> Pipeline {
        self.pipeline.clone()
    }

    /// See [`Pipeline::prefilter`].
    pub fn prefilter(&self) -> Option<LineFilter> {
        self.pipeline.prefilter()
    }
}

/// A range aggregation, ready to extract samples at a leaf: `SampleSelect.expr`.
#[derive(Debug, Clone)]
pub struct SampleLeaf {
    matchers: Arc<[Matcher]>,
    extractor: Arc<Extractor>,
}

#[derive(Debug)]
struct Extractor {
    pipeline: Pipeline,
    value: ValueOf,
    filters: Vec<LabelFilter>,
    group: Group,
}

#[derive(Debug)]
enum ValueOf {
    One,
    LineBytes,
    Label { label: String, conversion: Option<Conversion> },
}

/// Which labels a sample's series has.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Group {
    All,
    /// Sorted.
    By(Vec<String>),
    Without(Vec<String>),
}

impl Group {
    fn of(grouping: &Grouping) -> Self {
        let mut labels = grouping.labels.clone();
        labels.sort();
        labels.dedup();
        if grouping.without { Group::Without(labels) } else { Group::By(labels) }
    }
}

impl SampleLeaf {
    pub fn compile(expr: &str) -> Result<Self> {
        let Expr::Metric(metric) = parse_tree(expr)? else {
            return Err(Error::invalid(format!("a metric query is wanted, {expr:?} is a log query")));
        };
        match &metric {
            MetricExpr::Range(range) => Self::of(range, None),
            MetricExpr::Vector(vector) => match &vector.inner {
                MetricExpr::Range(range) => {
                    let everything = Grouping { without: false, labels: Vec::new() };
                    let outer = vector.grouping.as_ref().unwrap_or(&everything);
                    let usable = vector.op == crate::syntax::ast::VectorOp::Sum && range.op.is_additive();
                    Self::of(range, usable.then_some(outer))
                }
                _ => Err(Self::not_a_leaf(expr)),
            },
            _ => Err(Self::not_a_leaf(expr)),
        }
    }

    fn not_a_leaf(expr: &str) -> Error {
        Error::invalid(format!(
            "samples are extracted for a range aggregation, possibly inside one vector aggregation; not for {expr:?}"
        ))
    }

    /// `outer`: the grouping of the vector aggregation around it, where it may be applied to samples already.
    pub fn of(range: &RangeAgg, outer: Option<&Grouping>) -> Result<Self> {
        let mut group = match (&range.grouping, outer) {
            (Some(own), _) => Group::of(own),
            (None, _) if range.op == RangeOp::Absent => Group::By(Vec::new()),
            (None, Some(outer)) => Group::of(outer),
            (None, None) => Group::All,
        };
        let mut filters = Vec::new();
        let value = match &range.unwrap {
            Some(unwrap) => {
                for filter in &unwrap.filters {
                    filters.push(LabelFilter::compile(filter)?);
                }
                // The unwrapped label is the value and no longer a label, unless it is asked for by name.
                let without = |mut labels: Vec<String>| {
                    labels.push(unwrap.label.clone());
                    labels.sort();
                    labels.dedup();
                    Group::Without(labels)
                };
                group = match group {
                    Group::All => without(Vec::new()),
                    Group::Without(labels) => without(labels),
                    by => by,
                };
                ValueOf::Label { label: unwrap.label.clone(), conversion: unwrap.conversion }
            }
            None if matches!(range.op, RangeOp::Bytes | RangeOp::BytesRate) => ValueOf::LineBytes,
            None => ValueOf::One,
        };
        let mut needs = match &group {
            Group::By(labels) => Needs::Only(labels.clone()),
            Group::All | Group::Without(_) => Needs::All,
        };
        filters.iter().for_each(|f| f.add_needs(&mut needs));
        if let ValueOf::Label { label, .. } = &value {
            needs.add(label);
        }
        let pipeline = Pipeline::compile_for(&range.log.stages, needs)?;
        Ok(Self {
            matchers: range.log.matchers.clone().into(),
            extractor: Arc::new(Extractor { pipeline, value, filters, group }),
        })
    }

    pub fn matchers(&self) -> &[Matcher] {
        &self.matchers
    }

    /// See [`Pipeline::prefilter`].
    pub fn prefilter(&self) -> Option<LineFilter> {
        self.extractor.pipeline.prefilter()
    }

    /// The stages in front of the extraction.
    pub fn pipeline(&self) -> Pipeline {
        self.extractor.pipeline.clone()
    }

    /// Whether the text of lines is read at all. Where not, any line of the right length does.
    pub fn needs_line(&self) -> bool {
        !self.extractor.pipeline.is_noop() || matches!(self.extractor.value, ValueOf::LineBytes)
    }

    pub fn for_stream(&self, labels: &Labels) -> StreamExtractor {
        StreamExtractor {
            extractor: self.extractor.clone(),
            base: labels.clone(),
            pipeline: self.extractor.pipeline.for_stream(labels),
            sets: HashSet::new(),
            encoded: Vec::new(),
            last: None,
            fixed: None,
        }
    }
}

/// Label sets kept per stream; beyond that the cache starts anew.
const CACHED_SETS_MAX: usize = 4096;

/// An extractor at work on one stream.
#[derive(Debug)]
pub struct StreamExtractor {
    extractor: Arc<Extractor>,
    /// The stream's labels.
    base: Labels,
    pipeline: StreamPipeline,
    sets: HashSet<Labels>,
    encoded: Vec<u8>,
    last: Option<Labels>,
    /// The set of lines that bring no label of their own.
    fixed: Option<Labels>,
}

/// Finds a [`Labels`] by its encoding.
struct Encoded<'a>(&'a [u8]);

impl Hash for Encoded<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Equivalent<Labels> for Encoded<'_> {
    fn equivalent(&self, key: &Labels) -> bool {
        self.0 == key.as_encoded()
    }
}

impl StreamExtractor {
    /// Whether structured metadata is read. Where not, an empty set does.
    pub fn needs_metadata(&self) -> bool {
        let Extractor { pipeline, value, filters, group } = &*self.extractor;
        // Metadata never hides a label of the stream.
        let is_fixed = matches!(group, Group::By(names) if names.iter().all(|n| self.base.get(n).is_some()));
        !(is_fixed
            && pipeline.is_line_filters_only()
            && filters.is_empty()
            && !matches!(value, ValueOf::Label { .. }))
    }

    /// The value of a line and the series it belongs to. A line whose pipeline failed belongs to a series with all labels and
    /// `__error__`, whatever the grouping: the evaluator must see it.
    pub fn process<'m>(
        &mut self,
        ts_ns: i64,
        line: &str,
        metadata: impl IntoIterator<Item = (&'m str, &'m str)>,
    ) -> Option<(f64, Labels)> {
        let line_bytes = self.pipeline.run_for_sample(ts_ns, line, metadata)?;
        let labels = self.pipeline.line_labels();
        let value = match &self.extractor.value {
            ValueOf::One => 1.0,
            ValueOf::LineBytes => line_bytes as f64,
            ValueOf::Label { label, conversion } => {
                let text = labels.get(label)?;
                match convert(text, *conversion) {
                    Some(value) => value,
                    None => {
                        let details = format!("label {label}: {text:?} cannot be converted to a sample");
                        labels.set_error("SampleExtractionErr", details);
                        0.0
                    }
                }
            }
        };
        if !self.extractor.filters.iter().all(|f| f.passes(labels)) {
            return None;
        }
        if labels.is_base_only() {
            if self.fixed.is_none() {
                self.fixed = Some(Labels::from_sorted(grouped(labels, &self.extractor.group)));
            }
            return self.fixed.clone().map(|set| (value, set));
        }
        let pairs = grouped(labels, &self.extractor.group);
        self.encoded.clear();
        labels::encode_pairs(pairs.iter().copied(), &mut self.encoded);
        // Mostly it is the same set as for the line before.
        if let Some(last) = &self.last
            && last.as_encoded() == self.encoded
        {
            return Some((value, last.clone()));
        }
        let set = match self.sets.get(&Encoded(&self.encoded)) {
            Some(set) => set.clone(),
            None => {
                if self.sets.len() >= CACHED_SETS_MAX {
                    self.sets.clear();
                }
                let set = Labels::from_sorted(pairs);
                self.sets.insert(set.clone());
                set
            }
        };
        self.last = Some(set.clone());
        Some((value, set))
    }
}

fn convert(text: &str, conversion: Option<Conversion>) -> Option<f64> {
    match conversion {
        None => text.trim().parse().ok(),
        Some(Conversion::Duration | Conversion::DurationSeconds) => {
            // Fractions below a nanosecond do not count, as in Go.
            parse_duration_ns(text.trim()).map(|ns| ns as f64 / 1e9)
        }
        Some(Conversion::Bytes) => parse_bytes(text).map(|bytes| bytes as f64),
    }
}

fn grouped<'a>(labels: &'a LineLabels, group: &'a Group) -> Pairs<'a> {
    if labels.has_error() {
        return labels.all();
    }
    match group {
        Group::By(names) => {
            names.iter().filter_map(|name| Some((name.as_str(), labels.get(name)?))).collect()
        }
        Group::All => labels.all(),
        Group::Without(names) => {
            let mut pairs = labels.all();
            pairs.retain(|(n, _)| {
                !names.iter().any(|name| name == n) && *n != ERROR_LABEL && *n != ERROR_DETAILS_LABEL
            });
            pairs
        }
    }
}
