//! The one object that a query carries from the door to the last leaf: who asks, until when, how much it may use, what it has
//! read, what it could not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use triptych_model::{Error, Result, Share, TenantId};

use crate::budget::{self, MemoryBudget, Reservation};

/// What one query may use. 0 means no limit, except for `memory_bytes_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// Bytes read from heads and bucket.
    pub read_bytes_max: u64,
    /// Samples, lines or spans looked at.
    pub rows_max: u64,
    /// Held in memory at one time.
    pub memory_bytes_max: usize,
    pub timeout: Duration,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            read_bytes_max: 0,
            // Prometheus' `--query.max-samples` is 50 million held at once; rows here are counted as they pass.
            rows_max: 0,
            memory_bytes_max: 1 << 30,
            timeout: Duration::from_secs(120),
        }
    }
}

/// What a read cost and what it missed. Travels back to the caller, added up over all sources.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadReport {
    pub read_bytes: u64,
    pub rows: u64,
    pub blocks: u64,
    pub chunks: u64,
    /// What could not be read, one sentence each. Not empty means that the answer is partial and says so.
    pub missed: Vec<String>,
    /// What a person should know about the question (PromQL annotations).
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

/// Most sentences kept in each list of a report.
const REPORT_SENTENCES_MAX: usize = 32;

fn add_sentence(list: &mut Vec<String>, sentence: String) {
    if list.len() < REPORT_SENTENCES_MAX && !list.contains(&sentence) {
        list.push(sentence);
    }
}

impl ReadReport {
    pub fn add(&mut self, other: ReadReport) {
        self.read_bytes += other.read_bytes;
        self.rows += other.rows;
        self.blocks += other.blocks;
        self.chunks += other.chunks;
        other.missed.into_iter().for_each(|s| add_sentence(&mut self.missed, s));
        other.warnings.into_iter().for_each(|s| add_sentence(&mut self.warnings, s));
        other.infos.into_iter().for_each(|s| add_sentence(&mut self.infos, s));
    }
}

#[derive(Debug)]
struct Inner {
    tenant: TenantId,
    limits: QueryLimits,
    deadline: Instant,
    cancel: CancellationToken,
    memory: MemoryBudget,
    read_bytes: AtomicU64,
    rows: AtomicU64,
    blocks: AtomicU64,
    chunks: AtomicU64,
    remote: Mutex<ReadReport>,
}

impl Inner {
    fn new(
        tenant: TenantId,
        limits: QueryLimits,
        deadline: Instant,
        cancel: CancellationToken,
        memory: MemoryBudget,
    ) -> Arc<Self> {
        Arc::new(Self {
            tenant,
            limits,
            deadline,
            cancel,
            memory,
            read_bytes: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
            remote: Mutex::default(),
        })
    }
}

/// Handed to everything that works for a query; clones share all counters. Cancelled by [`QueryContext::cancel`], which the
/// guard of [`QueryContext::cancel_on_drop`] calls when the client goes.
#[derive(Debug, Clone)]
pub struct QueryContext(Arc<Inner>, Option<Share>);

impl QueryContext {
    /// What it reserves counts for the query, its tenant, and all queries of the process.
    pub fn new(tenant: TenantId, limits: QueryLimits) -> Self {
        let memory = budget::queries().tenant(&tenant);
        Self::drawing_on(&memory, tenant, limits)
    }

    /// For reads that are nobody's query (compaction): what they reserve counts for `memory`.
    pub fn drawing_on(memory: &MemoryBudget, tenant: TenantId, limits: QueryLimits) -> Self {
        let memory = memory.below("query memory", limits.memory_bytes_max);
        let deadline = Instant::now() + limits.timeout;
        Self(Inner::new(tenant, limits, deadline, CancellationToken::new(), memory), None)
    }

    /// The same query, asked of one of several: counters, budgets and cancellation are shared.
    pub fn with_share(&self, share: Share) -> Self {
        Self(self.0.clone(), Some(share))
    }

    /// Who else is asked. `None`: nobody, the answer is for everything there is.
    pub fn share(&self) -> Option<&Share> {
        self.1.as_ref()
    }

