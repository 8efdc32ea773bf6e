//! POSIX extended headers: lines of `length key=value`.

use super::header::check_id;
use super::sparse::Record;
use super::{Fault, Time};

/// What an extended header says about the entry after it. An empty value takes a key back.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Record,
}

impl Pax {
    pub(super) fn parse(mut text: &[u8]) -> Result<Self, Fault> {
        let mut pax = Self::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        // The last block's NULs are no part of the header's size; some writers count them in.
        while text.first().is_some_and(|byte| *byte != 0) {
            let (key, value, rest) = line(text)?;
            text = rest;
            // Only the two keys of the first sparse format are meant to come again.
            if !matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                if seen.contains(&key) {
                    return Err(Fault::Duplicate(String::from_utf8_lossy(key).into_owned()));
                }
                if seen.len() >= 4096 {
                    return Err(Fault::TooLong("extended header"));
                }
                seen.push(key);
            }
            pax.set(key, value)?;
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            return self.add_xattr(name.to_vec(), value.to_vec());
        }
        if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            let name = percent_decoded(name).ok_or(Fault::Pax)?;
            let value = base64_decoded(value).ok_or(Fault::Pax)?;
            return self.add_xattr(name, value);
        }
        if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.set(name, value);
        }
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.linkpath = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value).ok_or(Fault::Number("size"))?),
            b"uid" => self.uid = Some(owner(value, "owner")?),
            b"gid" => self.gid = Some(owner(value, "group")?),
            b"mtime" => self.mtime = Some(time(value).ok_or(Fault::Number("modification time"))?),
            // Names of users, other times, comments, character sets: not part of an image.
            _ => {}
        }
        Ok(())
    }

    /// Both spellings of one attribute are common in one header (bsdtar writes both); they must agree.
    fn add_xattr(&mut self, name: Vec<u8>, value: Vec<u8>) -> Result<(), Fault> {
        if name.is_empty() || name.contains(&0) || name.len() > 255 {
            return Err(Fault::Name("extended attribute's name"));
        }
        match self.xattrs.iter().find(|(known, _)| *known == name) {
            Some((_, known)) if *known == value => {}
            Some(_) => return Err(Fault::Duplicate(String::from_utf8_lossy(&name).into_owned())),
            None => self.xattrs.push((name, value)),
        }
        Ok(())
    }
}

/// Key, value, and what follows the line.
type Line<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Splits off the first line.
fn line(text: &[u8]) -> Result<Line<'_>, Fault> {
    let space = text.iter().take(20).position(|byte| *byte == b' ').ok_or(Fault::Pax)?;
    let length = decimal(&text[..space]).and_then(|length| usize::try_from(length).ok()).ok_or(Fault::Pax)?;
    if length <= space + 1 || length > text.len() || text[length - 1] != b'\n' {
        return Err(Fault::Pax);
    }
    let record = &text[space + 1..length - 1];
    let equals = record.iter().position(|byte| *byte == b'=').filter(|at| *at > 0).ok_or(Fault::Pax)?;
    Ok((&record[..equals], &record[equals + 1..], &text[length..]))
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.iter()
        .try_fold(0u64, |value, digit| match digit {
            b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
            _ => None,
        })
        .filter(|value| *value <= i64::MAX as u64)
}

fn owner(value: &[u8], name: &'static str) -> Result<u32, Fault> {
    decimal(value).ok_or(Fault::Number(name)).and_then(|id| check_id(id, name))
}

/// `[-]seconds[.fraction]`.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9)
        .fold(0u32, |value, at| value * 10 + fraction.get(at).map_or(0, |digit| u32::from(digit - b'0')));
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'%' {
            let value = digit(text.get(at + 1)?)? << 4 | digit(text.get(at + 2)?)?;
            bytes.push(value as u8);
            at += 3;
        } else {
            bytes.push(text[at]);
            at += 1;
        }
    }
    Some(bytes)
}

/// Base 64, with or without the padding that libarchive leaves out.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (count < 6).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times() {
        let time = |text: &str| time(text.as_bytes()).map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(time("1.5"), Some((1, 500_000_000)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("7.1234567899"), Some((7, 123_456_789)));
        assert_eq!(time("-3"), Some((-3, 0)));
        assert_eq!(time("1.x"), None);
        assert_eq!(time(""), None);
    }

    #[test]
    fn reads_base64_with_and_without_padding() {
        for (text, bytes) in [("", &b""[..]), ("aGk", b"hi"), ("aGk=", b"hi"), ("AQIDBA==", &[1, 2, 3, 4])] {
            assert_eq!(base64_decoded(text.as_bytes()).as_deref(), Some(bytes));
        }
        assert_eq!(base64_decoded(b"a"), None);
        assert_eq!(base64_decoded(b"a!"), None);
    }

    #[test]
    fn refuses_malformed_lines() {
        for text in
            ["x", "5 a=b", "6 a=b", "6 =bc\n", "99999999999999999999 a=b\n", "4 a\n", "-1 a=b\n", "6 a=b\nz"]
        {
            assert!(Pax::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(Pax::parse(b"8 path=a\n").is_err());
        assert_eq!(Pax::parse(b"10 path=a\n\0\0").unwrap().path.as_deref(), Some(&b"a"[..]));
        assert!(matches!(Pax::parse(b"10 path=a\n10 path=b\n"), Err(Fault::Duplicate(_))));
    }
}
