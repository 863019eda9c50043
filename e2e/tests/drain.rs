//! SIGTERM: load balancers have time to look elsewhere, and what is under way ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use triptych_e2e::dataset::Dataset;
use triptych_e2e::{Options, Process, now_ms};

const PATIENCE: Duration = Duration::from_secs(30);

/// A question over HTTP of which the last bytes are missing.
struct Half(TcpStream);

const QUESTION: &str = "query=count(e2e_requests_total)";

impl Half {
    async fn ask(address: &str) -> Result<Self> {
        let mut connection = TcpStream::connect(address).await?;
        let head = format!(
            "POST /api/v1/query HTTP/1.1\r\nHost: triptych\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            QUESTION.len()
        );
        connection.write_all(head.as_bytes()).await?;
        connection.write_all(&QUESTION.as_bytes()[..10]).await?;
        Ok(Self(connection))
    }

    /// The whole answer, status line and all.
    async fn end(mut self) -> Result<String> {
        self.0.write_all(&QUESTION.as_bytes()[10..]).await?;
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, self.0.read_to_string(&mut answer)).await.context("no answer")??;
        Ok(answer)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_ends() -> Result<()> {
    let mut process = Process::start(Options::default().set("server.shutdown_delay", "8s")).await?;
    let client = process.client();
    let address = process.http().trim_start_matches("http://").to_owned();
    let origin_ms = now_ms() - 600_000;
    let mut all = Dataset::part(0, origin_ms);
    all.write(&client).await?;
    let under_way = Half::ask(&address).await?;

    let told_at = Instant::now();
    process.signal("-TERM").await?;
    let draining = loop {
        let ready = client.get("/ready", &[]).await?;
        if ready.status != 200 || told_at.elapsed() > PATIENCE {
            break ready;
        }
    };
    ensure!(
        (draining.status, draining.text.as_str()) == (503, "draining\n"),
        "{} {}",
        draining.status,
        draining.text
    );
    // It works on.
    let meanwhile = Dataset::part(1, origin_ms + 150_000);
    meanwhile.write(&client).await?;
    all.extend(meanwhile);
    all.check(&client, "on the way out").await?;
    ensure!(client.get("/ready", &[]).await?.status == 503, "it is ready again");

    // The port is closed after the delay, and not before; what had come in is answered, of data that was flushed meanwhile.
    while TcpStream::connect(&address).await.is_ok() {
        ensure!(told_at.elapsed() < PATIENCE, "the port is still open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(told_at.elapsed() >= Duration::from_secs(8), "closed after {:?}", told_at.elapsed());
    let answer = under_way.end().await?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    ensure!(answer.contains(r#""status":"success""#) && !answer.contains("warnings"), "{answer}");
    process.ended().await?;

    process.again().await?;
    all.check(&process.client(), "after the restart").await?;
    process.stop().await
}
