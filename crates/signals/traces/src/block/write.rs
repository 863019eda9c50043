//! Writes a block: traces in ascending order of id are cut into column buffers with their levels, a full row group's buffers
//! become parquet column chunks, the file's bytes are handed out as they are ready.
//!
//! Levels of a value say where its nearest repetition began (`rep`) and how much of its path is there (`def`). Every list that is
//! empty leaves one entry with the levels of what is there in each of its columns.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use triptych_model::traces::TraceId;
use triptych_model::{Error, Result, TenantId};
use triptych_runtime::random::random_u128;
use uuid::Uuid;

use super::bloom;
use super::meta::{BlockMeta, FORMAT, RowGroupIndex};
use super::schema::{
    DedicatedColumn, DedicatedKind, DedicatedScope, Kind, Leaf, Schema, assign, default_dedicated_columns,
};
use crate::otlp::{
    AnyValue, Event, KeyValue, Link, Resource, SERVICE_NAME, ScopeSpans, Span, Trace, same_kind, to_json,
};
use crate::view::{Derived, Nested};

/// How blocks are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockOptions {
    /// Buffered bytes at which a row group is closed (Tempo: 100 MB). What a writer holds in memory is about twice that.
    pub row_group_bytes: usize,
    /// Traces at which a row group is closed.
    pub row_group_traces: usize,
    /// Attributes with columns of their own.
    pub dedicated_columns: Vec<DedicatedColumn>,
}

impl Default for BlockOptions {
    fn default() -> Self {
        Self {
            row_group_bytes: 64 << 20,
            row_group_traces: 200_000,
            dedicated_columns: default_dedicated_columns(),
        }
    }
}

/// What a finished block consists of besides the bytes that were taken before.
pub struct Finished {
    /// The end of `data.parquet`.
    pub data: Vec<u8>,
    pub blooms: Vec<Vec<u8>>,
    pub index: RowGroupIndex,
    pub meta: BlockMeta,
    pub spans: u64,
}

/// Bytes between the parquet writer and whoever uploads them.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub struct BlockWriter {
    file: SerializedFileWriter<Sink>,
    sink: Sink,
    columns: Columns,
    options: BlockOptions,
    meta: BlockMeta,
    ids: Vec<TraceId>,
    index: RowGroupIndex,
    row_group_traces: usize,
    start_ns: u64,
    end_ns: u64,
    spans: u64,
}

fn failed(e: parquet::errors::ParquetError) -> Error {
    Error::internal(format!("writing a block: {e}"))
}

impl BlockWriter {
    pub fn new(tenant: &TenantId, options: &BlockOptions, compaction_level: u32) -> Result<Self> {
        let schema = Schema::new(&options.dedicated_columns)?;
        let sink = Sink::default();
        let properties = Arc::new(schema.writer_properties());
        let file =
            SerializedFileWriter::new(sink.clone(), schema.root.clone(), properties).map_err(failed)?;
        Ok(Self {
            file,
            sink,
            columns: Columns::new(&schema, &options.dedicated_columns)?,
            options: options.clone(),
            meta: BlockMeta {
                format: FORMAT.to_owned(),
                block_id: uuid::Builder::from_random_bytes(random_u128().to_be_bytes()).into_uuid(),
                tenant_id: tenant.as_str().to_owned(),
                start_s: 0,
                end_s: 0,
                total_objects: 0,
                size: 0,
                compaction_level,
                index_page_size: 0,
                total_records: 0,
                bloom_shards: 0,
                footer_size: 0,
                dedicated_columns: options.dedicated_columns.clone(),
                replication_factor: 1,
            },
            ids: Vec::new(),
            index: RowGroupIndex::default(),
            row_group_traces: 0,
            start_ns: u64::MAX,
            end_ns: 0,
            spans: 0,
        })
    }

    pub fn block_id(&self) -> Uuid {
        self.meta.block_id
    }

    pub fn trace_count(&self) -> usize {
        self.ids.len()
    }

    /// Bytes written so far and, about, those still in the buffers.
    pub fn bytes(&self) -> usize {
        self.file.bytes_written() + self.columns.bytes / 4
    }

    /// What the row group that is open holds, before compression.
    pub fn buffered_bytes(&self) -> usize {
        self.columns.bytes
    }

