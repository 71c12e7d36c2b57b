//! A folder of files of lines: the newest is appended to, older ones are
//! compressed. Blocking.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::CompressionLevel;

use crate::spool::milliseconds;

/// When the next file is begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    pub bytes: u64,
    pub age: Duration,
    pub compression: FileCompression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileCompression {
    None,
    Gzip,
    Zstd,
}

/// Files `<name>-<Unix milliseconds of its start, 13 digits>.jsonl`, and with
/// `.gz` or `.zst` behind it once the next is begun.
pub(crate) struct Lines {
    folder: PathBuf,
    name: String,
    rotation: Rotation,
    open: Option<Open>,
}

struct Open {
    file: File,
    path: PathBuf,
    began: i64,
    /// What is safe.
    bytes: u64,
}

// === impl Rotation ===

impl Default for Rotation {
    fn default() -> Self {
        Self { bytes: 64 << 20, age: Duration::from_secs(86_400), compression: FileCompression::Gzip }
    }
}

// === impl FileCompression ===

impl FileCompression {
    /// Of the names of compressed files.
    fn suffix(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some(".gz"),
            Self::Zstd => Some(".zst"),
        }
    }

    fn write(self, from: &mut File, mut to: File) -> io::Result<File> {
        match self {
            Self::None => {
                io::copy(from, &mut to)?;
                Ok(to)
            }
            Self::Gzip => {
                let mut encoder = GzEncoder::new(to, Compression::fast());
                io::copy(from, &mut encoder)?;
                encoder.finish()
            }
            Self::Zstd => {
                let (mut source, mut drain) = (Unfailing::new(from), Unfailing::new(to));
                ruzstd::encoding::compress(&mut source, &mut drain, CompressionLevel::Fastest);
                source.end()?;
                drain.end()
            }
        }
    }
}

/// Keeps the first error for its end, since the compressor panics on one.
struct Unfailing<T> {
    file: T,
    failed: Option<io::Error>,
}

impl<T> Unfailing<T> {
    fn new(file: T) -> Self {
        Self { file, failed: None }
    }

    fn end(self) -> io::Result<T> {
        self.failed.map_or(Ok(self.file), Err)
    }
}

impl io::Read for Unfailing<&mut File> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.failed.is_some() {
            return Ok(0);
        }
        loop {
            match self.file.read(to) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = Some(error);
                    return Ok(0);
                }
                read => return read,
            }
        }
    }
}

impl io::Write for Unfailing<File> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        if self.failed.is_none() {
            self.failed = self.file.write_all(from).err();
        }
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Lines ===

impl Lines {
    pub(crate) fn new(folder: &Path, name: &str, rotation: Rotation) -> Self {
        Self { folder: folder.to_owned(), name: name.to_owned(), rotation, open: None }
    }

    /// Appends whole lines, and returns when they are on the disk, in a file
    /// that is in the folder. After an error none of them is in it, or will
    /// stay in it.
    pub(crate) fn append(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        let now = milliseconds(now);
        if self.open.as_ref().is_some_and(|open| !open.is_there()) {
            self.open = None;
        }
        if self.open.is_none() {
            self.open = Some(self.newest(now)?);
        }
        self.rotate(lines.len() as u64, now)?;
        let open = self.open.as_mut().expect("it was opened");
        let written = open.file.write_all(lines).and_then(|()| open.file.sync_data());
        if let Err(error) = written {
            // The half of a line would be joined to the next one.
            let cut = open.file.set_len(open.bytes).and_then(|()| open.file.seek(SeekFrom::End(0)));
            if cut.is_err() {
                self.open = None;
            }
            return Err(error);
        }
        if !open.is_there() {
            self.open = None;
            return Err(io::Error::other("the file was removed while it was written"));
        }
        open.bytes += lines.len() as u64;
        Ok(())
    }

    /// Begins the next file where this one is full or old.
    fn rotate(&mut self, more: u64, now: i64) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        let age = now.saturating_sub(open.began).max(0).unsigned_abs();
        let full = open.bytes + more > self.rotation.bytes || u128::from(age) >= self.rotation.age.as_millis();
        if open.bytes == 0 || !full {
            return Ok(());
        }
        // Two of one millisecond have two names.
        let next = self.begin(now.max(open.began + 1))?;
        let done = self.open.replace(next).expect("it was open");
        self.compress(&done.path)
    }

    /// The file to go on with; older ones that are not compressed are now.
    fn newest(&self, now: i64) -> io::Result<Open> {
        fs::create_dir_all(&self.folder)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if let Some(began) = self.began(&path) {
                files.push((began, path));
            }
        }
        files.sort();
        let Some((began, path)) = files.pop() else { return self.begin(now) };
        for (_, older) in files {
            self.compress(&older)?;
        }
        let mut file = File::options().read(true).write(true).open(&path)?;
        let bytes = whole_lines(&mut file)?;
        file.set_len(bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Open { file, path, began, bytes })
    }

    fn begin(&self, now: i64) -> io::Result<Open> {
        let path = self.folder.join(format!("{}-{now:013}.jsonl", self.name));
        let file = File::options().create_new(true).read(true).write(true).open(&path)?;
        // The name is as durable as what is in it.
        File::open(&self.folder)?.sync_all()?;
        Ok(Open { file, path, began: now, bytes: 0 })
    }

    /// When the file of this path was begun, if it is one of ours to append to.
    fn began(&self, path: &Path) -> Option<i64> {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix(&self.name)?.strip_prefix('-')?.strip_suffix(".jsonl")?.parse().ok()
    }

    fn compress(&self, path: &Path) -> io::Result<()> {
        let compression = self.rotation.compression;
        let Some(suffix) = compression.suffix() else { return Ok(()) };
        let mut from = match File::open(path) {
            Ok(file) => file,
            // Somebody took it already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let (part, to) = (suffixed(path, &format!("{suffix}.part")), suffixed(path, suffix));
        let compressed = compression.write(&mut from, File::create(&part)?).and_then(|it| it.sync_all());
        if let Err(error) = compressed {
            // It is tried again when the folder is opened anew; the lines are safe as they are.
            let _ = fs::remove_file(&part);
            tracing::warn!(file = %path.display(), %error, "a full file of events could not be compressed");
            return Ok(());
        }
        fs::rename(&part, &to)?;
        File::open(&self.folder)?.sync_all()?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

// === impl Open ===

impl Open {
    /// Whether its name still leads to it.
    fn is_there(&self) -> bool {
        let (Ok(ours), Ok(there)) = (self.file.metadata(), fs::metadata(&self.path)) else { return false };
        ours.dev() == there.dev() && ours.ino() == there.ino()
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The length of the file up to its last line's end.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = file.metadata()?.len();
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        (&*file).take(end - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
