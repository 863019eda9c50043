//! Writing a head to the bucket: chunks first, then the index files that make them visible.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use triptych_blob::Bucket;
use triptych_blob::object_store::{ObjectStoreExt, PutPayload};
use triptych_model::{Error, Result, TenantId};

use super::Head;
use crate::index::{self, SeriesMeta};
use crate::{layout, upload};

/// Uploads in flight.
const UPLOADS: usize = 16;

/// Who flushes, and when.
#[derive(Debug, Clone)]
pub struct FlushOptions {
    /// Stands in the names of index files.
    pub node: String,
    pub now_ns: i64,
    /// The prefix of index tables, see [`layout::INDEX_PREFIX`].
    pub index_prefix: String,
}

impl FlushOptions {
    pub fn new(node: impl Into<String>, now_ns: i64) -> Self {
        Self { node: node.into(), now_ns, index_prefix: layout::INDEX_PREFIX.to_owned() }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlushReport {
    pub streams: u64,
    pub chunks: u64,
    pub entries: u64,
    /// Size of the chunk objects.
    pub chunk_bytes: u64,
    /// Paths of the index files.
    pub index_files: Vec<String>,
}

/// A name part that neither ends a path nor splits a name: Loki takes everything after the first `-` for the node.
fn file_safe(node: &str) -> String {
    node.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect()
}

impl Head {
    /// Writes everything to the bucket. The head stays readable and may be flushed again: the same chunks have the same names, and
    /// an index file's name ends with its checksum. After an error nothing is visible but what earlier tables already show.
    pub async fn flush(
        &self,
        bucket: &Bucket,
        tenant: &TenantId,
        options: &FlushOptions,
    ) -> Result<FlushReport> {
        let streams = self.0.index.read().streams.clone();
        let config = &self.0.config;
        let mut report = FlushReport::default();
        // By day; a chunk belongs to every day it touches.
        let mut tables: BTreeMap<i64, Vec<SeriesMeta>> = BTreeMap::new();
        // Owned streams: with borrowed ones the future is not `Send` for every lifetime, and nobody could spawn it.
        let uploads = streams.iter().cloned().flat_map(|stream| match stream.finish(config) {
            Ok(chunks) => chunks.into_iter().map(|c| Ok((stream.clone(), c))).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        });
        let mut written = futures::stream::iter(uploads)
            .map(|chunk| async move {
                let (stream, chunk) = chunk?;
                let whose = (tenant, stream.info.fingerprint, &stream.info.labels);
                let compression = (config.codec, config.compression_level);
                let (meta, bytes) =
                    upload::chunk(bucket, whose, compression, &chunk.symbols, &chunk.blocks).await?;
                Ok::<_, Error>((stream, meta, bytes))
            })
            .buffered(UPLOADS);
        while let Some((stream, meta, bytes)) = written.try_next().await? {
            report.chunks += 1;
            report.entries += u64::from(meta.entries);
            report.chunk_bytes += bytes;
            for day in layout::days(meta.from_ms, meta.through_ms) {
                let table = tables.entry(day).or_default();
                match table.last_mut() {
                    Some(last) if last.labels == stream.info.labels => last.chunks.push(meta),
                    _ => table.push(SeriesMeta {
                        fingerprint: stream.info.fingerprint,
                        labels: stream.info.labels.clone(),
                        chunks: vec![meta],
                    }),
                }
            }
        }
        report.streams = streams.len() as u64;
        for (day, series) in tables {
            let encoded = index::encode(&index::normalise(series))?;
            let (seconds, node) = (options.now_ns.div_euclid(1_000_000_000), file_safe(&options.node));
            let name = format!("{seconds}-{node}-{:08x}.tsdb.gz", crc32c::crc32c(&encoded.bytes));
            let path = layout::index_path(&options.index_prefix, day, tenant, &name)?;
            let payload = PutPayload::from(index::gzip(&encoded.bytes)?);
            bucket.put(&path, payload).await.map_err(|e| layout::failed("writing", &path, &e))?;
            report.index_files.push(path.to_string());
        }
        Ok(report)
    }
}
