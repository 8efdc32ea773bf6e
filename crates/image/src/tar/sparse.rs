//! Sparse files: GNU tar's four ways to say which parts of a file have data.

use super::Fault;
use super::header::{self, BLOCK, Header, number};
use super::pax::decimal;

/// The most parts of one file, so that a map takes at most 4 MiB.
const SEGMENTS_MAX: usize = 1 << 18;

/// A part of a file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The parts of a file and its length.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) segments: Vec<Segment>,
    pub(super) size: u64,
}

impl Map {
    /// The old format: the first four parts stand in the header.
    pub(super) fn from_header(header: &Header) -> Result<Self, Fault> {
        let mut map = Self { segments: Vec::new(), size: header.length(header::REAL_SIZE)? };
        map.pairs(&header.bytes[header::SPARSE..], 4)?;
        Ok(map)
    }

    /// The old format's further blocks of 21 parts. True when another follows.
    pub(super) fn extend(&mut self, block: &[u8; BLOCK]) -> Result<bool, Fault> {
        self.pairs(block, 21)?;
        Ok(block[504] != 0)
    }

    fn pairs(&mut self, bytes: &[u8], count: usize) -> Result<(), Fault> {
        for pair in bytes.chunks_exact(24).take(count) {
            if pair[0] == 0 || pair[12] == 0 {
                break;
            }
            let field =
                |field: &[u8]| number(field).and_then(|value| u64::try_from(value).ok()).ok_or(Fault::Sparse);
            push(&mut self.segments, Segment { offset: field(&pair[..12])?, length: field(&pair[12..])? })?;
        }
        Ok(())
    }
}

fn push(segments: &mut Vec<Segment>, segment: Segment) -> Result<(), Fault> {
    if segments.len() >= SEGMENTS_MAX {
        return Err(Fault::TooLong("map of a sparse file"));
    }
    segments.push(segment);
    Ok(())
}

/// What a pax header says about a sparse file (formats 0.0, 0.1 and 1.0).
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    blocks: Option<u64>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
}

impl Record {
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let number = || decimal(value).ok_or(Fault::Sparse);
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"major" => self.major = Some(number()?),
            b"minor" => self.minor = Some(number()?),
            b"size" | b"realsize" => self.size = Some(number()?),
            b"numblocks" => self.blocks = Some(number()?),
            b"map" => {
                for part in value.split(|byte| *byte == b',').filter(|_| !value.is_empty()) {
                    self.number(decimal(part).ok_or(Fault::Sparse)?)?;
                }
            }
            b"offset" if self.numbers.len().is_multiple_of(2) => self.number(number()?)?,
            b"numbytes" if !self.numbers.len().is_multiple_of(2) => self.number(number()?)?,
            _ => return Err(Fault::Sparse),
        }
        Ok(())
    }

    fn number(&mut self, number: u64) -> Result<(), Fault> {
        if self.numbers.len() >= SEGMENTS_MAX * 2 {
            return Err(Fault::TooLong("map of a sparse file"));
        }
        self.numbers.push(number);
        Ok(())
    }

    pub(super) fn is_version_1(&self) -> bool {
        self.major == Some(1)
    }

    /// The map of the formats 0.0 and 0.1; None when the file is not sparse.
    pub(super) fn map(&self) -> Result<Option<Map>, Fault> {
        match (self.major, self.minor) {
            (None, None) | (Some(0), Some(0 | 1)) => {}
            _ => return Err(Fault::Sparse),
        }
        let Some(size) = self.size else {
            let is_plain = self.numbers.is_empty() && self.blocks.is_none() && self.major.is_none();
            return if is_plain { Ok(None) } else { Err(Fault::Sparse) };
        };
        let segments = segments(&self.numbers)?;
        if self.blocks.is_some_and(|blocks| blocks != segments.len() as u64) {
            return Err(Fault::Sparse);
        }
        Ok(Some(Map { segments, size }))
    }
}

fn segments(numbers: &[u64]) -> Result<Vec<Segment>, Fault> {
    if !numbers.len().is_multiple_of(2) {
        return Err(Fault::Sparse);
    }
    Ok(numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// Format 1.0: the map is lines of decimal numbers before the data, the count of parts first.
#[derive(Debug, Default)]
pub(super) struct Lines {
    count: Option<usize>,
    numbers: Vec<u64>,
    partial: Vec<u8>,
}

impl Lines {
    pub(super) fn is_complete(&self) -> bool {
        self.count.is_some_and(|count| self.numbers.len() == count * 2)
    }

    pub(super) fn feed(&mut self, block: &[u8; BLOCK]) -> Result<(), Fault> {
        for byte in block {
            if self.is_complete() {
                return Ok(());
            }
            if *byte != b'\n' {
                if self.partial.len() >= 20 {
                    return Err(Fault::Sparse);
                }
                self.partial.push(*byte);
                continue;
            }
            let value = decimal(&self.partial).ok_or(Fault::Sparse)?;
            self.partial.clear();
            match self.count {
                None if value > SEGMENTS_MAX as u64 => return Err(Fault::TooLong("map of a sparse file")),
                None => self.count = Some(value as usize),
                Some(_) => self.numbers.push(value),
            }
        }
        Ok(())
    }

    pub(super) fn into_map(self, record: &Record) -> Result<Map, Fault> {
        if record.minor != Some(0) {
            return Err(Fault::Sparse);
        }
        Ok(Map { segments: segments(&self.numbers)?, size: record.size.ok_or(Fault::Sparse)? })
    }
}

/// Parts must ascend, lie inside the file and take all stored bytes.
pub(super) fn check(segments: &[Segment], size: u64, stored: u64) -> Result<(), Fault> {
    let (mut end, mut sum) = (0u64, 0u64);
    for segment in segments {
        if segment.offset < end {
            return Err(Fault::Sparse);
        }
        end = segment.offset.checked_add(segment.length).ok_or(Fault::Sparse)?;
        sum += segment.length;
    }
    if end > size || sum != stored || size > i64::MAX as u64 {
        return Err(Fault::Sparse);
    }
    Ok(())
}
