//! What a head keeps beside samples: metric metadata and exemplars, both bounded.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use triptych_model::Labels;
use triptych_model::metrics::{Exemplar, LabelsSelect, MetricKind, MetricMetadata, SeriesExemplars};

use crate::select;

#[derive(Debug, Default)]
pub(crate) struct Extras {
    metadata: HashMap<String, MetricMetadata>,
    metadata_bytes: usize,
    exemplars: VecDeque<(Labels, Exemplar)>,
    exemplar_bytes: usize,
}

impl Extras {
    /// The last one counts. False where it does not fit any more.
    pub fn put_metadata(
        &mut self,
        metric: &str,
        kind: MetricKind,
        help: &str,
        unit: &str,
        bytes_max: usize,
    ) -> bool {
        if let Some(known) = self.metadata.get(metric)
            && known.kind == kind
            && known.help == help
            && known.unit == unit
        {
            return true;
        }
        let bytes = 2 * metric.len() + help.len() + unit.len() + 128;
        let old =
            self.metadata.get(metric).map_or(0, |m| 2 * metric.len() + m.help.len() + m.unit.len() + 128);
        if self.metadata_bytes + bytes - old > bytes_max {
            return false;
        }
        self.metadata_bytes = self.metadata_bytes + bytes - old;
        let metadata =
            MetricMetadata { metric: metric.to_owned(), kind, help: help.to_owned(), unit: unit.to_owned() };
        self.metadata.insert(metric.to_owned(), metadata);
        true
    }

    /// Puts the exemplar into the ring; the oldest leave.
    pub fn put_exemplar(&mut self, series: Labels, exemplar: Exemplar, exemplars_max: usize) {
        if exemplars_max == 0 {
            return;
        }
        let copy = self
            .exemplars
            .iter()
            .rev()
            .take(64)
            .any(|(s, e)| e.t_ms == exemplar.t_ms && *s == series && *e == exemplar);
        if copy {
            return;
        }
        while self.exemplars.len() >= exemplars_max {
            match self.exemplars.pop_front() {
                Some((s, e)) => self.exemplar_bytes -= exemplar_bytes(&s, &e),
                None => break,
            }
        }
        self.exemplar_bytes += exemplar_bytes(&series, &exemplar);
        self.exemplars.push_back((series, exemplar));
    }

    pub fn bytes(&self) -> usize {
        self.metadata_bytes + self.exemplar_bytes
    }

    pub fn metadata(&self, metric: &str, limit: usize) -> Vec<MetricMetadata> {
        let mut found: Vec<MetricMetadata> = if metric.is_empty() {
            self.metadata.values().cloned().collect()
        } else {
            self.metadata.get(metric).cloned().into_iter().collect()
        };
        found.sort_by(|a, b| a.metric.cmp(&b.metric));
        select::cap(&mut found, limit);
        found
    }

    pub fn exemplars(&self, select: &LabelsSelect) -> Vec<SeriesExemplars> {
        let (start_ms, end_ms) = select::range(select);
        let mut by_series: BTreeMap<&Labels, Vec<Exemplar>> = BTreeMap::new();
        for (series, exemplar) in &self.exemplars {
            if exemplar.t_ms >= start_ms && exemplar.t_ms <= end_ms && select::matches(select, series) {
                by_series.entry(series).or_default().push(exemplar.clone());
            }
        }
        let mut found: Vec<SeriesExemplars> = by_series
            .into_iter()
            .map(|(series, mut exemplars)| {
                exemplars.sort_by_key(|e| e.t_ms);
                SeriesExemplars { series: series.clone(), exemplars }
            })
            .collect();
        select::cap(&mut found, select.limit);
        found
    }
}

fn exemplar_bytes(series: &Labels, exemplar: &Exemplar) -> usize {
    size_of::<(Labels, Exemplar)>() + series.as_encoded().len() + exemplar.labels.as_encoded().len() + 32
}
