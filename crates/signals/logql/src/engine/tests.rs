//! A test language for LogQL; the cases are in `testdata/*.test`.
//!
//! ```text
//! # comment
//! load                                      adds streams; `clear` forgets all
//!   {app="web"}
//!     10s  a line
//!     20s  @{user="7"} with metadata
//!     0s..60s/10s  n={n}                    one line every 10s, {n} counts from 0
//! eval logs 0s..60s [forward] [limit 5] QUERY
//!   10s {app="web"} | {metadata} | {parsed}  the line
//! eval instant 60s QUERY
//!   {labels} 1.5
//! eval range 0s..60s/10s QUERY
//!   {labels} 1 _ 3                          `_`: no value at this step
//! eval fail instant 60s QUERY
//!   part of the error's text
//! ```
//! Answers are compared as text and in order. `TRIPTYCH_COMPLETE=1 cargo test` writes the answers that came into the files:
//! read the difference before you keep it.

use std::fmt::Write;

use futures::StreamExt;
use futures::stream::BoxStream;
use triptych_model::logs::{Direction, LogEntry, LogSample, LogSamples, LogsQuery, LogsValue};
use triptych_model::metrics::QueryValue;
use triptych_model::{Labels, TenantId};
use triptych_runtime::QueryContext;

use super::{Engine, EngineConfig};
use crate::source::MemorySource;
use crate::syntax::parser::parse_selector;
use crate::syntax::units::{format_duration_ns, parse_duration_ns};

fn labels(text: &str) -> Labels {
    Labels::from_pairs(parse_selector(text).unwrap().into_iter().map(|m| (m.name, m.value)))
}

fn duration(text: &str) -> i64 {
    parse_duration_ns(text).unwrap_or_else(|| panic!("no duration: {text}"))
}

/// `a..b`, `a..b/step`, or one instant.
fn span(text: &str) -> (i64, i64, i64) {
    let (ends, step) = text.split_once('/').map_or((text, 0), |(ends, step)| (ends, duration(step)));
    let (start, end) = ends.split_once("..").unwrap_or((ends, ends));
    (duration(start), duration(end), step)
}

fn load(source: &mut MemorySource, stream: &Labels, text: &str) {
    let (when, line) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let line = line.trim_start();
    let (metadata, line) = match line.strip_prefix('@') {
        Some(rest) => {
            let end = rest.find('}').unwrap() + 1;
            (labels(&rest[..end]), rest[end..].trim_start())
        }
        None => (Labels::empty(), line),
    };
    let (mut t, end, step) = span(when);
    for n in 0.. {
        source.push(stream, t, &line.replace("{n}", &n.to_string()), &metadata);
        t += step;
        if step == 0 || t > end {
            break;
        }
    }
}

async fn answer(source: &MemorySource, command: &str) -> String {
    let (fail, command) = match command.strip_prefix("fail ") {
        Some(rest) => (true, rest),
        None => (false, command),
    };
    let (kind, rest) = command.split_once(' ').unwrap();
    let (when, mut expr) = rest.split_once(' ').unwrap();
    let (start_ns, end_ns, step_ns) = span(when);
    let mut query = LogsQuery {
        expr: String::new(),
        start_ns,
        end_ns,
        step_ns,
        direction: Direction::Backward,
        limit: 0,
        shard: None,
        interval_ns: 0,
    };
    if let Some(rest) = expr.strip_prefix("forward ") {
        query.direction = Direction::Forward;
        expr = rest;
    }
    if let Some(rest) = expr.strip_prefix("limit ") {
        let (limit, rest) = rest.split_once(' ').unwrap();
        query.limit = limit.parse().unwrap();
        expr = rest;
    }
    query.expr = expr.to_owned();
    assert!(matches!((kind, step_ns), ("logs" | "instant", 0) | ("range", 1..)), "{command}");
    let ctx = QueryContext::unlimited(TenantId::single());
    let engine = Engine::new(EngineConfig { series_max: 10, ..EngineConfig::default() });
    let result = engine.query(&ctx, source, &query).await;
    let mut out = String::new();
    match result {
        Err(e) if fail => writeln!(out, "  {e}").unwrap(),
        Err(e) => panic!("{expr}: {e}"),
        Ok(value) if fail => panic!("{expr} should fail, is {value:?}"),
        Ok(LogsValue::Entries(entries)) => {
            for e in entries {
                let line = String::from_utf8(e.line.to_vec()).unwrap().replace('\n', "\\n");
                let ts = format_duration_ns(e.ts_ns);
                writeln!(out, "  {ts} {} | {} | {} {line}", e.labels, e.metadata, e.parsed).unwrap();
            }
        }
        Ok(LogsValue::Metric(QueryValue::Scalar(s))) => writeln!(out, "  scalar {}", s.value).unwrap(),
        Ok(LogsValue::Metric(QueryValue::Vector(series))) => {
            for s in series {
                assert_eq!(s.samples.len(), 1);
                assert_eq!(s.samples[0].t_ms, end_ns / 1_000_000);
                writeln!(out, "  {} {}", s.labels, s.samples[0].value).unwrap();
            }
        }
        Ok(LogsValue::Metric(QueryValue::Matrix(series))) => {
            for s in series {
                write!(out, "  {}", s.labels).unwrap();
                let mut samples = s.samples.iter().peekable();
                let mut t = start_ns;
                while t <= end_ns {
                    match samples.next_if(|s| s.t_ms == t / 1_000_000) {
                        Some(s) => write!(out, " {}", s.value).unwrap(),
                        None => out.push_str(" _"),
                    }
                    t += step_ns;
                }
                assert!(samples.next().is_none(), "a sample off the steps: {expr}");
                out.push('\n');
            }
        }
        Ok(other) => panic!("{other:?}"),
    }
    out
}

