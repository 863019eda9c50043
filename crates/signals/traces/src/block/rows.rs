//! Puts traces together again from decoded columns. What was not read is empty.
//!
//! One cursor per column walks its levels. `rs.ss.Spans.SpanID` is the skeleton: its repetition levels say where a resource (1),
//! a scope (2), a span (3) begins, its definition levels which of them are missing. Columns of the same list have one entry for
//! each of its elements, or one entry without a value for an empty list, so all cursors stay in step.

use std::sync::Arc;

use triptych_model::traces::TraceId;
use triptych_model::{Error, Result};

use super::meta::BlockMeta;
use super::read::{ColumnData, ColumnValues, Decoded};
use super::schema::{DedicatedScope, assign};
use crate::otlp::{
    AnyValue, Event, InstrumentationScope, KeyValue, Link, Resource, ResourceSpans, SERVICE_NAME, ScopeSpans,
    Span, Trace, from_json, span_id,
};
use crate::view::{Derived, Nested};

/// Columns that vParquet4 has for some attributes.
pub const STATIC_RESOURCE: [(&str, &str); 8] = [
    ("cluster", "Cluster"),
    ("namespace", "Namespace"),
    ("pod", "Pod"),
    ("container", "Container"),
    ("k8s.cluster.name", "K8sClusterName"),
    ("k8s.namespace.name", "K8sNamespaceName"),
    ("k8s.pod.name", "K8sPodName"),
    ("k8s.container.name", "K8sContainerName"),
];
pub const STATIC_SPAN: [(&str, &str); 3] =
    [("http.method", "HttpMethod"), ("http.url", "HttpUrl"), ("http.status_code", "HttpStatusCode")];

/// Paths of a scope's columns for single attributes, with the attribute's name: dedicated ones and those of vParquet4.
pub fn named_columns(meta: &BlockMeta, prefix: &str) -> Vec<(String, String)> {
    let scope = match prefix {
        "rs.Resource" => Some(DedicatedScope::Resource),
        "rs.ss.Spans" => Some(DedicatedScope::Span),
        "rs.ss.Spans.Events" => Some(DedicatedScope::Event),
        _ => None,
    };
    let mut out: Vec<_> = scope
        .into_iter()
        .flat_map(|s| assign(&meta.dedicated_columns, s))
        .map(|(column, leaf)| (column.name.clone(), format!("{prefix}.DedicatedAttributes.{leaf}")))
        .collect();
    let fixed: &[(&str, &str)] = match scope {
        Some(DedicatedScope::Resource) => &STATIC_RESOURCE,
        Some(DedicatedScope::Span) => &STATIC_SPAN,
        _ => &[],
    };
    out.extend(fixed.iter().map(|(name, column)| ((*name).to_owned(), format!("{prefix}.{column}"))));
    out
}

/// Walks the entries of a column. Without a column every value is empty.
#[derive(Clone, Copy)]
pub struct Cursor<'c> {
    column: Option<&'c ColumnData>,
    level: usize,
    value: usize,
}

impl<'c> Cursor<'c> {
    pub fn new(column: Option<&'c ColumnData>) -> Self {
        Self { column, level: 0, value: 0 }
    }

    /// The repetition level of the next entry; -1 at the end and where the column is missing.
    #[inline]
    pub fn rep(&self) -> i16 {
        self.column.and_then(|c| c.reps.get(self.level)).copied().unwrap_or(-1)
    }

    #[inline]
    pub fn def(&self) -> i16 {
        self.column.and_then(|c| c.defs.get(self.level)).copied().unwrap_or(-1)
    }

    /// Takes the next entry; the place of its value where it has one.
    #[inline]
    fn take(&mut self) -> Option<usize> {
        let column = self.column?;
        if column.def_max > 0 {
            let def = *column.defs.get(self.level)?;
            self.level += 1;
            if def < column.def_max {
                return None;
            }
        }
        self.value += 1;
        Some(self.value - 1)
    }

    /// Takes the entries of a list of values inside of one element: the first, and those that repeat at `list`.
    #[inline]
    pub fn take_list(&mut self, list: i16) -> std::ops::Range<usize> {
        let start = self.value;
        self.take();
        while self.rep() == list {
            self.take();
        }
        start..self.value
    }

