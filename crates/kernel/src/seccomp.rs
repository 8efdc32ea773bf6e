//! Loading a seccomp filter into this process.

#![allow(unsafe_code)]

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::raw::{check, owned};
use crate::record::{self, Arg, act};
use crate::{Error, Result};

/// One instruction of a classic BPF program: `struct sock_filter` of `<linux/filter.h>`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip when a test holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

impl Instruction {
    /// The instruction as the kernel has it in memory, to hand it to another process of this machine.
    pub fn to_bytes(self) -> [u8; 8] {
        let ([c0, c1], [k0, k1, k2, k3]) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [c0, c1, self.jt, self.jf, k0, k1, k2, k3]
    }

    /// What [`Instruction::to_bytes`] gave.
    pub fn from_bytes([c0, c1, jt, jf, k0, k1, k2, k3]: [u8; 8]) -> Self {
        Self { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes([k0, k1, k2, k3]) }
    }
}

bitflags::bitflags! {
    /// The flags of `SECCOMP_SET_MODE_FILTER`, with the kernel's values.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct FilterFlags: u32 {
        /// `SECCOMP_FILTER_FLAG_LOG`: every action but allow is logged.
        const LOG = 1 << 1;
        /// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: no mitigation of speculative store bypass.
        const SPEC_ALLOW = 1 << 2;
        /// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: return a descriptor that notifications are read from.
        const NEW_LISTENER = 1 << 3;
        /// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: only a fatal signal ends the wait for a received notification.
        const WAIT_KILLABLE_RECV = 1 << 5;
    }
}

/// `seccomp(SECCOMP_SET_MODE_FILTER, flags, &program)`: seccomp(2).
///
/// The filter holds for this thread and for all it starts from now on; it cannot be taken off. Returns the
/// listener's descriptor (close-on-exec) when [`FilterFlags::NEW_LISTENER`] is set.
///
/// `EACCES`: neither `CAP_SYS_ADMIN` in the user namespace nor `no_new_privs`. `EINVAL`: no valid program (empty, more
/// than 4,096 instructions, a jump out of it), or flags that this kernel does not know.
pub fn load(program: &[Instruction], flags: FilterFlags) -> Result<Option<OwnedFd>> {
    let failed = |errno| Error::new("seccomp", format!("a filter of {} instructions", program.len()), errno);
    // The kernel's length field has 16 bits, so a longer program would be cut silently.
    let len = u16::try_from(program.len()).map_err(|_| failed(Errno::INVAL))?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    let args = || {
        let names = flags.iter_names().map(|(name, _)| format!("SECCOMP_FILTER_FLAG_{name}"));
        vec![
            Arg::Flags(u64::from(libc::SECCOMP_SET_MODE_FILTER), "SECCOMP_SET_MODE_FILTER".to_owned()),
            Arg::Flags(u64::from(flags.bits()), names.collect::<Vec<_>>().join("|")),
            record::numbers(&[("len", len.into())]),
        ]
    };
    let fd = act("seccomp", args, |fd| *fd, || set_mode_filter(flags, &fprog)).map_err(failed)?;
    if !flags.contains(FilterFlags::NEW_LISTENER) {
        return Ok(None);
    }
    Ok(Some(owned(fd)))
}

fn set_mode_filter(flags: FilterFlags, fprog: &libc::sock_fprog) -> std::result::Result<i64, Errno> {
    // SAFETY: `fprog` describes a live slice of `Instruction`, which has sock_filter's layout (asserted below); the
    // kernel copies it and keeps no pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags.bits(),
            std::ptr::from_ref(fprog),
        )
    };
    check(result)
}

const _: () = assert!(
    size_of::<Instruction>() == size_of::<libc::sock_filter>()
        && align_of::<Instruction>() == align_of::<libc::sock_filter>()
);

#[cfg(test)]
mod tests {
    use super::*;

    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;

    /// Filters stay, so each is loaded in a thread of its own.
    fn in_a_thread<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(f).join().unwrap()
    }

    #[test]
    fn a_filter_decides_this_threads_calls() {
        let outcome = in_a_thread(|| {
            // getpriority gets ENOTTY (25), all else is allowed.
            let program = [
                Instruction { code: 0x20, jt: 0, jf: 0, k: 0 },
                Instruction { code: 0x15, jt: 0, jf: 1, k: libc::SYS_getpriority as u32 },
                Instruction { code: RETURN, jt: 0, jf: 0, k: 0x0005_0000 | 25 },
                Instruction { code: RETURN, jt: 0, jf: 0, k: ALLOW },
            ];
            rustix::thread::set_no_new_privs(true).unwrap();
            load(&program, FilterFlags::empty()).unwrap();
            rustix::process::getpriority_process(None)
        });
        assert_eq!(outcome, Err(Errno::NOTTY));
    }

    #[test]
    fn a_listener_is_returned_when_asked_for() {
        let listener = in_a_thread(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            let program = [Instruction { code: RETURN, jt: 0, jf: 0, k: ALLOW }];
            load(&program, FilterFlags::NEW_LISTENER | FilterFlags::WAIT_KILLABLE_RECV).unwrap()
        });
        assert!(listener.is_some());
    }

    #[test]
    fn refuses_what_is_no_program() {
        let error = load(&[], FilterFlags::empty()).unwrap_err();
        assert_eq!(error.to_string(), "seccomp a filter of 0 instructions: Invalid argument");
        let endless = vec![Instruction { code: RETURN, jt: 0, jf: 0, k: ALLOW }; 0x1_0001];
        assert_eq!(load(&endless, FilterFlags::empty()).unwrap_err().errno(), Errno::INVAL);
    }
}
