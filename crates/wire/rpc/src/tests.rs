//! What is asked through a local channel arrives as it was asked, and so do answers, errors and reports.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tonic::service::Routes;
use triptych_model::metrics::*;
use triptych_model::push::PushReport;
use triptych_model::{Error, Kind, Labels, MatchOp, Matcher, Result, Signal, TenantId, Version};
use triptych_runtime::{QueryContext, Shutdown};

use crate::traits::{Ingest, MetricsStore, Stream, WriteContext};
use crate::*;

struct Fake;

fn chunk(n: i64) -> EncodedChunk {
    EncodedChunk {
        start_ms: n,
        end_ms: n + 9,
        encoding: ChunkEncoding::Xor,
        data: Bytes::from_static(b"data"),
    }
}

fn series(n: i64) -> SeriesChunks {
    SeriesChunks { labels: Labels::from_pairs([("n", n.to_string())]), chunks: vec![chunk(n)] }
}

#[async_trait]
impl MetricsStore for Fake {
    async fn select(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        assert_eq!(ctx.tenant().as_str(), "team");
        ctx.add_read_bytes(7)?;
        ctx.missed("block x: gone");
        assert_eq!(select.matchers[0].to_string(), r#"job=~"a.*""#);
        let endless = select.end_ms == 0;
        Ok(futures::stream::iter(0..)
            .take_while(move |n| futures::future::ready(endless || *n < 1000))
            .map(|n| Ok(series(n)))
            .boxed())
    }
    async fn label_names(&self, _: &QueryContext, select: &LabelsSelect) -> Result<Vec<String>> {
        Err(Error::exhausted(format!("limit {}", select.limit)))
    }
    async fn label_values(&self, _: &QueryContext, name: &str, _: &LabelsSelect) -> Result<Vec<String>> {
        Ok(vec![name.to_owned()])
    }
    async fn series(&self, _: &QueryContext, _: &LabelsSelect) -> Result<Vec<Labels>> {
        Ok(vec![Labels::from_pairs([("a", "b")])])
    }
    async fn metadata(&self, _: &QueryContext, metric: &str, _: usize) -> Result<Vec<MetricMetadata>> {
        let kind = MetricKind::Counter;
        Ok(vec![MetricMetadata { metric: metric.to_owned(), kind, help: "h".into(), unit: "u".into() }])
    }
    async fn exemplars(&self, _: &QueryContext, _: &LabelsSelect) -> Result<Vec<SeriesExemplars>> {
        Ok(vec![])
    }
    async fn cardinality(&self, _: &QueryContext, _: usize) -> Result<CardinalityStats> {
        Ok(CardinalityStats { series: 5, series_by_metric: vec![("up".into(), 5)], ..Default::default() })
    }
    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        ctx.missed("block x: gone");
        Ok(ranges.iter().map(|(start, end)| Version::from_bits((start * 100 + end) as u64)).collect())
    }
}

#[async_trait]
impl Ingest for Fake {
    async fn push(&self, ctx: &WriteContext, signal: Signal, sealed: Bytes) -> Result<PushReport> {
        assert_eq!((ctx.tenant.as_str(), signal, &sealed[..]), ("team", Signal::Logs, &b"batch"[..]));
        let mut report = PushReport { accepted: 3, ..Default::default() };
        report.refuse("too_old", 2, || "older than 1h".into());
        Ok(report)
    }
}

fn ctx() -> QueryContext {
    QueryContext::unlimited(TenantId::new("team").unwrap())
}

fn select(end_ms: i64) -> SeriesSelect {
    let matchers = vec![Matcher::new(MatchOp::Regex, "job", "a.*").unwrap()];
    SeriesSelect { matchers, start_ms: 1, end_ms, skip_chunks: false, shard: None }
}

