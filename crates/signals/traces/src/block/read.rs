//! Opens a block and reads column chunks: byte ranges are fetched first (in parallel, through the bucket's cache), then decoded in
//! memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use hashbrown::HashMap;
use parquet::column::page::{Page, PageReader};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::page_index::index_reader::decode_offset_index;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use triptych_blob::object_store::path::Path;
use triptych_blob::object_store::{ObjectStore, ObjectStoreExt};
use triptych_blob::{Bucket, store_error};
use triptych_model::traces::TraceId;
use triptych_model::{Error, Kind, Result};
use triptych_runtime::{QueryContext, blocking};

use super::bloom;
use super::meta::{BlockMeta, RowGroupIndex};
use super::{DATA_NAME, INDEX_NAME, PREFIX, bloom_name};

/// Largest footer that is read.
const FOOTER_BYTES_MAX: u64 = 256 << 20;

/// What every reader of a file needs: footer and the columns by their vParquet5 names.
pub struct File {
    pub metadata: ParquetMetaData,
    columns: HashMap<String, usize>,
}

/// Column names of all versions in the words of vParquet5: without the LIST and MAP wrapping of vParquet4.
fn plain_path(parts: &[String]) -> String {
    let mut out: Vec<&str> = Vec::with_capacity(parts.len());
    let mut rest = parts.iter().map(String::as_str);
    while let Some(part) = rest.next() {
        match part {
            "list" | "key_value" => {
                // `list.element` is nothing; of `key_value.{key, value.X}` the key is the service and X a column.
                match rest.next() {
                    Some("key") => out.push("ServiceName"),
                    Some("element" | "value") | None => {}
                    Some(other) => out.push(other),
                }
            }
            other => out.push(other),
        }
    }
    out.join(".")
}

impl File {
    fn new(metadata: ParquetMetaData) -> Self {
        let schema = metadata.file_metadata().schema_descr();
        let columns =
            schema.columns().iter().enumerate().map(|(i, c)| (plain_path(c.path().parts()), i)).collect();
        Self { metadata, columns }
    }

    pub fn column(&self, path: &str) -> Option<usize> {
        self.columns.get(path).copied()
    }

    pub fn chunk(&self, row_group: usize, column: usize) -> Option<&ColumnChunkMetaData> {
        self.metadata.row_groups().get(row_group)?.columns().get(column)
    }

    pub fn rows(&self, row_group: usize) -> usize {
        self.metadata.row_groups().get(row_group).map_or(0, |r| r.num_rows().max(0) as usize)
    }

    /// About, in bytes.
    pub fn memory(&self) -> usize {
        self.metadata.memory_size() + self.columns.len() * 80
    }
}

/// Byte ranges of a file that are in memory.
#[derive(Debug, Clone, Default)]
pub struct Ranges {
    size: u64,
    parts: BTreeMap<u64, Bytes>,
}

impl Ranges {
    fn at(&self, start: u64) -> std::result::Result<Bytes, ParquetError> {
        self.parts
            .range(..=start)
            .next_back()
            .and_then(|(at, bytes)| {
                let skip = usize::try_from(start - at).ok()?;
                (skip < bytes.len()).then(|| bytes.slice(skip..))
            })
            .ok_or_else(|| ParquetError::EOF(format!("bytes at {start} were not fetched")))
    }
}

