//! Real targets on loopback, a write path that remembers.

use async_trait::async_trait;
use triptych_model::batch::{LogsBuilder, MetricsReader, MetricsRecord, TracesBuilder};
use triptych_model::metrics::is_stale;
use triptych_model::push::PushReport;

use super::*;

#[derive(Default)]
struct Written(Mutex<Vec<String>>);

#[async_trait]
impl Write for Written {
    async fn metrics(&self, _: &WriteContext, batch: MetricsBuilder) -> Result<PushReport> {
        for record in MetricsReader::new(batch.plain()).unwrap() {
            if let MetricsRecord::Series { labels, samples, .. } = record.unwrap() {
                for s in samples.iter() {
                    let value = if is_stale(s.value) { "stale".to_owned() } else { s.value.to_string() };
                    self.0.lock().push(format!("{} {value}", Labels::from_encoded(labels).unwrap()));
                }
            }
        }
        Ok(PushReport::default())
    }
    async fn logs(&self, _: &WriteContext, _: LogsBuilder) -> Result<PushReport> {
        Ok(PushReport::default())
    }
    async fn traces(&self, _: &WriteContext, _: TracesBuilder) -> Result<PushReport> {
        Ok(PushReport::default())
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn targets_come_and_go() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let routes = axum::Router::new()
        .route("/metrics", axum::routing::get(|| async { "# TYPE a gauge\na{x=\"1\"} 5\n" }));
    tokio::spawn(async move { axum::serve(listener, routes).await });

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("targets.json");
    let targets = |list: &str| std::fs::write(&file, format!("[{{\"targets\": [{list}]}}]")).unwrap();
    targets(&format!("\"{address}\", \"127.0.0.1:1\""));
    let yaml = format!(
        "self_scrape: false\nglobal: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\nscrape_configs:\n- job_name: j\n  file_sd_configs: [{{files: ['{}'], refresh_interval: 100ms}}]\n",
        file.display()
    );
    let config: Config = triptych_config::parse(&yaml, &[], |_| None).unwrap();
    let written = Arc::new(Written::default());
    let deps = Deps { write: written.clone(), pools: Handles::current(), own_address: String::new() };
    let scraper = config.build(deps).unwrap();
    let tasks = Tasks::new(Shutdown::new());
    scraper.start(&tasks);

    let wrote = |line: String| written.0.lock().contains(&line);
    until("scraped", || wrote(format!("{{__name__=\"a\", instance=\"{address}\", job=\"j\", x=\"1\"}} 5")))
        .await;
    until("up", || wrote(format!("{{__name__=\"up\", instance=\"{address}\", job=\"j\"}} 1"))).await;
    until("down", || wrote("{__name__=\"up\", instance=\"127.0.0.1:1\", job=\"j\"} 0".to_owned())).await;
    let shown = scraper.targets()();
    let health = |i: usize| shown["activeTargets"][i]["health"].as_str().unwrap().to_owned();
    assert_eq!(shown["activeTargets"].as_array().unwrap().len(), 2);
    assert!([health(0), health(1)].contains(&"down".to_owned()), "{shown}");

    targets("\"127.0.0.1:1\"");
    until("stale", || wrote(format!("{{__name__=\"a\", instance=\"{address}\", job=\"j\", x=\"1\"}} stale")))
        .await;
    until("up stale", || wrote(format!("{{__name__=\"up\", instance=\"{address}\", job=\"j\"}} stale")))
        .await;
    tasks.shutdown().trigger();
    assert!(tasks.drained(Duration::from_secs(5)).await);
}
