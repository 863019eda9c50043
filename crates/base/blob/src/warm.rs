//! Opening what will be asked for before anybody asks.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use triptych_model::Result;

/// Opened at one time.
const OPENS_AT_ONCE: usize = 4;

/// What was opened ahead of questions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WarmReport {
    /// Blocks, or index files, that were wanted.
    pub wanted: usize,
    /// What was opened now, of them or of what replaced such a one; others were open before, or there was no room.
    pub opened: usize,
    /// What could not be opened, one sentence each; a question will try again.
    pub failed: Vec<String>,
}

impl WarmReport {
    /// Opens one after the other, some side by side, until `room` bytes are full, about. `bytes` says how many one takes.
    pub async fn open<T>(
        &mut self,
        opens: impl IntoIterator<Item = impl Future<Output = Result<Arc<T>>>>,
        mut room: u64,
        bytes: impl Fn(&T) -> usize,
    ) {
        let mut opens = stream::iter(opens).buffered(OPENS_AT_ONCE);
        while room > 0
            && let Some(opened) = opens.next().await
        {
            match opened {
                Ok(one) => {
                    self.opened += 1;
                    room = room.saturating_sub(bytes(&one) as u64);
                }
                Err(error) => self.failed.push(error.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use triptych_model::Error;

    use super::*;

    #[tokio::test]
    async fn until_there_is_no_more_room() {
        let open = |size: usize| async move {
            if size == 0 { Err(Error::damaged("broken")) } else { Ok(Arc::new(size)) }
        };
        let mut report = WarmReport::default();
        report.open([0, 10, 10, 10].map(open), 15, |size| *size).await;
        assert_eq!((report.opened, report.failed), (2, vec!["broken".to_owned()]));
        let mut report = WarmReport::default();
        report.open([10].map(open), 0, |size| *size).await;
        assert_eq!(report, WarmReport::default());
    }
}