/// Runs a file; gives back its text with the answers that came, and complaints.
async fn run(text: &str) -> (String, Vec<String>) {
    let mut source = MemorySource::default();
    let mut written = String::new();
    let mut complaints = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    let mut stream = Labels::empty();
    let mut loading = false;
    while let Some((number, line)) = lines.next() {
        if let Some(command) = line.strip_prefix("eval ") {
            loading = false;
            let mut want = String::new();
            while let Some((_, answer)) = lines.next_if(|(_, l)| l.starts_with("  ")) {
                want.push_str(answer);
                want.push('\n');
            }
            let got = answer(&source, command).await;
            let good = match command.starts_with("fail ") {
                true => !want.trim().is_empty() && got.contains(want.trim()),
                false => got == want,
            };
            writeln!(written, "{line}").unwrap();
            written.push_str(if good { &want } else { &got });
            if !good {
                complaints.push(format!("line {}: {command}\n wanted:\n{want} got:\n{got}", number + 1));
            }
            continue;
        }
        writeln!(written, "{line}").unwrap();
        match line.trim() {
            "" => {}
            comment if comment.starts_with('#') => {}
            "load" => loading = true,
            "clear" => source = MemorySource::default(),
            selector if loading && selector.starts_with('{') && !line.starts_with("    ") => {
                stream = labels(selector)
            }
            entry if loading && line.starts_with("    ") => load(&mut source, &stream, entry),
            other => panic!("line {}: {other:?}", number + 1),
        }
    }
    (written, complaints)
}

#[tokio::test]
async fn testdata() {
    let mut files: Vec<_> = std::fs::read_dir("testdata").unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "test"));
    files.sort();
    assert!(!files.is_empty());
    let mut all = Vec::new();
    for file in files {
        let (written, complaints) = run(&std::fs::read_to_string(&file).unwrap()).await;
        if std::env::var_os("TRIPTYCH_COMPLETE").is_some() {
            std::fs::write(&file, written).unwrap();
        } else {
            all.extend(complaints.into_iter().map(|c| format!("{} {c}", file.display())));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[tokio::test]
async fn a_wrong_answer_is_noticed() {
    let text = "load\n  {a=\"b\"}\n    1s x\neval instant 5s sum(count_over_time({a=\"b\"}[10s]))\n  {} 2\n";
    let (written, complaints) = run(text).await;
    assert_eq!(complaints.len(), 1);
    assert_eq!(written, text.replace("{} 2", "{} 1"));
}

#[tokio::test]
async fn memory_is_limited() {
    let mut source = MemorySource::default();
    for i in 0..2000 {
        source.push(&labels(&format!("{{app=\"{i}\"}}")), i, "line", &Labels::empty());
    }
    let limits = triptych_runtime::QueryLimits { memory_bytes_max: 50_000, ..Default::default() };
    let mut query = LogsQuery {
        expr: r#"count_over_time({app=~".+"}[1m])"#.to_owned(),
        start_ns: 0,
        end_ns: 1_000_000,
        step_ns: 0,
        direction: Direction::Forward,
        limit: 0,
        shard: None,
        interval_ns: 0,
    };
    let engine = Engine::default();
    for expr in [r#"count_over_time({app=~".+"}[1m])"#, r#"{app=~".+"}"#] {
        query.expr = expr.to_owned();
        let ctx = QueryContext::new(TenantId::single(), limits);
        let e = engine.query(&ctx, &source, &query).await.unwrap_err();
        assert_eq!(e.kind, triptych_model::Kind::Exhausted, "{e}");
    }
}

/// A stream without end, whose batches nobody should ask for after the limit.
struct Endless;

#[async_trait::async_trait]
impl crate::StreamSource for Endless {
    async fn entries(
        &self,
        _: &QueryContext,
        select: &triptych_model::logs::EntrySelect,
    ) -> triptych_model::Result<BoxStream<'static, triptych_model::Result<Vec<LogEntry>>>> {
        assert_eq!(select.limit, 25);
        let entry = LogEntry {
            labels: Labels::empty(),
            metadata: Labels::empty(),
            parsed: Labels::empty(),
            ts_ns: 1,
            line: "x".into(),
            key: 0,
        };
        Ok(futures::stream::repeat_with(move || Ok(vec![entry.clone(); 10])).boxed())
    }

    async fn samples(
        &self,
        _: &QueryContext,
        _: &triptych_model::logs::SampleSelect,
    ) -> triptych_model::Result<BoxStream<'static, triptych_model::Result<Vec<LogSamples>>>> {
        let samples = vec![LogSample { ts_ns: 1, key: 0, value: 1.0, series: 0 }; 10];
        let run = LogSamples { stream: 0, series: vec![Labels::empty()], samples };
        Ok(futures::stream::repeat_with(move || Ok(vec![run.clone()])).boxed())
    }
}

