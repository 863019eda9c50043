//! The twin that fails: on demand, by seed, or for good after a number of writes (a crash, as the bucket sees it). Or it only
//! hesitates, so that two who use a bucket meet in it in many ways.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use parking_lot::Mutex;

use crate::{Bucket, Operation};

/// When an operation fails. Empty fields match everything.
#[derive(Debug, Clone)]
pub struct Fault {
    pub operation: Option<Operation>,
    /// Part of the object's path.
    pub path: String,
    /// 0 to 1.
    pub probability: f64,
    /// The operation is carried out, only its answer is lost: what a broken connection looks like.
    pub answer_lost: bool,
}

impl Default for Fault {
    fn default() -> Self {
        Self { operation: None, path: String::new(), probability: 1.0, answer_lost: false }
    }
}

#[derive(Debug, Default)]
struct State {
    random: u64,
    faults: Vec<Fault>,
    ignores_conditions: bool,
    /// How often an operation gives way at most.
    pauses_max: u32,
    /// Writes (put, multipart, delete, copy) left until all fail.
    writes_left: Option<u64>,
    writes: u64,
    failed: u64,
}

/// Fails as it is told; passes everything else on. Clones share their faults.
#[derive(Debug, Clone)]
pub struct FailingBucket {
    inner: Bucket,
    state: Arc<Mutex<State>>,
}

enum Verdict {
    Pass,
    FailBefore,
    FailAfter,
}

fn failure(operation: Operation, path: &str) -> Error {
    Error::Generic {
        store: "failing",
        source: format!("{} {path} fails on purpose", operation.as_str()).into(),
    }
}

impl FailingBucket {
    /// Fails nothing until told to. `seed` decides the faults with a probability.
    pub fn new(inner: Bucket, seed: u64) -> Self {
        Self { inner, state: Arc::new(Mutex::new(State { random: seed, ..State::default() })) }
    }

    /// From now on this fails too.
    pub fn fail(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// After so many more writes every write fails.
    pub fn fail_after_writes(&self, writes: u64) {
        self.state.lock().writes_left = Some(writes);
    }

    /// From now on a put that must create its object replaces one that is there, as with some servers.
    pub fn ignore_conditions(&self) {
        self.state.lock().ignores_conditions = true;
    }

    /// From now on every operation lets others go on before it, up to so many times as the seed decides: futures that run on one
    /// thread interleave in another way for every seed.
    pub fn hesitate(&self, pauses_max: u32) {
        self.state.lock().pauses_max = pauses_max;
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.faults.clear();
        state.writes_left = None;
    }

    /// Writes asked for so far.
    pub fn writes(&self) -> u64 {
        self.state.lock().writes
    }

    /// Operations failed so far.
    pub fn failed(&self) -> u64 {
        self.state.lock().failed
    }

    fn verdict(&self, operation: Operation, path: &str) -> Verdict {
        let mut state = self.state.lock();
        let state = &mut *state;
        if matches!(operation, Operation::Put | Operation::Multipart | Operation::Delete | Operation::Copy) {
            state.writes += 1;
            match &mut state.writes_left {
                Some(0) => {
                    state.failed += 1;
                    return Verdict::FailBefore;
                }
                Some(left) => *left -= 1,
                None => {}
            }
        }
        let fault = state.faults.iter().find(|fault| {
            fault.operation.is_none_or(|o| o == operation)
                && path.contains(&fault.path)
                && next_random(&mut state.random) < fault.probability
        });
        match fault {
            None => Verdict::Pass,
            Some(fault) => {
                state.failed += 1;
                if fault.answer_lost { Verdict::FailAfter } else { Verdict::FailBefore }
            }
        }
    }

    async fn pause(&self) {
        let pauses = {
            let mut state = self.state.lock();
            match state.pauses_max {
                0 => 0,
                max => (next_random(&mut state.random) * f64::from(max + 1)) as u32,
            }
        };
        for _ in 0..pauses {
            tokio::task::yield_now().await;
        }
    }

    /// A listing, when it has hesitated enough.
    fn listing(
        &self,
        prefix: Option<&Path>,
        list: impl FnOnce(&Bucket) -> BoxStream<'static, Result<ObjectMeta>> + Send + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (bucket, path) = (self.clone(), prefix.map_or("", |p| p.as_ref()).to_owned());
        async move {
            bucket.pause().await;
            match bucket.verdict(Operation::List, &path) {
                Verdict::Pass => list(&bucket.inner),
                _ => futures::stream::iter([Err(failure(Operation::List, &path))]).boxed(),
            }
        }
        .into_stream()
        .flatten()
        .boxed()
    }

    async fn run<T>(
        &self,
        operation: Operation,
        path: &str,
        run: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.pause().await;
        match self.verdict(operation, path) {
            Verdict::Pass => run.await,
            Verdict::FailBefore => Err(failure(operation, path)),
            Verdict::FailAfter => {
                run.await?;
                Err(failure(operation, path))
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014), as a number from 0 to 1.
fn next_random(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

impl fmt::Display for FailingBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failing({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FailingBucket {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        if self.state.lock().ignores_conditions {
            opts.mode = PutMode::Overwrite;
        }
        self.run(Operation::Put, location.as_ref(), self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let begin = self.inner.put_multipart_opts(location, opts);
        let inner = self.run(Operation::Multipart, location.as_ref(), begin).await?;
        Ok(Box::new(FailingUpload { inner, path: location.to_string(), bucket: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        self.run(operation, location.as_ref(), self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.run(Operation::Get, location.as_ref(), self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let bucket = self.clone();
        locations
            .and_then(move |path| {
                let bucket = bucket.clone();
                async move {
                    let one = futures::stream::iter([Ok(path.clone())]).boxed();
                    let delete = bucket.inner.delete_stream(one).try_collect::<Vec<_>>();
                    bucket.run(Operation::Delete, path.as_ref(), delete).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let within = prefix.cloned();
        self.listing(prefix, move |inner| inner.list(within.as_ref()))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (within, offset) = (prefix.cloned(), offset.clone());
        self.listing(prefix, move |inner| inner.list_with_offset(within.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.map_or("", |p| p.as_ref());
        self.run(Operation::List, path, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.run(Operation::Copy, to.as_ref(), self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.run(Operation::Copy, to.as_ref(), self.inner.rename_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct FailingUpload {
    inner: Box<dyn MultipartUpload>,
    path: String,
    bucket: FailingBucket,
}

#[async_trait]
impl MultipartUpload for FailingUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, bucket, path) = (self.inner.put_part(data), self.bucket.clone(), self.path.clone());
        async move { bucket.run(Operation::Multipart, &path, part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.bucket.run(Operation::Multipart, &self.path, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.bucket.run(Operation::Multipart, &self.path, self.inner.abort()).await
    }
}
