//! Reads of one block: spans by conditions; a trace by id is in `find`, tag names and values are in `tags`.
//!
//! Conditions are pushed down in three steps per row group, each of which may end the work on it:
//!
//! 1. bounds: the row group's statistics of times and durations;
//! 2. dictionaries: a text that is compared for equality must be in its column's dictionary;
//! 3. columns: the columns of the conditions are decoded, which gives the rows (traces) in which every condition (or any, where
//!    not all are needed) holds somewhere.
//!
//! Then the columns that the answer needs are read, pages of other rows left out, and the spans are tested one by one. Step 3
//! tests a row for each condition alone, so it lets through more than the conditions together allow; never less.

mod find;
mod tags;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use parquet::file::statistics::Statistics;
use tokio::sync::Semaphore;
use triptych_model::traces::{TraceId, Value};
use triptych_model::{Error, Result};
use triptych_runtime::QueryContext;
use triptych_traceql::TraceSpans;
use triptych_traceql::source::{Attribute, CompareOp, Intrinsic, Scope};

use super::read::{Block, Decoded, File, Rows, compute, decode_dictionary, dictionary_range};
use super::rows::{Cursor, Named, Traces, named_columns};
use crate::otlp::{self, SERVICE_NAME};
use crate::tags::{SCOPES, TagNames, TagValues};
use crate::view::{Matcher, Test, ValueRef, kind_text, spans_bytes, status_text};

/// Row groups of one block that are worked on side by side.
const ROW_GROUPS_AHEAD: usize = 2;

/// In how many pieces compaction reads a row group, and the fewest traces of a piece: decoded columns take several times the room
/// of encoded ones.
const ROW_GROUP_BATCHES: usize = 8;
const BATCH_ROWS_MIN: usize = 1_000;

/// Columns of every trace and span.
const SKELETON: [&str; 4] = ["TraceID", "StartTimeUnixNano", "EndTimeUnixNano", "rs.ss.Spans.SpanID"];
const SUMMARY: [&str; 5] = [
    "RootServiceName",
    "RootSpanName",
    "ServiceStats.ServiceName",
    "ServiceStats.SpanCount",
    "ServiceStats.ErrorCount",
];
const NESTED: [&str; 3] = ["rs.ss.Spans.NestedSetLeft", "rs.ss.Spans.NestedSetRight", "rs.ss.Spans.ParentID"];

const RESOURCE: &str = "rs.Resource";
const SCOPE: &str = "rs.ss.Scope";
const SPAN: &str = "rs.ss.Spans";
const EVENT: &str = "rs.ss.Spans.Events";
const LINK: &str = "rs.ss.Spans.Links";
const ATTRIBUTE_COLUMNS: [&str; 7] =
    ["Key", "IsArray", "Value", "ValueInt", "ValueDouble", "ValueBool", "ValueUnsupported"];

/// Where the attributes of a scope are, the repetition level of their list.
fn places(scope: Scope) -> &'static [&'static str] {
    match scope {
        Scope::Any => &[SPAN, RESOURCE],
        Scope::Span => &[SPAN],
        Scope::Resource => &[RESOURCE],
        Scope::Event => &[EVENT],
        Scope::Link => &[LINK],
        Scope::Instrumentation => &[SCOPE],
    }
}

fn list_level(prefix: &str) -> i16 {
    match prefix {
        RESOURCE => 2,
        SCOPE => 3,
        SPAN => 4,
        _ => 5,
    }
}

