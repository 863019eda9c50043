//! The ceiling on what all heads hold together.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use triptych_model::{Error, Result};

/// What a refused writer is told to wait: about the time a flush takes.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Memory of all generations of all signals. Heads say how large they are; nothing is taken from here in advance, so the ceiling
/// may be passed by what the writes in flight add.
#[derive(Debug)]
pub(crate) struct Memory {
    bytes_max: usize,
    used: AtomicI64,
}

impl Memory {
    /// 0: half of what the process may use.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let bytes_max = if bytes_max == 0 { available_bytes() / 2 } else { bytes_max };
        Self { bytes_max, used: AtomicI64::new(0) }
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed).max(0) as usize
    }

    pub(crate) fn add(&self, bytes: i64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Time to flush before anybody is refused.
    pub(crate) fn is_tight(&self) -> bool {
        self.used() > self.bytes_max / 4 * 3
    }

    /// Whether `bytes` more may come; `waiting` generations wait for the bucket.
    pub(crate) fn check(&self, bytes: usize, waiting: impl FnOnce() -> usize) -> Result<()> {
        let used = self.used();
        if used.saturating_add(bytes) <= self.bytes_max {
            return Ok(());
        }
        Err(Error::exhausted(format!(
            "ingester memory: {used} of {} bytes hold data that is not in the bucket yet, {bytes} more are wanted; \
             {} generations wait to be flushed",
            self.bytes_max,
            waiting()
        ))
        .retry_after(RETRY_AFTER))
    }
}

/// The cgroup's limit, or the machine's memory, or (where neither can be read) 4 GiB.
fn available_bytes() -> usize {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
    });
    let cgroup = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok());
    match (machine, cgroup) {
        (Some(machine), Some(cgroup)) => machine.min(cgroup),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => 4 << 30,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_with_numbers() {
        let memory = Memory::new(1000);
        memory.add(700);
        assert!(!memory.is_tight());
        memory.add(100);
        assert!(memory.is_tight());
        memory.check(200, || 0).unwrap();
        let refused = memory.check(201, || 2).unwrap_err();
        assert!(refused.retry_after.is_some());
        assert_eq!(
            refused.to_string(),
            "ingester memory: 800 of 1000 bytes hold data that is not in the bucket yet, 201 more are wanted; \
             2 generations wait to be flushed"
        );
        assert!(available_bytes() > 64 << 20);
    }
}
