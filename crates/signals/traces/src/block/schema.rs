//! The columns of vParquet5: names, types, levels, encodings. Source: Tempo `tempodb/encoding/vparquet5/schema.go`.
//!
//! Lists are bare `repeated` fields, without the LIST wrapping of vParquet4. Dedicated columns are attributes that have a column of
//! their own; which ones is the block's choice, and columns that the block does not use are left out of its schema.

use std::sync::Arc;

use parquet::basic::{
    Compression, ConvertedType, Encoding, LogicalType, Repetition, Type as Physical, ZstdLevel,
};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::{ColumnPath, Type, TypePtr};
use serde::{Deserialize, Serialize};
use triptych_model::{Error, Result};

/// String and integer columns that a scope has to give away.
const DEDICATED_STRINGS_MAX: usize = 20;
const DEDICATED_INTS_MAX: usize = 5;

/// Uncompressed size at which a page is closed; the unit of what `find` has to read per column.
const PAGE_BYTES: usize = 256 << 10;
/// Traces in a page at most: columns with little data would otherwise have one page for the whole row group.
const PAGE_ROWS_MAX: usize = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DedicatedScope {
    Resource,
    #[default]
    Span,
    Event,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DedicatedKind {
    #[default]
    String,
    Int,
}

/// An attribute with a column of its own. Written in `meta.json` with Tempo's one-letter names and defaults left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DedicatedColumn {
    #[serde(rename = "s", default, skip_serializing_if = "is_default")]
    pub scope: DedicatedScope,
    #[serde(rename = "n")]
    pub name: String,
    #[serde(rename = "t", default, skip_serializing_if = "is_default")]
    pub kind: DedicatedKind,
    /// `array`, `blob`.
    #[serde(rename = "o", default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

impl DedicatedColumn {
    fn new(scope: DedicatedScope, kind: DedicatedKind, name: &str) -> Self {
        Self { scope, kind, name: name.to_owned(), options: Vec::new() }
    }

    /// Large texts: no dictionary, zstd.
    fn is_blob(&self) -> bool {
        self.options.iter().any(|o| o == "blob")
    }
}

/// Tempo's defaults.
pub fn default_dedicated_columns() -> Vec<DedicatedColumn> {
    use DedicatedKind::{Int, String};
    use DedicatedScope::{Resource, Span};
    [
        (Resource, String, "k8s.cluster.name"),
        (Resource, String, "k8s.namespace.name"),
        (Resource, String, "k8s.pod.name"),
        (Resource, String, "k8s.container.name"),
        (Span, String, "http.request.method"),
        (Span, Int, "http.response.status_code"),
        (Span, String, "url.path"),
        (Span, String, "url.route"),
        (Span, String, "server.address"),
        (Span, Int, "server.port"),
        (Span, String, "http.method"),
        (Span, String, "http.url"),
        (Span, String, "http.route"),
        (Span, Int, "http.status_code"),
    ]
    .map(|(scope, kind, name)| DedicatedColumn::new(scope, kind, name))
    .to_vec()
}

/// The columns of a scope with the name of their leaf (`String01`, `Int03`), in the block's order.
pub fn assign(
    columns: &[DedicatedColumn],
    scope: DedicatedScope,
) -> impl Iterator<Item = (&DedicatedColumn, String)> {
    let (mut strings, mut ints) = (0, 0);
    columns.iter().filter(move |c| c.scope == scope).filter_map(move |c| match c.kind {
        DedicatedKind::String => {
            strings += 1;
            (strings <= DEDICATED_STRINGS_MAX).then(|| (c, format!("String{strings:02}")))
        }
        DedicatedKind::Int => {
            ints += 1;
            (ints <= DEDICATED_INTS_MAX).then(|| (c, format!("Int{ints:02}")))
        }
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
    I32,
    U32,
    I64,
    U64,
    F64,
    Bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    None,
    Snappy,
    Zstd,
}

/// How values are laid out before compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Booleans, doubles, integers that vary.
    Plain,
    /// DELTA_BINARY_PACKED.
    Delta,
    /// DELTA_LENGTH_BYTE_ARRAY.
    Lengths,
    /// RLE_DICTIONARY, `Lengths` once the dictionary is full.
    Dictionary,
}

#[derive(Debug, Clone)]
pub struct Leaf {
    /// Dotted: `rs.ss.Spans.Name`.
    pub path: String,
    pub kind: Kind,
    pub def_max: u8,
    pub rep_max: u8,
    layout: Layout,
    codec: Codec,
    /// Texts without order worth keeping bounds for.
    bounds: bool,
}

/// A block's schema.
#[derive(Debug, Clone)]
pub struct Schema {
    pub root: TypePtr,
    pub leaves: Vec<Leaf>,
}

impl Schema {
    pub fn new(dedicated: &[DedicatedColumn]) -> Result<Self> {
        let mut b = Builder::default();
        let fields = trace(&mut b, dedicated)?;
        let root = Type::group_type_builder("Trace").with_fields(fields).build().map_err(internal)?;
        Ok(Self { root: Arc::new(root), leaves: b.leaves })
    }

    /// Where the column `path` stands; for paths that every schema has.
    pub fn at(&self, path: &str) -> Result<usize> {
        self.leaves
            .iter()
            .position(|l| l.path == path)
            .ok_or_else(|| Error::internal(format!("vParquet5 has no column {path}")))
    }

    pub fn writer_properties(&self) -> WriterProperties {
        let sorted = SortingColumn { column_idx: 0, descending: false, nulls_first: false };
        let mut props = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_created_by("triptych".to_owned())
            .set_dictionary_enabled(false)
            .set_compression(Compression::UNCOMPRESSED)
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_data_page_size_limit(PAGE_BYTES)
            .set_data_page_row_count_limit(PAGE_ROWS_MAX)
            .set_max_row_group_row_count(None)
            .set_sorting_columns(Some(vec![sorted]));
        for leaf in &self.leaves {
            let path = ColumnPath::from(leaf.path.split('.').map(str::to_owned).collect::<Vec<_>>());
            let encoding = match leaf.layout {
                // Parquet's second version would write booleans as RLE, which Tempo reads as `false`.
                Layout::Plain => Encoding::PLAIN,
                Layout::Delta => Encoding::DELTA_BINARY_PACKED,
                Layout::Lengths | Layout::Dictionary => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            };
            props = props.set_column_encoding(path.clone(), encoding);
            if leaf.layout == Layout::Dictionary {
                props = props.set_column_dictionary_enabled(path.clone(), true);
            }
            if !leaf.bounds {
                props = props.set_column_statistics_enabled(path.clone(), EnabledStatistics::Chunk);
            }
            match leaf.codec {
                Codec::None => {}
                Codec::Snappy => props = props.set_column_compression(path, Compression::SNAPPY),
                Codec::Zstd => {
                    props = props.set_column_compression(path, Compression::ZSTD(ZstdLevel::default()));
                }
            }
        }
        props.build()
    }
}

fn internal(e: parquet::errors::ParquetError) -> Error {
    Error::internal(format!("vParquet5 schema: {e}"))
}

#[derive(Default)]
struct Builder {
    leaves: Vec<Leaf>,
    path: Vec<String>,
    def: u8,
    rep: u8,
}

type Fields = Vec<TypePtr>;

impl Builder {
    fn leaf(
        &mut self,
        name: &str,
        kind: Kind,
        repetition: Repetition,
        layout: Layout,
        codec: Codec,
    ) -> Result<TypePtr> {
        let int = LogicalType::integer;
        let (physical, converted, logical) = match kind {
            Kind::Text => (Physical::BYTE_ARRAY, ConvertedType::UTF8, Some(LogicalType::String)),
            Kind::Binary => (Physical::BYTE_ARRAY, ConvertedType::NONE, None),
            Kind::I32 => (Physical::INT32, ConvertedType::INT_32, Some(int(32, true))),
            Kind::U32 => (Physical::INT32, ConvertedType::UINT_32, Some(int(32, false))),
            Kind::I64 => (Physical::INT64, ConvertedType::INT_64, Some(int(64, true))),
            Kind::U64 => (Physical::INT64, ConvertedType::UINT_64, Some(int(64, false))),
            Kind::F64 => (Physical::DOUBLE, ConvertedType::NONE, None),
            Kind::Bool => (Physical::BOOLEAN, ConvertedType::NONE, None),
        };
        let mut path = self.path.join(".");
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        self.leaves.push(Leaf {
            bounds: !name.ends_with("Unsupported") && codec != Codec::Zstd,
            path,
            kind,
            def_max: self.def + u8::from(repetition != Repetition::REQUIRED),
            rep_max: self.rep + u8::from(repetition == Repetition::REPEATED),
            layout,
            codec,
        });
        let leaf = Type::primitive_type_builder(name, physical)
            .with_repetition(repetition)
            .with_converted_type(converted)
            .with_logical_type(logical)
            .build()
            .map_err(internal)?;
        Ok(Arc::new(leaf))
    }

    fn required(&mut self, name: &str, kind: Kind, layout: Layout, codec: Codec) -> Result<TypePtr> {
        self.leaf(name, kind, Repetition::REQUIRED, layout, codec)
    }

    fn group(
        &mut self,
        name: &str,
        repeated: bool,
        fields: impl FnOnce(&mut Self) -> Result<Fields>,
    ) -> Result<TypePtr> {
        self.path.push(name.to_owned());
        self.def += u8::from(repeated);
        self.rep += u8::from(repeated);
        let fields = fields(self)?;
        self.def -= u8::from(repeated);
        self.rep -= u8::from(repeated);
        self.path.pop();
        let repetition = if repeated { Repetition::REPEATED } else { Repetition::REQUIRED };
        let group = Type::group_type_builder(name)
            .with_repetition(repetition)
            .with_fields(fields)
            .build()
            .map_err(internal)?;
        Ok(Arc::new(group))
    }
}

fn trace(b: &mut Builder, dedicated: &[DedicatedColumn]) -> Result<Fields> {
    use Codec::{None as Raw, Snappy};
    use Layout::{Delta, Dictionary, Lengths};
    Ok(vec![
        b.required("TraceID", Kind::Binary, Lengths, Raw)?,
        b.required("TraceIDText", Kind::Text, Lengths, Snappy)?,
        b.required("StartTimeUnixNano", Kind::U64, Delta, Raw)?,
        b.required("EndTimeUnixNano", Kind::U64, Delta, Raw)?,
        b.required("DurationNano", Kind::U64, Delta, Raw)?,
        b.required("RootServiceName", Kind::Text, Dictionary, Raw)?,
        b.required("RootSpanName", Kind::Text, Dictionary, Raw)?,
        b.group("ServiceStats", true, |b| {
            Ok(vec![
                b.required("ServiceName", Kind::Text, Dictionary, Snappy)?,
                b.required("SpanCount", Kind::U32, Delta, Raw)?,
                b.required("ErrorCount", Kind::U32, Delta, Raw)?,
            ])
        })?,
        b.group("rs", true, |b| {
            Ok(vec![
                b.group("Resource", false, |b| {
                    let mut fields = vec![
                        b.required("ServiceName", Kind::Text, Dictionary, Snappy)?,
                        attributes(b)?,
                        b.required("DroppedAttributesCount", Kind::I32, Delta, Snappy)?,
                    ];
                    fields.extend(dedicated_group(b, dedicated, DedicatedScope::Resource)?);
                    Ok(fields)
                })?,
                b.group("ss", true, |b| scope_spans(b, dedicated))?,
            ])
        })?,
    ])
}

fn scope_spans(b: &mut Builder, dedicated: &[DedicatedColumn]) -> Result<Fields> {
    use Codec::{None as Raw, Snappy};
    use Layout::{Delta, Dictionary};
    Ok(vec![
        b.group("Scope", false, |b| {
            Ok(vec![
                b.required("Name", Kind::Text, Dictionary, Snappy)?,
                b.required("Version", Kind::Text, Dictionary, Snappy)?,
                attributes(b)?,
                b.required("DroppedAttributesCount", Kind::I32, Delta, Snappy)?,
            ])
        })?,
        b.group("Spans", true, |b| span(b, dedicated))?,
        b.required("SpanCount", Kind::I32, Delta, Raw)?,
    ])
}

fn span(b: &mut Builder, dedicated: &[DedicatedColumn]) -> Result<Fields> {
    use Codec::{None as Raw, Snappy};
    use Layout::{Delta, Dictionary, Lengths, Plain};
    let mut fields = vec![
        b.required("SpanID", Kind::Binary, Lengths, Raw)?,
        b.required("ParentSpanID", Kind::Binary, Lengths, Raw)?,
        b.required("ParentID", Kind::I32, Delta, Raw)?,
        b.required("NestedSetLeft", Kind::I32, Delta, Raw)?,
        b.required("NestedSetRight", Kind::I32, Delta, Raw)?,
        b.required("ChildCount", Kind::I32, Delta, Raw)?,
        b.required("Name", Kind::Text, Dictionary, Snappy)?,
        b.required("Kind", Kind::I64, Delta, Raw)?,
        b.required("TraceState", Kind::Text, Lengths, Snappy)?,
        b.required("StartTimeUnixNano", Kind::U64, Delta, Raw)?,
        b.required("DurationNano", Kind::U64, Delta, Raw)?,
        b.required("StatusCode", Kind::I64, Delta, Raw)?,
        b.required("StatusMessage", Kind::Text, Lengths, Snappy)?,
        attributes(b)?,
        b.required("DroppedAttributesCount", Kind::I32, Delta, Snappy)?,
        b.group("Events", true, |b| {
            let mut fields = vec![
                b.required("TimeSinceStartNano", Kind::U64, Delta, Raw)?,
                b.required("Name", Kind::Text, Dictionary, Snappy)?,
                attributes(b)?,
                b.required("DroppedAttributesCount", Kind::I32, Delta, Snappy)?,
            ];
            fields.extend(dedicated_group(b, dedicated, DedicatedScope::Event)?);
            Ok(fields)
        })?,
        b.required("DroppedEventsCount", Kind::I32, Plain, Snappy)?,
        b.group("Links", true, |b| {
            Ok(vec![
                b.required("TraceID", Kind::Binary, Lengths, Raw)?,
                b.required("SpanID", Kind::Binary, Lengths, Raw)?,
                b.required("TraceState", Kind::Text, Lengths, Snappy)?,
                attributes(b)?,
                b.required("DroppedAttributesCount", Kind::I32, Delta, Snappy)?,
            ])
        })?,
        b.required("DroppedLinksCount", Kind::I32, Plain, Snappy)?,
    ];
    fields.extend(dedicated_group(b, dedicated, DedicatedScope::Span)?);
    for name in ["StartTimeRounded15", "StartTimeRounded60", "StartTimeRounded300", "StartTimeRounded3600"] {
        fields.push(b.required(name, Kind::U32, Delta, Raw)?);
    }
    Ok(fields)
}

/// The seven columns of a generic attribute.
fn attributes(b: &mut Builder) -> Result<TypePtr> {
    use Codec::Snappy;
    use Layout::{Dictionary, Lengths, Plain};
    let (list, optional) = (Repetition::REPEATED, Repetition::OPTIONAL);
    b.group("Attrs", true, |b| {
        Ok(vec![
            b.required("Key", Kind::Text, Dictionary, Snappy)?,
            b.required("IsArray", Kind::Bool, Plain, Snappy)?,
            b.leaf("Value", Kind::Text, list, Dictionary, Snappy)?,
            b.leaf("ValueInt", Kind::I64, list, Plain, Snappy)?,
            b.leaf("ValueDouble", Kind::F64, list, Plain, Snappy)?,
            b.leaf("ValueBool", Kind::Bool, list, Plain, Snappy)?,
            b.leaf("ValueUnsupported", Kind::Text, optional, Lengths, Snappy)?,
        ])
    })
}

/// `DedicatedAttributes`, left out where the scope has none. Strings come before integers.
fn dedicated_group(
    b: &mut Builder,
    dedicated: &[DedicatedColumn],
    scope: DedicatedScope,
) -> Result<Option<TypePtr>> {
    let mut columns: Vec<_> = assign(dedicated, scope).collect();
    if columns.is_empty() {
        return Ok(None);
    }
    columns.sort_by_key(|(c, _)| c.kind == DedicatedKind::Int);
    let group = b.group("DedicatedAttributes", false, |b| {
        columns
            .iter()
            .map(|(column, leaf)| {
                let list = Repetition::REPEATED;
                match column.kind {
                    DedicatedKind::String if column.is_blob() => {
                        b.leaf(leaf, Kind::Text, list, Layout::Lengths, Codec::Zstd)
                    }
                    DedicatedKind::String => {
                        b.leaf(leaf, Kind::Text, list, Layout::Dictionary, Codec::Snappy)
                    }
                    DedicatedKind::Int => b.leaf(leaf, Kind::I64, list, Layout::Plain, Codec::Snappy),
                }
            })
            .collect()
    })?;
    Ok(Some(group))
}

#[cfg(test)]
mod tests;
