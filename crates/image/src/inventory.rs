//! The manifest of an unpacked layer: what each file is and what it holds.
//!
//! It is written while the layer is unpacked, as a log: a later line about a path replaces an earlier one, and a
//! line that begins with `-` takes a path and all below it back. So nothing of it stays in memory, however large the layer.
//! Owners are those of the archive, also where the file system could not take them.
//!
//! One line per file, fields divided by one space, bytes that are not printable ASCII written as `%XX`:
//! `KIND PATH MODE UID GID MTIME SIZE CONTENT [XATTR=HEX…]`, where KIND is a letter of `find -type` or `w` for a whiteout, and CONTENT
//! the SHA-256 of a file, the target of a link, the numbers of a device, or `opaque`.
//! The first line names the format, the last one carries the digest of all before it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use fs_err::File;
use sha2::{Digest as _, Sha256};

use crate::digest::{Digest, hex, nibble};
use crate::error::{Error, Result};
use crate::tar::Time;

const FIRST_LINE: &[u8] = b"coracle-layer 1\n";

/// What a file of a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A regular file and the digest of all its bytes, holes read as zeros.
    File(Digest),
    /// A directory; true when it hides the layers below.
    Directory(bool),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A name that is taken away from the layers below.
    Whiteout,
}

/// One file of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) size: u64,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) content: Content,
}

impl Record {
    pub(crate) fn whiteout() -> Self {
        Self {
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            size: 0,
            xattrs: Vec::new(),
            content: Content::Whiteout,
        }
    }
}

/// Writes an inventory.
#[derive(Debug)]
pub(crate) struct Writer {
    file: BufWriter<File>,
    digest: Sha256,
    line: Vec<u8>,
}

impl Writer {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let mut writer = Self {
            file: BufWriter::with_capacity(1 << 16, File::create(path)?),
            digest: Sha256::new(),
            line: Vec::new(),
        };
        writer.line.extend_from_slice(FIRST_LINE);
        writer.flush_line()?;
        Ok(writer)
    }

    /// Says what `path` is from now on.
    pub(crate) fn add(&mut self, path: &[u8], record: &Record) -> Result<()> {
        let (kind, content) = match &record.content {
            Content::File(digest) => (b'f', digest.hex().into_bytes()),
            Content::Directory(opaque) => (b'd', if *opaque { b"opaque".to_vec() } else { b"-".to_vec() }),
            Content::Symlink(target) => (b'l', escaped(target)),
            Content::Char(major, minor) => (b'c', format!("{major},{minor}").into_bytes()),
            Content::Block(major, minor) => (b'b', format!("{major},{minor}").into_bytes()),
            Content::Fifo => (b'p', b"-".to_vec()),
            Content::Whiteout => (b'w', b"-".to_vec()),
        };
        self.line.extend_from_slice(&[kind, b' ']);
        escape(path, &mut self.line);
        write!(
            self.line,
            " {:o} {} {} {}.{:09} {} ",
            record.mode, record.uid, record.gid, record.mtime.seconds, record.mtime.nanoseconds, record.size
        )?;
        self.line.extend_from_slice(&content);
        for (name, value) in &record.xattrs {
            self.line.push(b' ');
            escape(name, &mut self.line);
            self.line.push(b'=');
            self.line.extend_from_slice(hex(value).as_bytes());
        }
        self.end_line()
    }

    /// Says that `path` is now another name of the file that is `target` now.
    pub(crate) fn link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        self.line.extend_from_slice(b"h ");
        escape(path, &mut self.line);
        self.line.push(b' ');
        escape(target, &mut self.line);
        self.end_line()
    }

    /// Takes `path` and all below it back.
    pub(crate) fn remove(&mut self, path: &[u8]) -> Result<()> {
        self.line.extend_from_slice(b"- ");
        escape(path, &mut self.line);
        self.end_line()
    }

    /// Writes the last line.
    pub(crate) fn finish(mut self) -> Result<()> {
        let digest = Digest::finish(self.digest.clone());
        self.line.extend_from_slice(b"end ");
        self.line.extend_from_slice(digest.hex().as_bytes());
        self.end_line()?;
        self.file.flush()?;
        Ok(())
    }

    fn end_line(&mut self) -> Result<()> {
        self.line.push(b'\n');
        self.flush_line()
    }

    fn flush_line(&mut self) -> Result<()> {
        self.digest.update(&self.line);
        self.file.write_all(&self.line)?;
        self.line.clear();
        Ok(())
    }
}