    /// Adds a trace; ids must ascend. `true`: it filled a row group, whose bytes can be taken.
    pub fn add(&mut self, trace: &Trace<'_>, derived: &Derived) -> Result<bool> {
        if self.ids.last().is_some_and(|last| *last >= trace.trace_id) {
            return Err(Error::internal("traces must be added to a block in ascending order of id"));
        }
        self.columns.trace(trace, derived);
        self.ids.push(trace.trace_id);
        self.row_group_traces += 1;
        self.spans += trace.span_count() as u64;
        self.start_ns = self.start_ns.min(derived.start_ns);
        self.end_ns = self.end_ns.max(derived.end_ns);
        let full = self.columns.bytes >= self.options.row_group_bytes
            || self.row_group_traces >= self.options.row_group_traces;
        if full {
            self.close_row_group()?;
        }
        Ok(full)
    }

    /// Ends the row group that is open, whose bytes can be taken then.
    pub fn close_row_group(&mut self) -> Result<()> {
        let (Some(last), true) = (self.ids.last(), self.row_group_traces > 0) else {
            return Ok(());
        };
        let mut row_group = self.file.next_row_group().map_err(failed)?;
        for column in &mut self.columns.columns {
            let writer = row_group
                .next_column()
                .map_err(failed)?
                .ok_or_else(|| Error::internal("writing a block: fewer columns than in its schema"))?;
            column.write(writer).map_err(failed)?;
        }
        row_group.close().map_err(failed)?;
        self.columns.bytes = 0;
        self.index.0.push(*last);
        self.row_group_traces = 0;
        Ok(())
    }

    /// The bytes of `data.parquet` that are ready and were not taken before.
    pub fn take_data(&mut self) -> Vec<u8> {
        std::mem::take(&mut *self.sink.0.lock())
    }

    pub fn finish(mut self) -> Result<Finished> {
        self.close_row_group()?;
        self.file.finish().map_err(failed)?;
        let size = self.file.bytes_written();
        let data = self.take_data();
        // The file ends with the footer's length and a magic number.
        let footer_size = data
            .last_chunk::<8>()
            .map(|end| u32::from_le_bytes([end[0], end[1], end[2], end[3]]))
            .ok_or_else(|| Error::internal("writing a block: file without an end"))?;
        let blooms = bloom::build(&self.ids);
        let mut meta = self.meta;
        meta.start_s = if self.ids.is_empty() { 0 } else { (self.start_ns / 1_000_000_000) as i64 };
        meta.end_s = self.end_ns.div_ceil(1_000_000_000) as i64;
        meta.total_objects = self.ids.len() as u64;
        meta.size = size as u64;
        meta.total_records = self.index.0.len() as u32;
        meta.bloom_shards = blooms.len() as u32;
        meta.footer_size = footer_size;
        Ok(Finished { data, blooms, index: self.index, meta, spans: self.spans })
    }
}

enum Values {
    Bytes { data: Vec<u8>, ends: Vec<usize> },
    I32(Vec<i32>),
    I64(Vec<i64>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
}

/// A column chunk in the making.
struct Column {
    def_max: u8,
    rep_max: u8,
    defs: Vec<u8>,
    reps: Vec<u8>,
    values: Values,
}

impl Column {
    fn new(leaf: &Leaf) -> Self {
        let values = match leaf.kind {
            Kind::Text | Kind::Binary => Values::Bytes { data: Vec::new(), ends: Vec::new() },
            Kind::I32 | Kind::U32 => Values::I32(Vec::new()),
            Kind::I64 | Kind::U64 => Values::I64(Vec::new()),
            Kind::F64 => Values::F64(Vec::new()),
            Kind::Bool => Values::Bool(Vec::new()),
        };
        Self { def_max: leaf.def_max, rep_max: leaf.rep_max, defs: Vec::new(), reps: Vec::new(), values }
    }

    #[inline]
    fn levels(&mut self, rep: u8, def: u8) {
        if self.def_max > 0 {
            self.defs.push(def);
        }
        if self.rep_max > 0 {
            self.reps.push(rep);
        }
    }

    #[inline]
    fn bytes(&mut self, rep: u8, bytes: &[u8]) {
        self.levels(rep, self.def_max);
        if let Values::Bytes { data, ends } = &mut self.values {
            data.extend_from_slice(bytes);
            ends.push(data.len());
        }
    }

    #[inline]
    fn i32(&mut self, rep: u8, value: i32) {
        self.levels(rep, self.def_max);
        if let Values::I32(values) = &mut self.values {
            values.push(value);
        }
    }

    #[inline]
    fn i64(&mut self, rep: u8, value: i64) {
        self.levels(rep, self.def_max);
        if let Values::I64(values) = &mut self.values {
            values.push(value);
        }
    }