/// The one column of an intrinsic that can be tested alone.
fn intrinsic_column(intrinsic: Intrinsic) -> Option<&'static str> {
    Some(match intrinsic {
        Intrinsic::Name => "rs.ss.Spans.Name",
        Intrinsic::Duration => "rs.ss.Spans.DurationNano",
        Intrinsic::Status => "rs.ss.Spans.StatusCode",
        Intrinsic::StatusMessage => "rs.ss.Spans.StatusMessage",
        Intrinsic::Kind => "rs.ss.Spans.Kind",
        Intrinsic::ChildCount => "rs.ss.Spans.ChildCount",
        Intrinsic::TraceId => "TraceID",
        Intrinsic::SpanId => "rs.ss.Spans.SpanID",
        Intrinsic::ParentId => "rs.ss.Spans.ParentSpanID",
        Intrinsic::TraceDuration => "DurationNano",
        Intrinsic::RootName => "RootSpanName",
        Intrinsic::RootServiceName => "RootServiceName",
        Intrinsic::NestedSetLeft => "rs.ss.Spans.NestedSetLeft",
        Intrinsic::NestedSetRight => "rs.ss.Spans.NestedSetRight",
        Intrinsic::NestedSetParent => "rs.ss.Spans.ParentID",
        Intrinsic::EventName => "rs.ss.Spans.Events.Name",
        Intrinsic::EventTimeSinceStart => "rs.ss.Spans.Events.TimeSinceStartNano",
        Intrinsic::LinkTraceId => "rs.ss.Spans.Links.TraceID",
        Intrinsic::LinkSpanId => "rs.ss.Spans.Links.SpanID",
        Intrinsic::InstrumentationName => "rs.ss.Scope.Name",
        Intrinsic::InstrumentationVersion => "rs.ss.Scope.Version",
        #[allow(unreachable_patterns, reason = "the language may learn more")]
        _ => return None,
    })
}

fn is_text_column(intrinsic: Intrinsic) -> bool {
    matches!(
        intrinsic,
        Intrinsic::Name
            | Intrinsic::RootName
            | Intrinsic::RootServiceName
            | Intrinsic::EventName
            | Intrinsic::InstrumentationName
            | Intrinsic::InstrumentationVersion
    )
}

