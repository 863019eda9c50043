//! Answers of several sources to one question, made into one answer. Copies (replicas; head and bucket) are known by trace id,
//! span id and start: Zipkin's client and server halves share a span id and are two spans.

use futures::future::join_all;
use futures::stream::{self, BoxStream, StreamExt};
use hashbrown::{HashMap, HashSet};
use triptych_model::Result;
use triptych_model::traces::{
    ScopeTags, SpanId, SpanMatch, SpanSample, SpanSet, TraceId, TraceMatch, TraceSamples, TraceSearch, Value,
};

use crate::parser::parse;
use crate::search::{SPANS_PER_SET_DEFAULT, TRACES_DEFAULT};

/// Collects matches of several sources. Holds at most what was added; a source gives no more than the limit.
#[derive(Debug)]
pub struct MatchMerge {
    spans_per_set: usize,
    found: HashMap<TraceId, TraceMatch>,
}

impl MatchMerge {
    /// `spans_per_set` 0: Tempo's default.
    pub fn new(spans_per_set: usize) -> Self {
        let spans_per_set = if spans_per_set == 0 { SPANS_PER_SET_DEFAULT } else { spans_per_set };
        Self { spans_per_set, found: HashMap::new() }
    }

    /// Traces so far.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Traces so far that began at `ns` or later.
    pub fn begun_since(&self, ns: i64) -> usize {
        self.found.values().filter(|found| found.start_ns >= ns).count()
    }

    /// The trace as it is known now; `None` where nothing is new.
    pub fn add(&mut self, new: TraceMatch) -> Option<&TraceMatch> {
        match self.found.entry(new.trace_id) {
            hashbrown::hash_map::Entry::Occupied(old) => {
                let known = old.into_mut();
                let before = known.clone();
                combine(known, new, self.spans_per_set);
                (*known != before).then_some(known)
            }
            hashbrown::hash_map::Entry::Vacant(free) => Some(free.insert(new)),
        }
    }

    /// Newest first, at most `limit` (0: Tempo's default).
    pub fn finish(self, limit: usize) -> Vec<TraceMatch> {
        let mut all: Vec<TraceMatch> = self.found.into_values().collect();
        all.sort_by(|a, b| b.start_ns.cmp(&a.start_ns).then_with(|| a.trace_id.cmp(&b.trace_id)));
        all.truncate(if limit == 0 { TRACES_DEFAULT } else { limit });
        all
    }
}

/// What several sources found becomes one stream. A trace is told as soon as one source has it, and again, combined, each time
/// another adds to it: the last counts. With the hint `most_recent=true` all sources are waited for, and the newest come, each
/// once, newest first. Ends with the first error.
pub fn merge_matches(
    search: &TraceSearch,
    mut streams: Vec<BoxStream<'static, Result<TraceMatch>>>,
) -> Result<BoxStream<'static, Result<TraceMatch>>> {
    let most_recent = parse(&search.query)?.is_most_recent();
    if let [_] = streams[..]
        && let Some(only) = streams.pop()
    {
        return Ok(only);
    }
    let mut merge = MatchMerge::new(search.spans_per_set);
    let limit = search.limit;
    Ok(async_stream::try_stream! {
        let mut all = stream::select_all(streams);
        while let Some(found) = all.next().await {
            if let Some(known) = merge.add(found?)
                && !most_recent
            {
                let known = known.clone();
                yield known;
            }
        }
        if most_recent {
            for found in merge.finish(limit) {
                yield found;
            }
        }
    }
    .boxed())
}

fn combine(old: &mut TraceMatch, new: TraceMatch, spans_per_set: usize) {
    if old.root_service.is_empty() {
        old.root_service = new.root_service;
    }
    if old.root_name.is_empty() {
        old.root_name = new.root_name;
    }
    let end = |start: i64, duration: i64| start.saturating_add(duration);
    let end_ns = end(old.start_ns, old.duration_ns).max(end(new.start_ns, new.duration_ns));
    old.start_ns = old.start_ns.min(new.start_ns);
    old.duration_ns = end_ns.saturating_sub(old.start_ns);
    // Copies or different parts? The larger figure is right for copies and never too large.
    for (name, spans, errors) in new.services {
        match old.services.iter_mut().find(|(n, ..)| *n == name) {
            Some(known) => {
                known.1 = known.1.max(spans);
                known.2 = known.2.max(errors);
            }
            None => old.services.push((name, spans, errors)),
        }
    }
    for set in new.span_sets {
        match old.span_sets.iter_mut().find(|s| group(s) == group(&set)) {
            Some(known) => combine_sets(known, set, spans_per_set),
            None => old.span_sets.push(set),
        }
    }
}

