//! Files on disk, a write path that remembers and can fail.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use triptych_model::batch::{LogsReader, MetricsBuilder, TracesBuilder};
use triptych_model::push::PushReport;
use triptych_model::{Error, Result, TenantId};
use triptych_runtime::runtimes::Handles;

use super::*;

#[derive(Default)]
struct Written {
    lines: Mutex<Vec<(String, i64, String)>>,
    down: AtomicBool,
}

#[async_trait]
impl Write for Written {
    async fn metrics(&self, _: &WriteContext, _: MetricsBuilder) -> Result<PushReport> {
        Ok(PushReport::default())
    }
    async fn logs(&self, _: &WriteContext, batch: LogsBuilder) -> Result<PushReport> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::unavailable("down"));
        }
        for record in LogsReader::new(batch.plain()).unwrap() {
            let record = record.unwrap();
            let labels = Labels::from_encoded(record.labels).unwrap().to_string();
            for e in record.entries() {
                self.lines.lock().push((labels.clone(), e.ts_ns, e.line.to_owned()));
            }
        }
        Ok(PushReport::default())
    }
    async fn traces(&self, _: &WriteContext, _: TracesBuilder) -> Result<PushReport> {
        Ok(PushReport::default())
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

fn start(dir: &Path, written: &Arc<Written>) -> (Shutdown, tokio::task::JoinHandle<()>) {
    let config = Config {
        files: vec![
            Files {
                job: "plain".into(),
                paths: vec![format!("{}/*.log", dir.display())],
                ..Default::default()
            },
            Files {
                job: "pods".into(),
                paths: vec![format!("{}/pods/*/*/*.log", dir.display())],
                format: Format::Cri,
                ..Default::default()
            },
        ],
        discovery_interval: Duration::from_millis(30),
        batch_wait: Duration::from_millis(10),
        backoff_min: Duration::from_millis(10),
        ..Default::default()
    };
    let data_dir = dir.join("data");
    std::fs::create_dir_all(&data_dir).unwrap();
    let deps = Deps { write: written.clone(), pools: Handles::current(), data_dir, node: "n".into() };
    let job = Job::new(&config, &deps, WriteContext { tenant: TenantId::single() });
    let shutdown = Shutdown::new();
    (shutdown.clone(), tokio::spawn(job.run(shutdown)))
}

#[tokio::test]
async fn each_line_once_over_a_restart_and_an_outage() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.log");
    let append = |text: &str| {
        use std::io::Write;
        let mut f = std::fs::OpenOptions::new().append(true).create(true).open(&file).unwrap();
        f.write_all(text.as_bytes()).unwrap();
    };
    append("one\n");
    let written = Arc::new(Written::default());
    let (shutdown, task) = start(dir.path(), &written);
    let count = || written.lines.lock().len();
    until("first", || count() == 1).await;
    written.down.store(true, Ordering::SeqCst);
    append("two\nthree\n");
    tokio::time::sleep(Duration::from_millis(60)).await;
    written.down.store(false, Ordering::SeqCst);
    until("after the outage", || count() == 3).await;
    shutdown.trigger();
    task.await.unwrap();

    append("four\n");
    let (shutdown, task) = start(dir.path(), &written);
    until("after the restart", || count() == 4).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    shutdown.trigger();
    task.await.unwrap();
    let lines = written.lines.lock();
    assert_eq!(lines.iter().map(|l| l.2.as_str()).collect::<Vec<_>>(), ["one", "two", "three", "four"]);
    assert!(lines.windows(2).all(|w| w[0].1 < w[1].1));
    assert_eq!(
        lines[0].0,
        format!("{{filename={:?}, host=\"n\", job=\"plain\"}}", file.display().to_string())
    );
}

#[tokio::test]
async fn container_lines_are_put_together() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("pods/shop_cart-0_uid/app");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(
        folder.join("0.log"),
        "2026-01-01T00:00:00Z stdout P hel\n2026-01-01T00:00:01Z stderr F oops\n2026-01-01T00:00:02Z stdout F lo\nnot cri\n",
    )
    .unwrap();
    let written = Arc::new(Written::default());
    let (shutdown, task) = start(dir.path(), &written);
    until("all", || written.lines.lock().len() == 3).await;
    shutdown.trigger();
    task.await.unwrap();
    let mut lines: Vec<String> = written.lines.lock().iter().map(|l| l.2.clone()).collect();
    lines.sort();
    assert_eq!(lines, ["hello", "not cri", "oops"]);
    let labels = written.lines.lock().iter().find(|l| l.2 == "hello").unwrap().0.clone();
    for part in ["container=\"app\"", "namespace=\"shop\"", "pod=\"cart-0\"", "stream=\"stdout\""] {
        assert!(labels.contains(part), "{labels}");
    }
}
