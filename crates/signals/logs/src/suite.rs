//! Every read over {head, bucket store, both merged} gives the same answer.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use triptych_blob::Bucket;
use triptych_blob::object_store::memory::InMemory;
use triptych_model::batch::{LogRecordEntry, LogsBuilder};
use triptych_model::logs::{Direction, EntrySelect, LogEntry, LogSamples, SampleSelect, StreamsSelect};
use triptych_model::{Labels, MatchOp, Matcher, Result, TenantId};
use triptych_runtime::QueryContext;

use crate::{BucketStore, BucketStoreConfig, FlushOptions, Head, HeadConfig, merge_entries, merge_samples};

pub const START_NS: i64 = 1_700_000_000_000_000_000;
pub const SECOND_NS: i64 = 1_000_000_000;

#[derive(Debug, Clone)]
pub struct Line {
    pub stream: Labels,
    pub ts_ns: i64,
    pub line: String,
    pub metadata: Labels,
}

pub fn batch(lines: &[Line]) -> LogsBuilder {
    let mut out = LogsBuilder::default();
    for part in lines.chunk_by(|a, b| a.stream == b.stream) {
        let entries: Vec<LogRecordEntry<'_>> = part
            .iter()
            .map(|l| LogRecordEntry { ts_ns: l.ts_ns, line: &l.line, metadata: l.metadata.as_encoded() })
            .collect();
        out.stream(part[0].stream.hash64(), part[0].stream.as_encoded(), entries.into_iter());
    }
    out
}

/// Two days of three apps, some lines out of order, some at the same instant, some with metadata.
pub fn lines() -> Vec<Line> {
    let mut out = Vec::new();
    for i in 0..3000i64 {
        let app = ["web", "db", "cron"][(i * 7 % 3) as usize];
        let mut pairs = vec![("app", app.to_owned()), ("pod", format!("{app}-{}", i % 2))];
        if app == "web" {
            pairs.push(("env", "prod".to_owned()));
        }
        let back = if i % 11 == 0 { 90 } else { 0 };
        let metadata: Vec<(&str, String)> = if i % 4 == 0 {
            vec![("trace_id", format!("t{}", i % 50)), ("user", "u1".into())]
        } else {
            vec![]
        };
        let line = match i % 3 {
            0 => format!("level=info msg=\"request {i}\" duration={}ms", i % 700),
            1 => format!("{{\"level\":\"error\",\"status\":{},\"n\":{i}}}", 500 + i % 4),
            _ => format!("plain text {i} äöü"),
        };
        out.push(Line {
            stream: Labels::from_pairs(pairs),
            ts_ns: START_NS + (i / 2 * 2 * 55 - back) * SECOND_NS,
            line,
            metadata: Labels::from_pairs(metadata),
        });
    }
    out
}

pub fn small_blocks() -> HeadConfig {
    HeadConfig { block_bytes: 2048, chunk_bytes: 4096, ..HeadConfig::default() }
}

pub fn head_of(lines: &[Line]) -> Head {
    head_with(lines, small_blocks())
}

pub fn head_with(lines: &[Line], config: HeadConfig) -> Head {
    let head = Head::new(config);
    for part in lines.chunks(100) {
        let report = head.append(batch(part).plain()).unwrap();
        assert_eq!((report.accepted, report.refused_items()), (part.len() as u64, 0), "{report:?}");
    }
    head
}

pub fn tenant() -> TenantId {
    TenantId::new("team-a").unwrap()
}

pub async fn flushed(heads: &[&Head], bucket: &Bucket) -> BucketStore {
    for (i, head) in heads.iter().enumerate() {
        let options = FlushOptions::new(format!("node-{i}"), START_NS + i as i64 * SECOND_NS);
        head.flush(bucket, &tenant(), &options).await.unwrap();
    }
    let store = BucketStore::new(bucket.clone(), BucketStoreConfig::default());
    let report = store.sync().await.unwrap();
    assert!(report.new > 0);
    store
}

