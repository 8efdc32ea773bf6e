//! Starting a container's monitor: the one program between the command line and the container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::mount::{At, Change, MountAttributes, OpenTree, open_tree, set_attributes};
use kernel::process;
use kernel::record::{Actor, Chapter, because};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// A monitor that has been started. It is reaped when this is dropped, for which it must have been told all, or its socket be closed.
pub(crate) struct Monitor(process::Child);

impl Drop for Monitor {
    fn drop(&mut self) {
        // How it ended says nothing that it has not told.
        let _ = process::wait(self.0.pidfd.as_fd());
    }
}

/// Starts a monitor, which waits to be told which container is its: gives it and our end of its socket.
///
/// This process must be single-threaded.
pub(crate) fn start(record: Option<BorrowedFd<'_>>) -> Result<(Monitor, OwnedFd)> {
    let program = own_copy(&find_runtime()?)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| kernel::Error::new("open", "/dev/null", errno))?;
    let (ours, theirs) = kernel::socket::pair()?;
    because(
        Chapter::Process,
        "a small process stands between: if the command line is killed, the container goes on",
    );
    let child = process::spawn(|| become_monitor(&program, &theirs, record, &null))?;
    Ok((Monitor(child), ours))
}

fn become_monitor(program: &OwnedFd, control: &OwnedFd, record: Option<BorrowedFd<'_>>, null: &OwnedFd) {
    kernel::record::actor(Actor::Monitor);
    let prepare = || -> kernel::Result<Vec<String>> {
        kernel::identity::new_session()?;
        for number in 0..=2 {
            process::set_standard_stream(null.as_fd(), number)?;
        }
        let mut argv = vec!["coracle-runtime".to_owned(), runtime::monitor::ARGUMENT.to_owned()];
        argv.push(process::inherit(control)?.to_string());
        argv.push(
            record.map(process::inherit).transpose()?.map_or("-".to_owned(), |number| number.to_string()),
        );
        Ok(argv)
    };
    // What fails here closes the control socket, and the command line says that the monitor was lost.
    if let Ok(argv) = prepare() {
        let _ = process::execveat(program.as_fd(), "coracle-runtime", &argv, &[]);
    }
}

/// coracle-runtime: beside coracle's own file, else in $PATH.
fn find_runtime() -> Result<PathBuf> {
    let own = fs_err::read_link("/proc/self/exe")?;
    let beside = own.with_file_name("coracle-runtime");
    if is_program(&beside) {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join("coracle-runtime"))
        .find(|file| is_program(file));
    found.ok_or(Error::NoRuntime { beside: own })
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// coracle-runtime as a file that nobody can write through: a container that reaches its own executable by `/proc/self/exe`
/// (CVE-2019-5736) reaches only this.
fn own_copy(path: &Path) -> Result<OwnedFd> {
    because(
        Chapter::Process,
        "a read-only view of coracle's own file: through it the container cannot change the file itself",
    );
    match open_tree(At::path(path), OpenTree::CLONE) {
        Ok(file) => {
            let name = path.display().to_string();
            let change = Change { set: MountAttributes::RDONLY, ..Change::default() };
            set_attributes(At::fd(file.as_fd(), &name), change)?;
            Ok(file)
        }
        // A user without CAP_SYS_ADMIN cannot mount; a sealed copy in memory serves as well.
        Err(error) if error.errno() == Errno::PERM => sealed_copy(path),
        Err(error) => Err(error.into()),
    }
}

fn sealed_copy(path: &Path) -> Result<OwnedFd> {
    let failed = |call| move |errno| kernel::Error::new(call, path.display().to_string(), errno);
    let source = fs_err::File::open(path)?;
    let length = source.metadata()?.len();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("coracle-runtime", flags).map_err(failed("memfd_create"))?;
    let mut copied = 0;
    while copied < length {
        match rustix::fs::sendfile(&copy, &source, None, (length - copied) as usize)
            .map_err(failed("sendfile"))?
        {
            0 => break,
            count => copied += count as u64,
        }
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals).map_err(failed("fcntl"))?;
    Ok(copy)
}
