//! One incarnation of a process: what is done on its behalf ends with it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// From a start to a kill. Clones are the same life.
#[derive(Debug, Clone)]
pub struct Life {
    ended: CancellationToken,
    /// A host that is stopped (SIGSTOP, a long pause of its machine) does no I/O before this.
    frozen_until: Arc<Mutex<Instant>>,
}

impl Default for Life {
    fn default() -> Self {
        Self { ended: CancellationToken::new(), frozen_until: Arc::new(Mutex::new(Instant::now())) }
    }
}

impl Life {
    pub fn end(&self) {
        self.ended.cancel();
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Stops all its I/O for a while.
    pub fn freeze(&self, time: Duration) {
        let mut until = self.frozen_until.lock();
        *until = (*until).max(Instant::now() + time);
    }

    pub fn is_frozen(&self) -> bool {
        *self.frozen_until.lock() > Instant::now()
    }

    /// Lets time pass on behalf of the process. What waits here when the process dies never goes on: its future hangs until
    /// somebody drops it.
    pub async fn pass(&self, time: Duration) {
        let wait = async {
            sleep(time).await;
            loop {
                let until = *self.frozen_until.lock();
                if until <= Instant::now() {
                    return;
                }
                sleep_until(until).await;
            }
        };
        tokio::select! {
            biased;
            () = self.ended() => std::future::pending().await,
            () = wait => {}
        }
        if self.has_ended() {
            std::future::pending().await
        }
    }
}