/// A column's value as TraceQL sees the intrinsic. `f` gets it.
fn visit_intrinsic(
    intrinsic: Intrinsic,
    cursor: &Cursor<'_>,
    at: usize,
    f: &mut dyn FnMut(ValueRef<'_>),
) -> Result<()> {
    use otlp::AnyValue;
    match (intrinsic, cursor.value_at_raw(at)?) {
        (Intrinsic::Status, AnyValue::Int(i)) => f(ValueRef::Status(status_text(i as i32))),
        (Intrinsic::Kind, AnyValue::Int(i)) => f(ValueRef::Kind(kind_text(i as i32))),
        (
            Intrinsic::Duration | Intrinsic::TraceDuration | Intrinsic::EventTimeSinceStart,
            AnyValue::Int(i),
        ) => {
            f(ValueRef::Duration(i));
        }
        (_, AnyValue::Int(i)) => f(ValueRef::Int(i)),
        (_, AnyValue::String(s)) => f(ValueRef::Str(&s)),
        (
            Intrinsic::TraceId
            | Intrinsic::SpanId
            | Intrinsic::ParentId
            | Intrinsic::LinkTraceId
            | Intrinsic::LinkSpanId,
            AnyValue::Bytes(b),
        ) => f(ValueRef::Str(&hex::encode(b))),
        (_, AnyValue::Bytes(b)) => {
            let text = std::str::from_utf8(&b).map_err(|_| Error::damaged("parquet: text is not UTF-8"))?;
            f(ValueRef::Str(text));
        }
        _ => {}
    }
    Ok(())
}

/// What one test reads: a place of attributes, or an intrinsic's column.
#[derive(Debug, Clone)]
enum TestColumns {
    Intrinsic { intrinsic: Intrinsic, column: &'static str },
    Named { name: Arc<str>, places: Vec<NamedPlace> },
}

#[derive(Debug, Clone)]
struct NamedPlace {
    prefix: &'static str,
    /// Columns that hold nothing but this attribute.
    own: Vec<String>,
    /// Whether generic attributes are read.
    generic: bool,
}

/// A test that can be answered from columns alone.
#[derive(Debug, Clone)]
struct Pushed {
    test: Test,
    columns: TestColumns,
}

fn push_down(block: &Block, file: &File, test: &Test) -> Option<Pushed> {
    if test.passes_missing() {
        return None;
    }
    let columns = match &test.attribute {
        Attribute::Intrinsic(intrinsic) => {
            let column = intrinsic_column(*intrinsic)?;
            file.column(column)?;
            TestColumns::Intrinsic { intrinsic: *intrinsic, column }
        }
        Attribute::Named(scope, name) => {
            let places = places(*scope)
                .iter()
                .map(|prefix| {
                    let mut own: Vec<_> = named_columns(&block.meta, prefix)
                        .into_iter()
                        .filter(|(n, path)| **n == **name && file.column(path).is_some())
                        .map(|(_, path)| path)
                        .collect();
                    if *prefix == RESOURCE && **name == *SERVICE_NAME {
                        own.push("rs.Resource.ServiceName".to_owned());
                    }
                    NamedPlace { prefix, own, generic: true }
                })
                .collect();
            TestColumns::Named { name: name.clone(), places }
        }
    };
    Some(Pushed { test: test.clone(), columns })
}

impl Pushed {
    /// The text that must be in a dictionary for the test to pass.
    fn needle(&self) -> Option<&str> {
        match &self.test.op {
            Some((CompareOp::Equal, Value::String(text))) => Some(text),
            _ => None,
        }
    }

    /// Generic value columns that can pass.
    fn value_columns(&self) -> &'static [&'static str] {
        match &self.test.op {
            None => &[],
            Some((_, Value::String(_) | Value::Status(_) | Value::SpanKind(_))) => &["Value"],
            Some((_, Value::Bool(_))) => &["ValueBool"],
            Some((_, Value::Int(_) | Value::Float(_) | Value::Duration(_))) => &["ValueInt", "ValueDouble"],
            Some((_, Value::Nil)) => &["Value", "ValueInt", "ValueDouble", "ValueBool"],
        }
    }

    fn paths(&self) -> Vec<String> {
        match &self.columns {
            TestColumns::Intrinsic { column, .. } => vec![(*column).to_owned()],
            TestColumns::Named { places, .. } => {
                let mut out = Vec::new();
                for place in places {
                    out.extend(place.own.iter().cloned());
                    if place.generic {
                        out.push(format!("{}.Attrs.Key", place.prefix));
                        let values = self.value_columns().iter();
                        out.extend(values.map(|c| format!("{}.Attrs.{c}", place.prefix)));
                    }
                }
                out
            }
        }
    }

    /// Marks the rows in which some value passes.
    fn mark(&self, data: &Decoded, rows: &mut [bool]) -> Result<()> {
        match &self.columns {
            TestColumns::Intrinsic { intrinsic, column } => {
                let Some(column) = data.get(column) else { return Ok(()) };
                let mut cursor = Cursor::new(Some(column));
                cursor.rows(rows.len(), |row, at, cursor| {
                    if !rows[row] {
                        visit_intrinsic(*intrinsic, cursor, at, &mut |v| {
                            if self.test.passes_value(v) {
                                rows[row] = true;
                            }
                        })?;
                    }
                    Ok(())
                })
            }
            TestColumns::Named { name, places } => {
                for place in places {
                    for path in &place.own {
                        let Some(column) = data.get(path) else { continue };
                        Cursor::new(Some(column)).rows(rows.len(), |row, at, cursor| {
                            if !rows[row] {
                                let value = cursor.value_at(at)?;
                                // An empty service name is a missing one.
                                if !(path.ends_with("ServiceName") && value.as_str() == Some("")) {
                                    self.mark_value(&value, &mut rows[row]);
                                }
                            }
                            Ok(())
                        })?;
                    }
                    if place.generic {
                        self.mark_generic(data, place.prefix, name, rows)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn mark_value(&self, value: &otlp::AnyValue<'_>, row: &mut bool) {
        crate::view::visit_any(value, &mut |v| *row |= self.test.passes_value(v));
    }

    /// Walks keys and values in step: a value column has one run of entries per key.
    fn mark_generic(&self, data: &Decoded, prefix: &str, name: &str, rows: &mut [bool]) -> Result<()> {
        let Some(keys) = data.get(&format!("{prefix}.Attrs.Key")) else { return Ok(()) };
        let list = list_level(prefix);
        let mut keys = Cursor::new(Some(keys));
        let mut values: Vec<_> = self
            .value_columns()
            .iter()
            .map(|c| Cursor::new(data.get(&format!("{prefix}.Attrs.{c}"))))
            .collect();
        let mut row = 0;
        let mut first = true;
        loop {
            match keys.rep() {
                -1 => return Ok(()),
                0 if !first => row += 1,
                _ => {}
            }
            first = false;
            let Some(marked) = rows.get_mut(row) else { return Ok(()) };
            let key = keys.take_value();
            let matches = key.is_some_and(|at| keys.bytes_at(at) == name.as_bytes());
            if matches && values.is_empty() {
                *marked = true;
            }
            for cursor in &mut values {
                let taken = cursor.take_list(list + 1);
                if matches && !*marked {
                    for at in taken {
                        self.mark_value(&cursor.value_at(at)?, marked);
                    }
                }
            }
        }
    }
}

/// Columns that an answer needs.
#[derive(Debug, Default)]
struct Wanted(BTreeSet<String>);

impl Wanted {
    fn add(&mut self, paths: &[&str]) {
        self.0.extend(paths.iter().map(|p| (*p).to_owned()));
    }

    /// The whole attribute list of a place, and the first column of what it hangs on.
    fn attributes(&mut self, prefix: &str) {
        self.add_first(prefix);
        self.0.extend(ATTRIBUTE_COLUMNS.iter().map(|c| format!("{prefix}.Attrs.{c}")));
    }

    fn add_first(&mut self, prefix: &str) {
        match prefix {
            EVENT => self.add(&["rs.ss.Spans.Events.TimeSinceStartNano", "rs.ss.Spans.StartTimeUnixNano"]),
            LINK => self.add(&["rs.ss.Spans.Links.TraceID"]),
            _ => {}
        }
    }

    fn attribute(&mut self, block: &Block, attribute: &Attribute, has_generic: &dyn Fn(&str, &str) -> bool) {
        match attribute {
            Attribute::Intrinsic(intrinsic) => {
                self.add(intrinsic_column(*intrinsic).as_slice());
                match intrinsic {
                    Intrinsic::EventName | Intrinsic::EventTimeSinceStart => self.add_first(EVENT),
                    Intrinsic::LinkTraceId | Intrinsic::LinkSpanId => self.add_first(LINK),
                    _ => {}
                }
            }
            Attribute::Named(scope, name) => {
                for prefix in places(*scope) {
                    self.add_first(prefix);
                    if *prefix == RESOURCE && **name == *SERVICE_NAME {
                        self.add(&["rs.Resource.ServiceName"]);
                    }
                    let own = named_columns(&block.meta, prefix);
                    self.0.extend(own.into_iter().filter(|(n, _)| **n == **name).map(|(_, path)| path));
                    if has_generic(prefix, name) {
                        self.attributes(prefix);
                    }
                }
            }
        }
    }

    fn columns(&self, file: &File) -> Vec<usize> {
        self.0.iter().filter_map(|path| file.column(path)).collect()
    }
}

fn ranges_of(rows: &[bool]) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for (i, _) in rows.iter().enumerate().filter(|(_, wanted)| **wanted) {
        match out.last_mut() {
            Some(last) if last.end == i => last.end = i + 1,
            _ => out.push(i..i + 1),
        }
    }
    out
}

/// Smallest and largest value of a column in a row group.
fn int_bounds(file: &File, row_group: usize, path: &str) -> Option<(i64, i64)> {
    match file.chunk(row_group, file.column(path)?)?.statistics()? {
        Statistics::Int64(s) => Some((*s.min_opt()?, *s.max_opt()?)),
        _ => None,
    }
}

/// What is known of a row group's dictionaries.
struct Dictionaries {
    entries: hashbrown::HashMap<usize, Vec<Bytes>>,
}

impl Dictionaries {
    /// Whether the text may be among the column's values. `true` where nothing is known.
    fn may_have(&self, file: &File, path: &str, text: &str) -> bool {
        match file.column(path) {
            None => false,
            Some(column) => {
                self.entries.get(&column).is_none_or(|entries| entries.iter().any(|e| e == text.as_bytes()))
            }
        }
    }
}

impl Block {
    /// Every trace of the block as OTLP, in ascending order of id. Holds a part of a row group at a time.
    pub fn traces(
        &self,
        ctx: &QueryContext,
        file: Arc<File>,
    ) -> BoxStream<'static, Result<(TraceId, Bytes)>> {
        let (block, ctx) = (self.clone(), ctx.clone());
        let batches: Vec<_> = (0..file.metadata.num_row_groups())
            .flat_map(|row_group| {
                let rows = file.rows(row_group);
                let step = (rows / ROW_GROUP_BATCHES).max(BATCH_ROWS_MIN);
                (0..rows).step_by(step).map(move |start| (row_group, start..rows.min(start + step)))
            })
            .collect();
        futures::stream::iter(batches)
            .then(move |(row_group, rows)| {
                let (block, ctx, file) = (block.clone(), ctx.clone(), file.clone());
                async move {
                    let all = (0..file.metadata.file_metadata().schema_descr().num_columns()).collect();
                    let fetched = block.columns(&ctx, &file, row_group, all, Rows::Some(vec![rows])).await?;
                    let meta = block.meta.clone();
                    let traces = compute(move || {
                        let data = fetched.decode()?;
                        let named = Named::new(&meta);
                        let mut traces = Traces::new(&data, &named);
                        let mut out = Vec::new();
                        while let Some((trace, _)) = traces.next_trace()? {
                            let mut otlp = Vec::new();
                            otlp::encode(&trace, &mut otlp);
                            out.push(Ok((trace.trace_id, otlp.into())));
                        }
                        Ok(out)
                    })
                    .await?;
                    Ok::<_, Error>(futures::stream::iter(traces))
                }
            })
            .try_flatten()
            .boxed()
    }

    /// Traces with spans that may match, in ascending order of id. Work on a row group takes one of the `slots`.
    pub fn spans(
        &self,
        ctx: &QueryContext,
        file: Arc<File>,
        matcher: Arc<Matcher>,
        slots: Arc<Semaphore>,
    ) -> BoxStream<'static, Result<TraceSpans>> {
        let (block, ctx) = (self.clone(), ctx.clone());
        futures::stream::iter(0..file.metadata.num_row_groups())
            .map(move |row_group| {
                let (block, ctx, file, matcher) = (block.clone(), ctx.clone(), file.clone(), matcher.clone());
                let slots = slots.clone();
                async move {
                    let _slot = slots.acquire().await.map_err(|e| Error::internal(e.to_string()))?;
                    let found = block.row_group_spans(&ctx, &file, &matcher, row_group).await?;
                    Ok::<_, Error>(futures::stream::iter(found.into_iter().map(Ok)))
                }
            })
            .buffered(ROW_GROUPS_AHEAD)
            .try_flatten()
            .boxed()
    }

    async fn row_group_spans(
        &self,
        ctx: &QueryContext,
        file: &Arc<File>,
        matcher: &Arc<Matcher>,
        row_group: usize,
    ) -> Result<Vec<TraceSpans>> {
        let Some((rows, dictionaries)) = self.candidates(ctx, file, matcher, row_group).await? else {
            return Ok(Vec::new());
        };
        let wanted = self.wanted(file, matcher, &dictionaries);
        let fetched = self.columns(ctx, file, row_group, wanted.columns(file), rows).await?;
        let (ctx, matcher, meta) = (ctx.clone(), matcher.clone(), self.meta.clone());
        compute(move || {
            let data = fetched.decode()?;
            let named = Named::new(&meta);
            let mut traces = Traces::new(&data, &named);
            let mut memory = ctx.reserve(0)?;
            let mut out = Vec::new();
            let mut spans = 0;
            while let Some((trace, derived)) = traces.next_trace()? {
                spans += trace.span_count() as u64;
                if spans > 10_000 {
                    ctx.add_rows(std::mem::take(&mut spans))?;
                }
                if let Some(found) = matcher.select(&trace, &derived) {
                    memory.grow(spans_bytes(&found))?;
                    out.push(found);
                }
            }
            ctx.add_rows(spans)?;
            Ok(out)
        })
        .await
    }

    /// The rows of a row group that may match; `None` where none may.
    async fn candidates(
        &self,
        ctx: &QueryContext,
        file: &Arc<File>,
        matcher: &Arc<Matcher>,
        row_group: usize,
    ) -> Result<Option<(Rows, Dictionaries)>> {
        if !bounds_allow(file, matcher, row_group) {
            return Ok(None);
        }
        let mut pushed: Vec<_> = matcher.tests.iter().map(|t| push_down(self, file, t)).collect();
        let dictionaries = self.dictionaries(ctx, file, matcher, &pushed, row_group).await?;
        // Where a place's keys lack the name, its generic attributes are not read; where an own column's dictionary lacks the text,
        // that column neither. A test with nothing left to read cannot pass.
        let mut impossible = 0;
        for test in pushed.iter_mut().flatten() {
            let needle = test.needle().map(str::to_owned);
            let has = |path: &str| needle.as_deref().is_none_or(|n| dictionaries.may_have(file, path, n));
            let left = match &mut test.columns {
                TestColumns::Intrinsic { intrinsic, column } => !is_text_column(*intrinsic) || has(column),
                TestColumns::Named { name, places } => {
                    for place in places.iter_mut() {
                        place.own.retain(|path| has(path));
                        place.generic =
                            dictionaries.may_have(file, &format!("{}.Attrs.Key", place.prefix), name)
                                && has(&format!("{}.Attrs.Value", place.prefix));
                    }
                    places.iter().any(|p| p.generic || !p.own.is_empty())
                }
            };
            impossible += usize::from(!left);
        }
        let tests = matcher.tests.len();
        if tests > 0 && (if matcher.all { impossible > 0 } else { impossible == tests }) {
            return Ok(None);
        }
        // Without "all", one test that cannot be pushed down lets every row pass.
        let useful = if matcher.all || pushed.iter().all(Option::is_some) {
            pushed.into_iter().flatten().collect::<Vec<_>>()
        } else {
            Vec::new()
        };
        let in_time = matcher.start_ns != 0 || matcher.end_ns != 0;
        if useful.is_empty() && !in_time {
            return Ok(Some((Rows::All, dictionaries)));
        }
        let mut paths: BTreeSet<String> = useful.iter().flat_map(Pushed::paths).collect();
        if in_time {
            paths.extend(["StartTimeUnixNano", "EndTimeUnixNano"].map(str::to_owned));
        }
        let columns = paths.iter().filter_map(|p| file.column(p)).collect();
        let fetched = self.columns(ctx, file, row_group, columns, Rows::All).await?;
        let matcher = matcher.clone();
        let rows = compute(move || rows_that_pass(&fetched.decode()?, &useful, &matcher)).await?;
        let ranges = ranges_of(&rows);
        if ranges.is_empty() {
            return Ok(None);
        }
        let rows = if rows.iter().all(|wanted| *wanted) { Rows::All } else { Rows::Some(ranges) };
        Ok(Some((rows, dictionaries)))
    }

    /// The dictionaries that tell whether a row group is worth reading: of the columns compared with a text, and of the keys of
    /// generic attributes that are asked for.
    async fn dictionaries(
        &self,
        ctx: &QueryContext,
        file: &Arc<File>,
        matcher: &Matcher,
        pushed: &[Option<Pushed>],
        row_group: usize,
    ) -> Result<Dictionaries> {
        let mut paths = BTreeSet::new();
        for attribute in matcher.tests.iter().map(|t| &t.attribute).chain(&matcher.attributes) {
            if let Attribute::Named(scope, _) = attribute {
                paths.extend(places(*scope).iter().map(|p| format!("{p}.Attrs.Key")));
            }
        }
        for test in pushed.iter().flatten().filter(|t| t.needle().is_some()) {
            match &test.columns {
                TestColumns::Intrinsic { intrinsic, column } if is_text_column(*intrinsic) => {
                    paths.insert((*column).to_owned());
                }
                TestColumns::Intrinsic { .. } => {}
                TestColumns::Named { places, .. } => {
                    for place in places {
                        paths.extend(place.own.iter().cloned());
                        paths.insert(format!("{}.Attrs.Value", place.prefix));
                    }
                }
            }
        }
        let columns: Vec<_> = paths.iter().filter_map(|p| file.column(p)).collect();
        self.read_dictionaries(ctx, file, row_group, columns).await
    }

    async fn read_dictionaries(
        &self,
        ctx: &QueryContext,
        file: &Arc<File>,
        row_group: usize,
        columns: Vec<usize>,
    ) -> Result<Dictionaries> {
        let places: Vec<_> = columns
            .into_iter()
            .filter_map(|c| Some((c, dictionary_range(file.chunk(row_group, c)?)?)))
            .collect();
        if places.is_empty() {
            return Ok(Dictionaries { entries: hashbrown::HashMap::new() });
        }
        let ranges = Arc::new(self.fetch(ctx, places.iter().map(|(_, r)| r.clone()).collect()).await?);
        let file = file.clone();
        compute(move || {
            let mut entries = hashbrown::HashMap::new();
            for (column, _) in places {
                if let Some(chunk) = file.chunk(row_group, column) {
                    entries.insert(column, decode_dictionary(&ranges, chunk)?);
                }
            }
            Ok(Dictionaries { entries })
        })
        .await
    }

    /// The columns that testing and answering take.
    fn wanted(&self, file: &File, matcher: &Matcher, dictionaries: &Dictionaries) -> Wanted {
        let mut wanted = Wanted::default();
        wanted.add(&SKELETON);
        wanted.add(&["rs.ss.Spans.Name", "rs.ss.Spans.StartTimeUnixNano", "rs.ss.Spans.DurationNano"]);
        if matcher.needs.summary {
            wanted.add(&SUMMARY);
        }
        if matcher.needs.nested_sets {
            wanted.add(&NESTED);
        }
        let has_generic =
            |prefix: &str, name: &str| dictionaries.may_have(file, &format!("{prefix}.Attrs.Key"), name);
        for attribute in matcher.tests.iter().map(|t| &t.attribute).chain(&matcher.attributes) {
            wanted.attribute(self, attribute, &has_generic);
        }
        wanted
    }

    /// Walks the rows of a row group that may match with the columns `wanted` and those of the tests. `None`: there are no such
    /// rows, `f` was not called.
    async fn visit<T: Send + 'static>(
        &self,
        ctx: &QueryContext,
        file: &Arc<File>,
        matcher: &Arc<Matcher>,
        row_group: usize,
        wanted: Wanted,
        f: impl FnOnce(&mut Traces<'_>) -> Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let Some((rows, dictionaries)) = self.candidates(ctx, file, matcher, row_group).await? else {
            return Ok(None);
        };
        let mut all = self.wanted(file, matcher, &dictionaries);
        all.0.extend(wanted.0);
        let fetched = self.columns(ctx, file, row_group, all.columns(file), rows).await?;
        let meta = self.meta.clone();
        ctx.add_rows(file.rows(row_group) as u64)?;
        compute(move || {
            let data = fetched.decode()?;
            let named = Named::new(&meta);
            f(&mut Traces::new(&data, &named)).map(Some)
        })
        .await
    }
}

fn rows_that_pass(data: &Decoded, tests: &[Pushed], matcher: &Matcher) -> Result<Vec<bool>> {
    let mut rows = vec![matcher.all || tests.is_empty(); data.row_count];
    for test in tests {
        let mut passed = vec![false; data.row_count];
        test.mark(data, &mut passed)?;
        for (row, passed) in rows.iter_mut().zip(passed) {
            *row = if matcher.all { *row && passed } else { *row || passed };
        }
    }
    if let (Some(_), Some(_)) = (data.get("StartTimeUnixNano"), data.get("EndTimeUnixNano")) {
        let mut start = Cursor::new(data.get("StartTimeUnixNano"));
        let mut end = Cursor::new(data.get("EndTimeUnixNano"));
        for row in &mut rows {
            *row &= matcher.overlaps(start.int() as u64, end.int() as u64);
        }
    }
    Ok(rows)
}

/// Whether a row group's statistics leave room for a match.
fn bounds_allow(file: &File, matcher: &Matcher, row_group: usize) -> bool {
    let first = int_bounds(file, row_group, "StartTimeUnixNano").map(|(min, _)| min);
    let last = int_bounds(file, row_group, "EndTimeUnixNano").map(|(_, max)| max);
    if let (Some(first), Some(last)) = (first, last)
        && !crate::view::overlaps(matcher.start_ns, matcher.end_ns, first, last)
    {
        return false;
    }
    let possible = |test: &Test| {
        let Attribute::Intrinsic(intrinsic @ (Intrinsic::Duration | Intrinsic::TraceDuration)) =
            test.attribute
        else {
            return true;
        };
        let Some((min, max)) = intrinsic_column(intrinsic).and_then(|c| int_bounds(file, row_group, c))
        else {
            return true;
        };
        let passes = |ns| test.passes_value(ValueRef::Duration(ns));
        match test.op {
            Some((CompareOp::Greater | CompareOp::GreaterEqual, _)) => passes(max),
            Some((CompareOp::Less | CompareOp::LessEqual, _)) => passes(min),
            _ => true,
        }
    };
    if matcher.tests.is_empty() {
        true
    } else if matcher.all {
        matcher.tests.iter().all(possible)
    } else {
        matcher.tests.iter().any(possible)
    }
}