    #[inline]
    fn f64(&mut self, rep: u8, value: f64) {
        self.levels(rep, self.def_max);
        if let Values::F64(values) = &mut self.values {
            values.push(value);
        }
    }

    #[inline]
    fn bool(&mut self, rep: u8, value: bool) {
        self.levels(rep, self.def_max);
        if let Values::Bool(values) = &mut self.values {
            values.push(value);
        }
    }

    /// Writes the chunk and empties the buffers.
    fn write(&mut self, mut writer: SerializedColumnWriter<'_>) -> parquet::errors::Result<()> {
        let widen = |levels: &mut Vec<u8>| {
            let wide: Vec<i16> = levels.iter().map(|l| i16::from(*l)).collect();
            levels.clear();
            wide
        };
        let defs = (self.def_max > 0).then(|| widen(&mut self.defs));
        let reps = (self.rep_max > 0).then(|| widen(&mut self.reps));
        let (defs, reps) = (defs.as_deref(), reps.as_deref());
        match &mut self.values {
            Values::Bytes { data, ends } => {
                let data = Bytes::from(std::mem::take(data));
                let mut start = 0;
                let values: Vec<ByteArray> = ends
                    .drain(..)
                    .map(|end| ByteArray::from(data.slice(std::mem::replace(&mut start, end)..end)))
                    .collect();
                writer.typed::<ByteArrayType>().write_batch(&values, defs, reps)?;
            }
            Values::I32(values) => {
                writer.typed::<Int32Type>().write_batch(values, defs, reps)?;
                values.clear();
            }
            Values::I64(values) => {
                writer.typed::<Int64Type>().write_batch(values, defs, reps)?;
                values.clear();
            }
            Values::F64(values) => {
                writer.typed::<DoubleType>().write_batch(values, defs, reps)?;
                values.clear();
            }
            Values::Bool(values) => {
                writer.typed::<BoolType>().write_batch(values, defs, reps)?;
                values.clear();
            }
        }
        writer.close()
    }
}

/// First of the seven columns of an attribute list, and the dedicated columns beside it.
struct AttrsAt {
    first: usize,
    dedicated: Vec<(usize, DedicatedKind)>,
    by_name: HashMap<String, usize>,
}

impl AttrsAt {
    fn new(
        schema: &Schema,
        prefix: &str,
        dedicated: &[DedicatedColumn],
        scope: Option<DedicatedScope>,
    ) -> Result<Self> {
        let mut out = Self {
            first: schema.at(&format!("{prefix}.Attrs.Key"))?,
            dedicated: Vec::new(),
            by_name: HashMap::new(),
        };
        for (column, leaf) in scope.into_iter().flat_map(|scope| assign(dedicated, scope)) {
            let at = schema.at(&format!("{prefix}.DedicatedAttributes.{leaf}"))?;
            out.by_name.insert(column.name.clone(), out.dedicated.len());
            out.dedicated.push((at, column.kind));
        }
        Ok(out)
    }
}

/// The buffers of all columns and where each stands.
struct Columns {
    columns: Vec<Column>,
    /// About, in bytes, over all buffers.
    bytes: usize,
    stats: usize,
    rs: usize,
    resource: AttrsAt,
    resource_dropped: usize,
    ss: usize,
    scope: AttrsAt,
    scope_dropped: usize,
    spans: usize,
    span_attrs: AttrsAt,
    span_dropped: usize,
    events: usize,
    event_attrs: AttrsAt,
    event_dropped: usize,
    dropped_events: usize,
    links: usize,
    link_attrs: AttrsAt,
    link_dropped: usize,
    dropped_links: usize,
    rounded: usize,
    span_count: usize,
}

impl Columns {
    fn new(schema: &Schema, dedicated: &[DedicatedColumn]) -> Result<Self> {
        let attrs = |prefix, scope| AttrsAt::new(schema, prefix, dedicated, scope);
        Ok(Self {
            bytes: 0,
            stats: schema.at("ServiceStats.ServiceName")?,
            rs: schema.at("rs.Resource.ServiceName")?,
            resource: attrs("rs.Resource", Some(DedicatedScope::Resource))?,
            resource_dropped: schema.at("rs.Resource.DroppedAttributesCount")?,
            ss: schema.at("rs.ss.Scope.Name")?,
            scope: attrs("rs.ss.Scope", None)?,
            scope_dropped: schema.at("rs.ss.Scope.DroppedAttributesCount")?,
            spans: schema.at("rs.ss.Spans.SpanID")?,
            span_attrs: attrs("rs.ss.Spans", Some(DedicatedScope::Span))?,
            span_dropped: schema.at("rs.ss.Spans.DroppedAttributesCount")?,
            events: schema.at("rs.ss.Spans.Events.TimeSinceStartNano")?,
            event_attrs: attrs("rs.ss.Spans.Events", Some(DedicatedScope::Event))?,
            event_dropped: schema.at("rs.ss.Spans.Events.DroppedAttributesCount")?,
            dropped_events: schema.at("rs.ss.Spans.DroppedEventsCount")?,
            links: schema.at("rs.ss.Spans.Links.TraceID")?,
            link_attrs: attrs("rs.ss.Spans.Links", None)?,
            link_dropped: schema.at("rs.ss.Spans.Links.DroppedAttributesCount")?,
            dropped_links: schema.at("rs.ss.Spans.DroppedLinksCount")?,
            rounded: schema.at("rs.ss.Spans.StartTimeRounded15")?,
            span_count: schema.at("rs.ss.SpanCount")?,
            columns: schema.leaves.iter().map(Column::new).collect(),
        })
    }