impl Length for Ranges {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Ranges {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> std::result::Result<Self::T, ParquetError> {
        Ok(self.at(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> std::result::Result<Bytes, ParquetError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let bytes = self.at(start)?;
        if length > bytes.len() {
            return Err(ParquetError::EOF(format!(
                "{length} bytes at {start}, {} were fetched",
                bytes.len()
            )));
        }
        Ok(bytes.slice(..length))
    }
}

/// Which rows of a row group: ascending, disjoint, not empty.
#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    All,
    Some(Vec<Range<usize>>),
}

impl Rows {
    fn touches(&self, page: &Range<usize>) -> bool {
        match self {
            Rows::All => true,
            Rows::Some(ranges) => {
                let at = ranges.partition_point(|r| r.end <= page.start);
                ranges.get(at).is_some_and(|r| r.start < page.end)
            }
        }
    }
}

/// The decoded values of a column chunk.
#[derive(Debug)]
pub enum ColumnValues {
    Bytes(Vec<ByteArray>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
}

/// A decoded column chunk, or the chosen rows of one. Levels are there where the column has any.
#[derive(Debug)]
pub struct ColumnData {
    pub def_max: i16,
    pub defs: Vec<i16>,
    pub reps: Vec<i16>,
    pub values: ColumnValues,
}

fn damaged(e: ParquetError) -> Error {
    Error::damaged(format!("parquet: {e}"))
}

fn read_all<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    rows: &Rows,
    row_count: usize,
    defs: &mut Vec<i16>,
    reps: &mut Vec<i16>,
) -> std::result::Result<Vec<T::T>, ParquetError> {
    let mut values = Vec::new();
    let all = 0..row_count;
    let ranges = match rows {
        Rows::All => std::slice::from_ref(&all),
        Rows::Some(ranges) => ranges,
    };
    let mut at = 0;
    for range in ranges {
        if range.start > at {
            reader.skip_records(range.start - at)?;
        }
        let mut left = range.len();
        while left > 0 {
            let (records, ..) = reader.read_records(left, Some(defs), Some(reps), &mut values)?;
            if records == 0 {
                return Err(ParquetError::EOF(format!("a column ends {left} rows early")));
            }
            left -= records;
        }
        at = range.end;
    }
    Ok(values)
}

/// Decodes the rows of a column chunk from fetched bytes.
pub fn decode_column(
    ranges: &Arc<Ranges>,
    chunk: &ColumnChunkMetaData,
    row_count: usize,
    rows: &Rows,
    pages: Option<Vec<PageLocation>>,
) -> Result<ColumnData> {
    let pages = SerializedPageReader::new(ranges.clone(), chunk, row_count, pages).map_err(damaged)?;
    let descr = chunk.column_descr_ptr();
    let def_max = descr.max_def_level();
    let (mut defs, mut reps) = (Vec::new(), Vec::new());
    let (d, r) = (&mut defs, &mut reps);
    let values = match get_column_reader(descr, Box::new(pages)) {
        ColumnReader::ByteArrayColumnReader(c) => {
            ColumnValues::Bytes(read_all(c, rows, row_count, d, r).map_err(damaged)?)
        }
        ColumnReader::Int32ColumnReader(c) => {
            ColumnValues::I32(read_all(c, rows, row_count, d, r).map_err(damaged)?)
        }
        ColumnReader::Int64ColumnReader(c) => {
            ColumnValues::I64(read_all(c, rows, row_count, d, r).map_err(damaged)?)
        }
        ColumnReader::DoubleColumnReader(c) => {
            ColumnValues::F64(read_all(c, rows, row_count, d, r).map_err(damaged)?)
        }
        ColumnReader::BoolColumnReader(c) => {
            ColumnValues::Bool(read_all(c, rows, row_count, d, r).map_err(damaged)?)
        }
        _ => return Err(Error::damaged(format!("column {} has an unknown type", chunk.column_path()))),
    };
    Ok(ColumnData { def_max, defs, reps, values })
}

/// The entries of a dictionary of texts.
pub fn decode_dictionary(ranges: &Arc<Ranges>, chunk: &ColumnChunkMetaData) -> Result<Vec<Bytes>> {
    // A reader without page locations begins with the dictionary.
    let page = SerializedPageReader::new(ranges.clone(), chunk, 1, None)
        .and_then(|mut pages| pages.get_next_page())
        .map_err(damaged)?;
    let Some(Page::DictionaryPage { buf, num_values, .. }) = page else {
        return Err(Error::damaged(format!("column {} lacks its dictionary", chunk.column_path())));
    };
    let mut out = Vec::new();
    let mut rest = buf;
    for _ in 0..num_values {
        let Some(length) = rest.first_chunk::<4>().map(|l| u32::from_le_bytes(*l) as usize) else {
            break;
        };
        rest.advance(4);
        if length > rest.len() {
            return Err(Error::damaged(format!("column {}: torn dictionary", chunk.column_path())));
        }
        out.push(rest.split_to(length));
    }
    Ok(out)
}

/// The bytes of a chunk's dictionary page; `None` where it has none, or has pages that do not use it.
pub fn dictionary_range(chunk: &ColumnChunkMetaData) -> Option<Range<u64>> {
    use parquet::basic::Encoding::{PLAIN_DICTIONARY, RLE_DICTIONARY};
    let only = match (chunk.page_encoding_stats_mask(), chunk.page_encoding_stats()) {
        (Some(mask), _) => mask.is_only(RLE_DICTIONARY) || mask.is_only(PLAIN_DICTIONARY),
        (None, Some(stats)) => stats.iter().all(|s| {
            s.page_type == parquet::basic::PageType::DICTIONARY_PAGE
                || matches!(s.encoding, RLE_DICTIONARY | PLAIN_DICTIONARY)
        }),
        (None, None) => false,
    };
    let start = u64::try_from(chunk.dictionary_page_offset()?).ok()?;
    let end = u64::try_from(chunk.data_page_offset()).ok()?;
    (only && start < end).then_some(start..end)
}

/// A block in the bucket.
#[derive(Clone)]
pub struct Block {
    pub meta: Arc<BlockMeta>,
    bucket: Bucket,
    dir: Path,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "block {}", self.dir)
    }
}

