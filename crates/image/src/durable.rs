//! The only calls that wait for the disk.
//!
//! What a name leads to must be on the disk before the name is: first the data ([`data`] of a file, [`everything`] where there are many), then
//! the rename, then the directory ([`names_in`]). What can be made anew from the rest, the index, is written last and never waited for.
//!
//! The feature `no-sync` is for `cargo xtask crash` alone, which has to see its power cuts harm a store that does not wait.

use std::os::fd::AsFd;
use std::path::Path;

use crate::error::{Result, system};

/// A file's bytes and length: fdatasync(2).
pub(crate) fn data(file: &fs_err::File) -> Result<()> {
    if cfg!(feature = "no-sync") { Ok(()) } else { Ok(file.sync_data()?) }
}

/// The names in a directory: fsync(2).
pub(crate) fn names_in(directory: &Path) -> Result<()> {
    if cfg!(feature = "no-sync") { Ok(()) } else { Ok(fs_err::File::open(directory)?.sync_all()?) }
}

/// The name of a file or directory.
pub(crate) fn name(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), names_in)
}

/// All that was written to the file system of an open file so far: syncfs(2).
pub(crate) fn everything(file: impl AsFd, path: &Path) -> Result<()> {
    if cfg!(feature = "no-sync") { Ok(()) } else { rustix::fs::syncfs(file).map_err(system("syncfs", path)) }
}
