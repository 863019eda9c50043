//! A disk that can lose what was not synced, tear it, be full, fail and be slow.
//!
//! A file has bytes that the operating system holds and a part of them that is on the platter. [`SimDisk::crash`] decides what is
//! left: always what was synced (the file's bytes up to the last `sync`, its name after the `sync_dir` of its directory), of the rest
//! nothing, a part, or garbage. After a sync that failed the pages count as clean although they were not written, as on Linux: a
//! later sync that succeeds does not bring them back.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;
use triptych_wal::Disk;
use triptych_wal::disk::{SegmentFile, StoredFile};

use crate::dice::Dice;
use crate::journal::Journal;
use crate::life::Life;

/// What is wrong with a disk. The default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DiskFaults {
    /// Writes fail with "no space left" (after a part of them), and new files too.
    pub is_full: bool,
    /// Share of the syncs that fail.
    pub sync_errors: f64,
    /// Share of the other operations on files that fail.
    pub errors: f64,
    /// Syncs take this much longer at most, in milliseconds.
    pub slow_ms: u64,
}

/// How this disk lies, to show that the simulation would notice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskMutant {
    #[default]
    Honest,
    /// `sync` returns at once and does nothing: what a log without `fsync` would find.
    SyncIgnored,
    /// `sync_dir` does nothing.
    DirectorySyncIgnored,
}

#[derive(Debug, Default)]
struct Stored {
    bytes: Vec<u8>,
    /// So many of `bytes` are on the platter, except for `lost`.
    synced: usize,
    /// Ranges that a failed sync has dropped.
    lost: Vec<std::ops::Range<usize>>,
    /// The name is on the platter.
    is_named: bool,
}

#[derive(Debug)]
struct State {
    files: BTreeMap<PathBuf, Stored>,
    /// Removed, but the directory was not synced since.
    removed: BTreeMap<PathBuf, Stored>,
    faults: DiskFaults,
    dice: Dice,
}

/// A host's disk; it outlives the host's processes. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk {
    host: Arc<str>,
    mutant: DiskMutant,
    state: Arc<Mutex<State>>,
    journal: Arc<Journal>,
}

impl SimDisk {
    pub fn new(host: &str, dice: &Dice, mutant: DiskMutant, journal: Arc<Journal>) -> Self {
        let state = State {
            files: BTreeMap::new(),
            removed: BTreeMap::new(),
            faults: DiskFaults::default(),
            dice: dice.fork("disk"),
        };
        Self { host: host.into(), mutant, state: Arc::new(Mutex::new(state)), journal }
    }

    pub fn set_faults(&self, faults: DiskFaults) {
        self.state.lock().faults = faults;
    }

    /// The disk as one process sees it.
    pub fn mount(&self, life: &Life) -> Arc<dyn Disk> {
        Arc::new(Mounted { disk: self.clone(), life: life.clone(), writers: Mutex::default() })
    }

    /// The machine loses power. Files that no process knows any more are as they were synced, or more.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        let State { files, removed, dice, .. } = &mut *state;
        for (path, file) in std::mem::take(removed) {
            // The removal may or may not have reached the platter.
            if file.is_named && dice.chance(0.5) && !files.contains_key(&path) {
                files.insert(path, file);
            }
        }
        files.retain(|_, file| {
            for range in std::mem::take(&mut file.lost) {
                if let Some(bytes) = file.bytes.get_mut(range) {
                    bytes.fill(0);
                }
            }
            let unsynced = file.bytes.len() - file.synced;
            let kept = if dice.chance(0.5) { 0 } else { dice.below(unsynced + 1) };
            file.bytes.truncate(file.synced + kept);
            if kept > 0 && dice.chance(0.5) {
                // A torn write: the length is there, the bytes are not.
                let from = file.synced + dice.below(kept);
                let garbage = dice.number() as u8;
                file.bytes.iter_mut().skip(from).for_each(|b| *b = garbage);
            }
            let survives = file.is_named || dice.chance(0.5);
            file.synced = file.bytes.len();
            file.is_named = true;
            survives
        });
        let bytes: usize = files.values().map(|f| f.bytes.len()).sum();
        self.journal
            .note(&self.host, format_args!("disk after power loss: {} files, {bytes} bytes", files.len()));
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> usize {
        self.state.lock().files.values().map(|f| f.bytes.len()).sum()
    }
}