fn ask(expr: &str) -> LogsQuery {
    LogsQuery {
        expr: expr.to_owned(),
        start_ns: 0,
        end_ns: 100,
        step_ns: 0,
        direction: Direction::Forward,
        limit: 25,
        shard: None,
        interval_ns: 0,
    }
}

#[tokio::test]
async fn log_queries_stop_at_the_limit() {
    let ctx = QueryContext::unlimited(TenantId::single());
    match Engine::default().query(&ctx, &Endless, &ask(r#"{a="b"}"#)).await.unwrap() {
        LogsValue::Entries(entries) => assert_eq!(entries.len(), 25),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_interval_thins_lines_out_in_both_directions() {
    let mut source = MemorySource::default();
    for ts_ns in [0, 1, 4, 5, 9, 10, 20] {
        source.push(&labels(r#"{app="a"}"#), ts_ns, "x", &Labels::empty());
    }
    let ctx = QueryContext::unlimited(TenantId::single());
    for (direction, limit, expected) in [
        (Direction::Forward, 0, &[0, 5, 10, 20][..]),
        (Direction::Forward, 3, &[0, 5, 10]),
        (Direction::Backward, 0, &[20, 10, 5, 0]),
    ] {
        let query = LogsQuery { direction, limit, interval_ns: 5, ..ask(r#"{app="a"}"#) };
        match Engine::default().query(&ctx, &source, &query).await.unwrap() {
            LogsValue::Entries(entries) => {
                assert_eq!(entries.iter().map(|e| e.ts_ns).collect::<Vec<_>>(), expected);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn metric_queries_can_be_cancelled() {
    let limits =
        triptych_runtime::QueryLimits { timeout: std::time::Duration::from_millis(50), ..Default::default() };
    let ctx = QueryContext::new(TenantId::single(), limits);
    let e = Engine::default().query(&ctx, &Endless, &ask(r#"rate({a="b"}[1m])"#)).await.unwrap_err();
    assert!(e.message.contains("timed out"), "{e}");
}

#[tokio::test]
async fn the_longest_chain_of_operators_is_evaluated() {
    let ctx = QueryContext::unlimited(TenantId::single());
    let max = crate::syntax::parser::OPERATORS_MAX;
    for step in ["+vector(1)", "+1"] {
        let expr = format!("vector(1){}", step.repeat(max));
        match Engine::default().query(&ctx, &MemorySource::default(), &ask(&expr)).await.unwrap() {
            LogsValue::Metric(QueryValue::Vector(series)) => {
                assert_eq!(series[0].samples[0].value, max as f64 + 1.0)
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn long_queries_reach_the_leaf() {
    // In the canonical text each backslash counts double.
    let ctx = QueryContext::unlimited(TenantId::single());
    let expr = format!("{{a=\"b\"}} |= `{}`", "\\".repeat(crate::syntax::lexer::QUERY_BYTES_MAX - 20));
    let answer = Engine::default().query(&ctx, &MemorySource::default(), &ask(&expr)).await.unwrap();
    assert_eq!(answer, LogsValue::Entries(Vec::new()));
}