    #[inline]
    pub fn bytes_at(&self, at: usize) -> &'c [u8] {
        match self.column.map(|c| &c.values) {
            Some(ColumnValues::Bytes(values)) => values.get(at).map_or(&[], |v| v.data()),
            _ => &[],
        }
    }

    #[inline]
    fn int_at(&self, at: usize) -> i64 {
        match self.column.map(|c| &c.values) {
            Some(ColumnValues::I64(values)) => values.get(at).copied().unwrap_or_default(),
            Some(ColumnValues::I32(values)) => values.get(at).copied().unwrap_or_default().into(),
            _ => 0,
        }
    }

    /// A value as an attribute has it; text that is no UTF-8 is damaged.
    pub fn value_at(&self, at: usize) -> Result<AnyValue<'c>> {
        Ok(match self.column.map(|c| &c.values) {
            Some(ColumnValues::Bytes(_)) => AnyValue::String(text(self.bytes_at(at))?.into()),
            Some(ColumnValues::I64(_) | ColumnValues::I32(_)) => AnyValue::Int(self.int_at(at)),
            Some(ColumnValues::F64(values)) => AnyValue::Double(values.get(at).copied().unwrap_or_default()),
            Some(ColumnValues::Bool(values)) => AnyValue::Bool(values.get(at).copied().unwrap_or_default()),
            None => AnyValue::None,
        })
    }

    /// As [`Cursor::value_at`], with texts as bytes: ids are no texts.
    pub fn value_at_raw(&self, at: usize) -> Result<AnyValue<'c>> {
        match self.column.map(|c| &c.values) {
            Some(ColumnValues::Bytes(_)) => Ok(AnyValue::Bytes(self.bytes_at(at).into())),
            _ => self.value_at(at),
        }
    }

    /// As the private `take`.
    pub fn take_value(&mut self) -> Option<usize> {
        self.take()
    }

    /// Walks all values with the row each belongs to.
    pub fn rows(
        &mut self,
        row_count: usize,
        mut f: impl FnMut(usize, usize, &Cursor<'c>) -> Result<()>,
    ) -> Result<()> {
        let Some(column) = self.column else { return Ok(()) };
        if column.def_max == 0 {
            return (0..row_count).try_for_each(|row| f(row, row, self));
        }
        let mut row = 0;
        for level in 0..column.defs.len() {
            // Without repetition every entry is a row.
            if level > 0 && column.reps.get(level).is_none_or(|rep| *rep == 0) {
                row += 1;
            }
            if row >= row_count {
                return Ok(());
            }
            if let Some(at) = self.take() {
                f(row, at, self)?;
            }
        }
        Ok(())
    }

    #[inline]
    pub fn bytes(&mut self) -> &'c [u8] {
        self.take().map_or(&[], |at| self.bytes_at(at))
    }

    #[inline]
    pub fn text(&mut self) -> Result<&'c str> {
        text(self.bytes())
    }

    #[inline]
    pub fn int(&mut self) -> i64 {
        self.take().map_or(0, |at| self.int_at(at))
    }

    fn bool(&mut self) -> bool {
        match (self.take(), self.column.map(|c| &c.values)) {
            (Some(at), Some(ColumnValues::Bool(values))) => values.get(at).copied().unwrap_or_default(),
            _ => false,
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Error::damaged("parquet: text is not UTF-8"))
}

/// The columns of an attribute list.
pub struct Attributes<'c> {
    key: Cursor<'c>,
    is_array: Cursor<'c>,
    /// String, int, double, bool.
    values: [Cursor<'c>; 4],
    unsupported: Cursor<'c>,
    named: Vec<(&'c str, Cursor<'c>)>,
    /// Repetition level of the list.
    list: i16,
}

impl<'c> Attributes<'c> {
    pub fn new(data: &'c Decoded, named: &'c [(String, String)], prefix: &str, list: i16) -> Self {
        let at = |name: &str| Cursor::new(data.get(&format!("{prefix}.Attrs.{name}")));
        Self {
            key: at("Key"),
            is_array: at("IsArray"),
            values: ["Value", "ValueInt", "ValueDouble", "ValueBool"].map(at),
            unsupported: at("ValueUnsupported"),
            named: named
                .iter()
                .filter_map(|(name, path)| Some((name.as_str(), Cursor::new(Some(data.get(path)?)))))
                .collect(),
            list,
        }
    }

