//! A reader of tar archives as image tools write them.
//!
//! POSIX ustar and pax, GNU long names, GNU sparse files (old and pax 0.0, 0.1, 1.0), base-256 numbers, and what star and
//! libarchive add for extended attributes. Sources: tar(5) of libarchive, POSIX pax(1), "GNU tar internals".
//!
//! It reads and checks; it touches no file system. Every length is bounded, so a lying header costs at most
//! [`EXTENSION_MAX`] bytes of memory.

mod header;
mod pax;
mod sparse;
mod writer;

use std::io::{self, BufRead, Seek};

pub(crate) use sparse::Segment;
pub(crate) use writer::Writer;

use header::{BLOCK, Header};
use pax::Pax;

/// The most bytes of one extended header or long name.
pub(crate) const EXTENSION_MAX: u64 = 1 << 20;
/// PATH_MAX with its NUL: a longer name could not be opened.
const NAME_MAX: usize = 4095;

/// What is wrong with an archive, and at which byte of it.
#[derive(Debug, thiserror::Error)]
#[error("at byte {at} of the archive: {fault}")]
pub struct Error {
    /// Offset of the header that is wrong, in the uncompressed archive.
    pub at: u64,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The bytes could not be read or decompressed.
    #[error("{0}")]
    Read(io::Error),
    /// The archive ends inside an entry.
    #[error("it ends inside an entry")]
    Truncated,
    /// A header's checksum is wrong, or this is no tar archive.
    #[error("the header's checksum is wrong (damaged, or not a tar archive)")]
    Checksum,
    /// A number is no number or too large.
    #[error("the {0} is not a valid number")]
    Number(&'static str),
    /// An extended header is not of the form `length key=value`.
    #[error("a pax header is malformed")]
    Pax,
    /// An extended header gives a key twice.
    #[error("a pax header gives {0:?} twice")]
    Duplicate(String),
    /// An extended header or a name is too long.
    #[error("the {0} is longer than the limit")]
    TooLong(&'static str),
    /// A name has a NUL inside or is empty.
    #[error("the {0} is empty or has a NUL inside")]
    Name(&'static str),
    /// A kind of entry that has no place in an image.
    #[error("entries of type {:?} are not understood", char::from(*.0))]
    Type(u8),
    /// The map of a sparse file contradicts itself.
    #[error("the map of a sparse file is malformed")]
    Sparse,
    /// An extended header that no entry follows.
    #[error("an extended header is followed by no entry")]
    Dangling,
    /// Something other than zeros follows the end.
    #[error("data follows the end of the archive")]
    Trailing,
}

/// The kind of a tar entry, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// Another name of the file with this name.
    HardLink(Vec<u8>),
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A time: seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999, always towards the future.
    pub nanoseconds: u32,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name as written: not checked for `..` or a leading slash.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Time,
    /// Extended attributes: name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The file's length in bytes, holes counted.
    pub size: u64,
    /// For a sparse file, which parts of it the data fill, ascending; None means all of it.
    pub segments: Option<Vec<Segment>>,
}

impl Entry {
    /// The parts of the file that the data fill.
    pub(crate) fn data_segments(&self) -> Vec<Segment> {
        match &self.segments {
            Some(segments) => segments.clone(),
            None => vec![Segment { offset: 0, length: self.size }],
        }
    }
}

/// Reads entries one after another. After [`Reader::next`], the data of the entry come from [`Reader::data`]; what is
/// not read is skipped.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    input: R,
    /// Offset of the next byte of `input`.
    position: u64,
    /// Offset of the entry's first header, for errors.
    start: u64,
    /// Bytes of the entry's data that were not yet given out.
    left: u64,
    /// Zero bytes after them.
    padding: u64,
    ended: bool,
}

type Result<T> = std::result::Result<T, Error>;

impl<R: BufRead> Reader<R> {
    /// A reader of an uncompressed archive.
    pub(crate) fn new(input: R) -> Self {
        Self { input, position: 0, start: 0, left: 0, padding: 0, ended: false }
    }

    /// The next entry, or None at the end of the archive. No `Iterator`: an error must end the loop.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let rest = self.left + self.padding;
        self.skip(rest)?;
        self.entry()
    }

    /// Some of the current entry's data, as many as are at hand; empty at its end. Call [`Reader::consume`] after.
    pub(crate) fn data(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let at = self.start;
        let error = |fault| Error { at, fault };
        let buffer = self.input.fill_buf().map_err(|error| Error { at, fault: Fault::Read(error) })?;
        if buffer.is_empty() {
            return Err(error(Fault::Truncated));
        }
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        Ok(&buffer[..length])
    }

