use std::sync::Arc;
use tokio::sync::broadcast;
use super::stream::TailEntry;
use crate::scan::StreamInfo;
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
        // Fails only when the last reader has just left.
        let _ = self.0.send(Arc::new(TailBatch { stream, entries }));
    }
}

