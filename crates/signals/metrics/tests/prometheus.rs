//! A real Prometheus started on our blocks after compaction. Does nothing where `prometheus` is not installed;
//! ignored because it takes some seconds: `cargo test -p triptych-metrics --test prometheus -- --ignored`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test with a real process")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use triptych_blob::Bucket;
use triptych_blob::object_store::local::LocalFileSystem;
use triptych_metrics::{CompactConfig, FlushOptions, Head, HeadConfig, compact_tenant};
use triptych_model::batch::MetricsBuilder;
use triptych_model::metrics::Sample;
use triptych_model::{Labels, TenantId};

/// Aligned to two hours.
const T: i64 = 1_600_128_000_000;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// What Prometheus answers to an instant query at `T` + 100 min, with the blocks below `data`.
fn ask(data: &Path, query: &str) -> String {
    let config = data.with_file_name("prometheus.yml");
    std::fs::write(&config, "global: {}\n").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg("--storage.tsdb.retention.time=100y")
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(server);
    let start = Instant::now();
    while !get(port, "/-/ready").is_some_and(|a| a.contains(" 200 ")) {
        assert!(start.elapsed() < Duration::from_secs(60), "prometheus does not get ready");
        std::thread::sleep(Duration::from_millis(200));
    }
    let at = T / 1000 + 6000;
    get(port, &format!("/api/v1/query?query={query}&time={at}")).unwrap()
}

#[tokio::test]
#[ignore = "starts a server"]
async fn prometheus_starts_on_our_blocks() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bucket: Bucket = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    let tenant = TenantId::new("acme").unwrap();
    for replica in ["i-0", "i-1"] {
        let head = Head::new(HeadConfig::default());
        let mut builder = MetricsBuilder::default();
        for i in 0..20 {
            let labels = Labels::from_pairs([("__name__", "requests_total"), ("pod", &format!("pod-{i}"))]);
            let samples: Vec<Sample> =
                (0..800).map(|n| Sample { t_ms: T + n * 15_000, value: (n * 15 * i) as f64 }).collect();
            builder.series(labels.hash64(), labels.as_encoded(), &samples);
        }
        head.append(builder.plain()).unwrap();
        let options = FlushOptions {
            labels: [("replica".to_owned(), replica.to_owned())].into(),
            source: "ingester".to_owned(),
            now_ms: T,
        };
        head.flush(&bucket, &tenant, &options).await.unwrap();
    }
    let data = dir.path().join("metrics").join("acme");
    // Sum over i of i requests a second.
    let expected = "\"190\"]";
    let query = "sum(rate(requests_total%5B30m%5D))";

    let report = compact_tenant(
        &bucket,
        &tenant,
        &CompactConfig { delete_delay_ms: 0, ..Default::default() },
        T + 20_000_000,
    )
    .await
    .unwrap();
    assert_eq!(report.failed, Vec::<String>::new());
    assert!(!report.merged.is_empty(), "{report:?}");
    compact_tenant(
        &bucket,
        &tenant,
        &CompactConfig { delete_delay_ms: 0, ..Default::default() },
        T + 20_000_000,
    )
    .await
    .unwrap();
    let answer = ask(&data, query);
    assert!(answer.contains(expected), "{answer}");
}
