//! Where flushes go while the bucket does not take them: a bucket on the local disk.
//!
//! ```text
//! <spool>/<signal>/<number>/..      what a flush writes, in the bucket's own layout: a *unit*
//! <spool>/<signal>/<number>.done    the unit is whole
//! ```
//! A unit is written like a block in the bucket, read like one (through the signal's bucket store), copied to the bucket when that is
//! back, kept readable until every store-gateway has seen the copy, and deleted. What makes objects visible is copied last and `.done` is
//! deleted first, so a crash anywhere leaves a unit that is whole (it is copied again: the same objects under the same names) or one that
//! does not count (it is removed at the next start; what is in it is still in the write-ahead log).
//!
//! **Memory**: per unit what its store knows of its blocks, and caches of [`STORE_CACHE_BYTES`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use triptych_blob::object_store::buffered::BufWriter;
use triptych_blob::object_store::path::Path;
use triptych_blob::object_store::prefix::PrefixStore;
use triptych_blob::object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use triptych_blob::{Bucket, store_error};
use triptych_model::{Error, Result};
use triptych_runtime::MemoryBudget;

use crate::generation::Kind;

/// What the store of one unit may cache; there may be hundreds of units, and the system caches files by itself.
pub(crate) const STORE_CACHE_BYTES: u64 = 256 << 10;

/// Objects of a unit that are copied at the same time.
const COPIES: usize = 4;
/// Larger objects are copied in parts of this size.
const PART_BYTES: usize = 8 << 20;
/// An object that was copied this long ago, and that nothing makes visible yet, is copied again: whoever cleans the bucket takes it for
/// left behind some hours later.
const COPIED_NS_MAX: i64 = 4 * 3_600_000_000_000;
/// Parts of an object that are on their way.
const PARTS: usize = 2;

/// One flush on the local disk.
struct Unit<S> {
    number: u64,
    store: S,
    bytes: u64,
    state: Mutex<UnitState>,
}

#[derive(Default)]
struct UnitState {
    /// In the bucket already, and since when.
    copied: HashMap<Path, i64>,
    /// When the last object was; 0 before.
    uploaded_ns: i64,
}

/// The spool of one signal.
pub(crate) struct Spool<K: Kind> {
    disk: Bucket,
    /// Oldest first.
    units: Mutex<VecDeque<Arc<Unit<K::Store>>>>,
    /// Not shown any more, to be deleted after the time they were hidden at.
    hidden: Mutex<Vec<(i64, u64)>>,
    /// Drafts that came to nothing, to be deleted.
    abandoned: Arc<Mutex<Vec<u64>>>,
    next: AtomicU64,
}

/// A unit that is being written. Dropped before it is [complete](Spool::complete), it comes to nothing: a question for a flush that goes
/// away ends in the middle of it.
pub(crate) struct Draft {
    number: u64,
    pub bucket: Bucket,
    abandoned: Option<Arc<Mutex<Vec<u64>>>>,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(abandoned) = &self.abandoned {
            abandoned.lock().push(self.number);
        }
    }
}

impl<K: Kind> Spool<K> {
    pub(crate) fn new(disk: Bucket) -> Self {
        let (units, hidden, abandoned) = Default::default();
        Self { disk, units, hidden, abandoned, next: AtomicU64::new(1) }
    }

    fn root() -> Path {
        Path::from(K::SIGNAL.as_str())
    }

    fn done_path(number: u64) -> Path {
        Self::root().join(format!("{number:08}.done"))
    }

    fn dir(number: u64) -> Path {
        Self::root().join(format!("{number:08}"))
    }

    fn unit_bucket(&self, number: u64) -> Bucket {
        Arc::new(PrefixStore::new(self.disk.clone(), Self::dir(number)))
    }

    /// Takes over the whole units of an earlier process and removes the others. Once, before anything else.
    pub(crate) async fn open(&self, kind: &K) -> Result<()> {
        let listed = self.disk.list_with_delimiter(Some(&Self::root())).await.map_err(store_error)?;
        let number = |name: Option<&str>| name.and_then(|n| n.parse::<u64>().ok());
        let mut done: Vec<u64> = listed
            .objects
            .iter()
            .filter_map(|o| number(o.location.filename()?.strip_suffix(".done")))
            .collect();
        done.sort_unstable();
        let dirs: Vec<u64> = listed.common_prefixes.iter().filter_map(|p| number(p.filename())).collect();
        for torn in dirs.iter().filter(|n| !done.contains(n)) {
            self.delete(*torn).await?;
        }
        for number in &done {
            let unit = self.unit(kind, *number).await.map_err(|e| e.context(format!("spool {number:08}")))?;
            self.units.lock().push_back(Arc::new(unit));
        }
        let last = dirs.iter().chain(&done).max().copied().unwrap_or(0);
        self.next.store(last + 1, Ordering::Relaxed);
        Ok(())
    }

    async fn unit(&self, kind: &K, number: u64) -> Result<Unit<K::Store>> {
        let bucket = self.unit_bucket(number);
        let bytes = objects(&bucket).await?.iter().map(|o| o.size).sum();
        let store = kind.open_store(bucket).await?;
        Ok(Unit { number, store, bytes, state: Mutex::default() })
    }

    /// A place for a flush. It counts when it is [`Spool::complete`].
    pub(crate) fn draft(&self) -> Draft {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Draft { number, bucket: self.unit_bucket(number), abandoned: Some(self.abandoned.clone()) }
    }

    /// Shows the unit; it survives the process from now on.
    pub(crate) async fn complete(&self, kind: &K, mut draft: Draft) -> Result<()> {
        let unit = self.unit(kind, draft.number).await?;
        let done = Self::done_path(draft.number);
        self.disk.put(&done, "done".into()).await.map_err(store_error)?;
        self.units.lock().push_back(Arc::new(unit));
        draft.abandoned = None;
        Ok(())
    }