    /// Takes the list of one owner, whose definition level is `def`.
    fn take(&mut self, def: i16) -> Result<Vec<KeyValue<'c>>> {
        let mut out = Vec::new();
        if self.key.column.is_some() {
            if self.key.def() <= def {
                self.skip_generic();
            } else {
                loop {
                    let key = self.key.text()?;
                    if let Some(value) = self.value()? {
                        out.push(KeyValue { key: key.into(), value });
                    }
                    if self.key.rep() != self.list {
                        break;
                    }
                }
            }
        }
        for (name, cursor) in &mut self.named {
            let taken = cursor.take_list(self.list);
            let value = match taken.len() {
                0 => continue,
                1 => cursor.value_at(taken.start)?,
                _ => AnyValue::Array(taken.map(|at| cursor.value_at(at)).collect::<Result<_>>()?),
            };
            out.push(KeyValue::new(name, value));
        }
        Ok(out)
    }

    fn value(&mut self) -> Result<Option<AnyValue<'c>>> {
        let is_array = self.is_array.bool();
        let list = self.list + 1;
        let mut found = None;
        for cursor in &mut self.values {
            let taken = cursor.take_list(list);
            if taken.is_empty() || found.is_some() {
                continue;
            }
            found = Some(match is_array {
                true => AnyValue::Array(taken.map(|at| cursor.value_at(at)).collect::<Result<_>>()?),
                false => cursor.value_at(taken.start)?,
            });
        }
        let unsupported = self.unsupported.take();
        if found.is_none() {
            found = match unsupported {
                Some(at) => Some(from_json(text(self.unsupported.bytes_at(at))?)),
                None => is_array.then(|| AnyValue::Array(Vec::new())),
            };
        }
        Ok(found)
    }

    fn skip_generic(&mut self) {
        self.key.take();
        self.is_array.take();
        for cursor in &mut self.values {
            cursor.take();
        }
        self.unsupported.take();
    }

    /// Takes the one entry of a list whose owner is missing.
    fn skip(&mut self) {
        self.skip_generic();
        for (_, cursor) in &mut self.named {
            cursor.take();
        }
    }
}

/// Names of the columns for single attributes, per scope.
pub struct Named {
    resource: Vec<(String, String)>,
    span: Vec<(String, String)>,
    event: Vec<(String, String)>,
}

impl Named {
    pub fn new(meta: &BlockMeta) -> Self {
        Self {
            resource: named_columns(meta, "rs.Resource"),
            span: named_columns(meta, "rs.ss.Spans"),
            event: named_columns(meta, "rs.ss.Spans.Events"),
        }
    }
}

