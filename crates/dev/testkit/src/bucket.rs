//! Object storage that is far away: it answers late, or with an error, or does what it was asked and the answer is lost. Or a host
//! cannot reach it at all.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;
use triptych_blob::Bucket;
use triptych_runtime::Clock;

use crate::clock::WorldClock;
use crate::dice::Dice;
use crate::journal::Journal;
use crate::life::Life;

/// How the bucket answers. The default: in some milliseconds, always.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BucketFaults {
    /// Share of the operations that fail without being carried out.
    pub errors: f64,
    /// Share of the operations that are carried out, and then fail.
    pub answers_lost: f64,
    /// An answer takes so many milliseconds at most.
    pub delay_ms: u64,
}

impl Default for BucketFaults {
    fn default() -> Self {
        Self { errors: 0.0, answers_lost: 0.0, delay_ms: 20 }
    }
}

/// The bucket itself. Clones are the same one.
#[derive(Debug, Clone)]
pub struct SimBucket(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    objects: InMemory,
    /// When each object was written, in the world's time.
    written_ns: Mutex<BTreeMap<Path, i64>>,
    state: Mutex<State>,
    clock: Arc<WorldClock>,
    journal: Arc<Journal>,
}

#[derive(Debug)]
struct State {
    faults: BucketFaults,
    /// Hosts that cannot reach it.
    away_from: Vec<Arc<str>>,
    dice: Dice,
}

impl SimBucket {
    pub fn new(dice: &Dice, clock: Arc<WorldClock>, journal: Arc<Journal>) -> Self {
        let state =
            State { faults: BucketFaults::default(), away_from: Vec::new(), dice: dice.fork("bucket") };
        Self(Arc::new(Inner {
            objects: InMemory::new(),
            written_ns: Mutex::default(),
            state: Mutex::new(state),
            clock,
            journal,
        }))
    }

    pub fn set_faults(&self, faults: BucketFaults) {
        self.0.state.lock().faults = faults;
    }

    /// From now on the host cannot reach the bucket, or can again.
    pub fn set_away(&self, host: &Arc<str>, is_away: bool) {
        let mut state = self.0.state.lock();
        state.away_from.retain(|h| h != host);
        if is_away {
            state.away_from.push(host.clone());
        }
    }

    /// The bucket as a process on a host sees it.
    pub fn view(&self, host: &Arc<str>, life: &Life) -> Bucket {
        Arc::new(View { host: host.clone(), life: life.clone(), bucket: self.clone() })
    }

    /// Number of objects.
    pub fn objects(&self) -> usize {
        self.0.written_ns.lock().len()
    }
}

/// What an operation will come to.
struct Fate {
    before: Duration,
    after: Duration,
    fails: bool,
    answer_lost: bool,
}

#[derive(Debug, Clone)]
struct View {
    host: Arc<str>,
    life: Life,
    bucket: SimBucket,
}

fn failure(what: &str, operation: &str, path: &str) -> Error {
    Error::Generic { store: "simulated", source: format!("{operation} {path}: {what}").into() }
}

impl View {
    fn inner(&self) -> &Inner {
        &self.bucket.0
    }

    fn fate(&self) -> Fate {
        let mut state = self.inner().state.lock();
        let State { faults, away_from, dice } = &mut *state;
        let is_away = away_from.contains(&self.host);
        Fate {
            before: dice.ms(1..=faults.delay_ms),
            after: dice.ms(1..=faults.delay_ms),
            fails: is_away | dice.chance(faults.errors),
            answer_lost: dice.chance(faults.answers_lost),
        }
    }

    async fn run<T>(&self, operation: &str, path: &str, run: impl Future<Output = Result<T>>) -> Result<T> {
        let fate = self.fate();
        self.life.pass(fate.before).await;
        let journal = &self.inner().journal;
        if fate.fails {
            journal.note(&self.host, format_args!("bucket {operation} {path}: failed"));
            self.life.pass(fate.after).await;
            return Err(failure("not reached", operation, path));
        }
        let done = run.await;
        let outcome = match &done {
            Ok(_) => "ok",
            Err(Error::NotFound { .. }) => "not found",
            Err(_) => "error",
        };
        journal.note(&self.host, format_args!("bucket {operation} {path}: {outcome}"));
        self.life.pass(fate.after).await;
        if fate.answer_lost && done.is_ok() {
            journal.note(&self.host, format_args!("bucket {operation} {path}: answer lost"));
            return Err(failure("the answer was lost", operation, path));
        }
        done
    }

    fn wrote(&self, path: &Path) {
        self.inner().written_ns.lock().insert(path.clone(), self.inner().clock.now_ns());
    }

    /// With the world's time of writing.
    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let written_ns = self.inner().written_ns.lock().get(&meta.location).copied().unwrap_or_default();
        meta.last_modified = Default::default();
        meta.last_modified += Duration::from_nanos(written_ns.max(0) as u64);
        meta
    }

    async fn listed(self, prefix: Option<Path>, offset: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let path = prefix.as_ref().map_or("", |p| p.as_ref()).to_owned();
        let objects = &self.inner().objects;
        let list = match offset {
            Some(offset) => objects.list_with_offset(prefix.as_ref(), &offset),
            None => objects.list(prefix.as_ref()),
        };
        let found: Vec<ObjectMeta> = self.run("list", &path, list.try_collect()).await?;
        Ok(found.into_iter().map(|meta| self.dated(meta)).collect())
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucket of {}", self.host)
    }
}

#[async_trait]
impl ObjectStore for View {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let put = async {
            let done = self.inner().objects.put_opts(location, payload, opts).await?;
            self.wrote(location);
            Ok(done)
        };
        self.run("put", location.as_ref(), put).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let begin = self.inner().objects.put_multipart_opts(location, opts);
        let inner = self.run("begin", location.as_ref(), begin).await?;
        Ok(Box::new(Upload { inner, path: location.clone(), view: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { "head" } else { "get" };
        let get = self.inner().objects.get_opts(location, options);
        let mut found = self.run(operation, location.as_ref(), get).await?;
        found.meta = self.dated(found.meta);
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.run("get", location.as_ref(), self.inner().objects.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let view = self.clone();
        locations
            .and_then(move |path| {
                let view = view.clone();
                async move {
                    let delete = async {
                        view.inner().objects.delete(&path).await?;
                        view.inner().written_ns.lock().remove(&path);
                        Ok(())
                    };
                    view.run("delete", path.as_ref(), delete).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.clone().listed(prefix.cloned(), None);
        listed.map_ok(|found| futures::stream::iter(found).map(Ok)).try_flatten_stream().boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.clone().listed(prefix.cloned(), Some(offset.clone()));
        listed.map_ok(|found| futures::stream::iter(found).map(Ok)).try_flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.map_or("", |p| p.as_ref());
        let mut found = self.run("list", path, self.inner().objects.list_with_delimiter(prefix)).await?;
        found.objects = found.objects.into_iter().map(|meta| self.dated(meta)).collect();
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let copy = async {
            self.inner().objects.copy_opts(from, to, options).await?;
            self.wrote(to);
            Ok(())
        };
        self.run("copy", to.as_ref(), copy).await
    }
}

#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    path: Path,
    view: View,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, view, path) = (self.inner.put_part(data), self.view.clone(), self.path.clone());
        async move { view.run("part", path.as_ref(), part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (view, path) = (self.view.clone(), self.path.clone());
        let complete = async {
            let done = self.inner.complete().await?;
            view.wrote(&path);
            Ok(done)
        };
        view.run("complete", path.as_ref(), complete).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.view.clone().run("abort", self.path.as_ref(), self.inner.abort()).await
    }
}
