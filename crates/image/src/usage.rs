//! How much of the disk files take.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::Result;

/// Adds up the blocks of files and directories, each file once, however many names it has.
#[derive(Debug, Default)]
pub struct DiskUsage {
    /// Device and inode of those that have more names than one.
    seen: BTreeSet<(u64, u64)>,
}

impl DiskUsage {
    /// The bytes on the disk of `path` and all below it, but for what was counted before. What is not there takes none.
    pub fn of(&mut self, path: &Path) -> Result<u64> {
        let mut total = 0;
        let mut paths = vec![path.to_owned()];
        while let Some(path) = paths.pop() {
            let metadata = match fs_err::symlink_metadata(&path) {
                // Another command removes it just now.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let is_counted = !metadata.is_dir()
                && metadata.nlink() > 1
                && !self.seen.insert((metadata.dev(), metadata.ino()));
            if is_counted {
                continue;
            }
            total += metadata.blocks() * 512;
            if metadata.is_dir() {
                let entries = match fs_err::read_dir(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    // overlayfs makes one that nobody may read, and that has something in it only for moments.
                    Err(error)
                        if error.kind() == std::io::ErrorKind::PermissionDenied
                            && metadata.mode() & 0o777 == 0 =>
                    {
                        continue;
                    }
                    other => other?,
                };
                for entry in entries {
                    paths.push(entry?.path());
                }
            }
        }
        Ok(total)
    }
}