macro_rules! cursors {
    ($($(#[$doc:meta])* $group:ident { $($field:ident: $path:literal),* $(,)? })*) => {
        $(
            $(#[$doc])*
            struct $group<'c> { $($field: Cursor<'c>),* }
            impl<'c> $group<'c> {
                fn new(data: &'c Decoded) -> Self {
                    Self { $($field: Cursor::new(data.get($path))),* }
                }
                /// Takes the one entry that stands for a missing element.
                #[allow(dead_code, reason = "of the groups that are never missing")]
                fn skip(&mut self) {
                    $( self.$field.take(); )*
                }
            }
        )*
    };
}

cursors! {
    TraceColumns {
        trace_id: "TraceID",
        start: "StartTimeUnixNano",
        end: "EndTimeUnixNano",
        root_service: "RootServiceName",
        root_name: "RootSpanName",
    }
    StatsColumns {
        service: "ServiceStats.ServiceName",
        spans: "ServiceStats.SpanCount",
        errors: "ServiceStats.ErrorCount",
    }
    ResourceColumns {
        service: "rs.Resource.ServiceName",
        dropped: "rs.Resource.DroppedAttributesCount",
    }
    ScopeColumns {
        name: "rs.ss.Scope.Name",
        version: "rs.ss.Scope.Version",
        dropped: "rs.ss.Scope.DroppedAttributesCount",
    }
    SpanColumns {
        id: "rs.ss.Spans.SpanID",
        parent_id: "rs.ss.Spans.ParentSpanID",
        parent: "rs.ss.Spans.ParentID",
        left: "rs.ss.Spans.NestedSetLeft",
        right: "rs.ss.Spans.NestedSetRight",
        child_count: "rs.ss.Spans.ChildCount",
        name: "rs.ss.Spans.Name",
        kind: "rs.ss.Spans.Kind",
        trace_state: "rs.ss.Spans.TraceState",
        start: "rs.ss.Spans.StartTimeUnixNano",
        duration: "rs.ss.Spans.DurationNano",
        status_code: "rs.ss.Spans.StatusCode",
        status_message: "rs.ss.Spans.StatusMessage",
        dropped: "rs.ss.Spans.DroppedAttributesCount",
        dropped_events: "rs.ss.Spans.DroppedEventsCount",
        dropped_links: "rs.ss.Spans.DroppedLinksCount",
    }
    EventColumns {
        time: "rs.ss.Spans.Events.TimeSinceStartNano",
        name: "rs.ss.Spans.Events.Name",
        dropped: "rs.ss.Spans.Events.DroppedAttributesCount",
    }
    LinkColumns {
        trace_id: "rs.ss.Spans.Links.TraceID",
        span_id: "rs.ss.Spans.Links.SpanID",
        trace_state: "rs.ss.Spans.Links.TraceState",
        dropped: "rs.ss.Spans.Links.DroppedAttributesCount",
    }
}

/// Gives the traces of decoded columns, in order.
pub struct Traces<'c> {
    left: usize,
    trace: TraceColumns<'c>,
    stats: StatsColumns<'c>,
    resource: ResourceColumns<'c>,
    resource_attributes: Attributes<'c>,
    scope: ScopeColumns<'c>,
    scope_attributes: Attributes<'c>,
    span: SpanColumns<'c>,
    span_attributes: Attributes<'c>,
    event: EventColumns<'c>,
    event_attributes: Attributes<'c>,
    link: LinkColumns<'c>,
    link_attributes: Attributes<'c>,
}

impl<'c> Traces<'c> {
    pub fn new(data: &'c Decoded, named: &'c Named) -> Self {
        Self {
            left: data.row_count,
            trace: TraceColumns::new(data),
            stats: StatsColumns::new(data),
            resource: ResourceColumns::new(data),
            resource_attributes: Attributes::new(data, &named.resource, "rs.Resource", 2),
            scope: ScopeColumns::new(data),
            scope_attributes: Attributes::new(data, &[], "rs.ss.Scope", 3),
            span: SpanColumns::new(data),
            span_attributes: Attributes::new(data, &named.span, "rs.ss.Spans", 4),
            event: EventColumns::new(data),
            event_attributes: Attributes::new(data, &named.event, "rs.ss.Spans.Events", 5),
            link: LinkColumns::new(data),
            link_attributes: Attributes::new(data, &[], "rs.ss.Spans.Links", 5),
        }
    }

    /// The next trace, with what the block says of it beyond its spans.
    pub fn next_trace(&mut self) -> Result<Option<(Trace<'c>, Derived)>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let trace_id: TraceId = self
            .trace
            .trace_id
            .bytes()
            .try_into()
            .map_err(|_| Error::damaged("parquet: a trace id has not 16 bytes"))?;
        let mut trace = Trace { trace_id, resource_spans: Vec::new() };
        let mut derived = Derived {
            start_ns: self.trace.start.int() as u64,
            end_ns: self.trace.end.int() as u64,
            root_service: self.trace.root_service.text()?.into(),
            root_name: self.trace.root_name.text()?.into(),
            services: self.services()?,
            nested: Vec::new(),
        };
        if self.span.id.def() < 1 {
            self.resource.skip();
            self.resource_attributes.skip();
            self.skip_scope();
            return Ok(Some((trace, derived)));
        }
        loop {
            let rs = self.resource_spans(&mut derived.nested)?;
            trace.resource_spans.push(rs);
            if self.span.id.rep() != 1 {
                return Ok(Some((trace, derived)));
            }
        }
    }

    fn services(&mut self) -> Result<Vec<(Arc<str>, u32, u32)>> {
        let mut out = Vec::new();
        if self.stats.service.def() < 1 {
            self.stats.skip();
            return Ok(out);
        }
        loop {
            let service = self.stats.service.text()?;
            out.push((service.into(), self.stats.spans.int() as u32, self.stats.errors.int() as u32));
            if self.stats.service.rep() != 1 {
                out.sort_unstable();
                return Ok(out);
            }
        }
    }

