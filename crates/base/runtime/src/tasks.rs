//! Background tasks of one shape: a name, a loop that ends on shutdown, and someone who notices that it died.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tells tasks to finish. Clones are the same signal.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn trigger(&self) {
        self.0.cancel();
    }
    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }
    /// Resolves on shutdown.
    pub async fn triggered(&self) {
        self.0.cancelled().await;
    }
}

/// The background tasks of a process. A task that panics, or ends before shutdown, takes the process down with it: half a
/// process that looks alive is worse than a restart.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: Shutdown,
    died: CancellationToken,
}

impl Tasks {
    pub fn new(shutdown: Shutdown) -> Self {
        Self { tracker: TaskTracker::new(), shutdown, died: CancellationToken::new() }
    }

    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Runs `task` on `pool`; it must end soon after [`Shutdown::triggered`].
    pub fn spawn<F>(&self, pool: &Handle, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (shutdown, died) = (self.shutdown.clone(), self.died.clone());
        let running = pool.spawn(task);
        self.tracker.spawn_on(
            async move {
                let ended = running.await;
                if let Err(error) = ended {
                    tracing::error!(task = name, %error, "background task died");
                    died.cancel();
                } else if !shutdown.is_triggered() {
                    tracing::error!(task = name, "background task ended before shutdown");
                    died.cancel();
                }
            },
            pool,
        );
    }

    /// Calls `tick` now and every `period` until shutdown. A tick that is late is not made up for.
    pub fn spawn_periodic<F, Fut>(&self, pool: &Handle, name: &'static str, period: Duration, mut tick: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        self.spawn(pool, name, async move {
            let mut interval = tokio::time::interval(period);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.triggered() => return,
                    _ = interval.tick() => tick().await,
                }
            }
        });
    }

    /// Resolves when a task died.
    pub async fn died(&self) {
        self.died.cancelled().await;
    }

    /// Waits until all tasks have ended, at most `deadline`. True if they did.
    pub async fn drained(&self, deadline: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}
