//! One file: whole lines in order, through rotation and truncation.
//!
//! The open file is followed by its inode. When the path names another inode (rename and create), what is left of the old file
//! is read first. When the file is shorter than what was read (copy and truncate), reading begins at its start.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    open: Option<Open>,
    /// Where to begin when the file is opened the first time.
    begin: u64,
    line_bytes_max: usize,
}

#[derive(Debug)]
struct Open {
    file: File,
    inode: (u64, u64),
    /// Bytes of the file that were handed out as whole lines.
    taken: u64,
    /// What was read after that: the line in the making.
    rest: Vec<u8>,
    /// The line in the making is longer than it may be; its end is being looked for.
    skipping: u64,
}

/// What a poll found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// There is more to read now.
    pub more: bool,
    /// The file is gone and all of it was read.
    pub gone: bool,
    /// Lines that were cut.
    pub cut: u64,
}

impl Tail {
    pub fn new(path: PathBuf, begin: u64, line_bytes_max: usize) -> Self {
        Self { path, open: None, begin, line_bytes_max }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What may be remembered once all lines handed out so far are acknowledged.
    pub fn position(&self) -> u64 {
        self.open.as_ref().map_or(self.begin, |o| o.taken)
    }

    /// Hands out whole lines, about `bytes_max` of them.
    pub fn poll(&mut self, bytes_max: usize, mut line: impl FnMut(&str)) -> io::Result<Polled> {
        let mut polled = Polled::default();
        let there = match std::fs::metadata(&self.path) {
            Ok(metadata) => Some(metadata),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let Some(open) = &mut self.open else {
            let Some(metadata) = there else {
                polled.gone = true;
                return Ok(polled);
            };
            let begin = if metadata.len() < self.begin { 0 } else { self.begin };
            self.open = Some(Open::new(&self.path, begin)?);
            return self.poll(bytes_max, line);
        };
        let length = open.file.metadata()?.len();
        if length < open.read() {
            *open = Open::new(&self.path, 0)?;
        }
        polled.more = open.lines(bytes_max, self.line_bytes_max, &mut polled.cut, &mut line)?;
        let replaced = there.as_ref().is_none_or(|m| (m.dev(), m.ino()) != open.inode);
        if !polled.more && replaced {
            // The last line of a file that nobody writes to any more needs no newline.
            open.last(self.line_bytes_max, &mut polled.cut, &mut line);
            self.open = None;
            self.begin = 0;
            polled.gone = there.is_none();
            polled.more = there.is_some();
        }
        Ok(polled)
    }
}

impl Open {
    fn new(path: &Path, begin: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        file.seek(SeekFrom::Start(begin))?;
        let inode = (metadata.dev(), metadata.ino());
        Ok(Self { file, inode, taken: begin, rest: Vec::new(), skipping: 0 })
    }

    /// Bytes read of the file.
    fn read(&self) -> u64 {
        self.taken + self.skipping + self.rest.len() as u64
    }

    /// True when `bytes_max` was reached before the end of the file.
    fn lines(
        &mut self,
        bytes_max: usize,
        line_bytes_max: usize,
        cut: &mut u64,
        line: &mut impl FnMut(&str),
    ) -> io::Result<bool> {
        let mut handed = 0;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            if handed >= bytes_max {
                return Ok(true);
            }
            let count = match self.file.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            handed += count;
            let mut chunk = &buffer[..count];
            while let Some(end) = memchr::memchr(b'\n', chunk) {
                if self.skipping > 0 {
                    // The end of a line whose beginning was handed out.
                    self.taken += self.skipping + end as u64 + 1;
                    self.skipping = 0;
                } else {
                    let whole = self.rest.len() + end;
                    if self.rest.is_empty() {
                        hand_out(&chunk[..end], line_bytes_max, cut, line);
                    } else {
                        self.rest.extend_from_slice(&chunk[..end]);
                        hand_out(&self.rest, line_bytes_max, cut, line);
                    }
                    self.taken += whole as u64 + 1;
                }
                self.rest.clear();
                chunk = &chunk[end + 1..];
            }
            if self.skipping > 0 {
                self.skipping += chunk.len() as u64;
            } else {
                self.rest.extend_from_slice(chunk);
                if self.rest.len() > line_bytes_max {
                    hand_out(&self.rest, line_bytes_max, cut, line);
                    self.skipping = self.rest.len() as u64;
                    self.rest = Vec::new();
                }
            }
        }
    }

    fn last(&mut self, line_bytes_max: usize, cut: &mut u64, line: &mut impl FnMut(&str)) {
        if !self.rest.is_empty() {
            hand_out(&self.rest, line_bytes_max, cut, line);
        }
    }
}

/// Without a carriage return at its end; what is not UTF-8 is replaced; too long is cut.
fn hand_out(bytes: &[u8], line_bytes_max: usize, cut: &mut u64, line: &mut impl FnMut(&str)) {
    let mut bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.len() > line_bytes_max {
        *cut += 1;
        bytes = &bytes[..line_bytes_max];
        // Not in the middle of a character.
        while bytes.last().is_some_and(|b| b & 0xc0 == 0x80) {
            bytes = &bytes[..bytes.len() - 1];
        }
        if bytes.last().is_some_and(|b| b & 0xc0 == 0xc0) {
            bytes = &bytes[..bytes.len() - 1];
        }
    }
    line(&String::from_utf8_lossy(bytes));
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Case {
        _dir: tempfile::TempDir,
        path: PathBuf,
        tail: Tail,
    }

    impl Case {
        fn new(text: &str, begin: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.log");
            std::fs::write(&path, text).unwrap();
            Self { tail: Tail::new(path.clone(), begin, 20), path, _dir: dir }
        }

        fn append(&self, text: &str) {
            std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&self.path)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }

        /// Polls until there is no more.
        fn lines(&mut self) -> (Vec<String>, Polled) {
            let mut lines = Vec::new();
            loop {
                let polled = self.tail.poll(1 << 20, |l| lines.push(l.to_owned())).unwrap();
                if !polled.more {
                    return (lines, polled);
                }
            }
        }
    }

