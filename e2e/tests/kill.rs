//! `kill -9` under load, again and again: what was acknowledged is there, exactly once.

#![allow(clippy::disallowed_methods, reason = "real time and chance, from outside of the process")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::RngExt;
use triptych_e2e::load::{Ledger, SIGNALS};
use triptych_e2e::{Client, Options, Process, now_ms, now_ns};

const ROUNDS: usize = 5;

/// Sends until told to stop, or until the process is gone.
async fn load(client: Client, ledger: Arc<Ledger>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) && ledger.send(&client, ledger.next()).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_is_kept() -> Result<()> {
    let mut process = Process::start(Options::default()).await?;
    // Item n stands n milliseconds later; none may reach the future.
    let origin_ms = now_ms() - 1_800_000;
    let ledgers = SIGNALS.map(|signal| Arc::new(Ledger::new(signal, origin_ms)));
    for round in 0..ROUNDS {
        let client = process.client();
        let stop = Arc::new(AtomicBool::new(false));
        let loads: Vec<_> = ledgers
            .iter()
            .map(|ledger| tokio::spawn(load(client.clone(), ledger.clone(), stop.clone())))
            .collect();
        // In some rounds a flush is under way when it dies.
        let flush = (round % 2 == 1).then(|| {
            let client = client.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let _ = client.flush().await;
            })
        });
        let pause = rand::rng().random_range(100..900);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        process.kill().await?;
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            load.await?;
        }
        if let Some(flush) = flush {
            flush.await?;
        }
        let began = now_ns();
        process.again().await?;
        let acknowledged = ledgers.each_ref().map(|ledger| ledger.acknowledged());
        println!(
            "round {round}: killed after {pause} ms, ready again after {} ms, acknowledged so far {acknowledged:?}",
            (now_ns() - began) / 1_000_000
        );
    }
    for (signal, ledger) in SIGNALS.iter().zip(&ledgers) {
        ensure!(ledger.acknowledged() > 100, "{signal:?}: too little was acknowledged");
    }
    for when in ["after the last restart", "after the flush", "after a clean restart", "after the merge"] {
        match when {
            "after the flush" => process.client().flush().await?,
            "after a clean restart" => process.restart().await?,
            "after the merge" => println!("{}", process.client().compact().await?),
            _ => {}
        }
        for (signal, ledger) in SIGNALS.iter().zip(&ledgers) {
            let there = ledger.check(&process.client(), None).await.with_context(|| when.to_owned())?;
            println!("{when}: {signal:?}: {there} are there");
        }
    }
    ensure!(!process.log().contains("panicked"), "it panicked:\n{}", process.log());
    Ok(())
}
