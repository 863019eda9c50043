//! Bounded caches for indexes, counted in bytes: parsed headers, and pages of what is read by range.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use triptych_blob::Bucket;
use triptych_blob::object_store::path::Path;
use triptych_model::{Error, Result};

use super::bucket_error;
use super::header::IndexHeader;

/// What is fetched and kept of postings and series at the least.
pub(crate) const PAGE_BYTES: u64 = 64 << 10;
/// Missing pages this far apart are fetched in one request.
const PAGE_GAP_MAX: u64 = 8;
/// Pages asked for in one request at the most.
const PAGE_RUN_MAX: u64 = 256;

/// Shared by all blocks of a process. A block's number in here is its own: nothing of one tenant can answer another.
#[derive(Clone)]
pub struct BlockCaches {
    pub(crate) headers: moka::future::Cache<u64, Arc<IndexHeader>>,
    pages: moka::sync::Cache<(u64, u64), Bytes>,
}

impl BlockCaches {
    /// Ceilings in bytes: parsed headers (symbols, postings tables), and pages of postings and series.
    pub fn new(header_bytes_max: u64, page_bytes_max: u64) -> Self {
        let weight = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            headers: moka::future::Cache::builder()
                .max_capacity(header_bytes_max)
                .weigher(move |_, h: &Arc<IndexHeader>| weight(h.bytes()))
                .build(),
            pages: moka::sync::Cache::builder()
                .max_capacity(page_bytes_max)
                .weigher(move |_, page: &Bytes| weight(page.len() + 64))
                .build(),
        }
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> u64 {
        self.headers.weighted_size() + self.pages.weighted_size()
    }

    /// The ranges of an object of `size` bytes, through the pages. `fetched` hears how many bytes come from the bucket.
    pub(crate) async fn read(
        &self,
        bucket: &Bucket,
        path: &Path,
        number: u64,
        size: u64,
        ranges: &[Range<u64>],
        mut fetched: impl FnMut(u64) -> Result<()>,
    ) -> Result<Vec<Bytes>> {
        let mut wanted: Vec<u64> = Vec::new();
        for range in ranges {
            if range.start > range.end || range.end > size {
                return Err(Error::damaged(format!("{path}: {range:?} is asked for, it has {size} bytes")));
            }
            if range.start < range.end {
                wanted.extend(range.start / PAGE_BYTES..=(range.end - 1) / PAGE_BYTES);
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        let mut pages: HashMap<u64, Bytes> = HashMap::with_capacity(wanted.len());
        let mut missing: Vec<Range<u64>> = Vec::new();
        for page in wanted {
            if let Some(bytes) = self.pages.get(&(number, page)) {
                pages.insert(page, bytes);
                continue;
            }
            match missing.last_mut() {
                Some(run) if page <= run.end + PAGE_GAP_MAX && page - run.start < PAGE_RUN_MAX => {
                    run.end = page + 1
                }
                _ => missing.push(page..page + 1),
            }
        }
        if !missing.is_empty() {
            let spans: Vec<Range<u64>> =
                missing.iter().map(|run| run.start * PAGE_BYTES..(run.end * PAGE_BYTES).min(size)).collect();
            fetched(spans.iter().map(|s| s.end - s.start).sum())?;
            let parts = bucket
                .get_ranges(path, &spans)
                .await
                .map_err(|e| bucket_error(format!("reading {path}"), e))?;
            for ((run, span), part) in missing.iter().zip(&spans).zip(parts) {
                if part.len() as u64 != span.end - span.start {
                    return Err(Error::damaged(format!("{path}: shorter than its {size} bytes")));
                }
                for (page, bytes) in (run.start..run.end).zip(part.chunks(PAGE_BYTES as usize)) {
                    // A copy: a slice would keep the whole answer alive.
                    let bytes = Bytes::copy_from_slice(bytes);
                    self.pages.insert((number, page), bytes.clone());
                    pages.insert(page, bytes);
                }
            }
        }
        ranges
            .iter()
            .map(|range| assemble(&pages, range).ok_or_else(|| Error::internal("index page is missing")))
            .collect()
    }
}

fn assemble(pages: &HashMap<u64, Bytes>, range: &Range<u64>) -> Option<Bytes> {
    if range.start >= range.end {
        return Some(Bytes::new());
    }
    let (first, last) = (range.start / PAGE_BYTES, (range.end - 1) / PAGE_BYTES);
    let cut = |page: u64| -> Option<Bytes> {
        let base = page * PAGE_BYTES;
        let from = range.start.max(base) - base;
        let to = range.end.min(base + PAGE_BYTES) - base;
        let bytes = pages.get(&page)?;
        (to as usize <= bytes.len()).then(|| bytes.slice(from as usize..to as usize))
    };
    if first == last {
        return cut(first);
    }
    let mut whole = BytesMut::with_capacity((range.end - range.start) as usize);
    for page in first..=last {
        whole.extend_from_slice(&cut(page)?);
    }
    Some(whole.freeze())
}
