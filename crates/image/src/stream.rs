//! One pass over a layer's bytes: file → digest → decompression → digest → reader of the archive.

use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fs_err::File;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

const COMPRESSED_BUFFER: usize = 128 << 10;
const PLAIN_BUFFER: usize = 256 << 10;
/// Below this many bytes no ratio is a bomb.
const RATIO_FROM: u64 = 1 << 30;

/// How much an image may unpack to. The defaults stop bombs, not images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers together, holes of sparse files counted.
    pub bytes: u64,
    /// Entries of all layers together.
    pub entries: u64,
    /// Bytes that one compressed byte may become, from 1 GiB on.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 256 << 30, entries: 4_000_000, ratio: 1000 }
    }
}

/// What an image has unpacked to so far; shared by the threads that unpack its layers.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) limits: Limits,
    bytes: AtomicU64,
    entries: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, bytes: AtomicU64::new(0), entries: AtomicU64::new(0) }
    }

    pub(crate) fn take_bytes(&self, count: u64) -> Result<(), Exceeded> {
        let before = self.bytes.fetch_add(count, Ordering::Relaxed);
        check(before.saturating_add(count) <= self.limits.bytes, "bytes", self.limits.bytes)
    }

    pub(crate) fn take_entry(&self) -> Result<(), Exceeded> {
        let before = self.entries.fetch_add(1, Ordering::Relaxed);
        check(before < self.limits.entries, "entries", self.limits.entries)
    }
}

fn check(holds: bool, what: &'static str, limit: u64) -> Result<(), Exceeded> {
    if holds { Ok(()) } else { Err(Exceeded { what, limit }) }
}

/// A limit that was exceeded; travels inside an [`io::Error`] through the decoder and the tar reader.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the limit of {limit} {what} is exceeded")]
pub(crate) struct Exceeded {
    pub(crate) what: &'static str,
    pub(crate) limit: u64,
}

/// A part of a file, read without moving the file's own position, so that threads can share the file.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub(crate) file: Arc<OwnedFd>,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(usize::try_from(self.length).unwrap_or(usize::MAX));
        if count == 0 {
            return Ok(0);
        }
        let read = loop {
            match rustix::io::pread(self.file.as_fd(), &mut buffer[..count], self.offset) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        self.offset += read as u64;
        self.length -= read as u64;
        Ok(read)
    }
}

/// Only relative seeks: an archive is walked from its beginning. Beyond the end there is nothing to read.
impl Seek for Range {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Current(distance) = to else { return Err(io::ErrorKind::Unsupported.into()) };
        let offset = self.offset.checked_add_signed(distance).ok_or(io::ErrorKind::InvalidInput)?;
        let end = self.offset.saturating_add(self.length);
        (self.offset, self.length) = (offset, end.saturating_sub(offset));
        Ok(offset)
    }
}

/// A descriptor that is read as it comes: a pipe.
#[derive(Debug)]
pub(crate) struct Pipe(pub(crate) OwnedFd);

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, buffer)?)
    }
}

/// The stored bytes of a blob: counted, digested and, where wanted, copied while they are read.
pub(crate) struct Stored<'a> {
    source: Box<dyn Read + Send + 'a>,
    copy: Option<File>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    hash: Sha256,
    count: u64,
}

impl<'a> Stored<'a> {
    pub(crate) fn new(source: Box<dyn Read + Send + 'a>, copy: Option<File>) -> Self {
        let buffer = vec![0; COMPRESSED_BUFFER].into_boxed_slice();
        Self { source, copy, buffer, start: 0, end: 0, hash: Sha256::new(), count: 0 }
    }

    /// Reads what is left and gives the digest and the number of bytes.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        loop {
            let length = self.fill_buf()?.len();
            if length == 0 {
                break;
            }
            self.consume(length);
        }
        Ok((Digest::finish(self.hash), self.count))
    }
}

