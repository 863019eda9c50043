//! From frozen to retained: to the bucket, or to the spool while the bucket does not take it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use triptych_blob::Bucket;
use triptych_model::{Error, Result};
use triptych_runtime::random::random_u64;

use super::{Flushed, Generation, Generations, Kind, TenantHead};
use crate::telemetry;

/// A flush needs about as much memory as what it writes, and no more than the parts of an upload that are under way.
const FLUSH_BYTES_MAX: usize = 64 << 20;
/// First pause after a flush that failed; each next one is twice as long.
const FLUSH_RETRY: Duration = Duration::from_millis(500);
/// After so many failed attempts a generation goes to the spool, whatever memory says: what one tenant cannot bring away must not keep
/// the segments of all.
const TRIES_MAX: u32 = 5;
/// Between two looks at whether the spool is due.
const LOOK: Duration = Duration::from_millis(100);
/// Pause after the spool took nothing.
const SPOOL_RETRY: Duration = Duration::from_secs(10);
/// Units that are tried in one round: one that never goes does not hold up the others.
const UPLOAD_FAILURES_MAX: usize = 3;

/// What became of each head.
type Written<H> = Vec<(Arc<TenantHead<H>>, Result<Flushed>)>;

impl<K: Kind> Generations<K> {
    /// Flushes a frozen generation to the bucket. On an error the tenants that are done stay done, everything stays readable, and the
    /// next call tries the others again.
    pub(super) async fn flush(&self, generation: &Arc<Generation<K>>) -> Result<()> {
        let _one_at_a_time = self.flushing.lock().await;
        let start = Instant::now();
        let done = self.write(generation, &self.bucket, true).await;
        let written = self.add_up(done.iter().map(|(_, result)| result), start);
        self.bucket_fails.store(written.is_err(), Ordering::Relaxed);
        let written = written?;
        self.retire(generation.id);
        tracing::info!(
            signal = %K::SIGNAL,
            generation = generation.id,
            objects = written.objects,
            bytes = written.bytes,
            took = ?start.elapsed(),
            "generation flushed"
        );
        Ok(())
    }

    /// Writes what is not in the bucket yet to the spool, and drops it from memory.
    pub(super) async fn spool(&self, generation: &Arc<Generation<K>>) -> Result<()> {
        let _one_at_a_time = self.flushing.lock().await;
        let start = Instant::now();
        let draft = self.spool.draft();
        // All of each head: what a failed attempt brought to the bucket may have been seen by no store-gateway yet.
        let done = self.write(generation, &draft.bucket, false).await;
        let written = self.add_up(done.iter().map(|(_, result)| result), start);
        let heads: Vec<_> = done.into_iter().map(|(head, _)| head).collect();
        let shown = match written {
            Ok(_) => self.spool.complete(&self.kind, draft).await,
            Err(error) => Err(error),
        };
        if let Err(error) = shown {
            *self.spool_retry_at.lock() = Instant::now() + SPOOL_RETRY;
            return Err(error.context("spool"));
        }
        // Shown there before it goes here.
        generation.forget(&heads);
        self.retire(generation.id);
        self.spooled.notify_one();
        telemetry::spooled(K::SIGNAL);
        tracing::warn!(
            signal = %K::SIGNAL,
            generation = generation.id,
            tenants = heads.len(),
            took = ?start.elapsed(),
            "the bucket does not take it: generation is on the local disk until it does"
        );
        Ok(())
    }

    /// Writes the heads that were not flushed yet to `bucket`; `mark` those that are done, so that they are not written again.
    async fn write(&self, generation: &Generation<K>, bucket: &Bucket, mark: bool) -> Written<K::Head> {
        let todo = generation.heads().into_iter().filter(|h| !h.flushed.load(Ordering::Acquire));
        let tasks = todo.map(|head| async move {
            let held_bytes = head.bytes.load(Ordering::Relaxed).max(0) as usize;
            let _memory = self.flush_memory.reserve_when_free(held_bytes.min(FLUSH_BYTES_MAX)).await;
            let flush = self.kind.flush(head.head.clone(), head.tenant.clone(), bucket.clone());
            let done = AbortOnDropHandle::new(self.flush_pool.spawn(flush)).await;
            let done = done.unwrap_or_else(|e| Err(Error::internal(format!("flush: {e}"))));
            if mark && done.is_ok() {
                head.flushed.store(true, Ordering::Release);
            }
            let done =
                done.map_err(|e| e.context(format!("flush of {} of tenant {}", K::SIGNAL, head.tenant)));
            (head, done)
        });
        futures::stream::iter(tasks).buffer_unordered(self.config.flush_concurrency.max(1)).collect().await
    }

