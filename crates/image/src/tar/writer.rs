//! Writing tar archives: ustar, with pax headers where that cannot say it.

use std::io::{self, Read, Write};

use super::header::BLOCK;
use super::{Entry, Kind};

/// Writes entries one after another.
pub(crate) struct Writer<W> {
    output: W,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(output: W) -> Self {
        Self { output }
    }

    /// Writes an entry. `data` gives as many bytes as a file is long; a file that is shorter now is filled up with zeros, as tar(1) does.
    pub(crate) fn add(&mut self, entry: &Entry, data: &mut dyn Read) -> io::Result<()> {
        let path = match entry.kind {
            Kind::Directory => [&entry.path[..], b"/"].concat(),
            _ => entry.path.clone(),
        };
        let size = if entry.kind == Kind::File { entry.size } else { 0 };
        let extended = extended(entry, &path, size);
        if !extended.is_empty() {
            let mut header = header(b"PaxHeaders/entry", b'x', 0o644, extended.len() as u64);
            seal(&mut header);
            self.output.write_all(&header)?;
            self.output.write_all(&extended)?;
            self.pad(extended.len() as u64)?;
        }
        let (kind, link): (u8, &[u8]) = match &entry.kind {
            Kind::File => (b'0', b""),
            Kind::HardLink(target) => (b'1', target),
            Kind::Symlink(target) => (b'2', target),
            Kind::Char(..) => (b'3', b""),
            Kind::Block(..) => (b'4', b""),
            Kind::Directory => (b'5', b""),
            Kind::Fifo => (b'6', b""),
        };
        let mut header = header(&path, kind, entry.mode, size);
        octal(&mut header[108..116], u64::from(entry.uid));
        octal(&mut header[116..124], u64::from(entry.gid));
        octal(&mut header[136..148], u64::try_from(entry.mtime.seconds).unwrap_or(0));
        copy(&mut header[157..257], link);
        if let Kind::Char(major, minor) | Kind::Block(major, minor) = entry.kind {
            octal(&mut header[329..337], u64::from(major));
            octal(&mut header[337..345], u64::from(minor));
        }
        seal(&mut header);
        self.output.write_all(&header)?;
        let copied = io::copy(&mut data.take(size), &mut self.output)?;
        io::copy(&mut io::repeat(0).take(size - copied), &mut self.output)?;
        self.pad(size)
    }

    /// Writes the archive's end.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.output.write_all(&[0; 2 * BLOCK])?;
        Ok(self.output)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over > 0 {
            self.output.write_all(&[0; BLOCK][over..])?;
        }
        Ok(())
    }
}

fn header(path: &[u8], kind: u8, mode: u32, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    copy(&mut header[0..100], path);
    octal(&mut header[100..108], u64::from(mode & 0o7777));
    octal(&mut header[108..116], 0);
    octal(&mut header[116..124], 0);
    octal(&mut header[124..136], size);
    octal(&mut header[136..148], 0);
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header
}

/// As much of a text as a field has room for; a pax header says the whole then.
fn copy(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// Octal digits with a NUL behind them; zeros where the number has more of them, as a pax header says it then.
fn octal(field: &mut [u8], number: u64) {
    let width = field.len() - 1;
    let text = format!("{number:0width$o}");
    let text = if text.len() > width { "0".repeat(width) } else { text };
    field[..width].copy_from_slice(text.as_bytes());
}

fn seal(header: &mut [u8; BLOCK]) {
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    header[154] = 0;
}

/// What has no room in the header.
fn extended(entry: &Entry, path: &[u8], size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    if path.len() > 100 || !path.is_ascii() {
        record(&mut out, b"path", path);
    }
    if let Kind::Symlink(target) | Kind::HardLink(target) = &entry.kind
        && (target.len() > 100 || !target.is_ascii())
    {
        record(&mut out, b"linkpath", target);
    }
    for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
        if id > 0o7_777_777 {
            record(&mut out, key, id.to_string().as_bytes());
        }
    }
    if size > 0o77_777_777_777 {
        record(&mut out, b"size", size.to_string().as_bytes());
    }
    let (seconds, nanoseconds) = (entry.mtime.seconds, entry.mtime.nanoseconds);
    if nanoseconds != 0 || !(0..0o77_777_777_777).contains(&seconds) {
        // A time before 1970 counts back from its second.
        let (sign, seconds, nanoseconds) = match seconds {
            0.. => ("", seconds.unsigned_abs(), nanoseconds),
            _ if nanoseconds == 0 => ("-", seconds.unsigned_abs(), 0),
            _ => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanoseconds),
        };
        record(&mut out, b"mtime", format!("{sign}{seconds}.{nanoseconds:09}").as_bytes());
    }
    for (name, value) in &entry.xattrs {
        record(&mut out, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    out
}

/// `length key=value`, where the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::{Reader, Time};
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let entry = |path: &[u8], kind| Entry {
            path: path.to_vec(),
            kind,
            mode: 0o4755,
            uid: 3_000_000,
            gid: 7,
            mtime: Time { seconds: -3, nanoseconds: 250_000_000 },
            xattrs: vec![(b"user.a".to_vec(), b"1=2\n\0".to_vec())],
            size: 0,
            segments: None,
        };
        let long = b"d/".repeat(80);
        let long = &long[..long.len() - 1];
        let mut entries = vec![
            entry(long, Kind::Directory),
            entry("ä".as_bytes(), Kind::Symlink(long.to_vec())),
            entry(b"link", Kind::HardLink("ä".as_bytes().to_vec())),
            entry(b"c", Kind::Char(5, 300)),
            entry(b"p", Kind::Fifo),
        ];
        entries.push(Entry { size: 700, mtime: Time::default(), ..entry(b"f", Kind::File) });
        let mut writer = Writer::new(Vec::new());
        for entry in &entries {
            writer.add(entry, &mut &[1_u8; 600][..]).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let mut reader = Reader::new(&bytes[..]);
        for expected in &entries {
            let mut found = reader.next().unwrap().unwrap();
            if found.path.ends_with(b"/") {
                found.path.pop();
            }
            assert_eq!(&found, expected);
        }
        let mut data = Vec::new();
        while let Ok(part) = reader.data()
            && !part.is_empty()
        {
            let length = part.len();
            data.extend_from_slice(part);
            reader.consume(length);
        }
        assert_eq!(data, [vec![1; 600], vec![0; 100]].concat());
        assert_eq!(reader.next().unwrap(), None);
    }
}
