//! Starting a container's monitor: the one program between the command line and the container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::process;
use kernel::record::{Actor, Chapter, because};
use rustix::fs::{Mode, OFlags};

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
    let program = runtime::own_file::copy(&find_runtime()?)?;
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
    find_program("coracle-runtime").ok_or(Error::NoRuntime { beside: own })
}

/// A program in $PATH, else where the administrator's are, which many a $PATH has not.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.map(|directory| directory.join(name)).find(|file| is_program(file))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
