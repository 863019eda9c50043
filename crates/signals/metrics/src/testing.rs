//! What the tests of stores and compaction share.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use triptych_blob::Bucket;
use triptych_blob::object_store::memory::InMemory;
use triptych_blob::object_store::path::Path;
use triptych_blob::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use triptych_model::batch::MetricsBuilder;
use triptych_model::metrics::{Sample, SeriesSelect};
use triptych_model::{Labels, TenantId};
use triptych_runtime::QueryContext;

use crate::block::BlockMeta;
use crate::head::{FlushOptions, Head, HeadConfig};
use crate::{BucketStore, BucketStoreConfig};

pub(crate) type Content = BTreeMap<Labels, Vec<(i64, u64)>>;

pub(crate) const HOUR_MS: i64 = 3_600_000;

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn everything() -> SeriesSelect {
    SeriesSelect { matchers: vec![], start_ms: i64::MIN, end_ms: i64::MAX, skip_chunks: false, shard: None }
}

pub(crate) fn labels(i: usize) -> Labels {
    Labels::from_pairs([("__name__", ["a", "b"][i % 2]), ("i", &i.to_string())])
}

/// A head with some series, one sample every 15 s in `[start_ms, end_ms)`, whose value depends on series and time only.
pub(crate) fn head(series: Range<usize>, start_ms: i64, end_ms: i64) -> Head {
    let head = Head::new(HeadConfig::default());
    let mut builder = MetricsBuilder::default();
    for i in series {
        let run: Vec<Sample> = (start_ms..end_ms)
            .step_by(15_000)
            .map(|t_ms| Sample { t_ms, value: (t_ms / 1000 % 997 * (i as i64 + 1)) as f64 })
            .collect();
        let labels = labels(i);
        builder.series(labels.hash64(), labels.as_encoded(), &run);
    }
    assert_eq!(head.append(builder.plain()).unwrap().refused_items(), 0);
    head
}

pub(crate) async fn flush(
    bucket: &Bucket,
    tenant: &TenantId,
    head: &Head,
    ingester: &str,
    now_ms: i64,
) -> Vec<BlockMeta> {
    let labels = BTreeMap::from([
        ("tenant".to_owned(), tenant.to_string()),
        ("replica".to_owned(), ingester.to_owned()),
    ]);
    let options = FlushOptions { labels, source: "triptych".to_owned(), now_ms };
    head.flush(bucket, tenant, &options).await.unwrap().blocks
}

pub(crate) async fn content_of(
    ctx: &QueryContext,
    series: BoxStream<'static, triptych_model::Result<triptych_model::metrics::SeriesChunks>>,
) -> triptych_model::Result<Content> {
    let _ = ctx;
    let mut content = Content::new();
    let mut merged = crate::merge(vec![series]);
    while let Some(series) = merged.next().await {
        let mut series = series?;
        let mut samples = Vec::new();
        while series.samples.next_run(&mut samples)? {}
        assert!(samples.is_sorted_by(|a, b| a.t_ms < b.t_ms));
        let samples = samples.iter().map(|s| (s.t_ms, s.value.to_bits())).collect();
        assert!(content.insert(series.labels, samples).is_none(), "a series twice");
    }
    Ok(content)
}

/// What a store that was synced twice shows.
pub(crate) async fn content(bucket: &Bucket, tenant: &TenantId) -> Content {
    let store = BucketStore::new(bucket.clone(), BucketStoreConfig::default());
    store.sync().await.unwrap();
    store.sync().await.unwrap();
    let ctx = QueryContext::unlimited(tenant.clone());
    let content = content_of(&ctx, store.select(&ctx, &everything()).await.unwrap()).await.unwrap();
    assert_eq!(ctx.report().missed, Vec::<String>::new());
    content
}

/// A bucket in memory whose changes fail after some of them.
#[derive(Debug)]
pub(crate) struct Failing {
    inner: Arc<InMemory>,
    left: AtomicI64,
}

impl Failing {
    pub fn new(inner: Arc<InMemory>, changes: i64) -> Arc<Self> {
        Arc::new(Self { inner, left: AtomicI64::new(changes) })
    }

    pub fn failed(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    fn change(&self) -> Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        self.left.store(-1, Ordering::SeqCst);
        Err(Error::Generic { store: "failing", source: "the process died".into() })
    }
}

impl std::fmt::Display for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failing")
    }
}

#[async_trait]
impl ObjectStore for Failing {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.change()?;
        self.inner.put_opts(path, payload, options).await
    }
    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.change()?;
        self.inner.put_multipart_opts(path, options).await
    }
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }
    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(path, ranges).await
    }
    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.change() {
            Ok(()) => self.inner.delete_stream(paths),
            Err(e) => futures::stream::iter([Err(e)]).boxed(),
        }
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.change()?;
        self.inner.copy_opts(from, to, options).await
    }
}