#[tokio::test]
async fn questions_and_answers_survive_the_channel() {
    let shutdown = Shutdown::new();
    let routes = Routes::new(MetricsStoreServer::service(Arc::new(Fake)))
        .add_service(IngestServer::service(Arc::new(Fake)));
    let channel = channel::local("test", routes, &tokio::runtime::Handle::current(), shutdown.clone());
    let client = MetricsStoreClient::new(channel.clone());

    let asked = ctx();
    let read: Vec<_> = client.select(&asked, &select(9)).await.unwrap().try_collect().await.unwrap();
    assert_eq!(read, (0..1000).map(series).collect::<Vec<_>>());
    let report = asked.report();
    assert_eq!((report.read_bytes, &report.missed[..]), (7, &["block x: gone".to_owned()][..]));

    let refused =
        client.label_names(&ctx(), &LabelsSelect { limit: 4, ..Default::default() }).await.unwrap_err();
    assert_eq!((refused.kind, &*refused.message), (Kind::Exhausted, "limit 4"));
    assert_eq!(client.label_values(&ctx(), "job", &LabelsSelect::default()).await.unwrap(), ["job"]);
    assert_eq!(client.metadata(&ctx(), "up", 1).await.unwrap()[0].kind, MetricKind::Counter);
    assert_eq!(client.cardinality(&ctx(), 1).await.unwrap().series_by_metric, [("up".to_owned(), 5)]);

    let asked = ctx();
    let versions = client.versions(&asked, &[(-1, 0), (2, 3)]).await.unwrap();
    assert_eq!(versions, [-100_i64 as u64, 203].map(Version::from_bits));
    assert_eq!(asked.report().missed, ["block x: gone"]);

    let ingest = IngestClient::new(channel);
    let write = WriteContext { tenant: TenantId::new("team").unwrap() };
    let report = ingest.push(&write, Signal::Logs, Bytes::from_static(b"batch")).await.unwrap();
    assert_eq!((report.accepted, report.refused["too_old"].items), (3, 2));
    shutdown.trigger();
}

/// Answers with the runtime that it runs on.
struct Where;

fn here() -> Labels {
    Labels::from_pairs([("runtime", tokio::runtime::Handle::current().id().to_string())])
}

#[async_trait]
impl MetricsStore for Where {
    async fn select(&self, _: &QueryContext, _: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        let chunks = || Ok(SeriesChunks { labels: here(), chunks: vec![] });
        Ok(futures::stream::iter(0..3).map(move |_| chunks()).boxed())
    }
    async fn label_names(&self, _: &QueryContext, _: &LabelsSelect) -> Result<Vec<String>> {
        panic!("on purpose")
    }
    async fn label_values(&self, _: &QueryContext, _: &str, _: &LabelsSelect) -> Result<Vec<String>> {
        Ok(vec![])
    }
    async fn series(&self, _: &QueryContext, _: &LabelsSelect) -> Result<Vec<Labels>> {
        Ok(vec![here()])
    }
    async fn metadata(&self, _: &QueryContext, _: &str, _: usize) -> Result<Vec<MetricMetadata>> {
        Ok(vec![])
    }
    async fn exemplars(&self, _: &QueryContext, _: &LabelsSelect) -> Result<Vec<SeriesExemplars>> {
        Ok(vec![])
    }
    async fn cardinality(&self, _: &QueryContext, _: usize) -> Result<CardinalityStats> {
        Ok(CardinalityStats::default())
    }
    async fn versions(&self, _: &QueryContext, _: &[(i64, i64)]) -> Result<Vec<Version>> {
        Ok(vec![])
    }
}

/// I7: what a read computes runs on the query pool, what a stream makes of it too.
#[test]
fn reads_run_on_their_own_pool() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (ingest, query) = (runtime().unwrap(), runtime().unwrap());
    let service = OnPool::new(MetricsStoreServer::service(Arc::new(Where)), query.handle());
    let channel = channel::local("test", Routes::new(service), ingest.handle(), Shutdown::new());
    let client = MetricsStoreClient::new(channel);
    ingest.block_on(async {
        let there = Labels::from_pairs([("runtime", query.handle().id().to_string())]);
        assert_ne!(there, here());
        assert_eq!(
            client.series(&ctx(), &LabelsSelect::default()).await.unwrap(),
            std::slice::from_ref(&there)
        );
        let read: Vec<_> = client.select(&ctx(), &select(9)).await.unwrap().try_collect().await.unwrap();
        assert!(read.len() == 3 && read.iter().all(|series| series.labels == there), "{read:?}");
        let panicked = client.label_names(&ctx(), &LabelsSelect::default()).await.unwrap_err();
        assert_eq!(panicked.kind, Kind::Internal);
    });
}

