//! The blocks of one flush: one for each hour in which its traces began, so that all replicas of a trace meet when the blocks of that hour
//! are merged, whenever each of them was flushed.
//!
//! Traces stay whole. One that was alive at a full hour, and that a flush of only some replicas cut there, is in the blocks of two hours and
//! keeps copies. Hours that come up after [`WINDOWS_MAX`] others share one block: a sender whose clock is anywhere must not make a flush
//! write thousands.
//!
//! **Memory**: the row groups that are open hold no more together than one of a single block would; besides, what is compressed already of
//! each block, up to the size of a part.

use triptych_blob::Bucket;
use triptych_model::{Result, TenantId};

use super::upload::{BlockUpload, Uploaded};
use super::write::BlockOptions;
use crate::otlp::Trace;
use crate::view::Derived;

/// Length of a window, from one full hour to the next.
pub const WINDOW_S: i64 = 3600;
/// Windows of a flush that get a block of their own: those that come up first, which are those with the most traces.
const WINDOWS_MAX: usize = 4;

pub struct WindowUploads<'f> {
    bucket: &'f Bucket,
    tenant: &'f TenantId,
    options: &'f BlockOptions,
    /// By window; `None`: all others.
    uploads: Vec<(Option<u64>, BlockUpload)>,
}

impl<'f> WindowUploads<'f> {
    pub fn new(bucket: &'f Bucket, tenant: &'f TenantId, options: &'f BlockOptions) -> Self {
        Self { bucket, tenant, options, uploads: Vec::new() }
    }

    /// Adds a trace; ids must ascend.
    pub async fn add(&mut self, trace: &Trace<'_>) -> Result<()> {
        if trace.span_count() == 0 {
            return Ok(());
        }
        let derived = Derived::of(trace);
        let at = self.upload_of(derived.start_ns / (WINDOW_S as u64 * 1_000_000_000))?;
        self.uploads[at].1.add(trace, &derived).await?;
        let buffered_bytes: usize = self.uploads.iter().map(|(_, upload)| upload.buffered_bytes()).sum();
        let largest = self.uploads.iter_mut().max_by_key(|(_, upload)| upload.buffered_bytes());
        match largest {
            Some((_, largest)) if buffered_bytes >= self.options.row_group_bytes => {
                largest.close_row_group().await
            }
            _ => Ok(()),
        }
    }

    /// The position of the upload that a window's traces go to.
    fn upload_of(&mut self, window: u64) -> Result<usize> {
        let find = |window: Option<u64>| self.uploads.iter().position(|(of, _)| *of == window);
        if let Some(at) = find(Some(window)) {
            return Ok(at);
        }
        let own = self.uploads.iter().filter(|(of, _)| of.is_some()).count() < WINDOWS_MAX;
        let window = own.then_some(window);
        if let Some(at) = find(window) {
            return Ok(at);
        }
        self.uploads.push((window, BlockUpload::new(self.bucket, self.tenant, self.options, 0)?));
        Ok(self.uploads.len() - 1)
    }

    /// Gives up: what was uploaded is forgotten.
    pub async fn abort(self) {
        for (_, upload) in self.uploads {
            upload.abort().await;
        }
    }

    /// Writes the rest, block by block. Where one fails, those before it are there.
    pub async fn finish(self) -> Result<Vec<Uploaded>> {
        let (mut uploaded, mut uploads) = (Vec::new(), self.uploads.into_iter());
        while let Some((_, upload)) = uploads.next() {
            match upload.finish().await {
                Ok(block) => uploaded.extend(block),
                Err(error) => {
                    for (_, upload) in uploads {
                        upload.abort().await;
                    }
                    return Err(error);
                }
            }
        }
        Ok(uploaded)
    }
}
