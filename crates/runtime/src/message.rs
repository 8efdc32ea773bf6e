//! What the command line and a container's monitor say to each other, over one socketpair.
//!
//! Each message is one JSON object in one packet; descriptors travel beside it. The socket belongs to this pair of
//! processes only, both of one version, so it carries no version of its own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Failure, Result};

/// From the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromMonitor {
    /// The container's program runs. With it come its streams: the terminal's other end, or the
    /// pipes of its standard input (if that is open), output and error.
    Started {
        /// The first process's number on the host.
        pid: u32,
    },
    /// It could not be started; everything is undone.
    Failed(Failure),
    /// It has ended, and everything that was made for it is undone.
    Ended {
        /// Its exit status, 128 + n for signal n.
        code: i32,
        /// Whether the kernel killed a process of it for want of memory.
        out_of_memory: bool,
    },
}

/// From the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToMonitor {
    /// The container's directory is filled: make it. The first message, once. With it comes the container's lock.
    Begin {
        /// The directory.
        directory: PathBuf,
    },
    /// Send this signal to the container's first process.
    Signal(i32),
    /// Nobody reads this output any more: 0 is standard output or the terminal, 1 standard error. Whoever writes to it shall get
    /// SIGPIPE, so the monitor's end must close too.
    Close(usize),
}

/// Sends one message.
pub fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> kernel::Result<()> {
    let text = serde_json::to_vec(message).unwrap_or_default();
    kernel::socket::send(socket, &text, fds)
}

/// Receives one message; none when the other side is gone.
pub fn receive<T: for<'a> Deserialize<'a>>(socket: impl AsFd) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let received = kernel::socket::receive(socket)
        .map_err(|source| Error::Step { step: "cannot hear from coracle's other process", source })?;
    let Some((text, fds)) = received else { return Ok(None) };
    let message = serde_json::from_slice(&text).map_err(|error| Error::Configuration {
        what: "message",
        value: String::from_utf8_lossy(&text).into_owned(),
        reason: error.to_string(),
    })?;
    Ok(Some((message, fds)))
}