/// The disk in the hands of one process.
#[derive(Debug)]
struct Mounted {
    disk: SimDisk,
    life: Life,
    /// Ended with the process.
    writers: Mutex<Vec<AbortOnDropHandle<()>>>,
}

fn gone() -> io::Error {
    io::Error::other("the process is dead")
}

impl Mounted {
    /// The files, unless this operation is to fail.
    fn files(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        operation(&self.disk, &self.life)
    }
}

fn operation<'a>(disk: &'a SimDisk, life: &Life) -> io::Result<parking_lot::MutexGuard<'a, State>> {
    if life.has_ended() {
        return Err(gone());
    }
    let mut state = disk.state.lock();
    let errors = state.faults.errors;
    if errors > 0.0 && state.dice.chance(errors) {
        return Err(io::Error::other("simulated I/O error"));
    }
    Ok(state)
}

impl Disk for Mounted {
    fn lock(&self, _: &Path) -> io::Result<Box<dyn Debug + Send + Sync>> {
        if self.life.has_ended() { Err(gone()) } else { Ok(Box::new(())) }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
        let state = self.disk.state.lock();
        let inside = state.files.iter().filter(|(path, _)| path.parent() == Some(dir));
        Ok(inside.map(|(path, file)| (path.clone(), file.bytes.len() as u64)).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        match self.disk.state.lock().files.get(path) {
            Some(file) => Ok(Box::new(Snapshot(file.bytes.clone()))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let mut state = self.files()?;
        if state.faults.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files.insert(path.to_owned(), Stored::default());
        drop(state);
        Ok(Box::new(Writing { disk: self.disk.clone(), life: self.life.clone(), path: path.to_owned() }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.files()?;
        let file = state.files.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.removed.insert(path.to_owned(), file);
        drop(state);
        self.disk.journal.note(&self.disk.host, format_args!("removed {}", path.display()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.files()?;
        if self.disk.mutant == DiskMutant::DirectorySyncIgnored {
            return Ok(());
        }
        state.removed.retain(|path, _| path.parent() != Some(dir));
        for (_, file) in state.files.iter_mut().filter(|(path, _)| path.parent() == Some(dir)) {
            file.is_named = true;
        }
        Ok(())
    }

    fn run(&self, _: String, writer: BoxFuture<'static, ()>) -> io::Result<Option<JoinHandle<()>>> {
        self.writers.lock().push(AbortOnDropHandle::new(tokio::spawn({
            let life = self.life.clone();
            async move {
                tokio::select! {
                    biased;
                    () = life.ended() => {}
                    () = writer => {}
                }
            }
        })));
        Ok(None)
    }
}

/// A file that is read: nobody writes to it any more.
#[derive(Debug)]
struct Snapshot(Vec<u8>);

impl StoredFile for Snapshot {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|from| self.0.get(from..from + buffer.len()));
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[derive(Debug)]
struct Writing {
    disk: SimDisk,
    life: Life,
    path: PathBuf,
}

impl SegmentFile for Writing {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = operation(&self.disk, &self.life)?;
        let State { files, faults, dice, .. } = &mut *state;
        let written = if faults.is_full { dice.below(bytes.len() + 1) } else { bytes.len() };
        let file = files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        file.bytes.extend_from_slice(&bytes[..written]);
        if written < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        async {
            if self.disk.mutant == DiskMutant::SyncIgnored {
                return Ok(());
            }
            let (time, length) = {
                let mut state = operation(&self.disk, &self.life)?;
                let slow_ms = state.faults.slow_ms;
                let length = state.files.get(&self.path).map_or(0, |file| file.bytes.len());
                (state.dice.ms(1..=4 + slow_ms), length)
            };
            self.life.pass(time).await;
            let mut state = operation(&self.disk, &self.life)?;
            let errors = state.faults.sync_errors;
            let fails = errors > 0.0 && state.dice.chance(errors);
            let file = state.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
            let from = std::mem::replace(&mut file.synced, length.min(file.bytes.len()));
            if fails {
                file.lost.push(from..file.synced);
            }
            drop(state);
            if fails { Err(io::Error::other("simulated fsync error")) } else { Ok(()) }
        }
        .boxed()
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = operation(&self.disk, &self.life)?;
        let file = state.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        file.bytes.truncate(bytes as usize);
        file.synced = file.synced.min(file.bytes.len());
        Ok(())
    }
}
