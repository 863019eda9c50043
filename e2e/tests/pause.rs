//! A process that stands still (SIGSTOP, a paused machine) and goes on: nothing is lost, nothing is shown twice, timers do not run wild.

use std::time::Duration;

use anyhow::{Result, ensure};
use triptych_e2e::dataset::Dataset;
use triptych_e2e::{Options, Process, now_ms};

/// Longer than a tick of every periodic task that must not be made up for; `PAUSE_SECONDS=60` for more.
const PAUSE_SECONDS: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stands_still_and_goes_on() -> Result<()> {
    let seconds = std::env::var("PAUSE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(PAUSE_SECONDS);
    let mut process = Process::start(Options::default()).await?;
    let client = process.client();
    let origin_ms = now_ms() - 600_000;
    let mut all = Dataset::part(0, origin_ms);
    all.write(&client).await?;

    // Writes are under way when it stops, and end when it goes on.
    process.signal("-STOP").await?;
    let meanwhile = Dataset::part(1, origin_ms + 150_000);
    let writing = tokio::spawn({
        let (meanwhile, client) = (Dataset::part(1, origin_ms + 150_000), client.clone());
        async move { meanwhile.write(&client).await }
    });
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    ensure!(!writing.is_finished(), "it was stopped");
    process.signal("-CONT").await?;
    writing.await??;
    all.extend(meanwhile);
    all.check(&client, "after the pause").await?;

    let after = Dataset::part(2, origin_ms + 300_000);
    after.write(&client).await?;
    all.extend(after);
    client.flush().await?;
    all.check(&client, "flushed after the pause").await?;
    ensure!(process.is_alive() && client.is_ready().await, "{}", process.log());
    Ok(())
}
