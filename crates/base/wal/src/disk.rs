//! The few file operations that a log needs, from outside: the operating system's, or a simulated disk that loses and tears what
//! was not synced.

use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::BoxFuture;

/// A segment that is being written. Dropping it closes it without a sync.
pub trait SegmentFile: Send {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// `fdatasync`: the data and the length. This is what takes long on a disk, so it alone is a future: a simulated disk lets time
    /// pass in it, the operating system's blocks the writer's own thread.
    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>>;
    fn set_len(&mut self, bytes: u64) -> io::Result<()>;
}

/// A segment that is read back.
pub trait StoredFile: Send + Debug {
    /// Length in bytes.
    fn bytes(&self) -> io::Result<u64>;
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// Where segments are. Errors are those of the operating system.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Creates the directory and what leads to it, so that it is still there after power loss, and holds it for as long as the answer
    /// lives. `WouldBlock` where another process has it.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Debug + Send + Sync>>;
    /// Files of the directory and their lengths in bytes, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<(PathBuf, u64)>>;
    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>>;
    /// A new file; fails if there is one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Runs a log's one writer until it ends: on a thread of its own, which is the answer, or (simulated) as a task.
    fn run(&self, name: String, writer: BoxFuture<'static, ()>) -> io::Result<Option<JoinHandle<()>>>;
}

/// The operating system's.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

impl SegmentFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }
    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        async { self.sync_data() }.boxed()
    }
    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }
}

impl StoredFile for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl OsDisk {
    fn create_dir(self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                self.create_dir(parent)?;
                match std::fs::create_dir(dir) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                    _ => {}
                }
                self.sync_dir(parent)
            }
            _ => std::fs::create_dir_all(dir),
        }
    }
}

impl Disk for OsDisk {
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Debug + Send + Sync>> {
        self.create_dir(dir)?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join("LOCK"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Box::new(lock)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) => files.push((entry.path(), metadata.len())),
                // Removed meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(files)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(File::open(path)?))
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).open(path)?))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
    fn run(&self, name: String, writer: BoxFuture<'static, ()>) -> io::Result<Option<JoinHandle<()>>> {
        let thread = std::thread::Builder::new().name(name);
        thread.spawn(move || futures::executor::block_on(writer)).map(Some)
    }
}