pub fn memory() -> Bucket {
    Arc::new(InMemory::new())
}

pub async fn collect<T>(stream: BoxStream<'static, Result<Vec<T>>>) -> Vec<T> {
    let batches: Vec<_> = stream.collect().await;
    batches.into_iter().flat_map(|b| b.unwrap()).collect()
}

/// The sources that are compared.
pub enum Source {
    Head(Head),
    Bucket(BucketStore),
    Both(Vec<Source>),
}

impl Source {
    pub async fn entries(
        &self,
        ctx: &QueryContext,
        select: &EntrySelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogEntry>>>> {
        match self {
            Source::Head(head) => head.entries(ctx, select).await,
            Source::Bucket(store) => store.entries(ctx, select).await,
            Source::Both(all) => {
                let mut streams = Vec::new();
                for one in all {
                    streams.push(Box::pin(one.entries(ctx, select)).await?);
                }
                Ok(merge_entries(streams, select.direction, select.limit))
            }
        }
    }

    pub async fn samples(
        &self,
        ctx: &QueryContext,
        select: &SampleSelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogSamples>>>> {
        match self {
            Source::Head(head) => head.samples(ctx, select).await,
            Source::Bucket(store) => store.samples(ctx, select).await,
            Source::Both(all) => {
                let mut streams = Vec::new();
                for one in all {
                    streams.push(Box::pin(one.samples(ctx, select)).await?);
                }
                Ok(merge_samples(streams))
            }
        }
    }
}

async fn sources(lines: &[Line]) -> Vec<(&'static str, Source)> {
    let head = head_of(lines);
    let bucket = memory();
    let store = flushed(&[&head], &bucket).await;
    // Halves with an overlap: one in a head, one in the bucket.
    let (first, second) = (head_of(&lines[..2000]), head_of(&lines[1500..]));
    let half = flushed(&[&first], &memory()).await;
    // The whole twice, as after a crash between upload and truncation.
    let both = Source::Both(vec![Source::Head(head_of(lines)), Source::Bucket(store.clone())]);
    // Three ingesters of which each missed another third of the lines, with blocks cut at other places.
    let replica = |n: usize| {
        let seen: Vec<Line> =
            lines.iter().enumerate().filter(|(i, _)| i / 10 % 3 != n).map(|(_, l)| l.clone()).collect();
        Source::Head(head_with(&seen, HeadConfig { block_bytes: 1024 << n, ..small_blocks() }))
    };
    let replicas = Source::Both((0..3).map(replica).collect());
    vec![
        ("replicas", replicas),
        ("head", Source::Head(head)),
        ("bucket", Source::Bucket(store)),
        ("halves", Source::Both(vec![Source::Head(second), Source::Bucket(half)])),
        ("copies", both),
    ]
}

/// What is compared: batches and the order at one instant do not matter.
fn comparable(mut entries: Vec<LogEntry>, direction: Direction) -> Vec<(i64, u64, String, String)> {
    match direction {
        Direction::Forward => assert!(entries.is_sorted_by_key(|e| e.ts_ns)),
        Direction::Backward => assert!(entries.is_sorted_by_key(|e| std::cmp::Reverse(e.ts_ns))),
    }
    entries.sort_by_key(|e| (e.ts_ns, e.key));
    let text = |e: LogEntry| {
        let labels = format!("{} {} {}", e.labels, e.metadata, e.parsed);
        (e.ts_ns, e.key, labels, String::from_utf8(e.line.to_vec()).unwrap())
    };
    entries.into_iter().map(text).collect()
}

#[tokio::test]
async fn entries_are_the_same_everywhere() {
    let lines = lines();
    let sources = sources(&lines).await;
    let end_ns = START_NS + 3000 * 55 * SECOND_NS;
    let expect = |expr: &str, keep: &dyn Fn(&Line) -> bool| {
        let want: Vec<Line> = lines.iter().filter(|l| keep(l)).cloned().collect();
        (expr.to_owned(), want)
    };
    let cases = [
        expect(r#"{app="web"}"#, &|l| l.stream.value("app") == "web"),
        expect(r#"{app=~"db|cron"} |= "plain""#, &|l| {
            l.stream.value("app") != "web" && l.line.contains("plain")
        }),
        expect(r#"{app=~".+"} |~ "request [0-9]*7""#, &|l| {
            l.line.contains("request") && {
                let digits: String = l
                    .line
                    .chars()
                    .skip_while(|c| !c.is_ascii_digit())
                    .take_while(|c| c.is_ascii_digit())
                    .collect();
                digits.contains('7')
            }
        }),
        expect(r#"{app=~".+"} | json | status="501""#, &|l| l.line.contains("\"status\":501")),
        expect(r#"{app=~".+"} | trace_id="t4""#, &|l| l.metadata.value("trace_id") == "t4"),
        expect(r#"{app=~".+", env=""} |= "nowhere""#, &|_| false),
        expect(r#"{app="none"}"#, &|_| false),
    ];
    for (expr, want) in &cases {
        for (start_ns, end_ns) in
            [(0, end_ns), (START_NS + 40_000 * SECOND_NS, START_NS + 90_000 * SECOND_NS)]
        {
            let mut want: Vec<(i64, &str)> = want
                .iter()
                .filter(|l| l.ts_ns >= start_ns && l.ts_ns < end_ns)
                .map(|l| (l.ts_ns, l.line.as_str()))
                .collect();
            want.sort();
            for direction in [Direction::Forward, Direction::Backward] {
                for limit in [0, 1, 37] {
                    let select = EntrySelect { expr: expr.clone(), start_ns, end_ns, direction, limit };
                    let mut first: Option<Vec<(i64, u64, String, String)>> = None;
                    for (name, source) in &sources {
                        let ctx = QueryContext::unlimited(tenant());
                        let got = collect(source.entries(&ctx, &select).await.unwrap()).await;
                        assert!(ctx.report().missed.is_empty(), "{:?}", ctx.report());
                        let got = comparable(got, direction);
                        if limit == 0 {
                            let mut lines: Vec<(i64, &str)> =
                                got.iter().map(|g| (g.0, g.3.as_str())).collect();
                            lines.sort();
                            assert_eq!(lines, want, "{name} {select:?}");
                        } else {
                            // At the limit's instant any of its lines will do.
                            assert_eq!(got.len(), want.len().min(limit), "{name} {select:?}");
                            let mut times: Vec<i64> = want.iter().map(|w| w.0).collect();
                            if direction == Direction::Backward {
                                times.reverse();
                            }
                            times.truncate(limit);
                            times.sort();
                            assert_eq!(
                                got.iter().map(|g| g.0).collect::<Vec<_>>(),
                                times,
                                "{name} {select:?}"
                            );
                        }
                        match &first {
                            None => first = Some(got),
                            Some(first) if limit == 0 => assert_eq!(&got, first, "{name} {select:?}"),
                            Some(_) => {}
                        }
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn samples_are_the_same_everywhere() {
    let lines = lines();
    let sources = sources(&lines).await;
    for (expr, want) in [
        (r#"rate({app="web"}[5m])"#, 1000.0),
        (r#"sum by (app) (count_over_time({app=~".+"} |= "request" [1m]))"#, 1000.0),
        (
            r#"sum(bytes_over_time({app="db"}[1m]))"#,
            lines.iter().filter(|l| l.stream.value("app") == "db").map(|l| l.line.len() as f64).sum(),
        ),
        (r#"sum_over_time({app=~".+"} | json | status!="" | unwrap status [1m])"#, {
            (0..3000).filter(|i| i % 3 == 1).map(|i| 500.0 + f64::from(i % 4)).sum()
        }),
    ] {
        let select = SampleSelect { expr: expr.to_owned(), start_ns: 0, end_ns: i64::MAX, shard: None };
        let mut first: Option<Vec<(i64, u64, String, f64)>> = None;
        for (name, source) in &sources {
            let ctx = QueryContext::unlimited(tenant());
            let got = collect(source.samples(&ctx, &select).await.unwrap()).await;
            let got: Vec<_> = got
                .iter()
                .flat_map(|run| run.samples.iter().map(|s| (run.stream, *s, &run.series[s.series as usize])))
                .collect();
            assert!(got.is_sorted_by_key(|(stream, s, _)| (*stream, s.ts_ns)));
            assert_eq!(got.iter().map(|(_, s, _)| s.value).sum::<f64>(), want, "{name} {expr}");
            let mut got: Vec<_> =
                got.into_iter().map(|(_, s, labels)| (s.ts_ns, s.key, labels.to_string(), s.value)).collect();
            got.sort_by_key(|s| (s.0, s.1));
            match &first {
                None => first = Some(got),
                Some(first) => assert_eq!(&got, first, "{name} {expr}"),
            }
        }
    }
}

#[tokio::test]
async fn labels_and_figures_are_the_same_everywhere() {
    let lines = lines();
    let head = head_of(&lines);
    let store = flushed(&[&head], &memory()).await;
    let ctx = QueryContext::unlimited(tenant());
    let web = vec![Matcher::equal("app", "web")];
    let not_web = vec![Matcher::new(MatchOp::NotEqual, "app", "web").unwrap()];
    for sets in [vec![], vec![web.clone()], vec![not_web.clone()], vec![web, not_web]] {
        for range in [(0, 0), (START_NS, START_NS + 50_000 * SECOND_NS), (1, 2)] {
            let select =
                StreamsSelect { matcher_sets: sets.clone(), start_ns: range.0, end_ns: range.1, limit: 0 };
            let series = head.series(&ctx, &select).await.unwrap();
            assert_eq!(series, store.series(&ctx, &select).await.unwrap(), "{select:?}");
            if range.0 == 0 {
                let mut want: Vec<Labels> = lines
                    .iter()
                    .map(|l| l.stream.clone())
                    .filter(|l| sets.is_empty() || sets.iter().any(|s| s.iter().all(|m| m.matches_labels(l))))
                    .collect();
                want.sort();
                want.dedup();
                assert_eq!(series, want);
            }
            let names = head.label_names(&ctx, &select).await.unwrap();
            assert_eq!(names, store.label_names(&ctx, &select).await.unwrap());
            for name in ["app", "pod", "env", "none"] {
                let values = head.label_values(&ctx, name, &select).await.unwrap();
                assert_eq!(
                    values,
                    store.label_values(&ctx, name, &select).await.unwrap(),
                    "{name} {select:?}"
                );
            }
            let stats = [head.stats(&ctx, &select).await.unwrap(), store.stats(&ctx, &select).await.unwrap()];
            assert_eq!(stats[0].streams, stats[1].streams);
            if range.0 == 0 {
                assert_eq!(stats[0].entries, stats[1].entries);
                assert_eq!(stats[0].chunks, stats[1].chunks);
                // The index counts kilobytes of a chunk, and the text of its symbols.
                let error = stats[0].bytes.abs_diff(stats[1].bytes);
                assert!(error <= stats[0].chunks * 1024, "{stats:?}");
            } else {
                // Shares of chunks in the one, of blocks in the other.
                assert!(stats[0].entries.abs_diff(stats[1].entries) <= stats[0].entries / 10, "{stats:?}");
            }
            let by_app = ["app".to_owned()];
            let volumes = [
                head.volume(&ctx, &select, &by_app).await.unwrap(),
                store.volume(&ctx, &select, &by_app).await.unwrap(),
            ];
            let apps = |i: usize| {
                let mut apps: Vec<String> = volumes[i].iter().map(|v| v.labels.to_string()).collect();
                apps.sort();
                apps
            };
            assert_eq!(apps(0), apps(1));
            let total: u64 = volumes[0].iter().map(|v| v.bytes).sum();
            assert!(total.abs_diff(stats[0].bytes) <= 3, "{total} {stats:?}");
        }
    }
    let fields = EntrySelect {
        expr: r#"{app=~".+"}"#.into(),
        start_ns: 0,
        end_ns: i64::MAX,
        direction: Direction::Backward,
        limit: 3000,
    };
    let found = head.detected_fields(&ctx, &fields).await.unwrap();
    assert_eq!(found, store.detected_fields(&ctx, &fields).await.unwrap());
    let of = |name: &str| found.iter().find(|f| f.label == name).unwrap();
    assert_eq!((of("status").kind.as_str(), of("status").cardinality), ("int", 4));
    assert_eq!(of("status").parsers, ["json"]);
    assert_eq!(
        (of("duration").kind.as_str(), of("duration").parsers.as_slice()),
        ("duration", &["logfmt".to_owned()][..])
    );
    assert_eq!(of("level").parsers, ["json", "logfmt"]);
    assert_eq!((of("user").cardinality, of("user").parsers.len()), (1, 0));
    for name in ["status", "duration", "level", "user", "no_such_field"] {
        let values = head.detected_field_values(&ctx, name, &fields).await.unwrap();
        assert_eq!(values, store.detected_field_values(&ctx, name, &fields).await.unwrap());
        let known = found.iter().find(|f| f.label == name).map_or(0, |f| f.cardinality);
        assert!(values.len() as u64 == known && values.is_sorted(), "{name}: {values:?}");
    }
    assert!(ctx.report().missed.is_empty());
}

/// Real logs, where they are at hand.
#[tokio::test]
async fn loghub_round_trip() {
    let Ok(files) = std::fs::read_dir("../../../../shared/data/loghub") else { return };
    let mut lines = Vec::new();
    for file in files.flatten().filter(|f| f.path().extension().is_some_and(|e| e == "log")) {
        let name = file.file_name().to_string_lossy().into_owned();
        let text = String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).into_owned();
        for (i, line) in text.lines().enumerate() {
            lines.push(Line {
                stream: Labels::from_pairs([("file", name.as_str())]),
                ts_ns: START_NS + i as i64 * SECOND_NS,
                line: line.to_owned(),
                metadata: Labels::empty(),
            });
        }
    }
    let head =
        Head::new(HeadConfig { block_bytes: 64 << 10, chunk_bytes: 16 << 10, ..HeadConfig::default() });
    assert_eq!(head.append(batch(&lines).plain()).unwrap().accepted, lines.len() as u64);
    let store = flushed(&[&head], &memory()).await;
    for source in [Source::Head(head), Source::Bucket(store)] {
        for needle in ["", "error", "Failed password"] {
            let select = EntrySelect {
                expr: format!("{{file=~\".+\"}} |= \"{needle}\""),
                start_ns: 0,
                end_ns: i64::MAX,
                direction: Direction::Forward,
                limit: 0,
            };
            let ctx = QueryContext::unlimited(tenant());
            let got = collect(source.entries(&ctx, &select).await.unwrap()).await;
            let mut got: Vec<(String, i64, String)> = got
                .into_iter()
                .map(|e| {
                    (e.labels.value("file").to_owned(), e.ts_ns, String::from_utf8(e.line.to_vec()).unwrap())
                })
                .collect();
            got.sort();
            let mut want: Vec<(String, i64, String)> = lines
                .iter()
                .filter(|l| l.line.contains(needle))
                .map(|l| (l.stream.value("file").to_owned(), l.ts_ns, l.line.clone()))
                .collect();
            want.sort();
            assert!(got == want, "{needle}: {} and {}", got.len(), want.len());
        }
    }
}