    fn resource_spans(&mut self, nested: &mut Vec<Nested>) -> Result<ResourceSpans<'c>> {
        let service = self.resource.service.text()?;
        let mut attributes = self.resource_attributes.take(1)?;
        if !service.is_empty() {
            attributes.push(KeyValue::new(SERVICE_NAME, AnyValue::String(service.into())));
        }
        let resource = Resource { attributes, dropped_attributes: self.resource.dropped.int() as u32 };
        let mut scope_spans = Vec::new();
        if self.span.id.def() < 2 {
            self.skip_scope();
        } else {
            loop {
                scope_spans.push(self.scope_spans(nested)?);
                if self.span.id.rep() != 2 {
                    break;
                }
            }
        }
        Ok(ResourceSpans { resource, scope_spans, schema_url: "" })
    }

    fn skip_scope(&mut self) {
        self.scope.skip();
        self.scope_attributes.skip();
        self.skip_span();
    }

    fn scope_spans(&mut self, nested: &mut Vec<Nested>) -> Result<ScopeSpans<'c>> {
        let scope = InstrumentationScope {
            name: self.scope.name.text()?,
            version: self.scope.version.text()?,
            attributes: self.scope_attributes.take(2)?,
            dropped_attributes: self.scope.dropped.int() as u32,
        };
        let mut spans = Vec::new();
        if self.span.id.def() < 3 {
            self.skip_span();
        } else {
            loop {
                spans.push(self.span(nested)?);
                if self.span.id.rep() != 3 {
                    break;
                }
            }
        }
        Ok(ScopeSpans { scope, spans, schema_url: "" })
    }

    fn skip_span(&mut self) {
        self.span.skip();
        self.span_attributes.skip();
        self.skip_event();
        self.skip_link();
    }

    fn skip_event(&mut self) {
        self.event.skip();
        self.event_attributes.skip();
    }

    fn skip_link(&mut self) {
        self.link.skip();
        self.link_attributes.skip();
    }

    fn span(&mut self, nested: &mut Vec<Nested>) -> Result<Span<'c>> {
        let c = &mut self.span;
        nested.push(Nested {
            left: c.left.int() as i32,
            right: c.right.int() as i32,
            parent: c.parent.int() as i32,
            child_count: c.child_count.int() as i32,
        });
        let start_ns = c.start.int() as u64;
        let mut span = Span {
            span_id: span_id(c.id.bytes()).unwrap_or_default(),
            parent_id: span_id(c.parent_id.bytes()),
            trace_state: c.trace_state.text()?,
            name: c.name.text()?,
            kind: c.kind.int() as i32,
            start_ns,
            end_ns: start_ns.wrapping_add(c.duration.int() as u64),
            attributes: self.span_attributes.take(3)?,
            dropped_attributes: c.dropped.int() as u32,
            events: Vec::new(),
            dropped_events: c.dropped_events.int() as u32,
            links: Vec::new(),
            dropped_links: c.dropped_links.int() as u32,
            status_code: c.status_code.int() as i32,
            status_message: c.status_message.text()?,
            flags: 0,
        };
        // Of events and links the first column always comes along.
        if self.event.time.def() < 4 {
            self.skip_event();
        } else {
            loop {
                span.events.push(Event {
                    time_ns: start_ns.wrapping_add(self.event.time.int() as u64),
                    name: self.event.name.text()?,
                    attributes: self.event_attributes.take(4)?,
                    dropped_attributes: self.event.dropped.int() as u32,
                });
                if self.event.time.rep() != 4 {
                    break;
                }
            }
        }
        if self.link.trace_id.def() < 4 {
            self.skip_link();
        } else {
            loop {
                span.links.push(Link {
                    trace_id: self.link.trace_id.bytes(),
                    span_id: self.link.span_id.bytes(),
                    trace_state: self.link.trace_state.text()?,
                    attributes: self.link_attributes.take(4)?,
                    dropped_attributes: self.link.dropped.int() as u32,
                    flags: 0,
                });
                if self.link.trace_id.rep() != 4 {
                    break;
                }
            }
        }
        Ok(span)
    }
}
