//! Writes only as long as somebody says that it may: work that another process has taken over changes nothing any more.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use crate::Bucket;

type MayWrite = Arc<dyn Fn() -> bool + Send + Sync>;

/// Asks before each write and each deletion, and fails it when the answer is no. Reads always pass.
#[derive(Clone)]
pub struct FencedBucket {
    inner: Bucket,
    may_write: MayWrite,
}

impl FencedBucket {
    pub fn new(inner: Bucket, may_write: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { inner, may_write: Arc::new(may_write) }
    }

    fn check(&self, path: &Path) -> Result<()> {
        if (self.may_write)() {
            return Ok(());
        }
        let source = format!("{path} is not written or deleted: the work is another process' now").into();
        Err(Error::Generic { store: "fenced", source })
    }
}

impl fmt::Debug for FencedBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FencedBucket").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl fmt::Display for FencedBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl ObjectStore for FencedBucket {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.check(location)?;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.check(location)?;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(FencedUpload { inner, path: location.clone(), bucket: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let bucket = self.clone();
        let allowed = locations.and_then(move |path| std::future::ready(bucket.check(&path).map(|()| path)));
        self.inner.delete_stream(Box::pin(allowed))
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
        self.check(to)?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.check(to)?;
        self.inner.rename_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct FencedUpload {
    inner: Box<dyn MultipartUpload>,
    path: Path,
    bucket: FencedBucket,
}

#[async_trait]
impl MultipartUpload for FencedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.bucket.check(&self.path) {
            Ok(()) => self.inner.put_part(data),
            Err(error) => std::future::ready(Err(error)).boxed(),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.bucket.check(&self.path)?;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