    /// With default limits, for tests and small internal reads.
    pub fn unlimited(tenant: TenantId) -> Self {
        Self::new(tenant, QueryLimits::default())
    }

    /// A part of the query that may be asked again. What it reads and misses is counted apart, until [`QueryContext::add_report`] takes
    /// it over; its limits are what is left of the whole's; memory, deadline and cancellation are the whole's.
    pub fn part(&self) -> Self {
        let Inner { tenant, deadline, cancel, memory, .. } = &*self.0;
        let limits = self.limits_left();
        Self(Inner::new(tenant.clone(), limits, *deadline, cancel.clone(), memory.clone()), self.1.clone())
    }

    /// As [`QueryContext::part`], for a part that is evaluated by somebody else: it gets one of `memory_shares` of the memory that is
    /// left, as many may run at a time. Fails where nothing is left of a limit.
    pub fn remote_part(&self, memory_shares: usize) -> Result<Self> {
        self.check_limits(1)?;
        let Inner { tenant, deadline, cancel, memory, .. } = &*self.0;
        let memory_bytes_max = memory.bytes_max().saturating_sub(memory.used()) / memory_shares.max(1);
        let limits = QueryLimits { memory_bytes_max, ..self.limits_left() };
        let memory = budget::queries().tenant(tenant).below("query memory", memory_bytes_max);
        Ok(Self(Inner::new(tenant.clone(), limits, *deadline, cancel.child_token(), memory), self.1.clone()))
    }

    /// Takes over what a part has cost and found. Fails where all parts together are over a limit.
    pub fn add_part(&self, part: &QueryContext) -> Result<()> {
        self.add_report(part.report());
        self.check_limits(0)
    }

    /// Fails where `more` would be over a limit.
    fn check_limits(&self, more: u64) -> Result<()> {
        let used = self.report();
        over("bytes read", used.read_bytes.saturating_add(more), self.0.limits.read_bytes_max)?;
        over("rows", used.rows.saturating_add(more), self.0.limits.rows_max)
    }

    fn limits_left(&self) -> QueryLimits {
        let used = self.report();
        // 0 means no limit, so that one row at least is left.
        let left = |max: u64, used: u64| if max == 0 { 0 } else { max.saturating_sub(used).max(1) };
        QueryLimits {
            read_bytes_max: left(self.0.limits.read_bytes_max, used.read_bytes),
            rows_max: left(self.0.limits.rows_max, used.rows),
            ..self.0.limits
        }
    }

    pub fn tenant(&self) -> &TenantId {
        &self.0.tenant
    }

    pub fn limits(&self) -> &QueryLimits {
        &self.0.limits
    }

    pub fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// Time left, for the next hop.
    pub fn remaining(&self) -> Duration {
        self.0.deadline.saturating_duration_since(Instant::now())
    }

    pub fn cancel(&self) {
        self.0.cancel.cancel();
    }