impl BufRead for Stored<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            // Full buffers: few calls, and the first one is long enough to tell the compression.
            while self.end < self.buffer.len() {
                match self.source.read(&mut self.buffer[self.end..]) {
                    Ok(0) => break,
                    Ok(count) => self.end += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let fresh = &self.buffer[..self.end];
            self.hash.update(fresh);
            self.count += fresh.len() as u64;
            if let Some(copy) = &mut self.copy {
                copy.write_all(fresh)?;
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}

impl Read for Stored<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// How a blob is compressed, told by its first bytes as docker does: media types lie more often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// The compression of a blob that begins so, or the name of one that images do not use.
    pub(crate) fn of(first: &[u8]) -> Result<Self, &'static str> {
        let is_skippable = first.len() >= 4 && first[0] & 0xf0 == 0x50 && first[1..4] == [0x2a, 0x4d, 0x18];
        match first {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            _ if is_skippable => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Err("it is compressed with bzip2, which images do not use"),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Err("it is compressed with xz, which images do not use"),
            _ => Ok(Self::None),
        }
    }
}

enum Decoder<'a> {
    None(Stored<'a>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Stored<'a>>>),
    Zstd(zstd::stream::read::Decoder<'static, Stored<'a>>),
}

/// The uncompressed bytes of a blob: limited and digested while they are read.
pub(crate) struct Plain<'a> {
    decoder: Decoder<'a>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    hash: Sha256,
    count: u64,
    budget: &'a Budget,
}

/// What a blob turned out to be when it was read to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums {
    /// Of the stored bytes.
    pub(crate) digest: Digest,
    /// How many they are.
    pub(crate) size: u64,
    /// Of the uncompressed bytes.
    pub(crate) diff_id: Digest,
    pub(crate) compression: Compression,
}

impl<'a> Plain<'a> {
    pub(crate) fn new(mut stored: Stored<'a>, budget: &'a Budget) -> io::Result<Self> {
        let first = stored.fill_buf()?;
        let compression =
            Compression::of(first).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
        let decoder = match compression {
            Compression::None => Decoder::None(stored),
            Compression::Gzip => Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(stored))),
            Compression::Zstd => Decoder::Zstd(zstd::stream::read::Decoder::with_buffer(stored)?),
        };
        let buffer = vec![0; PLAIN_BUFFER].into_boxed_slice();
        Ok(Self { decoder, buffer, start: 0, end: 0, hash: Sha256::new(), count: 0, budget })
    }

    /// Reads what is left and gives the sums.
    pub(crate) fn finish(mut self) -> io::Result<Sums> {
        loop {
            let length = self.fill_buf()?.len();
            if length == 0 {
                break;
            }
            self.consume(length);
        }
        let (stored, compression) = match self.decoder {
            Decoder::None(stored) => (stored, Compression::None),
            Decoder::Gzip(decoder) => (decoder.into_inner(), Compression::Gzip),
            Decoder::Zstd(decoder) => (decoder.finish(), Compression::Zstd),
        };
        let (digest, size) = stored.finish()?;
        let diff_id = if compression == Compression::None { digest } else { Digest::finish(self.hash) };
        Ok(Sums { digest, size, diff_id, compression })
    }

    fn stored_count(&self) -> u64 {
        match &self.decoder {
            Decoder::None(stored) => stored.count,
            Decoder::Gzip(decoder) => decoder.get_ref().count,
            Decoder::Zstd(decoder) => decoder.get_ref().count,
        }
    }

    fn refill(&mut self) -> io::Result<()> {
        self.start = 0;
        self.end = 0;
        while self.end < self.buffer.len() {
            let free = &mut self.buffer[self.end..];
            let read = match &mut self.decoder {
                Decoder::None(stored) => stored.read(free),
                Decoder::Gzip(decoder) => decoder.read(free),
                Decoder::Zstd(decoder) => decoder.read(free),
            };
            match read {
                Ok(0) => break,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // An uncompressed blob has one digest, which is already made.
        if !matches!(self.decoder, Decoder::None(_)) {
            self.hash.update(&self.buffer[..self.end]);
        }
        self.count += self.end as u64;
        self.budget.take_bytes(self.end as u64).map_err(io::Error::other)?;
        let ratio = self.budget.limits.ratio;
        let allowed = self.stored_count().saturating_mul(ratio).max(RATIO_FROM);
        check(self.count <= allowed, "bytes for each compressed byte", ratio).map_err(io::Error::other)
    }
}

impl BufRead for Plain<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.refill()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