    /// An entry without a value in each of the columns.
    fn nulls(&mut self, columns: std::ops::Range<usize>, rep: u8, def: u8) {
        for column in &mut self.columns[columns] {
            column.levels(rep, def);
        }
    }

    fn trace(&mut self, trace: &Trace<'_>, derived: &Derived) {
        let c = &mut self.columns;
        c[0].bytes(0, &trace.trace_id);
        c[1].bytes(0, id_text(&trace.trace_id).as_bytes());
        c[2].i64(0, derived.start_ns as i64);
        c[3].i64(0, derived.end_ns as i64);
        c[4].i64(0, derived.duration_ns());
        c[5].bytes(0, derived.root_service.as_bytes());
        c[6].bytes(0, derived.root_name.as_bytes());
        for (i, (service, spans, errors)) in derived.services.iter().enumerate() {
            let rep = u8::from(i > 0);
            c[self.stats].bytes(rep, service.as_bytes());
            c[self.stats + 1].i32(rep, *spans as i32);
            c[self.stats + 2].i32(rep, *errors as i32);
        }
        if derived.services.is_empty() {
            self.nulls(self.stats..self.stats + 3, 0, 0);
        }
        if trace.resource_spans.is_empty() {
            self.nulls(self.rs..self.columns.len(), 0, 0);
        }
        let mut nested = derived.nested.iter().copied();
        for (i, rs) in trace.resource_spans.iter().enumerate() {
            let rep = u8::from(i > 0);
            self.resource(&rs.resource, rep);
            if rs.scope_spans.is_empty() {
                self.nulls(self.ss..self.columns.len(), rep, 1);
            }
            for (i, ss) in rs.scope_spans.iter().enumerate() {
                self.scope_spans(ss, if i > 0 { 2 } else { rep }, &mut nested);
            }
        }
        self.bytes += 150;
    }

