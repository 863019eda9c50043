//! What LogQL needs from storage, and a source in memory for tests.

use async_trait::async_trait;
use futures::stream::BoxStream;
use triptych_model::Result;
use triptych_model::logs::{EntrySelect, LogEntry, LogSamples, SampleSelect};
use triptych_runtime::QueryContext;

/// Implemented by heads, the bucket's chunks, and the querier's merge over Store API clients. The pipeline runs inside the
/// source, next to the data. Order and limits: see the fields of the two selects.
///
/// Removing copies (of replicas, of head and bucket) is the source's work, by time and `key` of entry or sample: the evaluator
/// counts what it is given.
#[async_trait]
pub trait StreamSource: Send + Sync {
    async fn entries(
        &self,
        ctx: &QueryContext,
        select: &EntrySelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogEntry>>>>;

    async fn samples(
        &self,
        ctx: &QueryContext,
        select: &SampleSelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogSamples>>>>;
}

#[cfg(any(test, feature = "testing"))]
pub use memory::MemorySource;

#[cfg(any(test, feature = "testing"))]
mod memory {
    use bytes::Bytes;
    use futures::StreamExt;
    use triptych_model::Labels;
    use triptych_model::logs::{Direction, LogSample};
    use xxhash_rust::xxh3::Xxh3;

    use super::*;
    use crate::{LogLeaf, SampleLeaf};

    /// Entries per batch: small, so that tests see several.
    const BATCH: usize = 7;

    /// All entries in memory, in any order.
    #[derive(Debug, Clone, Default)]
    pub struct MemorySource {
        entries: Vec<Stored>,
    }

    #[derive(Debug, Clone)]
    struct Stored {
        stream: Labels,
        ts_ns: i64,
        line: String,
        metadata: Labels,
        key: u64,
    }

    impl MemorySource {
        pub fn push(&mut self, stream: &Labels, ts_ns: i64, line: &str, metadata: &Labels) {
            let mut hasher = Xxh3::new();
            for part in [stream.as_encoded(), line.as_bytes(), metadata.as_encoded()] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
            self.entries.push(Stored {
                stream: stream.clone(),
                ts_ns,
                line: line.to_owned(),
                metadata: metadata.clone(),
                key: hasher.digest(),
            });
        }

        /// In ascending order, copies removed.
        fn range(&self, start_ns: i64, end_ns: i64) -> Vec<&Stored> {
            let mut found: Vec<&Stored> =
                self.entries.iter().filter(|e| e.ts_ns >= start_ns && e.ts_ns < end_ns).collect();
            found.sort_by(|a, b| (a.ts_ns, &a.stream, a.key).cmp(&(b.ts_ns, &b.stream, b.key)));
            found.dedup_by_key(|e| (e.ts_ns, e.key));
            found
        }
    }

    fn batches<T: Send + 'static>(all: Vec<T>) -> BoxStream<'static, Result<Vec<T>>> {
        futures::stream::iter(all).chunks(BATCH).map(Ok).boxed()
    }

    #[async_trait]
    impl StreamSource for MemorySource {
        async fn entries(
            &self,
            ctx: &QueryContext,
            select: &EntrySelect,
        ) -> Result<BoxStream<'static, Result<Vec<LogEntry>>>> {
            let leaf = LogLeaf::compile(&select.expr)?;
            let mut found = self.range(select.start_ns, select.end_ns);
            if select.direction == Direction::Backward {
                found.reverse();
            }
            let mut out = Vec::new();
            for entry in found {
                if !leaf.matchers().iter().all(|m| m.matches_labels(&entry.stream)) {
                    continue;
                }
                ctx.add_rows(1)?;
                let mut pipeline = leaf.pipeline().for_stream(&entry.stream);
                if let Some(processed) = pipeline.process(entry.ts_ns, &entry.line, &entry.metadata) {
                    out.push(LogEntry {
                        line: Bytes::copy_from_slice(processed.line.as_bytes()),
                        labels: processed.labels,
                        metadata: processed.metadata,
                        parsed: processed.parsed,
                        ts_ns: entry.ts_ns,
                        key: entry.key,
                    });
                }
                if select.limit != 0 && out.len() == select.limit {
                    break;
                }
            }
            Ok(batches(out))
        }

        async fn samples(
            &self,
            ctx: &QueryContext,
            select: &SampleSelect,
        ) -> Result<BoxStream<'static, Result<Vec<LogSamples>>>> {
            let leaf = SampleLeaf::compile(&select.expr)?;
            let mut found = self.range(select.start_ns, select.end_ns);
            // Stable: the entries of a stream stay in the order of time.
            found.sort_by_key(|e| (e.stream.hash64(), e.stream.clone()));
            let mut out = Vec::new();
            for entry in found {
                if !leaf.matchers().iter().all(|m| m.matches_labels(&entry.stream))
                    || select.shard.is_some_and(|shard| !shard.has(&entry.stream))
                {
                    continue;
                }
                ctx.add_rows(1)?;
                let mut extractor = leaf.for_stream(&entry.stream);
                if let Some((value, labels)) = extractor.process(entry.ts_ns, &entry.line, &entry.metadata) {
                    let sample = LogSample { ts_ns: entry.ts_ns, key: entry.key, value, series: 0 };
                    let (stream, series) = (entry.stream.hash64(), vec![labels]);
                    out.push(LogSamples { stream, series, samples: vec![sample] });
                }
            }
            Ok(batches(out))
        }
    }
}
