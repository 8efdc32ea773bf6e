//! The container's ends of its standard streams.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Gid, Uid};
use rustix::io::Errno;

use crate::error::{InStep as _, Result};

/// What the container reads, and where it writes.
#[derive(Debug)]
pub enum Streams {
    /// Pipes, or what else the caller has: input, output, error.
    Pipes {
        /// What it reads.
        input: OwnedFd,
        /// Where it writes.
        output: OwnedFd,
        /// Where it complains.
        error: OwnedFd,
    },
    /// All three are a terminal.
    Terminal(OwnedFd),
}

impl Streams {
    /// Copies of this process's own three, of which a closed one is `/dev/null`.
    pub fn inherited() -> Result<Self> {
        let copy = |number: i32| {
            kernel::process::copy_standard_stream(number).in_step("cannot pass the standard streams on")
        };
        Ok(Self::Pipes { input: copy(0)?, output: copy(1)?, error: copy(2)? })
    }

    /// The descriptors in the order of their standard numbers.
    pub(crate) fn all(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Pipes { input, output, error } => vec![input.as_fd(), output.as_fd(), error.as_fd()],
            Self::Terminal(container) => vec![container.as_fd()],
        }
    }

    /// Gives the streams to a user, who can then open `/dev/stdout` again.
    ///
    /// Devices of the host that are no terminals (`/dev/null`) stay whose they are. Where it is not possible, for an id outside the user
    /// namespace or somebody else's file, the user simply cannot.
    pub(crate) fn give_to(&self, user: u32, group: Option<u32>) -> Result<()> {
        for stream in self.all() {
            if !is_givable(stream) {
                continue;
            }
            match rustix::fs::fchown(stream, Some(Uid::from_raw(user)), group.map(Gid::from_raw)) {
                Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::ROFS | Errno::NOTSUP | Errno::NOSYS) => {}
                Err(errno) => {
                    return Err(kernel::Error::new("fchown", "standard stream", errno))
                        .in_step("cannot give the streams to the container");
                }
            }
        }
        Ok(())
    }
}

fn is_givable(stream: BorrowedFd<'_>) -> bool {
    let Ok(status) = rustix::fs::fstat(stream) else { return false };
    match FileType::from_raw_mode(status.st_mode) {
        FileType::CharacterDevice => rustix::termios::isatty(stream),
        FileType::BlockDevice => false,
        _ => true,
    }
}