/// Reads an inventory: the files of the layer by path. The root's path is empty. Memory: about 200 bytes per file.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<Vec<u8>, Record>> {
    let bad = |reason: &str| Error::BadRecord { path: path.to_owned(), reason: reason.to_owned() };
    let mut input = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut digest = Sha256::new();
    let mut files = BTreeMap::new();
    let mut line = Vec::new();
    if next_line(&mut input, &mut line)? == 0 || line != FIRST_LINE {
        return Err(bad("its first line is not \"coracle-layer 1\""));
    }
    loop {
        digest.update(&line);
        if next_line(&mut input, &mut line)? == 0 {
            return Err(bad("its end is missing"));
        }
        let fields: Vec<&[u8]> =
            line.strip_suffix(b"\n").unwrap_or(&line).split(|byte| *byte == b' ').collect();
        match fields[..] {
            [b"end", sum] => {
                let found = Digest::finish(digest);
                return if found.hex().as_bytes() == sum {
                    Ok(files)
                } else {
                    Err(bad("its digest is wrong: it was changed after it was written"))
                };
            }
            _ => apply(&mut files, &fields).ok_or_else(|| bad("a line is malformed"))?,
        }
    }
}

fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    input.read_until(b'\n', line)
}

fn apply(files: &mut BTreeMap<Vec<u8>, Record>, fields: &[&[u8]]) -> Option<()> {
    match fields {
        [b"-", path] => {
            let path = unescaped(path)?;
            let below = [path.as_slice(), b"/"].concat();
            files.retain(|known, _| *known != path && !known.starts_with(&below));
        }
        [b"h", path, target] => {
            let record = files.get(&unescaped(target)?)?.clone();
            files.insert(unescaped(path)?, record);
        }
        [kind, path, mode, uid, gid, mtime, size, content, xattrs @ ..] => {
            let content = match *kind {
                b"f" => Content::File(Digest::from_hex(std::str::from_utf8(content).ok()?)?),
                b"d" => Content::Directory(*content == b"opaque"),
                b"l" => Content::Symlink(unescaped(content)?),
                b"c" => device(content).map(|(major, minor)| Content::Char(major, minor))?,
                b"b" => device(content).map(|(major, minor)| Content::Block(major, minor))?,
                b"p" => Content::Fifo,
                b"w" => Content::Whiteout,
                _ => return None,
            };
            let mtime = std::str::from_utf8(mtime).ok()?.split_once('.')?;
            let record = Record {
                mode: u32::from_str_radix(std::str::from_utf8(mode).ok()?, 8).ok()?,
                uid: number(uid)?,
                gid: number(gid)?,
                mtime: Time { seconds: mtime.0.parse().ok()?, nanoseconds: mtime.1.parse().ok()? },
                size: number(size)?,
                xattrs: xattrs.iter().map(|pair| xattr(pair)).collect::<Option<_>>()?,
                content,
            };
            files.insert(unescaped(path)?, record);
        }
        _ => return None,
    }
    Some(())
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn device(text: &[u8]) -> Option<(u32, u32)> {
    let (major, minor) = std::str::from_utf8(text).ok()?.split_once(',')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn xattr(pair: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let equals = pair.iter().rposition(|byte| *byte == b'=')?;
    let value = &pair[equals + 1..];
    if !value.len().is_multiple_of(2) {
        return None;
    }
    let bytes = value.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?));
    Some((unescaped(&pair[..equals])?, bytes.collect::<Option<_>>()?))
}

fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    escape(bytes, &mut out);
    out
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    // The root's path is empty, and an empty field would be lost.
    if bytes.is_empty() {
        out.push(b'%');
    }
    for byte in bytes {
        match byte {
            b'%' | b'=' | 0..=b' ' | 0x7f.. => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(&[
                    b'%',
                    DIGITS[usize::from(byte >> 4)],
                    DIGITS[usize::from(byte & 15)],
                ]);
            }
            _ => out.push(*byte),
        }
    }
}

fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    if text == b"%" {
        return Some(Vec::new());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'%' {
            out.push(nibble(*text.get(at + 1)?)? << 4 | nibble(*text.get(at + 2)?)?);
            at += 3;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_back_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("coracle-inventory-{}", std::process::id()));
        let mut writer = Writer::create(&path).unwrap();
        let mut record = Record::whiteout();
        record.mtime = Time { seconds: -5, nanoseconds: 7 };
        record.content = Content::File(Digest::of(b"x"));
        record.xattrs = vec![(b"user.a=b c".to_vec(), vec![0, 255])];
        writer.add(b"", &Record { content: Content::Directory(true), ..record.clone() }).unwrap();
        writer.add(b"a %\n\xff", &record).unwrap();
        writer.link(b"b", b"a %\n\xff").unwrap();
        writer.add(b"gone/x", &record).unwrap();
        writer.remove(b"gone").unwrap();
        writer.add(b"s", &Record { content: Content::Symlink(b"/".to_vec()), ..record.clone() }).unwrap();
        writer.finish().unwrap();
        let files = read(&path).unwrap();
        assert_eq!(files.keys().map(Vec::as_slice).collect::<Vec<_>>(), [&b""[..], b"a %\n\xff", b"b", b"s"]);
        assert_eq!(files[&b"b"[..]], record);
        let mut bytes = fs_err::read(&path).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs_err::write(&path, bytes).unwrap();
        assert!(read(&path).is_err());
        fs_err::remove_file(&path).unwrap();
    }
}
