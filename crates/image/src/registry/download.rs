//! A blob that comes from a registry into a file, and that is read while it comes.
//!
//! What came stays in the file, so that a later command goes on where this one was cut off, also by kill -9. The bytes that are
//! there already are read from the file first. The file is locked while it grows: two commands that want the same blob fetch it once.

use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fs_err::File;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use ureq::BodyReader;

use super::{Fault, Repository, http};
use crate::digest::Digest;
use crate::error::{Result, system};
use crate::oci::Descriptor;
use crate::store::remove_if_there;

/// A cut connection is taken up again so often, if nothing came in between.
const FAILURES_MAX: u32 = http::ATTEMPTS;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The blob as it is read.
pub(crate) struct Download {
    file: File,
    /// How much of the file was there before, and how much of that has been read.
    had: u64,
    read: u64,
    rest: Stream,
}

/// A blob's bytes as they come from a registry. A connection that is cut is made again from there on.
pub(crate) struct Stream {
    repository: Arc<Repository>,
    digest: Digest,
    size: u64,
    read: u64,
    body: Option<BodyReader<'static>>,
    failures: u32,
}

/// The file that a blob is gathered in. As long as this or its download lives, nobody else fetches that blob.
pub(crate) struct Partial {
    path: PathBuf,
    _lock: File,
}

impl Partial {
    /// Gives the file a second name at `place` where reading it went well. The first one stays until the blob is in its place: others that
    /// wait for it find it. What is wrong is removed, and what fills the disk.
    pub(crate) fn settle<T>(&self, read: &Result<T>, place: &Path) -> Result<()> {
        match read {
            Ok(_) => match fs_err::hard_link(&self.path, place) {
                // Another load has put it in its place already.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => Ok(other?),
            },
            Err(error) if error.is_damage() || error.is_full() => remove_if_there(&self.path),
            Err(_) => Ok(()),
        }
    }
}

impl Download {
    /// Begins to read a blob by way of the file at `path`, when no other process or thread is fetching it. None, if the file is gone
    /// then: whoever had it has put it where it belongs.
    pub(crate) fn begin(
        repository: &Arc<Repository>,
        descriptor: &Descriptor,
        path: &Path,
    ) -> Result<Option<(Self, Partial)>> {
        let mut options = fs_err::OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                other => break other.map_err(system("flock", path))?,
            }
        }
        let opened = rustix::fs::fstat(&file).map_err(system("stat", path))?;
        match rustix::fs::stat(path) {
            Ok(now) if (now.st_dev, now.st_ino) == (opened.st_dev, opened.st_ino) => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(system("stat", path)(errno)),
        }
        // More than the whole is not the blob.
        let had = if opened.st_size as u64 > descriptor.size { 0 } else { opened.st_size as u64 };
        file.set_len(had)?;
        file.seek(SeekFrom::Start(0))?;
        // Both are one open file, whose lock ends with the last of them.
        let partial = Partial { path: path.to_owned(), _lock: file.try_clone()? };
        let rest = Stream::new(repository, descriptor, had);
        Ok(Some((Self { file, had, read: 0, rest }, partial)))
    }

    /// How many bytes were there before.
    pub(crate) fn resumed(&self) -> u64 {
        self.had
    }
}

impl Stream {
    /// From byte `offset` on. Nothing is asked yet.
    pub(crate) fn new(repository: &Arc<Repository>, descriptor: &Descriptor, offset: u64) -> Self {
        let Descriptor { digest, size, .. } = *descriptor;
        Self { repository: Arc::clone(repository), digest, size, read: offset, body: None, failures: 0 }
    }

    fn connect(&mut self) -> http::Result<&mut BodyReader<'static>> {
        let (begin, answer) = self.repository.blob_from(self.digest, self.read)?;
        let mut reader = answer.into_body().into_with_config().limit(u64::MAX).reader();
        // A server without ranges sends all of it again.
        let skipped = io::copy(&mut (&mut reader).take(self.read - begin), &mut io::sink());
        if skipped.is_ok_and(|count| count == self.read - begin) {
            Ok(self.body.insert(reader))
        } else {
            Err(Fault::Unreachable { reason: "the connection was cut".to_owned() })
        }
    }

    fn fetch(&mut self, buffer: &mut [u8]) -> http::Result<usize> {
        let left = usize::try_from(self.size - self.read).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        loop {
            // Who is asked in vain is asked again there.
            let body = match &mut self.body {
                Some(body) => body,
                None => self.connect()?,
            };
            let reason = match body.read(&mut buffer[..wanted]) {
                Ok(count) if count > 0 => {
                    self.failures = 0;
                    return Ok(count);
                }
                Ok(_) => "the connection ends before the blob does".to_owned(),
                Err(error) => error.to_string(),
            };
            self.body = None;
            self.failures += 1;
            if self.failures == FAILURES_MAX {
                return Err(Fault::Unreachable { reason });
            }
            std::thread::sleep(FIRST_PAUSE * 2_u32.pow(self.failures - 1));
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read >= self.size {
            return Ok(0);
        }
        let count = self.fetch(buffer).map_err(|fault| io::Error::other(self.repository.error(fault)))?;
        self.read += count as u64;
        Ok(count)
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read < self.had {
            let left = usize::try_from(self.had - self.read).unwrap_or(usize::MAX);
            let wanted = buffer.len().min(left);
            let count = self.file.read(&mut buffer[..wanted])?;
            self.read += count as u64;
            return if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) };
        }
        let count = self.rest.read(buffer)?;
        self.file.write_all(&buffer[..count])?;
        Ok(count)
    }
}
