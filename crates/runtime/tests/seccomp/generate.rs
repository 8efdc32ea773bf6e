//! Profiles made at random, the same ones every time.

use runtime::seccomp::{Action, Arch, Condition, Op, Seccomp, Syscall};

/// i386's calls that can be made through another one, besides those below. They are left out of what is needed to start,
/// so that no rule of theirs meets those below in `socketcall` or `ipc`.
pub(crate) const RELATIVES: [&str; 22] = [
    "accept4",
    "connect",
    "getpeername",
    "getsockname",
    "getsockopt",
    "msgctl",
    "msgget",
    "msgrcv",
    "recv",
    "recvfrom",
    "recvmsg",
    "semctl",
    "semget",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shmctl",
    "shmdt",
    "shmget",
    "shutdown",
    "socketpair",
];

/// Calls that neither runc nor the probe make once the filter holds, of every kind: plain ones, such as only one interface
/// has, i386's multiplexed ones with and without a number of their own, and one that nobody has.
///
/// Calls in one line get the same action in a profile: where rules with different actions hold for one call, it
/// depends on libseccomp's tree which counts.
pub(crate) const SUBJECTS: [&[&str]; 14] = [
    &["accept", "bind", "listen", "recvmmsg", "send", "socket", "socketcall"],
    &["ipc", "msgsnd", "semop", "semtimedop", "shmat"],
    &["_sysctl"],
    &["acct"],
    &["mq_open"],
    &["no_such_call"],
    &["personality"],
    &["ptrace"],
    &["quotactl"],
    &["swapoff"],
    &["time"],
    &["umount"],
    &["vhangup"],
    &["waitpid"],
];

/// Values that arguments and conditions have; among them what selects the subjects in `socketcall` and `ipc`.
pub(crate) const VALUES: [u64; 17] = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    11,
    21,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x7_0000_0003,
    u64::MAX,
];

/// A source of numbers that only look random.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % limit
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A profile under which a container starts: `needed` are calls that it makes.
pub(crate) fn profile(numbers: &mut Numbers, needed: Syscall) -> Seccomp {
    use Action::{Allow, Errno, Kill, KillProcess, KillThread, Log, Trace, Trap};
    let default_action = numbers.pick(&[Errno, Errno, Errno, Allow, Log, Trap, KillProcess, KillThread]);
    let mut architectures = Vec::new();
    for arch in [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64] {
        if numbers.below(4) > 0 {
            architectures.push(arch);
        }
    }
    let mut syscalls = vec![needed];
    for subjects in SUBJECTS {
        let actions = [Allow, Allow, Errno, Errno, Kill, KillThread, KillProcess, Log, Trace, Trap];
        let action = numbers.pick(&actions);
        let errno_ret = numbers.pick(&[None, Some(1), Some(38), Some(0x1_0002)]);
        // Of several rules on one call each has one condition: libseccomp 2.5.4 joins those with more so that calls pass
        // for which no rule holds, which is not to be matched.
        let rules = numbers.below(3);
        let conditions = if rules == 1 { 4 } else { 2 };
        for _ in 0..rules {
            syscalls.push(Syscall {
                names: (0..=numbers.below(2)).map(|_| numbers.pick(subjects).into()).collect(),
                action,
                errno_ret,
                args: (0..numbers.below(conditions)).map(|_| condition(numbers)).collect(),
            });
        }
    }
    Seccomp {
        default_action,
        default_errno_ret: [None, Some(1), Some(38)][numbers.below(3)],
        architectures,
        flags: None,
        listener_path: None,
        listener_metadata: None,
        syscalls,
    }
}

fn condition(numbers: &mut Numbers) -> Condition {
    use Op::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual};
    let op = numbers.pick(&[Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, MaskedEqual]);
    let mut value = numbers.pick(&VALUES);
    // Where several rules order one argument, libseccomp 2.5.4 mixes up the upper halves of their values: 0x8000_0000 is
    // "at least 0x1_0000_0000" then. How those compare is tested without runc.
    if !matches!(op, Equal | NotEqual | MaskedEqual) {
        value &= 0xffff_ffff;
    }
    Condition { index: numbers.below(6) as u32, value, value_two: numbers.pick(&VALUES), op }
}