    fn add_up<'a>(&self, done: impl Iterator<Item = &'a Result<Flushed>>, start: Instant) -> Result<Flushed> {
        let (mut written, mut failed) = (Flushed::default(), None);
        for result in done {
            match result {
                Ok(flushed) => {
                    written.objects += flushed.objects;
                    written.bytes += flushed.bytes;
                }
                Err(error) => {
                    telemetry::flush_failed(K::SIGNAL);
                    failed = Some(error.clone());
                }
            }
        }
        telemetry::flushed(K::SIGNAL, start.elapsed(), written.objects, written.bytes);
        failed.map_or(Ok(written), Err)
    }

    /// From frozen to retained.
    fn retire(&self, id: u64) {
        let mut state = self.state.write();
        if let Some(at) = state.frozen.iter().position(|c| c.generation.id == id)
            && let Some(mut closed) = state.frozen.remove(at)
        {
            closed.flushed_ns = self.clock.elapsed_ns();
            state.retained.push_back(closed);
        }
    }

    /// Returns when every generation up to `id` is in the bucket. Tries for as long as it is polled.
    pub(crate) async fn flush_upto(&self, id: u64) {
        self.bring_away_upto(id).await;
        let mut tries = 0;
        while self.spool.waiting() > 0 {
            match self.upload_round().await {
                Ok(_) => tries = 0,
                Err(_) => {
                    tokio::time::sleep(self.pause(tries)).await;
                    tries += 1;
                }
            }
        }
    }

    /// Returns when every generation up to `id` is in the bucket or in the spool.
    pub(super) async fn bring_away_upto(&self, id: u64) {
        loop {
            let next = {
                let state = self.state.read();
                let upto = state.frozen.iter().filter(|c| c.generation.id <= id);
                upto.min_by_key(|c| (c.retry_at, c.generation.id))
                    .map(|c| (c.generation.clone(), c.tries, c.retry_at))
            };
            let Some((generation, tries, retry_at)) = next else { return };
            let outcome = tokio::select! {
                biased;
                () = self.spool_is_due(tries) => self.spool(&generation).await,
                outcome = async {
                    tokio::time::sleep_until(retry_at).await;
                    self.flush(&generation).await
                } => outcome,
            };
            if let Err(error) = outcome {
                let pause = self.pause(tries);
                tracing::warn!(signal = %K::SIGNAL, %error, retry_in = ?pause, "flush failed, the data stay here");
                let mut state = self.state.write();
                if let Some(closed) = state.frozen.iter_mut().find(|c| c.generation.id == generation.id) {
                    closed.tries += 1;
                    closed.retry_at = Instant::now() + pause;
                }
            }
        }
    }

    /// Resolves when a generation must leave memory though the bucket did not take it `tries` times.
    async fn spool_is_due(&self, tries: u32) {
        loop {
            let fails = self.bucket_fails.load(Ordering::Relaxed);
            let is_due = tries >= TRIES_MAX || self.memory.is_short() || (fails && self.memory.is_tight());
            let is_able = self.disk.check(0).is_ok() && Instant::now() >= *self.spool_retry_at.lock();
            if is_due && is_able {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Twice as long each time up to the configured longest, minus up to a half so that ingesters which failed together do not come back
    /// together.
    fn pause(&self, tries: u32) -> Duration {
        let longest = self.config.flush_retry_max.max(Duration::from_millis(1));
        let pause = FLUSH_RETRY.saturating_mul(1 << tries.min(16)).min(longest);
        pause.mul_f64(1.0 - (random_u64() % 1024) as f64 / 2048.0)
    }

    /// The flush task: brings away whatever is frozen, for ever.
    pub(super) async fn flush_loop(&self) {
        loop {
            self.bring_away_upto(u64::MAX).await;
            self.frozen.notified().await;
        }
    }

    /// Copies one unit of the spool to the bucket, the oldest that goes. False when there is none.
    pub(super) async fn upload_round(&self) -> Result<bool> {
        let _one_at_a_time = self.uploading.lock().await;
        let mut failed = None;
        for skip in 0..UPLOAD_FAILURES_MAX {
            let copied =
                self.spool.upload(&self.bucket, skip, &self.flush_memory, || self.clock.elapsed_ns()).await;
            match copied {
                Ok(true) => {
                    self.bucket_fails.store(false, Ordering::Relaxed);
                    return Ok(true);
                }
                Ok(false) => break,
                Err(error) => {
                    self.bucket_fails.store(true, Ordering::Relaxed);
                    telemetry::flush_failed(K::SIGNAL);
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(false), Err)
    }

    /// The upload task: empties the spool, for ever.
    pub(super) async fn upload_loop(&self) {
        let mut tries = 0;
        loop {
            match self.upload_round().await {
                Ok(true) => tries = 0,
                Ok(false) => self.spooled.notified().await,
                Err(error) => {
                    let pause = self.pause(tries);
                    tracing::warn!(signal = %K::SIGNAL, %error, retry_in = ?pause, "spooled data does not go to the bucket yet");
                    tokio::time::sleep(pause).await;
                    tries += 1;
                }
            }
        }
    }
}
