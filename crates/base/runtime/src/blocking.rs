//! Work that blocks or computes for long, beside the async threads.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::{Handle, RuntimeFlavor};
use triptych_model::{Error, Result};

/// Runs `work` on tokio's blocking pool. On a runtime of one thread (tests, the simulation) it runs in place: there is nobody whom it
/// could keep waiting, and nothing that its end could race with. Fails with Internal where it panicked, with Cancelled where the
/// process is stopping. Work that was begun goes on when nobody waits for it any more.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let panicked = || Error::internal("a task that computes panicked");
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return catch_unwind(AssertUnwindSafe(work)).map_err(|_| panicked());
    }
    #[expect(clippy::disallowed_methods, reason = "this is the replacement")]
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|e| if e.is_panic() { panicked() } else { Error::cancelled("the process is stopping") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use triptych_model::Kind;

    async fn check() {
        assert_eq!(blocking(|| 7).await.unwrap(), 7);
        let panics = blocking(|| {
            if Handle::try_current().is_ok() {
                panic!("on purpose")
            }
        });
        assert_eq!(panics.await.unwrap_err().kind, Kind::Internal);
    }

    #[tokio::test]
    async fn in_place() {
        let here = std::thread::current().id();
        assert_eq!(blocking(|| std::thread::current().id()).await.unwrap(), here);
        check().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn beside() {
        let here = std::thread::current().id();
        assert_ne!(blocking(|| std::thread::current().id()).await.unwrap(), here);
        check().await;
    }
}
