//! How far each file was acknowledged. The file is Promtail's: `positions: {"/var/log/x.log": "123"}`.
//!
//! Written to a new file, synced, renamed. Without it every file is read from its start.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use triptych_model::{Error, Result};

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    #[serde(default)]
    positions: BTreeMap<String, String>,
}

#[derive(Debug)]
pub struct Positions {
    path: PathBuf,
    bytes: BTreeMap<String, u64>,
    changed: bool,
}

impl Positions {
    /// A file that is not there is empty; one that cannot be read is said and started anew.
    pub fn load(path: PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let file: File = if text.trim().is_empty() {
            File::default()
        } else {
            serde_saphyr::from_str(&text).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), %error, "positions cannot be read, files are read from their start");
                File::default()
            })
        };
        let bytes = file.positions.into_iter().filter_map(|(p, at)| Some((p, at.parse().ok()?))).collect();
        Self { path, bytes, changed: false }
    }

    pub fn get(&self, file: &Path) -> u64 {
        self.bytes.get(&*file.to_string_lossy()).copied().unwrap_or(0)
    }

    pub fn set(&mut self, file: &Path, bytes: u64) {
        if self.bytes.insert(file.to_string_lossy().into_owned(), bytes) != Some(bytes) {
            self.changed = true;
        }
    }

    /// Forgets a file that is gone.
    pub fn remove(&mut self, file: &Path) {
        self.changed |= self.bytes.remove(&*file.to_string_lossy()).is_some();
    }

    pub fn save(&mut self) -> Result<()> {
        if !self.changed {
            return Ok(());
        }
        let positions = self.bytes.iter().map(|(p, at)| (p.clone(), at.to_string())).collect();
        let text =
            serde_saphyr::to_string(&File { positions }).map_err(|e| Error::internal(e.to_string()))?;
        let new = self.path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)
        };
        write().map_err(|e| Error::unavailable(format!("{}: {e}", self.path.display())))?;
        self.changed = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promtails_file_is_read_and_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("positions.yaml");
        std::fs::write(&path, "positions:\n  /var/log/a.log: \"123\"\n  /var/log/b.log: \"x\"\n").unwrap();
        let mut positions = Positions::load(path.clone());
        assert_eq!(positions.get(Path::new("/var/log/a.log")), 123);
        assert_eq!(positions.get(Path::new("/var/log/b.log")), 0);
        positions.set(Path::new("/c \"d\".log"), 7);
        positions.remove(Path::new("/var/log/a.log"));
        positions.save().unwrap();
        let again = Positions::load(path.clone());
        assert_eq!((again.get(Path::new("/c \"d\".log")), again.get(Path::new("/var/log/a.log"))), (7, 0));
        std::fs::write(&path, "positions: [").unwrap();
        assert_eq!(Positions::load(path).get(Path::new("/c \"d\".log")), 0);
    }
}
