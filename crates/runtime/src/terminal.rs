//! The container's pseudo-terminal: made from its own devpts, its other end handed to the monitor. See pty(7).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use kernel::mount::{At, OpenTree, move_mount, open_tree};
use kernel::record::{Chapter, because};
use rustix::fs::{Gid, OFlags, Uid};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::error::{InStep as _, Result};
use crate::root::NewRoot;
use crate::spec::ConsoleSize;

const STEP: &str = "cannot make the container's terminal";

/// f_type of devpts: statfs(2).
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Both ends of a new terminal.
pub struct Terminal {
    /// The end of the one who looks at it.
    pub controller: OwnedFd,
    /// The end of the container.
    pub container: OwnedFd,
    /// Where that is in the container, `/dev/pts/N`.
    pub name: String,
}

/// Opens a new terminal of the container's devpts.
pub fn open(root: &NewRoot, size: Option<ConsoleSize>) -> Result<Terminal> {
    because(Chapter::Process, "-t: the process gets a terminal of its own, from its own devpts");
    let failed = |call: &'static str| move |errno| kernel::Error::new(call, "/dev/pts/ptmx", errno);
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let controller = root.open(Path::new("/dev/pts/ptmx"), flags).map_err(failed("openat2")).in_step(STEP)?;
    rustix::pty::unlockpt(&controller).map_err(failed("ioctl")).in_step(STEP)?;
    let is_terminal =
        rustix::fs::fstatfs(&controller).is_ok_and(|file_system| file_system.f_type as u64 == DEVPTS_MAGIC);
    if !is_terminal {
        return Err(failed("fstatfs")(rustix::io::Errno::NOTTY)).in_step(STEP);
    }
    let name = rustix::pty::ptsname(&controller, Vec::new()).map_err(failed("ioctl")).in_step(STEP)?;
    let name = name.to_string_lossy().into_owned();
    // The kernel gives the other end itself: its name could be somebody else's file by now (CVE-2025-52565).
    let flags =
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let container =
        rustix::pty::ioctl_tiocgptpeer(&controller, flags).map_err(failed("ioctl")).in_step(STEP)?;
    if let Some(size) = size {
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&controller, size).map_err(failed("ioctl")).in_step(STEP)?;
    }
    Ok(Terminal { controller, container, name })
}

/// Makes a terminal the container's `/dev/console`.
pub fn bind_console(root: &NewRoot, terminal: &Terminal) -> Result<()> {
    let (container, name) = (&terminal.container, &terminal.name);
    let failed = |errno| kernel::Error::new("openat", "/dev/console", errno);
    let (parent, console) = root.parent_of(Path::new("/dev/console"))?;
    let target = NewRoot::node_to_cover(&parent, &console, 0o600).map_err(failed).in_step(STEP)?;
    because(Chapter::Process, "/dev/console is that terminal too");
    let tree = open_tree(At::fd(container.as_fd(), name), OpenTree::CLONE).in_step(STEP)?;
    move_mount(tree.as_fd(), name, At::fd(target.as_fd(), "/dev/console")).in_step(STEP)
}

/// Makes the terminal the controlling one of this session and the three standard streams.
pub fn take(container: &OwnedFd, uid: u32) -> Result<()> {
    let failed = |errno| kernel::Error::new("ioctl", "TIOCSCTTY on the container's terminal", errno);
    rustix::process::ioctl_tiocsctty(container).map_err(failed).in_step(STEP)?;
    let owned = |errno| kernel::Error::new("fchown", "the container's terminal", errno);
    rustix::fs::fchown(container, Some(Uid::from_raw(uid)), None::<Gid>).map_err(owned).in_step(STEP)?;
    for number in 0..=2 {
        kernel::process::set_standard_stream(container.as_fd(), number).in_step(STEP)?;
    }
    Ok(())
}