/// What tells the sets of a trace apart: their `by(..)` keys.
fn group(set: &SpanSet) -> Vec<&(String, Value)> {
    set.attributes.iter().filter(|(name, _)| name.starts_with("by(")).collect()
}

/// Spans by id. The count is exact where either side kept all its spans; where both were cut, sets that share a span count as
/// copies of one and sets that share none as parts. Aggregates are those of the larger part: a leaf sees only what it holds.
fn combine_sets(old: &mut SpanSet, new: SpanSet, spans_per_set: usize) {
    let key = |s: &SpanMatch| (s.span_id, s.start_ns);
    let known: HashSet<(SpanId, i64)> = old.spans.iter().map(key).collect();
    let shared = new.spans.iter().filter(|s| known.contains(&key(s))).count() as u32;
    let whole = |set: &SpanSet| set.matched as usize <= set.spans.len();
    let matched = if whole(old) && whole(&new) {
        old.matched + new.matched - shared.min(new.matched)
    } else if shared > 0 {
        old.matched.max(new.matched)
    } else {
        old.matched.saturating_add(new.matched)
    };
    if new.matched > old.matched {
        old.attributes = new.attributes;
    }
    old.matched = matched;
    old.spans.extend(new.spans.into_iter().filter(|s| !known.contains(&key(s))));
    old.spans.sort_by_key(|s| (s.start_ns, s.span_id));
    old.spans.truncate(spans_per_set);
}

/// Streams in ascending order of trace id become one. Of a span that several streams have, the first stream's sample counts.
/// Ends with the first error.
pub fn merge_samples(
    mut streams: Vec<BoxStream<'static, Result<TraceSamples>>>,
) -> BoxStream<'static, Result<TraceSamples>> {
    if let [_] = streams[..]
        && let Some(only) = streams.pop()
    {
        return only;
    }
    struct Source {
        stream: BoxStream<'static, Result<TraceSamples>>,
        head: Option<TraceSamples>,
        done: bool,
    }
    let sources: Vec<Source> =
        streams.into_iter().map(|stream| Source { stream, head: None, done: false }).collect();
    stream::unfold(Some(sources), async |sources| {
        let mut sources = sources?;
        let missing = sources.iter_mut().filter(|s| s.head.is_none() && !s.done);
        let fetched = join_all(missing.map(async |source| {
            match source.stream.next().await {
                Some(Ok(head)) => source.head = Some(head),
                Some(Err(e)) => return Err(e),
                None => source.done = true,
            }
            Ok(())
        }))
        .await;
        if let Some(e) = fetched.into_iter().find_map(Result::err) {
            return Some((Err(e), None));
        }
        let trace_id = sources.iter().filter_map(|s| s.head.as_ref()).map(|h| h.trace_id).min()?;
        let mut merged: Option<TraceSamples> = None;
        for source in &mut sources {
            let Some(head) = source.head.take_if(|h| h.trace_id == trace_id) else { continue };
            match &mut merged {
                None => merged = Some(head),
                Some(merged) => {
                    let key = |s: &SpanSample| (s.span_id, s.ts_ns);
                    let known: HashSet<(SpanId, i64)> = merged.samples.iter().map(key).collect();
                    merged.samples.extend(head.samples.into_iter().filter(|s| !known.contains(&key(s))));
                }
            }
        }
        merged.map(|m| (Ok(m), Some(sources)))
    })
    .boxed()
}

/// Tag names by scope, each once, sorted; at most `limit` (0: no limit) of a scope. Scopes stay in the order they come in.
pub fn merge_tags(lists: Vec<Vec<ScopeTags>>, limit: usize) -> Vec<ScopeTags> {
    let mut merged: Vec<ScopeTags> = Vec::new();
    for tags in lists.into_iter().flatten() {
        match merged.iter_mut().find(|known| known.scope == tags.scope) {
            Some(known) => known.tags.extend(tags.tags),
            None => merged.push(tags),
        }
    }
    for scope in &mut merged {
        scope.tags.sort();
        scope.tags.dedup();
        if limit != 0 {
            scope.tags.truncate(limit);
        }
    }
    merged
}

/// Values, each once, sorted by type and text; at most `limit` (0: no limit).
pub fn merge_values(lists: Vec<Vec<Value>>, limit: usize) -> Vec<Value> {
    let mut all: Vec<((&'static str, String), Value)> =
        lists.into_iter().flatten().map(|v| ((v.type_name(), v.to_string()), v)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.dedup_by(|a, b| a.0 == b.0);
    if limit != 0 {
        all.truncate(limit);
    }
    all.into_iter().map(|(_, v)| v).collect()
}

#[cfg(test)]
mod tests;