    /// `.done` first, then what makes objects visible, then the rest.
    async fn delete(&self, number: u64) -> Result<()> {
        let mut paths = vec![Self::done_path(number)];
        let objects = objects(&self.unit_bucket(number)).await?;
        let (shown, rest): (Vec<_>, Vec<_>) = objects.into_iter().partition(|o| K::completes(&o.location));
        let dir = Self::dir(number);
        paths.extend(
            shown.into_iter().chain(rest).map(|o| dir.parts().chain(o.location.parts()).collect::<Path>()),
        );
        for path in paths {
            match self.disk.delete(&path).await.map_err(store_error) {
                Err(error) if error.kind != triptych_model::Kind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Everything that is shown, oldest first. To be asked after the heads: what leaves them is here before.
    pub(crate) fn stores(&self) -> Vec<K::Store> {
        self.units.lock().iter().map(|unit| unit.store.clone()).collect()
    }

    /// Units that are not in the bucket.
    pub(crate) fn waiting(&self) -> usize {
        self.units.lock().iter().filter(|u| u.state.lock().uploaded_ns == 0).count()
    }

    /// Bytes of the units, those that wait for their deletion not included.
    pub(crate) fn bytes(&self) -> u64 {
        self.units.lock().iter().map(|unit| unit.bytes).sum()
    }

    /// Copies the oldest unit that waits, skipping the first `skip` of them. False when there is none.
    pub(crate) async fn upload(
        &self,
        bucket: &Bucket,
        skip: usize,
        memory: &MemoryBudget,
        now_ns: impl Fn() -> i64,
    ) -> Result<bool> {
        let found = self.units.lock().iter().filter(|u| u.state.lock().uploaded_ns == 0).nth(skip).cloned();
        let Some(unit) = found else { return Ok(false) };
        let from = self.unit_bucket(unit.number);
        let objects = objects(&from).await?;
        let began_ns = now_ns();
        unit.state.lock().copied.retain(|_, at_ns| began_ns.saturating_sub(*at_ns) < COPIED_NS_MAX);
        let (last, first): (Vec<_>, Vec<_>) = objects.into_iter().partition(|o| K::completes(&o.location));
        for part in [first, last] {
            futures::stream::iter(part)
                .map(Ok)
                .try_for_each_concurrent(COPIES, |object| {
                    let (from, unit, now_ns) = (&from, &unit, &now_ns);
                    async move {
                        if unit.state.lock().copied.contains_key(&object.location) {
                            return Ok(());
                        }
                        let held = (object.size as usize).min((PARTS + 1) * PART_BYTES);
                        let _memory = memory.reserve_when_free(held).await;
                        copy(from, bucket, &object).await?;
                        unit.state.lock().copied.insert(object.location, now_ns());
                        Ok::<_, Error>(())
                    }
                })
                .await?;
        }
        let mut state = unit.state.lock();
        state.copied = HashMap::new();
        state.uploaded_ns = now_ns().max(1);
        drop(state);
        tracing::info!(signal = %K::SIGNAL, unit = unit.number, bytes = unit.bytes, "spooled data is in the bucket");
        Ok(true)
    }

    /// Hides units that have been in the bucket for `after_ns`, and deletes those that were hidden that long ago: by then the questions
    /// that began with them have been answered. Deletes drafts that came to nothing.
    pub(crate) async fn forget(&self, now_ns: i64, after_ns: i64) -> Result<()> {
        loop {
            let Some(number) = self.abandoned.lock().last().copied() else { break };
            self.delete(number).await?;
            self.abandoned.lock().retain(|abandoned| *abandoned != number);
        }
        let is_over = |since_ns: i64| since_ns != 0 && now_ns.saturating_sub(since_ns) >= after_ns;
        self.units.lock().retain(|unit| {
            let is_over = is_over(unit.state.lock().uploaded_ns);
            if is_over {
                self.hidden.lock().push((now_ns, unit.number));
            }
            !is_over
        });
        let due: Vec<u64> =
            self.hidden.lock().iter().filter(|(at, _)| is_over(*at)).map(|(_, number)| *number).collect();
        for number in due {
            self.delete(number).await?;
            self.hidden.lock().retain(|(_, hidden)| *hidden != number);
        }
        Ok(())
    }
}

async fn objects(bucket: &Bucket) -> Result<Vec<ObjectMeta>> {
    bucket.list(None).try_collect().await.map_err(store_error)
}

async fn copy(from: &Bucket, to: &Bucket, object: &ObjectMeta) -> Result<()> {
    let path = &object.location;
    let failed = |e: std::io::Error| Error::unavailable(format!("copying {path}: {e}"));
    let read = from.get(path).await.map_err(store_error)?;
    if object.size <= PART_BYTES as u64 {
        let bytes = read.bytes().await.map_err(store_error)?;
        to.put(path, bytes.into()).await.map_err(store_error)?;
        return Ok(());
    }
    let mut writer =
        BufWriter::with_capacity(to.clone(), path.clone(), PART_BYTES).with_max_concurrency(PARTS);
    let mut stream = read.into_stream();
    let copied = async {
        while let Some(bytes) = stream.try_next().await.map_err(store_error)? {
            writer.put(bytes).await.map_err(store_error)?;
        }
        writer.shutdown().await.map_err(failed)
    };
    let copied = copied.await;
    if copied.is_err() {
        // Parts that stay are removed by the bucket's own rules for stale uploads.
        let _ = writer.abort().await;
    }
    copied
}