#[tokio::test]
async fn a_cancelled_question_ends_its_stream() {
    let routes = Routes::new(MetricsStoreServer::service(Arc::new(Fake)));
    let channel = channel::local("test", routes, &tokio::runtime::Handle::current(), Shutdown::new());
    let asked = ctx();
    let mut endless = MetricsStoreClient::new(channel).select(&asked, &select(0)).await.unwrap();
    assert!(endless.next().await.unwrap().is_ok());
    asked.cancel();
    let ended = loop {
        match endless.next().await {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert_eq!(ended.unwrap().unwrap_err().kind, Kind::Cancelled);
}

#[tokio::test]
async fn a_connection_that_breaks_may_be_tried_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        use tokio::io::AsyncReadExt;
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            // The request has arrived when the process dies.
            let mut bytes = [0; 1024];
            while !bytes.windows(5).any(|w| w == b"batch") {
                if socket.read(&mut bytes).await.is_ok_and(|count| count == 0) {
                    break;
                }
            }
        }
    });
    let ingest = IngestClient::new(channel::connect(&address).unwrap());
    let write = WriteContext { tenant: TenantId::new("team").unwrap() };
    let broken = ingest.push(&write, Signal::Logs, Bytes::from_static(b"batch")).await.unwrap_err();
    assert_eq!(broken.kind, Kind::Unavailable, "{broken}");
    let refused = IngestClient::new(channel::connect("127.0.0.1:1").unwrap());
    let refused = refused.push(&write, Signal::Logs, Bytes::from_static(b"batch")).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unavailable, "{refused}");
}

/// Passes connections on to `to`, until it is told to stand still: then those that are there say nothing more, and close nothing.
async fn passing_on(to: std::net::SocketAddr, stands_still: tokio::sync::watch::Receiver<bool>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut stands_still = stands_still.clone();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                let still = async { drop(stands_still.wait_for(|stands_still| *stands_still).await) };
                tokio::select! {
                    () = still => std::future::pending::<()>().await,
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                }
            });
        }
    });
    address
}

/// A machine that stands still, or is cut off, closes no connection: who waits for it is told after twice the silence.
#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up() {
    const SILENCE: Duration = Duration::from_millis(400);
    let (stand_still, stands_still) = tokio::sync::watch::channel(false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let incoming = futures::stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.map(|(connection, _)| connection);
        Some((accepted, listener))
    });
    let routes = Routes::new(IngestServer::service(Arc::new(Fake)));
    tokio::spawn(channel::server().add_routes(routes).serve_with_incoming(Box::pin(incoming)));
    let address = passing_on(server, stands_still).await;
    let ingest = IngestClient::new(channel::connect_while_heard_of(&address, SILENCE).unwrap());
    let write = WriteContext { tenant: TenantId::new("team").unwrap() };
    let push = async || ingest.push(&write, Signal::Logs, Bytes::from_static(b"batch")).await;
    push().await.unwrap();
    // Silent for long, and there all the same.
    tokio::time::sleep(3 * SILENCE).await;
    push().await.unwrap();
    stand_still.send_replace(true);
    let asked_at = tokio::time::Instant::now();
    let given_up =
        tokio::time::timeout(Duration::from_secs(30), push()).await.expect("waits for ever").unwrap_err();
    assert_eq!(given_up.kind, Kind::Unavailable, "{given_up}");
    assert!(asked_at.elapsed() >= SILENCE / 2, "{:?}", asked_at.elapsed());
    // It is back, and reached by another connection.
    stand_still.send_replace(false);
    push().await.unwrap();

    // One that took the connection, and never said anything at all.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let ingest = IngestClient::new(channel::connect_while_heard_of(&address, SILENCE).unwrap());
    let push = ingest.push(&write, Signal::Logs, Bytes::from_static(b"batch"));
    let given_up =
        tokio::time::timeout(Duration::from_secs(30), push).await.expect("waits for ever").unwrap_err();
    assert_eq!(given_up.kind, Kind::Unavailable, "{given_up}");
}
