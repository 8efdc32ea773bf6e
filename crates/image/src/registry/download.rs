//! A blob that comes from a registry into a file, and that is read while it comes.
//!
//! What came stays in the file, so that a later command goes on where this one was cut off, also by kill -9. The bytes that are
//! there already are read from the file first. The file is locked while it grows: two commands that want the same blob fetch it once.

use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fs_err::File;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use ureq::BodyReader;

use super::{Fault, Repository, http};
use crate::digest::Digest;
use crate::error::{Result, system};

/// A cut connection is taken up again so often, if nothing came in between.
const FAILURES_MAX: u32 = http::ATTEMPTS;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The blob as it is read.
pub(crate) struct Download {
    repository: Arc<Repository>,
    digest: Digest,
    size: u64,
    file: File,
    /// How much of the file was there before, and how much has been read.
    had: u64,
    read: u64,
    body: Option<BodyReader<'static>>,
    failures: u32,
}

impl Download {
    /// Begins to read a blob by way of the file at `path`, when no other process or thread is fetching it. None, if the file is gone
    /// then: whoever had it has put it where it belongs.
    pub(crate) fn begin(
        repository: &Arc<Repository>,
        digest: Digest,
        size: u64,
        path: &Path,
    ) -> Result<Option<Self>> {
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
        let had = opened.st_size as u64;
        // More than the whole is not the blob.
        let had = if had > size { 0 } else { had };
        file.set_len(had)?;
        file.seek(SeekFrom::Start(0))?;
        let repository = Arc::clone(repository);
        Ok(Some(Self { repository, digest, size, file, had, read: 0, body: None, failures: 0 }))
    }

    /// How many bytes were there before.
    pub(crate) fn resumed(&self) -> u64 {
        self.had
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

    /// Bytes from the registry. A connection that is cut is made again from there on.
    fn fetch(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.read).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        loop {
            let fault = match self.fetch_once(&mut buffer[..wanted]) {
                Ok(count) if count > 0 => {
                    self.failures = 0;
                    return Ok(count);
                }
                Ok(_) => Fault::Unreachable { reason: "the connection ends before the blob does".to_owned() },
                Err(fault) => fault,
            };
            self.body = None;
            self.failures += 1;
            if !matches!(fault, Fault::Unreachable { .. }) || self.failures == FAILURES_MAX {
                return Err(io::Error::other(self.repository.error(fault)));
            }
            std::thread::sleep(FIRST_PAUSE * 2_u32.pow(self.failures - 1));
        }
    }

    fn fetch_once(&mut self, buffer: &mut [u8]) -> http::Result<usize> {
        let body = match &mut self.body {
            Some(body) => body,
            None => self.connect()?,
        };
        body.read(buffer).map_err(|error| Fault::Unreachable { reason: error.to_string() })
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = if self.read < self.had {
            let left = usize::try_from(self.had - self.read).unwrap_or(usize::MAX);
            let wanted = buffer.len().min(left);
            match self.file.read(&mut buffer[..wanted])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => count,
            }
        } else if self.read < self.size {
            let count = self.fetch(buffer)?;
            self.file.write_all(&buffer[..count])?;
            count
        } else {
            0
        };
        self.read += count as u64;
        Ok(count)
    }
}
