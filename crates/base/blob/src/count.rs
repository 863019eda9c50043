//! Counts what is asked of the bucket. Object storage is paid by the request and is the slowest thing there is: the first number to
//! look at.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use tokio::time::Instant;

use crate::{Bucket, telemetry};

/// What is asked of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Put,
    /// Each of begin, part, complete, abort.
    Multipart,
    Get,
    Head,
    Delete,
    List,
    Copy,
}

impl Operation {
    pub const ALL: [Operation; 7] =
        [Self::Put, Self::Multipart, Self::Get, Self::Head, Self::Delete, Self::List, Self::Copy];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Multipart => "multipart",
            Self::Get => "get",
            Self::Head => "head",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Copy => "copy",
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    operations: [AtomicU64; Operation::ALL.len()],
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
}

impl Counts {
    fn read(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        telemetry::read_bytes().increment(bytes);
    }

    fn written(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        telemetry::written_bytes().increment(bytes);
    }

    fn done<T>(&self, operation: Operation, result: &Result<T>) {
        self.operations[operation as usize].fetch_add(1, Ordering::Relaxed);
        telemetry::operations(operation.as_str(), outcome(result)).increment(1);
    }

    async fn time<T>(&self, operation: Operation, run: impl Future<Output = Result<T>>) -> Result<T> {
        let start = Instant::now();
        let result = run.await;
        telemetry::operation_seconds(operation.as_str()).record(start.elapsed().as_secs_f64());
        self.done(operation, &result);
        result
    }
}

/// The label `outcome`: what is an answer like any other is not called an error.
fn outcome<T>(result: &Result<T>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(Error::NotFound { .. }) => "not_found",
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. }) => {
            "conflict"
        }
        Err(Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) => "denied",
        Err(_) => "error",
    }
}

/// Counts operations by kind and outcome, bytes, and the time to the first byte.
#[derive(Debug)]
pub struct CountedBucket {
    inner: Bucket,
    counts: Arc<Counts>,
}

impl CountedBucket {
    pub fn new(inner: Bucket) -> Self {
        Self { inner, counts: Arc::default() }
    }

    /// Operations of this kind that have been answered.
    pub fn operations(&self, operation: Operation) -> u64 {
        self.counts.operations[operation as usize].load(Ordering::Relaxed)
    }

    pub fn read_bytes(&self) -> u64 {
        self.counts.read_bytes.load(Ordering::Relaxed)
    }

    pub fn written_bytes(&self) -> u64 {
        self.counts.written_bytes.load(Ordering::Relaxed)
    }

    /// A listing counts as one operation, when its first page is there.
    fn listing(
        &self,
        list: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let counts = self.counts.clone();
        async move {
            let mut list = list.peekable();
            let first = std::pin::Pin::new(&mut list).peek().await;
            match first {
                Some(Err(_)) => counts.done::<()>(Operation::List, &Err(unnamed())),
                _ => counts.done(Operation::List, &Ok(())),
            }
            list
        }
        .into_stream()
        .flatten()
        .boxed()
    }
}

/// Stands for an error that belongs to somebody else and cannot be copied.
fn unnamed() -> Error {
    Error::Generic { store: "bucket", source: "failed".into() }
}

impl fmt::Display for CountedBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl ObjectStore for CountedBucket {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let bytes = payload.content_length() as u64;
        let result = self.counts.time(Operation::Put, self.inner.put_opts(location, payload, opts)).await?;
        self.counts.written(bytes);
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let begin = self.inner.put_multipart_opts(location, opts);
        let inner = self.counts.time(Operation::Multipart, begin).await?;
        Ok(Box::new(CountedUpload { inner, counts: self.counts.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let mut result = self.counts.time(operation, self.inner.get_opts(location, options)).await?;
        if operation == Operation::Get {
            result.payload = match result.payload {
                GetResultPayload::Stream(stream) => {
                    let counts = self.counts.clone();
                    let counted = stream.inspect(move |part| {
                        if let Ok(part) = part {
                            counts.read(part.len() as u64);
                        }
                    });
                    GetResultPayload::Stream(counted.boxed())
                }
                file => {
                    self.counts.read(result.range.end - result.range.start);
                    file
                }
            };
        }
        Ok(result)
    }

    /// Neighbouring ranges are fetched in one request; each call counts as one operation.
    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let parts = self.counts.time(Operation::Get, self.inner.get_ranges(location, ranges)).await?;
        self.counts.read(parts.iter().map(|p| p.len() as u64).sum());
        Ok(parts)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let counts = self.counts.clone();
        self.inner.delete_stream(locations).inspect(move |done| counts.done(Operation::Delete, done)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.counts.time(Operation::List, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.counts.time(Operation::Copy, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.counts.time(Operation::Copy, self.inner.rename_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct CountedUpload {
    inner: Box<dyn MultipartUpload>,
    counts: Arc<Counts>,
}

#[async_trait]
impl MultipartUpload for CountedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let bytes = data.content_length() as u64;
        let (part, counts) = (self.inner.put_part(data), self.counts.clone());
        async move {
            counts.time(Operation::Multipart, part).await?;
            counts.written(bytes);
            Ok(())
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.counts.time(Operation::Multipart, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.counts.time(Operation::Multipart, self.inner.abort()).await
    }
}