    fn resource(&mut self, resource: &Resource<'_>, rep: u8) {
        let service = resource.service_name();
        self.columns[self.rs].bytes(rep, service.as_bytes());
        // `service.name` is in its column; where its value is no string it stays a generic attribute.
        let mut left = (!service.is_empty()).then_some(service);
        let attributes = resource.attributes.iter().filter(|a| {
            let is_service = a.key == SERVICE_NAME && left.is_some() && a.value.as_str() == left;
            if is_service {
                left = None;
            }
            !is_service
        });
        let attributes: SmallVec<[&KeyValue<'_>; 16]> = attributes.collect();
        attributes_into(
            &mut self.columns,
            &mut self.bytes,
            &self.resource,
            attributes.into_iter(),
            rep,
            1,
            2,
        );
        self.columns[self.resource_dropped].i32(rep, resource.dropped_attributes as i32);
    }

    fn scope_spans(&mut self, ss: &ScopeSpans<'_>, rep: u8, nested: &mut impl Iterator<Item = Nested>) {
        self.columns[self.ss].bytes(rep, ss.scope.name.as_bytes());
        self.columns[self.ss + 1].bytes(rep, ss.scope.version.as_bytes());
        let attributes = ss.scope.attributes.iter();
        attributes_into(&mut self.columns, &mut self.bytes, &self.scope, attributes, rep, 2, 3);
        self.columns[self.scope_dropped].i32(rep, ss.scope.dropped_attributes as i32);
        if ss.spans.is_empty() {
            self.nulls(self.spans..self.span_count, rep, 2);
        }
        for (i, span) in ss.spans.iter().enumerate() {
            self.span(span, nested.next().unwrap_or_default(), if i > 0 { 3 } else { rep });
        }
        self.columns[self.span_count].i32(rep, ss.spans.len() as i32);
    }

    fn span(&mut self, span: &Span<'_>, nested: Nested, rep: u8) {
        let at = self.spans;
        let c = &mut self.columns;
        c[at].bytes(rep, &span.span_id);
        c[at + 1].bytes(rep, span.parent_id.as_ref().map_or(&[], |id| id.as_slice()));
        c[at + 2].i32(rep, nested.parent);
        c[at + 3].i32(rep, nested.left);
        c[at + 4].i32(rep, nested.right);
        c[at + 5].i32(rep, nested.child_count);
        c[at + 6].bytes(rep, span.name.as_bytes());
        c[at + 7].i64(rep, i64::from(span.kind));
        c[at + 8].bytes(rep, span.trace_state.as_bytes());
        c[at + 9].i64(rep, span.start_ns as i64);
        c[at + 10].i64(rep, span.duration_ns() as i64);
        c[at + 11].i64(rep, i64::from(span.status_code));
        c[at + 12].bytes(rep, span.status_message.as_bytes());
        attributes_into(c, &mut self.bytes, &self.span_attrs, span.attributes.iter(), rep, 3, 4);
        c[self.span_dropped].i32(rep, span.dropped_attributes as i32);
        for (i, step_s) in [15u64, 60, 300, 3600].into_iter().enumerate() {
            // Intervals are open on the left: (n * step, (n + 1) * step].
            let interval = span.start_ns.saturating_sub(1) / (step_s * 1_000_000_000);
            c[self.rounded + i].i32(rep, interval as u32 as i32);
        }
        c[self.dropped_events].i32(rep, span.dropped_events as i32);
        c[self.dropped_links].i32(rep, span.dropped_links as i32);
        if span.events.is_empty() {
            self.nulls(self.events..self.dropped_events, rep, 3);
        }
        for (i, event) in span.events.iter().enumerate() {
            self.event(event, span.start_ns, if i > 0 { 4 } else { rep });
        }
        if span.links.is_empty() {
            self.nulls(self.links..self.dropped_links, rep, 3);
        }
        for (i, link) in span.links.iter().enumerate() {
            self.link(link, if i > 0 { 4 } else { rep });
        }
        self.bytes += 150 + span.name.len() + span.status_message.len() + span.trace_state.len();
    }

    fn event(&mut self, event: &Event<'_>, span_start_ns: u64, rep: u8) {
        let c = &mut self.columns;
        c[self.events].i64(rep, event.time_ns.wrapping_sub(span_start_ns) as i64);
        c[self.events + 1].bytes(rep, event.name.as_bytes());
        attributes_into(c, &mut self.bytes, &self.event_attrs, event.attributes.iter(), rep, 4, 5);
        c[self.event_dropped].i32(rep, event.dropped_attributes as i32);
        self.bytes += 24 + event.name.len();
    }

    fn link(&mut self, link: &Link<'_>, rep: u8) {
        let c = &mut self.columns;
        c[self.links].bytes(rep, link.trace_id);
        c[self.links + 1].bytes(rep, link.span_id);
        c[self.links + 2].bytes(rep, link.trace_state.as_bytes());
        attributes_into(c, &mut self.bytes, &self.link_attrs, link.attributes.iter(), rep, 4, 5);
        c[self.link_dropped].i32(rep, link.dropped_attributes as i32);
        self.bytes += 48 + link.trace_state.len();
    }
}

/// Hex without leading zeros, as Tempo shows ids.
fn id_text(id: &TraceId) -> String {
    let hex = hex::encode(id);
    hex.trim_start_matches('0').to_owned()
}

fn strings<'v>(values: &'v [AnyValue<'_>]) -> Option<SmallVec<[&'v str; 4]>> {
    values.iter().map(AnyValue::as_str).collect()
}

fn ints(values: &[AnyValue<'_>]) -> Option<SmallVec<[i64; 4]>> {
    let int = |v: &AnyValue<'_>| if let AnyValue::Int(i) = v { Some(*i) } else { None };
    values.iter().map(int).collect()
}

/// What a dedicated column takes: a scalar, or a list of at least two (a list of one would come back as a scalar).
fn fits(value: &AnyValue<'_>, kind: DedicatedKind) -> bool {
    match (value, kind) {
        (AnyValue::String(_), DedicatedKind::String) | (AnyValue::Int(_), DedicatedKind::Int) => true,
        (AnyValue::Array(values), DedicatedKind::String) => values.len() > 1 && strings(values).is_some(),
        (AnyValue::Array(values), DedicatedKind::Int) => values.len() > 1 && ints(values).is_some(),
        _ => false,
    }
}

/// Writes an attribute list and its dedicated columns. `def` is the level of what holds the list, `list` the repetition level of
/// the list itself.
fn attributes_into<'v>(
    columns: &mut [Column],
    bytes: &mut usize,
    at: &AttrsAt,
    attributes: impl Iterator<Item = &'v KeyValue<'v>>,
    rep: u8,
    def: u8,
    list: u8,
) {
    let mut dedicated: SmallVec<[Option<&AnyValue<'_>>; 16]> = smallvec::smallvec![None; at.dedicated.len()];
    let mut next = rep;
    for attribute in attributes {
        *bytes += 24 + attribute.key.len();
        if let Some(i) = at.by_name.get(attribute.key.as_ref())
            && dedicated[*i].is_none()
            && fits(&attribute.value, at.dedicated[*i].1)
        {
            dedicated[*i] = Some(&attribute.value);
            continue;
        }
        *bytes += attribute_into(&mut columns[at.first..at.first + 7], attribute, next, def + 1, list + 1);
        next = list;
    }
    if next == rep {
        // Without a first attribute `next` was never set. (`rep` is always below `list`.)
        columns[at.first..at.first + 7].iter_mut().for_each(|c| c.levels(rep, def));
    }
    for ((column, _), value) in at.dedicated.iter().zip(dedicated) {
        let column = &mut columns[*column];
        match value {
            None => column.levels(rep, def),
            Some(AnyValue::String(s)) => column.bytes(rep, s.as_bytes()),
            Some(AnyValue::Int(i)) => column.i64(rep, *i),
            Some(AnyValue::Array(values)) => {
                for (i, value) in values.iter().enumerate() {
                    let rep = if i > 0 { list } else { rep };
                    match value {
                        AnyValue::String(s) => column.bytes(rep, s.as_bytes()),
                        AnyValue::Int(v) => column.i64(rep, *v),
                        _ => {}
                    }
                }
            }
            Some(_) => column.levels(rep, def),
        }
    }
}

/// Writes one attribute into its seven columns; returns the bytes of its values. `def` is the level of the attribute, `list` the
/// repetition level of its values.
fn attribute_into(c: &mut [Column], attribute: &KeyValue<'_>, rep: u8, def: u8, list: u8) -> usize {
    c[0].bytes(rep, attribute.key.as_bytes());
    let mut bytes = 8;
    let mut is_array = false;
    // The column that got values.
    let mut filled = 0;
    match &attribute.value {
        AnyValue::String(s) => {
            filled = 2;
            bytes = s.len();
            c[2].bytes(rep, s.as_bytes());
        }
        AnyValue::Int(i) => {
            filled = 3;
            c[3].i64(rep, *i);
        }
        AnyValue::Double(v) => {
            filled = 4;
            c[4].f64(rep, *v);
        }
        AnyValue::Bool(b) => {
            filled = 5;
            c[5].bool(rep, *b);
        }
        AnyValue::Array(values) if same_kind(values) => {
            is_array = true;
            for (i, value) in values.iter().enumerate() {
                let rep = if i > 0 { list } else { rep };
                match value {
                    AnyValue::String(s) => {
                        filled = 2;
                        bytes += s.len();
                        c[2].bytes(rep, s.as_bytes());
                    }
                    AnyValue::Int(i) => {
                        filled = 3;
                        c[3].i64(rep, *i);
                    }
                    AnyValue::Double(v) => {
                        filled = 4;
                        c[4].f64(rep, *v);
                    }
                    AnyValue::Bool(b) => {
                        filled = 5;
                        c[5].bool(rep, *b);
                    }
                    _ => {}
                }
            }
            bytes += 8 * values.len();
        }
        other => {
            filled = 6;
            let json = to_json(other);
            bytes = json.len();
            c[6].bytes(rep, json.as_bytes());
        }
    }
    c[1].bool(rep, is_array);
    for (i, column) in c.iter_mut().enumerate().skip(2) {
        if i != filled {
            column.levels(rep, def);
        }
    }
    bytes
}
