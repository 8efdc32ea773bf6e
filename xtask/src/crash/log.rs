//! The log of a disk's writes and the disks that a power cut may leave.
//!
//! qemu's driver `blklogwrites` writes what Linux's dm-log-writes does (Documentation/admin-guide/device-mapper/log-writes.rst): a sector
//! about the log, then for each request a sector that says where and how much, and the data.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::error::{Error, Result};
use crate::random::Random;

const SECTOR: usize = 512;

/// What a disk writes as a whole: less is not torn on today's disks.
const BLOCK: usize = 4096;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// A request as the disk answered it.
enum Entry {
    /// Bytes at a place; true when they are durable at once.
    Write(usize, Vec<u8>, bool),
    /// What was written before is durable.
    Flush,
    /// The command of this number has ended.
    Mark(usize),
}

/// The writes of one run.
pub(super) struct Log {
    entries: Vec<Entry>,
    /// The disk before them.
    before: Vec<u8>,
}

/// A disk after a power cut.
pub(super) struct Cut {
    /// How many commands had ended.
    pub(super) ended: usize,
    /// Where the power was cut, for people.
    pub(super) place: String,
    disk: Vec<u8>,
}

impl Log {
    /// Reads the log of a disk that began as `before`; what was written from `end` on, in bytes, are marks.
    pub(super) fn read(path: &Path, before: &Path, end: usize) -> Result<Self> {
        let bytes = fs_err::read(path)?;
        let bad = |detail: &str| Error::Output { tool: "blklogwrites".into(), detail: detail.into() };
        let number = |at: usize| -> Result<u64> {
            let field = bytes.get(at..at + 8).and_then(|field| field.try_into().ok());
            field.map(u64::from_le_bytes).ok_or_else(|| bad("it is cut off"))
        };
        if number(0)? != MAGIC || number(8)? != 1 {
            return Err(bad("not a log of version 1"));
        }
        let mut entries = Vec::new();
        let mut at = SECTOR;
        for _ in 0..number(16)? {
            let (place, length, flags) =
                (number(at)? as usize * SECTOR, number(at + 8)? as usize * SECTOR, number(at + 16)?);
            at += SECTOR;
            if flags & DISCARD != 0 {
                return Err(bad("a discard, which this machine's disk does not offer"));
            }
            let data = bytes.get(at..at + length).ok_or_else(|| bad("data is cut off"))?;
            at += length;
            if flags & FLUSH != 0 {
                entries.push(Entry::Flush);
            }
            if place >= end {
                let text = String::from_utf8_lossy(data);
                let step = text.trim_end_matches('\0').trim().strip_prefix("coracle mark ");
                let step =
                    step.and_then(|step| step.parse().ok()).ok_or_else(|| bad("a mark that is none"))?;
                entries.push(Entry::Mark(step));
            } else if length > 0 {
                entries.push(Entry::Write(place, data.to_vec(), flags & FUA != 0));
            }
        }
        Ok(Self { entries, before: fs_err::read(before)? })
    }

    /// The disks that `count` power cuts leave: at each, all is there that was flushed, and of what came after a part at random.
    ///
    /// Every fourth cut comes just as a command has ended, the others anywhere.
    pub(super) fn cut(
        &self,
        count: usize,
        random: &mut Random,
        mut found: impl FnMut(Cut) -> Result<()>,
    ) -> Result<()> {
        let is_mark = |(at, entry): (usize, &Entry)| matches!(entry, Entry::Mark(_)).then_some(at + 1);
        let ends: Vec<usize> = self.entries.iter().enumerate().filter_map(is_mark).collect();
        let mut points: Vec<usize> = (0..count)
            .map(|number| match number % 4 {
                0 if !ends.is_empty() => ends[random.below(ends.len() as u64) as usize],
                _ => random.below(self.entries.len() as u64 + 1) as usize,
            })
            .collect();
        points.sort_unstable();
        let mut durable = self.before.clone();
        let (mut flushed, mut ended, mut read) = (0, 0, 0);
        for point in points {
            for (at, entry) in self.entries[read..point].iter().enumerate() {
                match entry {
                    Entry::Flush => {
                        let now = read + at;
                        self.entries[flushed..now]
                            .iter()
                            .for_each(|entry| entry.apply(&mut durable, &mut |_| true));
                        flushed = now;
                    }
                    Entry::Mark(step) => ended = step + 1,
                    Entry::Write(..) => {}
                }
            }
            read = point;
            let mut disk = durable.clone();
            let quarters = random.below(5);
            // Requests are lost as a whole, or blocks of them.
            let torn = random.below(2) == 0;
            for entry in &self.entries[flushed..point] {
                let all = random.below(4) < quarters;
                entry.apply(&mut disk, &mut |is_durable| {
                    is_durable || if torn { random.below(4) < quarters } else { all }
                });
            }
            let place = format!(
                "after request {point} of {}, with {quarters}/4 since the flush {flushed}",
                self.entries.len()
            );
            found(Cut { ended, place, disk })?;
        }
        Ok(())
    }
}

impl Entry {
    /// Writes to the disk those blocks that `keep` wants, which is told whether they are durable by themselves.
    fn apply(&self, disk: &mut [u8], keep: &mut dyn FnMut(bool) -> bool) {
        let Self::Write(place, data, is_durable) = self else { return };
        for (number, block) in data.chunks(BLOCK).enumerate() {
            if keep(*is_durable) {
                let at = place + number * BLOCK;
                disk[at..at + block.len()].copy_from_slice(block);
            }
        }
    }
}

impl Cut {
    /// Writes the disk into a file that is empty from `offset` on, with holes where it is empty.
    pub(super) fn write(&self, file: &mut fs_err::File, offset: usize) -> Result<()> {
        for (number, block) in self.disk.chunks(BLOCK).enumerate() {
            if block != &[0; BLOCK][..block.len()] {
                file.seek(SeekFrom::Start((offset + number * BLOCK) as u64))?;
                file.write_all(block)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Entry, Log};
    use crate::random::Random;

    #[test]
    fn what_was_flushed_stays_and_what_was_not_may_be_lost() {
        let write = |block: usize, byte, fua| Entry::Write(block * BLOCK, vec![byte; BLOCK], fua);
        let entries = vec![
            write(0, 1, false),
            Entry::Mark(0),
            Entry::Flush,
            write(0, 2, false),
            write(1, 3, true),
            Entry::Mark(1),
        ];
        let log = Log { entries, before: vec![0; 2 * BLOCK] };
        let mut seen = std::collections::BTreeSet::new();
        log.cut(400, &mut Random(7), |cut| {
            seen.insert((cut.ended, cut.disk[0], cut.disk[BLOCK]));
            Ok(())
        })
        .unwrap();
        let expected = [
            (0, 0, 0),
            (0, 1, 0),
            (1, 0, 0),
            (1, 1, 0),
            (1, 1, 3),
            (1, 2, 0),
            (1, 2, 3),
            (2, 1, 3),
            (2, 2, 3),
        ];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
    }
}