/// The folder of a block.
pub fn block_dir(tenant: &str, id: &uuid::Uuid) -> Path {
    Path::from_iter([PREFIX, tenant, id.hyphenated().to_string().as_str()])
}

impl Block {
    pub fn new(bucket: Bucket, meta: Arc<BlockMeta>) -> Self {
        let dir = block_dir(&meta.tenant_id, &meta.block_id);
        Self { meta, bucket, dir }
    }

    async fn object(&self, name: &str) -> Result<Bytes> {
        let result = self.bucket.get(&self.dir.clone().join(name)).await.map_err(store_error)?;
        result.bytes().await.map_err(store_error)
    }

    /// Fetches ranges side by side.
    pub async fn fetch(&self, ctx: &QueryContext, wanted: Vec<Range<u64>>) -> Result<Ranges> {
        let size = self.meta.size;
        if let Some(bad) = wanted.iter().find(|r| r.start >= r.end || r.end > size) {
            return Err(Error::damaged(format!("{self:?}: range {bad:?} lies outside of {size} bytes")));
        }
        ctx.check()?;
        ctx.add_read_bytes(wanted.iter().map(|r| r.end - r.start).sum())?;
        let path = self.dir.clone().join(DATA_NAME);
        let fetched = self.bucket.get_ranges(&path, &wanted).await.map_err(store_error)?;
        let parts = wanted.iter().map(|r| r.start).zip(fetched).collect();
        Ok(Ranges { size, parts })
    }

    /// Reads the footer.
    pub async fn open(&self, ctx: &QueryContext) -> Result<File> {
        self.meta.check_format()?;
        let (size, footer) = (self.meta.size, u64::from(self.meta.footer_size));
        if footer + 8 > size || footer > FOOTER_BYTES_MAX {
            return Err(Error::damaged(format!("{self:?}: a footer of {footer} bytes in a file of {size}")));
        }
        let ranges = self.fetch(ctx, std::iter::once(size - 8 - footer..size).collect()).await?;
        let bytes = ranges.get_bytes(size - 8 - footer, footer as usize + 8).map_err(damaged)?;
        if !bytes.ends_with(b"PAR1") {
            return Err(Error::damaged(format!("{self:?}: data.parquet does not end as parquet does")));
        }
        let metadata = ParquetMetaDataReader::decode_metadata(&bytes[..footer as usize]).map_err(damaged)?;
        Ok(File::new(metadata))
    }

    /// Whether the bloom filter lets the id through.
    pub async fn may_contain(&self, ctx: &QueryContext, id: &TraceId) -> Result<bool> {
        let file = self.object(&bloom_name(bloom::shard_of(id, self.meta.bloom_shards))).await?;
        ctx.add_read_bytes(file.len() as u64)?;
        bloom::test(&file, id).map_err(|e| e.context(format!("{self:?}")))
    }

