//! New lines as they arrive. One channel per head; a reader that is too slow loses batches and is told. What waits for slow readers is
//! bounded by the number of batches ([`super::HeadConfig::tail_batches`]) times their bytes (64 KiB, or one longer line).

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use hashbrown::HashSet;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use triptych_model::logs::{Direction, EntrySelect, LogEntry};
use triptych_model::{Matcher, Result};
use triptych_runtime::QueryContext;

use super::Head;
use super::stream::TailEntry;
use crate::leaf::{EntryLeaf, TailPipeline};
use crate::scan::StreamInfo;

/// Most old lines a tail begins with.
const HISTORY_LINES_MAX: usize = 5000;
/// Text of the lines in one batch; more are sent as several.
const BATCH_BYTES: usize = 64 << 10;
/// Pipelines a tail keeps.
const PIPELINES_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct TailBatch {
    stream: Arc<StreamInfo>,
    entries: Vec<TailEntry>,
}

pub(crate) struct TailSender(broadcast::Sender<Arc<TailBatch>>);

impl TailSender {
    pub fn new(batches: usize) -> Self {
        Self(broadcast::Sender::new(batches.max(1)))
    }

    /// Somebody listens: collect what is appended.
    pub fn is_watched(&self) -> bool {
        self.0.receiver_count() > 0
    }

    pub fn send(&self, stream: Arc<StreamInfo>, entries: Vec<TailEntry>) {
        let send = |entries| {
            // Fails only when the last reader has just left.
            let _ = self.0.send(Arc::new(TailBatch { stream: stream.clone(), entries }));
        };
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        for entry in entries {
            let bytes = entry.line.len() + size_of::<TailEntry>();
            if batch_bytes + bytes > BATCH_BYTES && !batch.is_empty() {
                send(std::mem::take(&mut batch));
                batch_bytes = 0;
            }
            batch_bytes += bytes;
            batch.push(entry);
        }
        send(batch);
    }
}

struct Tail {
    ctx: QueryContext,
    leaf: Arc<EntryLeaf>,
    matchers: Vec<Matcher>,
    receiver: broadcast::Receiver<Arc<TailBatch>>,
    /// Lines that were in the head already and were shown: they may arrive through the channel as well.
    shown: HashSet<(i64, u64)>,
    start_ns: i64,
    /// By the address of the stream, which the entry keeps alive. `None`: the stream does not match.
    pipelines: hashbrown::HashMap<usize, (Arc<StreamInfo>, Option<TailPipeline>)>,
}

impl Head {
    /// Lines from `start_ns` on that are here (the newest 5000), then new ones as they arrive, until the context is cancelled or
    /// the head is dropped. A reader that cannot keep up loses lines; the context's report says so.
    pub async fn tail(
        &self,
        ctx: &QueryContext,
        expr: &str,
        start_ns: i64,
    ) -> Result<BoxStream<'static, Result<Vec<LogEntry>>>> {
        let leaf = Arc::new(EntryLeaf::compile(expr)?);
        // Subscribe first: what arrives meanwhile is in the channel.
        let receiver = self.0.tail.0.subscribe();
        let select = EntrySelect {
            expr: expr.to_owned(),
            start_ns,
            end_ns: i64::MAX,
            direction: Direction::Backward,
            limit: HISTORY_LINES_MAX,
        };
        let mut history = Vec::new();
        let mut stream = self.entries(ctx, &select).await?;
        while let Some(batch) = stream.next().await {
            history.extend(batch?);
        }
        history.reverse();
        let tail = Tail {
            ctx: ctx.clone(),
            matchers: leaf.matchers().to_vec(),
            leaf,
            receiver,
            shown: history.iter().map(|e| (e.ts_ns, e.key)).collect(),
            start_ns,
            pipelines: hashbrown::HashMap::new(),
        };
        let live = futures::stream::unfold(tail, |mut tail| async move {
            let batch = tail.next().await?;
            Some((Ok(batch), tail))
        });
        let first = futures::stream::iter((!history.is_empty()).then_some(Ok(history)));
        Ok(first.chain(live).boxed())
    }
}

impl Tail {
    async fn next(&mut self) -> Option<Vec<LogEntry>> {
        loop {
            let received = tokio::select! {
                biased;
                () = self.ctx.cancelled() => return None,
                received = self.receiver.recv() => received,
            };
            match received {
                Ok(batch) => {
                    let entries = self.filter(&batch);
                    if !entries.is_empty() {
                        return Some(entries);
                    }
                }
                Err(RecvError::Lagged(batches)) => {
                    self.ctx
                        .missed(format!("tail: the reader was too slow and lost {batches} batches of lines"));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn filter(&mut self, batch: &TailBatch) -> Vec<LogEntry> {
        let address = Arc::as_ptr(&batch.stream) as usize;
        if !self.pipelines.contains_key(&address) {
            if self.pipelines.len() >= PIPELINES_MAX {
                self.pipelines.clear();
            }
            let matches = self.matchers.iter().all(|m| m.matches_labels(&batch.stream.labels));
            let pipeline = matches.then(|| self.leaf.tail_pipeline(&batch.stream));
            self.pipelines.insert(address, (batch.stream.clone(), pipeline));
        }
        let Some((_, Some(pipeline))) = self.pipelines.get_mut(&address) else { return Vec::new() };
        let mut out = Vec::new();
        for entry in batch.entries.iter().filter(|e| e.ts_ns >= self.start_ns) {
            if let Some(entry) = pipeline.process(&batch.stream, entry.ts_ns, &entry.line, &entry.metadata)
                && (self.shown.is_empty() || !self.shown.remove(&(entry.ts_ns, entry.key)))
            {
                out.push(entry);
            }
        }
        out.sort_by_key(|e| e.ts_ns);
        out
    }
}