    /// Resolves when the query is cancelled (not at its deadline).
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.cancel.clone().cancelled_owned()
    }

    /// Cancels the query when dropped: hold it in the request's handler.
    pub fn cancel_on_drop(&self) -> tokio_util::sync::DropGuard {
        self.0.cancel.clone().drop_guard()
    }

    /// Asked at every batch. Fails when the query was cancelled or its deadline has passed.
    #[inline]
    pub fn check(&self) -> Result<()> {
        if self.0.cancel.is_cancelled() {
            return Err(Error::cancelled("query was cancelled"));
        }
        if Instant::now() >= self.0.deadline {
            return Err(Error::unavailable(format!("query timed out after {:?}", self.0.limits.timeout)));
        }
        Ok(())
    }

    /// Counts bytes read from a head or the bucket; fails over the limit.
    pub fn add_read_bytes(&self, bytes: u64) -> Result<()> {
        let total = self.0.read_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        over("bytes read", total, self.0.limits.read_bytes_max)
    }

    /// Counts samples, lines or spans looked at, and checks the deadline; fails over the limit.
    pub fn add_rows(&self, rows: u64) -> Result<()> {
        let total = self.0.rows.fetch_add(rows, Ordering::Relaxed) + rows;
        over("rows", total, self.0.limits.rows_max)?;
        self.check()
    }

    pub fn add_blocks(&self, blocks: u64) {
        self.0.blocks.fetch_add(blocks, Ordering::Relaxed);
    }

    pub fn add_chunks(&self, chunks: u64) {
        self.0.chunks.fetch_add(chunks, Ordering::Relaxed);
    }

    /// Takes memory for as long as the reservation lives.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation> {
        self.0.memory.reserve(bytes)
    }

    /// Says that something could not be read: the answer becomes partial.
    pub fn missed(&self, sentence: impl Into<String>) {
        add_sentence(&mut self.0.remote.lock().missed, sentence.into());
    }

    pub fn warn(&self, sentence: impl Into<String>) {
        add_sentence(&mut self.0.remote.lock().warnings, sentence.into());
    }

    pub fn info(&self, sentence: impl Into<String>) {
        add_sentence(&mut self.0.remote.lock().infos, sentence.into());
    }

    /// Adds what another process reports of its part.
    pub fn add_report(&self, report: ReadReport) {
        self.0.remote.lock().add(report);
    }

    /// Everything so far, this process and others.
    pub fn report(&self) -> ReadReport {
        let mut report = self.0.remote.lock().clone();
        report.read_bytes += self.0.read_bytes.load(Ordering::Relaxed);
        report.rows += self.0.rows.load(Ordering::Relaxed);
        report.blocks += self.0.blocks.load(Ordering::Relaxed);
        report.chunks += self.0.chunks.load(Ordering::Relaxed);
        report
    }
}

fn over(what: &str, total: u64, max: u64) -> Result<()> {
    if max != 0 && total > max {
        return Err(Error::exhausted(format!(
            "the query needs more than {max} {what}, its limit: narrow the time range or the selector"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_what_is_left() {
        let limits = QueryLimits { rows_max: 10, memory_bytes_max: 100, ..QueryLimits::default() };
        let ctx = QueryContext::new(TenantId::single(), limits);
        ctx.add_rows(4).unwrap();
        let part = ctx.part();
        part.missed("a block");
        part.add_rows(6).unwrap();
        assert!(part.add_rows(1).is_err());
        assert!(ctx.report().missed.is_empty());
        let held = part.reserve(60).unwrap();
        assert!(ctx.reserve(60).is_err(), "memory is the whole's");
        drop(held);
        ctx.add_report(part.report());
        assert_eq!((ctx.report().rows, ctx.report().missed.len()), (11, 1));
        ctx.cancel();
        assert!(part.check().is_err());
    }

    #[test]
    fn limits_name_themselves() {
        let limits = QueryLimits { rows_max: 10, ..QueryLimits::default() };
        let ctx = QueryContext::new(TenantId::single(), limits);
        ctx.add_rows(10).unwrap();
        assert!(ctx.add_rows(1).unwrap_err().to_string().contains("more than 10 rows"));
        drop(ctx.cancel_on_drop());
        assert_eq!(ctx.check().unwrap_err().kind, triptych_model::Kind::Cancelled);
    }

    #[test]
    fn parts_share_what_the_whole_may_use() {
        let limits = QueryLimits { rows_max: 10, memory_bytes_max: 100, ..QueryLimits::default() };
        let whole = QueryContext::new(TenantId::single(), limits);
        let held = whole.reserve(20).unwrap();
        let (a, b) = (whole.remote_part(2).unwrap(), whole.remote_part(2).unwrap());
        assert_eq!((a.limits().memory_bytes_max, a.limits().rows_max), (40, 10));
        a.add_rows(6).unwrap();
        a.missed("block 1");
        whole.add_part(&a).unwrap();
        assert_eq!((whole.report().rows, whole.report().missed), (6, vec!["block 1".to_owned()]));
        assert_eq!(whole.remote_part(1).unwrap().limits().rows_max, 4);
        b.add_rows(5).unwrap();
        assert!(whole.add_part(&b).unwrap_err().to_string().contains("more than 10 rows"));
        assert!(whole.remote_part(1).unwrap_err().to_string().contains("more than 10 rows"));
        drop(held);
        whole.cancel();
        assert_eq!(a.check().unwrap_err().kind, triptych_model::Kind::Cancelled);
    }
}
