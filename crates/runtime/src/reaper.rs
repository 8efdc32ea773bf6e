//! `--init`: a first process that reaps orphans and passes signals on.
//!
//! Pid 1 of a PID namespace inherits every orphan in it and gets no signal that it has no handler for. A
//! program that was not written for that piles up zombies and ignores Ctrl-C; this one is. It is coracle-runtime's own file, executed by
//! descriptor from its read-only copy.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use kernel::process::{self, Ended};
use kernel::signal::SignalFd;
use rustix::fs::{Mode, OFlags};

use crate::error::{InStep as _, Result};

/// The first argument that makes coracle-runtime the reaper.
pub const ARGUMENT: &str = "coracle-init";

/// Signals that are about the reaper's own process and must not be passed on.
const NOT_PASSED_ON: [i32; 9] = [
    libc::SIGCHLD,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// This process's own executable, opened before the root changes.
pub(crate) fn own_file() -> Result<OwnedFd> {
    rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| kernel::Error::new("open", "/proc/self/exe", errno))
        .in_step("cannot start the container's init")
}

/// Becomes the reaper that starts `program`. Returns only when that fails.
pub(crate) fn become_init(
    own: BorrowedFd<'_>,
    program: &Path,
    args: &[String],
    environment: &[String],
) -> kernel::Error {
    let mut argv = vec![ARGUMENT.to_owned(), program.display().to_string()];
    argv.extend(args.iter().cloned());
    process::execveat(own, "coracle-runtime", &argv, environment)
}

/// The reaper: starts the program, passes signals on, reaps, and ends as the program did.
pub fn run(program: &Path, args: &[String]) -> i32 {
    let environment: Vec<String> = std::env::vars_os()
        .map(|(k, v)| format!("{}={}", k.to_string_lossy(), v.to_string_lossy()))
        .collect();
    match start_and_reap(program, args, &environment) {
        Ok(ended) => ended.code(),
        Err(error) => {
            eprintln!("coracle-init: {error}");
            125
        }
    }
}

fn start_and_reap(program: &Path, args: &[String], environment: &[String]) -> Result<Ended> {
    const STEP: &str = "cannot look after the container's processes";
    let all: Vec<i32> = (1..=64).filter(|n| !matches!(n, 9 | 19 | 32 | 33)).collect();
    let signals = SignalFd::block(&all).in_step(STEP)?;
    let child = match process::fork().in_step(STEP)? {
        0 => start(program, args, environment),
        child => child,
    };
    loop {
        let mut poll = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
        // A failure here is an interruption at most: the signals are read below in any case.
        let _ = rustix::event::poll(&mut poll, None);
        while let Some(signal) = signals.read().in_step(STEP)? {
            if !NOT_PASSED_ON.contains(&signal.number) {
                // A child that has just ended is about to be reaped.
                let _ = process::kill(child as i32, signal.number);
            }
        }
        while let Some((pid, ended)) = process::reap_any().in_step(STEP)? {
            if pid == child {
                return Ok(ended);
            }
        }
    }
}

/// In the new process: takes the terminal's foreground, as a shell's job would, and becomes the program.
fn start(program: &Path, args: &[String], environment: &[String]) -> ! {
    // Both fail without a terminal, where there is no foreground to take.
    let _ = rustix::process::setpgid(None, None);
    let _ = rustix::termios::tcsetpgrp(std::io::stdin(), rustix::process::getpid());
    kernel::signal::unblock_all();
    let error = process::execve(program, args, environment);
    eprintln!("coracle-init: {error}");
    process::exit(if error.errno() == rustix::io::Errno::NOENT { 127 } else { 126 })
}
