//! The ceiling on what the ingester keeps on the local disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use triptych_model::{Error, Result, Signal};

/// What a refused writer is told to wait: the bucket must come back first.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Where the file system cannot be asked.
const FALLBACK_BYTES: u64 = 10 << 30;

/// Bytes of the write-ahead logs and spools of all signals. They are measured from time to time, and what is pushed meanwhile is added,
/// so the ceiling may be passed by what one flush writes. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct DiskBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes_max: u64,
    used: [AtomicU64; Signal::ALL.len()],
}

impl DiskBudget {
    /// 0: half of the file system that `dir` is on.
    pub(crate) fn new(bytes_max: u64, dir: &Path) -> Self {
        let bytes_max = match bytes_max {
            0 => rustix::fs::statvfs(dir).map_or(FALLBACK_BYTES, |fs| fs.f_blocks * fs.f_frsize / 2),
            bytes => bytes,
        };
        Self(Arc::new(Inner { bytes_max, used: Default::default() }))
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.0.bytes_max
    }

    pub(crate) fn used(&self) -> u64 {
        self.0.used.iter().map(|used| used.load(Ordering::Relaxed)).sum()
    }

    /// What was measured.
    pub(crate) fn set(&self, signal: Signal, bytes: u64) {
        self.0.used[signal as usize].store(bytes, Ordering::Relaxed);
    }

    /// What was written since.
    pub(crate) fn add(&self, signal: Signal, bytes: u64) {
        self.0.used[signal as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether `bytes` more may be written.
    pub(crate) fn check(&self, bytes: u64) -> Result<()> {
        let used = self.used();
        if used.saturating_add(bytes) <= self.0.bytes_max {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "local disk: {used} of {} bytes hold data that is not in the bucket yet, {bytes} more are wanted; is the bucket away? \
             (ingester.disk_bytes_max)",
            self.0.bytes_max
        ))
        .retry_after(RETRY_AFTER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_with_numbers() {
        let disk = DiskBudget::new(1000, Path::new("/"));
        disk.set(Signal::Metrics, 600);
        disk.add(Signal::Logs, 300);
        disk.check(100).unwrap();
        let refused = disk.check(101).unwrap_err();
        assert_eq!(
            (refused.kind, refused.retry_after),
            (triptych_model::Kind::Unavailable, Some(RETRY_AFTER))
        );
        assert!(refused.to_string().contains("900 of 1000 bytes"), "{refused}");
        assert!(DiskBudget::new(0, Path::new("/")).bytes_max() > 1 << 20);
    }
}