    #[test]
    fn whole_lines_only() {
        let mut case = Case::new("one\r\ntwo\nthr", 0);
        assert_eq!(case.lines().0, ["one", "two"]);
        assert_eq!(case.tail.position(), 9);
        case.append("ee\n");
        assert_eq!(case.lines().0, ["three"]);
        assert_eq!(case.lines().0, [""; 0]);
        let mut again = Case::new("one\r\ntwo\n", 5);
        assert_eq!(again.lines().0, ["two"]);
    }

    #[test]
    fn rotation_reads_the_old_file_to_its_end() {
        let mut case = Case::new("one\n", 0);
        case.lines();
        case.append("two\nlast");
        std::fs::rename(&case.path, case.path.with_extension("log.1")).unwrap();
        case.append("new\n");
        assert_eq!(case.lines().0, ["two", "last", "new"]);
        assert_eq!(case.tail.position(), 4);
    }

    #[test]
    fn truncation_begins_anew() {
        let mut case = Case::new("one\ntwo\n", 0);
        case.lines();
        std::fs::write(&case.path, "x\n").unwrap();
        assert_eq!(case.lines().0, ["x"]);
        // A position beyond the end is one of another file.
        assert_eq!(Case::new("one\n", 400).lines().0, ["one"]);
    }

    #[test]
    fn a_file_that_is_gone() {
        let mut case = Case::new("one\ntwo", 0);
        case.lines();
        std::fs::remove_file(&case.path).unwrap();
        assert_eq!(case.lines(), (vec!["two".to_owned()], Polled { gone: true, ..Default::default() }));
    }

    #[test]
    fn long_lines_are_cut_and_cost_bounded_memory() {
        let mut case = Case::new(&format!("{}\nshort\n", "ä".repeat(200_000)), 0);
        let (lines, _) = case.lines();
        assert_eq!(lines[1..], ["short"]);
        assert!(lines[0].len() <= 20 && lines[0].chars().all(|c| c == 'ä'), "{}", lines[0]);
        case.append("tail\n");
        assert_eq!(case.lines().0, ["tail"]);
    }

    proptest::proptest! {
        /// However the writes fall, the lines are the same.
        #[test]
        fn split_is_unsplit(lines in proptest::collection::vec("[a-z]{0,18}", 1..20), cuts in proptest::collection::vec(1usize..9, 1..30)) {
            let text = lines.iter().map(|l| format!("{l}\n")).collect::<String>();
            let mut case = Case::new("", 0);
            let (mut read, mut rest, mut cut) = (Vec::new(), text.as_str(), cuts.iter().cycle());
            while !rest.is_empty() {
                let at = (*cut.next().unwrap()).min(rest.len());
                case.append(&rest[..at]);
                rest = &rest[at..];
                read.extend(case.lines().0);
            }
            proptest::prop_assert_eq!(read, lines);
            proptest::prop_assert_eq!(case.tail.position(), text.len() as u64);
        }
    }
}
