//! A cache of byte ranges of immutable objects.
//!
//! A read of a range becomes reads of *pages*: aligned pieces of `page_bytes`. Pages that are missing side by side are fetched in one
//! request; a page that somebody is fetching already is waited for, not fetched again. Whole objects, heads and listings pass
//! through: they are read once, or must be fresh.
//!
//! An object that is overwritten under its name shows its old pages until they leave the cache: only objects whose name says what
//! is in them (blocks, chunks) may be read through here.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::Shared;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use moka::future::Cache;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use crate::{Bucket, telemetry};

/// How much is cached.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Bytes of all pages together; 0: nothing is cached.
    pub bytes_max: u64,
    /// The unit of caching, in bytes.
    pub page_bytes: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        // A request to S3 costs about what 1 MiB of transfer does; pages of a quarter keep small index reads cheap.
        Self { bytes_max: 256 << 20, page_bytes: 256 << 10 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PageKey {
    path: Arc<str>,
    page: u64,
}

/// What a page costs on top of its bytes: key, path, the cache's own entry.
const ENTRY_BYTES: u32 = 160;

/// Reads ranges through a bounded cache of pages.
#[derive(Debug, Clone)]
pub struct CachedBucket {
    inner: Bucket,
    config: CacheConfig,
    pages: Cache<PageKey, Bytes>,
    /// Sizes and tags of objects that pages were read of.
    metas: Cache<Path, ObjectMeta>,
}

/// Part of the budget that goes to object metadata.
const METAS_SHARE: u64 = 64;

impl CachedBucket {
    pub fn new(inner: Bucket, config: CacheConfig) -> Self {
        let weigh = |key: &PageKey, page: &Bytes| page.len() as u32 + key.path.len() as u32 + ENTRY_BYTES;
        let pages = Cache::builder().max_capacity(config.bytes_max).weigher(weigh).build();
        let metas = Cache::builder()
            .max_capacity(config.bytes_max / METAS_SHARE)
            .weigher(|path: &Path, _: &ObjectMeta| 2 * path.as_ref().len() as u32 + ENTRY_BYTES)
            .build();
        let config = CacheConfig { page_bytes: config.page_bytes.clamp(4 << 10, 64 << 20), ..config };
        Self { inner, config, pages, metas }
    }

    /// Bytes held, including what an entry costs. Settles what is pending first.
    pub async fn bytes(&self) -> u64 {
        self.pages.run_pending_tasks().await;
        self.pages.weighted_size()
    }

    /// A read of so much would throw out most of what others use.
    fn is_cacheable(&self, bytes: u64) -> bool {
        bytes <= self.config.bytes_max / 8
    }

    async fn meta(&self, location: &Path) -> Result<ObjectMeta> {
        if let Some(meta) = self.metas.get(location).await {
            return Ok(meta);
        }
        let meta =
            self.inner.get_opts(location, GetOptions { head: true, ..GetOptions::default() }).await?.meta;
        self.metas.insert(location.clone(), meta.clone()).await;
        Ok(meta)
    }

    /// The pages that cover `range`, in order.
    async fn read_pages(&self, location: &Path, range: &Range<u64>) -> Result<Vec<Bytes>> {
        let size = self.config.page_bytes;
        let wanted = range.start / size..range.end.div_ceil(size);
        let path: Arc<str> = location.as_ref().into();
        let key = |page| PageKey { path: path.clone(), page };
        let mut pages: Vec<Option<Bytes>> = Vec::new();
        for page in wanted.clone() {
            pages.push(self.pages.get(&key(page)).await);
        }
        let hits = pages.iter().flatten().count() as u64;
        telemetry::cache_pages("hit").increment(hits);
        telemetry::cache_pages("miss").increment(pages.len() as u64 - hits);

        if hits > 0 && hits < pages.len() as u64 {
            // The rest must not be asked for beyond the end of the object; a first page would have been refused by the store.
            let all = self.meta(location).await?.size.div_ceil(size);
            pages.truncate(all.saturating_sub(wanted.start) as usize);
        }
        let mut at = 0;
        while at < pages.len() {
            if pages[at].is_some() {
                at += 1;
                continue;
            }
            let run = at..pages[at..].iter().position(|p| p.is_some()).map_or(pages.len(), |n| at + n);
            let first = wanted.start + run.start as u64;
            let fetch = self.fetch(location, first * size..(wanted.start + run.end as u64) * size);
            // Asked all at once, so that none of them is begun by somebody else meanwhile.
            let fetched = futures::future::try_join_all(run.clone().map(|n| {
                let (fetch, from) = (fetch.clone(), (n - run.start) * size as usize);
                self.pages.try_get_with(key(wanted.start + n as u64), async move {
                    let bytes = fetch.await?;
                    let to = bytes.len().min(from + size as usize);
                    // A copy, so that the page does not keep its neighbours in memory.
                    Ok(Bytes::copy_from_slice(bytes.get(from..to).unwrap_or_default()))
                })
            }));
            let fetched = fetched.await.map_err(|e: Arc<Arc<Error>>| copy_error(&e))?;
            for (n, page) in run.clone().zip(fetched) {
                pages[n] = Some(page);
            }
            at = run.end;
        }
        Ok(pages.into_iter().flatten().collect())
    }

    fn fetch(
        &self,
        location: &Path,
        range: Range<u64>,
    ) -> Shared<impl Future<Output = Result<Bytes, Arc<Error>>> + Send + use<>> {
        let (this, location) = (self.clone(), location.clone());
        async move {
            let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
            let result = this.inner.get_opts(&location, options).await?;
            this.metas.insert(location, result.meta.clone()).await;
            result.bytes().await
        }
        .map(|result| result.map_err(Arc::new))
        .shared()
    }

    /// The bytes of `range`, fewer where the object ends before.
    async fn read(&self, location: &Path, range: &Range<u64>) -> Result<Bytes> {
        let pages = self.read_pages(location, range).await?;
        let from = (range.start % self.config.page_bytes) as usize;
        let length = (range.end - range.start) as usize;
        if let [page] = pages.as_slice() {
            return Ok(page.slice(from.min(page.len())..(from + length).min(page.len())));
        }
        let mut out = BytesMut::with_capacity(length.min(pages.iter().map(Bytes::len).sum()));
        for (n, page) in pages.iter().enumerate() {
            let skip = if n == 0 { from.min(page.len()) } else { 0 };
            let take = (page.len() - skip).min(length - out.len());
            out.extend_from_slice(&page[skip..skip + take]);
        }
        Ok(out.freeze())
    }
}

/// Errors are shared between those who waited for one fetch, and cannot be cloned. The kinds that tell the caller what to do are kept.
fn copy_error(error: &Error) -> Error {
    let source = error.to_string().into();
    match error {
        Error::NotFound { path, .. } => Error::NotFound { path: path.clone(), source },
        Error::PermissionDenied { path, .. } => Error::PermissionDenied { path: path.clone(), source },
        Error::Unauthenticated { path, .. } => Error::Unauthenticated { path: path.clone(), source },
        _ => Error::Generic { store: "bucket", source },
    }
}

impl fmt::Display for CachedBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cached({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for CachedBucket {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.metas.invalidate(location).await;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.metas.invalidate(location).await;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let plain = GetOptions { range: options.range.clone(), ..GetOptions::default() };
        let is_plain = options.if_match == plain.if_match
            && options.if_none_match == plain.if_none_match
            && options.if_modified_since == plain.if_modified_since
            && options.if_unmodified_since == plain.if_unmodified_since
            && options.version == plain.version
            && !options.head;
        let bytes_asked = match &options.range {
            Some(GetRange::Bounded(range)) => range.end.saturating_sub(range.start),
            Some(GetRange::Suffix(bytes)) => *bytes,
            _ => 0,
        };
        if !is_plain || bytes_asked == 0 || !self.is_cacheable(bytes_asked) {
            return self.inner.get_opts(location, options).await;
        }
        let Some(asked) = options.range else { return self.inner.get_opts(location, options).await };
        let (bytes, meta) = match asked {
            GetRange::Suffix(bytes) => {
                let meta = self.meta(location).await?;
                let range = meta.size.saturating_sub(bytes)..meta.size;
                (self.read(location, &range).await?, meta)
            }
            GetRange::Bounded(ref range) => (self.read(location, range).await?, self.meta(location).await?),
            GetRange::Offset(_) => (Bytes::new(), self.meta(location).await?),
        };
        if bytes.is_empty() {
            // Outside of the object: the store says it best.
            return self.inner.get_opts(location, plain_range(asked)).await;
        }
        let start = match asked {
            GetRange::Bounded(range) => range.start,
            _ => meta.size.saturating_sub(bytes.len() as u64),
        };
        let range = start..start + bytes.len() as u64;
        Ok(GetResult {
            payload: GetResultPayload::Stream(futures::stream::iter([Ok(bytes)]).boxed()),
            meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let largest = ranges.iter().map(|r| r.end.saturating_sub(r.start)).max().unwrap_or(0);
        if ranges.iter().any(|r| r.start >= r.end) || !self.is_cacheable(largest) {
            return self.inner.get_ranges(location, ranges).await;
        }
        futures::stream::iter(ranges.iter().cloned())
            .map(|range| async move {
                let bytes = self.read(location, &range).await?;
                if bytes.is_empty() {
                    return Err(Error::Generic {
                        store: "bucket",
                        source: format!("{location}: no bytes in {range:?}").into(),
                    });
                }
                Ok(bytes)
            })
            .buffered(16)
            .try_collect()
            .await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let metas = self.metas.clone();
        let forget = locations.and_then(move |path| {
            let metas = metas.clone();
            async move {
                metas.invalidate(&path).await;
                Ok(path)
            }
        });
        self.inner.delete_stream(forget.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.metas.invalidate(to).await;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.metas.invalidate(from).await;
        self.metas.invalidate(to).await;
        self.inner.rename_opts(from, to, options).await
    }
}

fn plain_range(range: GetRange) -> GetOptions {
    GetOptions { range: Some(range), ..GetOptions::default() }
}