    /// The largest id of each row group; `None` where the block has no such file.
    pub async fn row_group_index(&self) -> Result<Option<RowGroupIndex>> {
        match self.object(INDEX_NAME).await {
            Ok(json) => RowGroupIndex::parse(&json).map(Some),
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Where the pages of columns are; one entry per column, `None` where the file does not say.
    pub async fn page_locations(
        &self,
        ctx: &QueryContext,
        file: &File,
        row_group: usize,
        columns: &[usize],
    ) -> Result<Vec<Option<Vec<PageLocation>>>> {
        let place = |column: usize| -> Option<Range<u64>> {
            let chunk = file.chunk(row_group, column)?;
            let start = u64::try_from(chunk.offset_index_offset()?).ok()?;
            let length = u64::try_from(chunk.offset_index_length()?).ok()?;
            (length > 0).then_some(start..start.checked_add(length)?)
        };
        let places: Vec<_> = columns.iter().map(|c| place(*c)).collect();
        let wanted: Vec<_> = places.iter().flatten().cloned().collect();
        if wanted.is_empty() {
            return Ok(vec![None; columns.len()]);
        }
        let ranges = self.fetch(ctx, wanted).await?;
        places
            .into_iter()
            .map(|place| {
                let Some(place) = place else { return Ok(None) };
                let bytes =
                    ranges.get_bytes(place.start, (place.end - place.start) as usize).map_err(damaged)?;
                let index = decode_offset_index(&bytes).map_err(damaged)?;
                Ok(Some(index.page_locations().clone()))
            })
            .collect()
    }

    /// Fetches what decoding `columns` of a row group takes; with few rows only the pages that hold them.
    pub async fn columns(
        &self,
        ctx: &QueryContext,
        file: &Arc<File>,
        row_group: usize,
        columns: Vec<usize>,
        rows: Rows,
    ) -> Result<Fetched> {
        let row_count = file.rows(row_group);
        let few = match &rows {
            Rows::All => false,
            Rows::Some(ranges) => ranges.iter().map(Range::len).sum::<usize>() * 4 < row_count,
        };
        let pages = match few {
            true => self.page_locations(ctx, file, row_group, &columns).await?,
            false => vec![None; columns.len()],
        };
        let mut wanted = Vec::new();
        for (column, pages) in columns.iter().zip(&pages) {
            let chunk = file
                .chunk(row_group, *column)
                .ok_or_else(|| Error::damaged(format!("{self:?}: no column {column}")))?;
            let (start, length) = chunk.byte_range();
            let Some(pages) = pages else {
                wanted.push(start..start.saturating_add(length));
                continue;
            };
            if let Some(first) = pages.first()
                && first.offset as u64 > start
            {
                wanted.push(start..first.offset as u64);
            }
            for (i, page) in pages.iter().enumerate() {
                let end = pages.get(i + 1).map_or(row_count, |next| next.first_row_index as usize);
                if rows.touches(&(page.first_row_index as usize..end)) {
                    let start = page.offset as u64;
                    wanted.push(start..start.saturating_add(page.compressed_page_size as u64));
                }
            }
        }
        let ranges = Arc::new(self.fetch(ctx, wanted).await?);
        Ok(Fetched { file: file.clone(), row_group, columns, pages, rows, ranges })
    }
}

/// Column chunks that are in memory and can be decoded.
pub struct Fetched {
    file: Arc<File>,
    row_group: usize,
    columns: Vec<usize>,
    pages: Vec<Option<Vec<PageLocation>>>,
    rows: Rows,
    ranges: Arc<Ranges>,
}

impl Fetched {
    /// Decodes all columns; CPU-bound.
    pub fn decode(self) -> Result<Decoded> {
        let rows = self.file.rows(self.row_group);
        let mut columns = HashMap::with_capacity(self.columns.len());
        for (column, pages) in self.columns.into_iter().zip(self.pages) {
            let Some(chunk) = self.file.chunk(self.row_group, column) else { continue };
            columns.insert(column, decode_column(&self.ranges, chunk, rows, &self.rows, pages)?);
        }
        let row_count = match &self.rows {
            Rows::All => rows,
            Rows::Some(ranges) => ranges.iter().map(Range::len).sum(),
        };
        Ok(Decoded { file: self.file, columns, row_count })
    }
}

/// Decoded columns of a row group by their place in the schema.
pub struct Decoded {
    pub file: Arc<File>,
    pub columns: HashMap<usize, ColumnData>,
    pub row_count: usize,
}

impl Decoded {
    pub fn get(&self, path: &str) -> Option<&ColumnData> {
        self.columns.get(&self.file.column(path)?)
    }
}

/// Runs CPU-bound work beside the async threads. A panic inside (the parquet crate on damaged data) becomes an error.
pub async fn compute<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match blocking(work).await {
        Ok(result) => result,
        Err(e) if e.kind == Kind::Internal => Err(Error::damaged("decoding failed on damaged data")),
        Err(e) => Err(e),
    }
}