    /// Takes the first `count` bytes that [`Reader::data`] gave.
    pub(crate) fn consume(&mut self, count: usize) {
        let count = count.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.input.consume(count);
        self.left -= count as u64;
        self.position += count as u64;
    }

    /// Reads to the end of the input after the last entry and checks that only zeros follow.
    pub(crate) fn finish(mut self) -> Result<R> {
        self.start = self.position;
        loop {
            let buffer =
                self.input.fill_buf().map_err(|error| Error { at: self.start, fault: Fault::Read(error) })?;
            let length = buffer.len();
            if length == 0 {
                return Ok(self.input);
            }
            if buffer.iter().any(|byte| *byte != 0) {
                return Err(self.error(Fault::Trailing));
            }
            self.input.consume(length);
        }
    }

    fn error(&self, fault: Fault) -> Error {
        Error { at: self.start, fault }
    }

    fn entry(&mut self) -> Result<Option<Entry>> {
        (self.left, self.padding) = (0, 0);
        if self.ended {
            return Ok(None);
        }
        self.start = self.position;
        let mut pax = Pax::default();
        let (mut long_name, mut long_link, mut extended) = (None, None, false);
        loop {
            let Some(block) = self.block()? else {
                self.ended = true;
                return if extended { Err(self.error(Fault::Dangling)) } else { Ok(None) };
            };
            let header = Header::parse(block).map_err(|fault| self.error(fault))?;
            match header.kind {
                b'x' => pax = Pax::parse(&self.extension(&header)?).map_err(|fault| self.error(fault))?,
                // Global headers carry a comment (git archive); docker ignores what they say, and so images mean
                // what they mean without.
                b'g' => {
                    Pax::parse(&self.extension(&header)?).map_err(|fault| self.error(fault))?;
                    continue;
                }
                b'L' => long_name = Some(until_nul(self.extension(&header)?)),
                b'K' => long_link = Some(until_nul(self.extension(&header)?)),
                _ => {
                    return self.finish_entry(&header, pax, long_name, long_link).map(Some);
                }
            }
            extended = true;
        }
    }

    fn finish_entry(
        &mut self,
        header: &Header,
        mut pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry> {
        let error = |fault| Error { at: self.start, fault };
        let stored = match pax.size {
            Some(size) => size,
            None => header.size().map_err(error)?,
        };
        let sparse_name = pax.sparse.name.take();
        let path = sparse_name.or(pax.path.take()).or(long_name).unwrap_or_else(|| header.name());
        let link = pax.linkpath.take().or(long_link).unwrap_or_else(|| header.link());
        let kind = self.kind(header, &path, link)?;
        let has_data = kind == Kind::File;
        self.left = if has_data { stored } else { 0 };
        self.padding = if has_data { stored.wrapping_neg() % BLOCK as u64 } else { 0 };
        check_name(&path, "name").map_err(|fault| self.error(fault))?;
        let (size, segments) = match self.sparse_map(header, &pax)? {
            Some(map) if has_data => {
                sparse::check(&map.segments, map.size, self.left).map_err(|fault| self.error(fault))?;
                (map.size, Some(map.segments))
            }
            _ => (self.left, None),
        };
        let error = |fault| Error { at: self.start, fault };
        Ok(Entry {
            path,
            kind,
            mode: header.mode().map_err(error)? & 0o7777,
            uid: pax.uid.map_or_else(|| header.uid(), Ok).map_err(error)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok).map_err(error)?,
            mtime: pax.mtime.map_or_else(|| header.mtime(), Ok).map_err(error)?,
            xattrs: std::mem::take(&mut pax.xattrs),
            size,
            segments,
        })
    }

