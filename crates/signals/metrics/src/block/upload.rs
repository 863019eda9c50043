//! An object that grows: small writes are gathered, large objects go up in parts.

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use triptych_blob::Bucket;
use triptych_blob::object_store::buffered::BufWriter;
use triptych_blob::object_store::path::Path;
use triptych_model::{Error, Result};

/// Part size. S3 wants 5 MiB at least and 10,000 parts at most.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way at one time.
const PARTS_MAX: usize = 4;
const GATHER_BYTES: usize = 256 << 10;

pub(super) struct Upload {
    writer: BufWriter,
    gathered: BytesMut,
    position: u64,
    path: Path,
}

impl Upload {
    pub fn new(bucket: &Bucket, path: Path) -> Self {
        let writer = BufWriter::with_capacity(bucket.clone(), path.clone(), PART_BYTES)
            .with_max_concurrency(PARTS_MAX);
        Self { writer, gathered: BytesMut::new(), position: 0, path }
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
        self.position += bytes.len() as u64;
    }

    /// Zeros up to a multiple of `alignment`.
    pub fn align(&mut self, alignment: u64) {
        let missing = self.position.next_multiple_of(alignment) - self.position;
        self.gathered.resize(self.gathered.len() + missing as usize, 0);
        self.position += missing;
    }

    /// Sends what was gathered when it is enough. To be called between records.
    pub async fn drain(&mut self) -> Result<()> {
        if self.gathered.len() >= GATHER_BYTES { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> Result<()> {
        let bytes: Bytes = self.gathered.split().freeze();
        if bytes.is_empty() {
            return Ok(());
        }
        self.writer.put(bytes).await.map_err(|e| super::bucket_error(format!("writing {}", self.path), e))
    }

    /// The object exists after this. Returns its size.
    pub async fn finish(mut self) -> Result<u64> {
        self.send().await?;
        self.writer
            .shutdown()
            .await
            .map_err(|e| Error::unavailable(format!("writing {}: {e}", self.path)))?;
        Ok(self.position)
    }

    /// Gives up; parts that were sent are removed as far as possible.
    pub async fn abort(mut self) {
        let _ = self.writer.abort().await;
    }
}
