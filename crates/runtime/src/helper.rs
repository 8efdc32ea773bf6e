//! Programs of the machine that one of ours runs and listens to.
//!
//! The standard library's way to start programs links the C library's name lookups, which these static programs must not have.

use std::os::fd::{AsFd as _, OwnedFd};

use kernel::process::{self, CloneFlags, Cloned, Ended};
use kernel::record::Actor;

use crate::error::{Error, InStep as _, Result};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a program of the machine and gives what it printed. Its errors go where ours go.
///
/// The caller must be single-threaded.
pub fn output(program: &str, arguments: &[String]) -> Result<String> {
    const STEP: &str = "cannot run a program of the machine";
    let path = crate::program::find(program, &[PATH.to_owned()])?;
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| kernel::Error::new("pipe2", program, errno))
        .in_step(STEP)?;
    let child = match process::clone3(CloneFlags::empty(), None).in_step(STEP)? {
        Cloned::Child => {
            kernel::record::actor(Actor::Helper);
            let argv: Vec<String> =
                std::iter::once(program.to_owned()).chain(arguments.iter().cloned()).collect();
            if process::set_standard_stream(writer.as_fd(), 1).is_ok() {
                // Nothing is left to say to anybody: the exit status tells.
                let _ = process::execve(&path, &argv, &[PATH.to_owned()]);
            }
            process::exit(127)
        }
        Cloned::Parent(child) => child,
    };
    drop(writer);
    let text = read_all(&reader)?;
    match process::wait(child.pidfd.as_fd()).in_step(STEP)? {
        Ended::Exited(0) => Ok(text),
        other => Err(Error::Configuration {
            what: "program",
            value: format!("{program} {}", arguments.join(" ")),
            reason: format!("it failed (status {})", other.code()),
        }),
    }
}

fn read_all(reader: &OwnedFd) -> Result<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        match rustix::io::read(reader, &mut buffer) {
            Ok(0) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                return Err(kernel::Error::new("read", "a program's output", errno))
                    .in_step("cannot listen to a program");
            }
        }
    }
}
