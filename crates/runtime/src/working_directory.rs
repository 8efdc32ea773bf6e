//! `process.cwd`: entered, and looked at where that has led.

use std::path::Path;

use rustix::io::Errno;

use crate::error::{Error, Result, WORKING_DIRECTORY_STEP};

/// Whether the process is in its working directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    /// It is.
    Yes,
    /// It may not enter it; the container's user may.
    NotYet,
}

/// Enters the directory with what powers the runtime has.
///
/// They may be less than the user's: root does not see a user's directory on a network.
pub(crate) fn enter(directory: &Path) -> Result<Entered> {
    match rustix::process::chdir(directory) {
        Ok(()) => Ok(Entered::Yes),
        Err(Errno::ACCESS | Errno::PERM) => Ok(Entered::NotYet),
        Err(errno) => Err(cannot_enter(directory, errno)),
    }
}

/// Why it cannot be made.
pub(crate) fn cannot_make(directory: &Path, errno: Errno) -> Error {
    let source = kernel::Error::new("mkdir", directory.display().to_string(), errno);
    Error::Step { step: WORKING_DIRECTORY_STEP, source }
}

/// Enters it as the container's user.
pub(crate) fn enter_as_user(directory: &Path) -> Result<()> {
    rustix::process::chdir(directory).map_err(|errno| cannot_enter(directory, errno))
}

fn cannot_enter(directory: &Path, errno: Errno) -> Error {
    let source = kernel::Error::new("chdir", directory.display().to_string(), errno);
    Error::Step { step: WORKING_DIRECTORY_STEP, source }
}

/// Makes sure that the working directory is below the container's root: a path by way of an open descriptor, `/proc/self/fd/N`, may have
/// led to a directory of the host (CVE-2024-21626).
pub(crate) fn verify() -> Result<()> {
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        // The kernel says "(unreachable)/…", and ENOENT of a directory that was removed.
        Ok(_) | Err(Errno::NOENT) => Err(Error::WorkingDirectoryOutside),
        Err(errno) => Err(cannot_enter(Path::new("."), errno)),
    }
}
