//! Signals as data: a blocked mask and a descriptor to read them from. See signalfd(2).

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;

use crate::raw::{check, owned};
use crate::{Error, Result};

/// One signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// Who sent it; 0 for the kernel.
    pub sender: u32,
}

/// A descriptor that becomes readable when one of the signals arrives.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks `signals` in this thread and makes a descriptor to read them from: sigprocmask(2), signalfd(2).
    ///
    /// The mask is inherited by children and kept across execve: call [`unblock_all`] before one.
    pub fn block(signals: &[i32]) -> Result<Self> {
        let failed = |errno| Error::new("signalfd", "this process", errno);
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set, sigaddset only adds to it (and fails for a bad number), and both calls that
        // use it read it while it lives.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                check(libc::sigaddset(set.as_mut_ptr(), *signal).into()).map_err(failed)?;
            }
            check(libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()).into())
                .map_err(failed)?;
            check(libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into())
        };
        Ok(Self(owned(fd.map_err(failed)?)))
    }

    /// The next signal that has arrived, if any.
    pub fn read(&self) -> Result<Option<Signal>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        // SAFETY: the kernel writes whole structures only, and the size passed is that of the buffer.
        let read = check(unsafe {
            libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size_of::<libc::signalfd_siginfo>())
        } as libc::c_long);
        match read {
            Ok(_) => {
                // SAFETY: a read that succeeded filled one whole structure.
                let info = unsafe { info.assume_init() };
                Ok(Some(Signal { number: info.ssi_signo as i32, sender: info.ssi_pid }))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(Error::new("read", "signalfd", errno)),
        }
    }
}

impl std::os::fd::AsFd for SignalFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets every signal through again and gives each its default action, as a new program expects to find them.
pub fn unblock_all() {
    // SAFETY: sigfillset initialises the set before it is read; SIG_DFL involves no code of ours. Failures (SIGKILL, SIGSTOP and the
    // numbers the C library keeps) are expected and change nothing.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Ignores SIGPIPE, so that writing to a reader that left is an error and not the end.
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN involves no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal's number from `TERM`, `SIGTERM`, `15` or `RTMIN+3`, in any case. See signal(7).
pub fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return Some(at as i32 + 1);
    }
    let real_time = |rest: &str, base: i32, sign: i32| match rest {
        "" => Some(base),
        rest => rest.get(1..)?.parse::<i32>().ok().map(|offset| base + sign * offset),
    };
    let found = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) if rest.is_empty() || rest.starts_with('+') => real_time(rest, 34, 1),
        (_, Some(rest)) if rest.is_empty() || rest.starts_with('-') => real_time(rest, 64, -1),
        _ => None,
    };
    found.filter(|number| (34..=64).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_signals_by_every_name() {
        for (text, expected) in [
            ("TERM", Some(15)),
            ("sigkill", Some(9)),
            ("9", Some(9)),
            ("RTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
        for text in ["", "0", "65", "SIGFOO", "RTMIN-1", "RTMIN+40", "RTMIN+é"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