    fn kind(&self, header: &Header, path: &[u8], link: Vec<u8>) -> Result<Kind> {
        let device = || -> Result<(u32, u32)> {
            let number = |field| self.device(header, field);
            Ok((number(header::MAJOR)?, number(header::MINOR)?))
        };
        Ok(match header.kind {
            // Before POSIX a directory was a file whose name ends with a slash.
            0 | b'0' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' | b'2' => {
                check_name(&link, "link's target").map_err(|fault| self.error(fault))?;
                if header.kind == b'1' { Kind::HardLink(link) } else { Kind::Symlink(link) }
            }
            b'3' => device().map(|(major, minor)| Kind::Char(major, minor))?,
            b'4' => device().map(|(major, minor)| Kind::Block(major, minor))?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(self.error(Fault::Type(other))),
        })
    }

    fn device(&self, header: &Header, field: header::Field) -> Result<u32> {
        header.small(field).map_err(|fault| self.error(fault))
    }

    /// The map of a sparse file, which may stand in the header, in further blocks, in the pax header or before the data.
    fn sparse_map(&mut self, header: &Header, pax: &Pax) -> Result<Option<sparse::Map>> {
        if header.kind == b'S' {
            let mut map = sparse::Map::from_header(header).map_err(|fault| self.error(fault))?;
            let mut more = header.sparse_is_extended();
            while more {
                let block = self.raw_block()?.ok_or_else(|| self.error(Fault::Truncated))?;
                more = map.extend(&block).map_err(|fault| self.error(fault))?;
            }
            return Ok(Some(map));
        }
        if pax.sparse.is_version_1() {
            let mut lines = sparse::Lines::default();
            while !lines.is_complete() {
                if self.left < BLOCK as u64 {
                    return Err(self.error(Fault::Sparse));
                }
                let block = self.raw_block()?.ok_or_else(|| self.error(Fault::Truncated))?;
                self.left -= BLOCK as u64;
                lines.feed(&block).map_err(|fault| self.error(fault))?;
            }
            return lines.into_map(&pax.sparse).map(Some).map_err(|fault| self.error(fault));
        }
        pax.sparse.map().map_err(|fault| self.error(fault))
    }

    /// The content of an extended header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = header.size().map_err(|fault| self.error(fault))?;
        if size > EXTENSION_MAX {
            return Err(self.error(Fault::TooLong("extended header")));
        }
        let mut content = Vec::with_capacity(size as usize);
        (self.left, self.padding) = (size, size.wrapping_neg() % BLOCK as u64);
        while self.left > 0 {
            let data = self.data()?;
            content.extend_from_slice(data);
            let length = data.len();
            self.consume(length);
        }
        self.skip(self.padding)?;
        (self.left, self.padding) = (0, 0);
        Ok(content)
    }

    /// The next header block; None at the end, which is a block of zeros or the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        match self.raw_block()? {
            Some(block) if block.iter().all(|byte| *byte == 0) => Ok(None),
            other => Ok(other),
        }
    }

    fn raw_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let at = self.start;
            let buffer = self.input.fill_buf().map_err(|error| Error { at, fault: Fault::Read(error) })?;
            if buffer.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(self.error(Fault::Truncated)) };
            }
            let length = buffer.len().min(BLOCK - filled);
            block[filled..filled + length].copy_from_slice(&buffer[..length]);
            filled += length;
            self.input.consume(length);
        }
        self.position += BLOCK as u64;
        Ok(Some(block))
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let at = self.start;
            let buffer = self.input.fill_buf().map_err(|error| Error { at, fault: Fault::Read(error) })?;
            if buffer.is_empty() {
                return Err(self.error(Fault::Truncated));
            }
            let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.input.consume(length);
            left -= length as u64;
        }
        self.position += count;
        Ok(())
    }
}

impl<R: BufRead + Seek> Reader<R> {
    /// Like [`Reader::next`], but seeks over the data, and gives with the entry the offset of its first data byte.
    /// That data are there at all is not checked.
    pub(crate) fn next_seeking(&mut self) -> Result<Option<(Entry, u64)>> {
        let distance = self.left + self.padding;
        let offset = i64::try_from(distance).map_err(|_| self.error(Fault::Number("size")))?;
        self.input.seek_relative(offset).map_err(|error| self.error(Fault::Read(error)))?;
        self.position =
            self.position.checked_add(distance).ok_or_else(|| self.error(Fault::Number("size")))?;
        let entry = self.entry()?;
        Ok(entry.map(|entry| (entry, self.position)))
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn check_name(name: &[u8], what: &'static str) -> std::result::Result<(), Fault> {
    if name.is_empty() || name.contains(&0) {
        return Err(Fault::Name(what));
    }
    if name.len() > NAME_MAX {
        return Err(Fault::TooLong(what));
    }
    Ok(())
}

/// Entry point for fuzzing: reads a whole archive from `data`, which must neither panic nor take more memory than the data
/// and a few extended headers.
pub fn fuzz_archive(data: &[u8]) {
    let mut reader = Reader::new(data);
    while let Ok(Some(entry)) = reader.next() {
        let stored: u64 = entry.data_segments().iter().map(|segment| segment.length).sum();
        let mut read = 0;
        while let Ok(chunk) = reader.data() {
            let length = chunk.len();
            if length == 0 {
                assert_eq!(read, stored);
                break;
            }
            read += length as u64;
            reader.consume(length);
        }
    }
    let mut seeking = Reader::new(io::Cursor::new(data));
    while let Ok(Some(_)) = seeking.next_seeking() {}
}
