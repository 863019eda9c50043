//! Thread pools by workload. The reasons stand at the fields.

use std::io;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;
use triptych_model::{Error, Result};

/// The pools of a process. Dropped in `main`, after everything that runs on them.
#[derive(Debug)]
pub struct Runtimes {
    /// Receives, appends, acknowledges, and carries all I/O. An acknowledgement must never wait for a query.
    pub ingest: Runtime,
    /// Decodes, filters, evaluates. CPU-bound, in batches that yield; may be saturated without harm to the others.
    pub query: Runtime,
    /// Flush, compaction, retention: everything that can wait.
    pub background: Runtime,
}

/// Handles to the pools, for whoever spawns.
#[derive(Debug, Clone)]
pub struct Handles {
    pub ingest: Handle,
    pub query: Handle,
    pub background: Handle,
}

impl Runtimes {
    /// Each pool has a thread per core, background half of them; the kernel shares the cores out.
    pub fn new() -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let pool = |name: &str, threads: usize| {
            Builder::new_multi_thread().worker_threads(threads.max(1)).thread_name(name).enable_all().build()
        };
        Ok(Self {
            ingest: pool("ingest", cores)?,
            query: pool("query", cores)?,
            background: pool("background", cores.div_ceil(2))?,
        })
    }

    pub fn handles(&self) -> Handles {
        Handles {
            ingest: self.ingest.handle().clone(),
            query: self.query.handle().clone(),
            background: self.background.handle().clone(),
        }
    }
}

impl Handles {
    /// All three on the current runtime, for tests and small tools.
    pub fn current() -> Self {
        let handle = Handle::current();
        Self { ingest: handle.clone(), query: handle.clone(), background: handle }
    }
}

/// Runs work on a pool and waits for it; dropping the answer ends it. Fails where it panicked (Internal) or the pool is shutting down
/// (Unavailable).
pub async fn on<T: Send + 'static>(
    pool: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    let task = AbortOnDropHandle::new(pool.spawn(work.in_current_span()));
    task.await.map_err(|e| match e.is_panic() {
        true => Error::internal("a task on a pool panicked"),
        false => Error::unavailable("the process is shutting down"),
    })
}

/// Moves a stream to a pool, where it runs ahead of its reader by `items`. It ends when the reader drops it.
pub fn ahead<T: Send + 'static>(
    pool: &Handle,
    mut stream: BoxStream<'static, Result<T>>,
    items: usize,
) -> BoxStream<'static, Result<T>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(items.max(1));
    let pump = async move {
        while let Some(item) = stream.next().await {
            if sender.send(item).await.is_err() {
                break;
            }
        }
    };
    let task = AbortOnDropHandle::new(pool.spawn(pump.in_current_span()));
    futures::stream::unfold(Some((receiver, task)), async |state| {
        let (mut receiver, task) = state?;
        match receiver.recv().await {
            Some(item) => Some((item, Some((receiver, task)))),
            // An answer that was cut short must not look like a whole one.
            None => {
                task.await.err().map(|e| (Err(Error::unavailable(format!("a read ended early: {e}"))), None))
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn a_stream_on_a_pool_is_the_same_stream() {
        let pool = Handle::current();
        let numbers = futures::stream::iter((0..100).map(Ok)).boxed();
        let read: Vec<i32> = ahead(&pool, numbers, 2).map(|n| n.unwrap_or(-1)).collect().await;
        assert_eq!(read, (0..100).collect::<Vec<_>>());
        let panics = std::future::poll_fn(|_| -> Poll<Result<i32>> { panic!("on purpose") });
        let broken = futures::stream::iter([Ok(1)]).chain(futures::stream::once(panics));
        let read: Vec<Result<i32>> = ahead(&pool, broken.boxed(), 2).collect().await;
        assert!(matches!(&read[..], [Ok(1), Err(_)]), "{read:?}");
    }
}
