//! Docker's default profile as data, so that nothing is parsed when a container starts.
//!
//! It is equal to `seccomp/default.json` of [moby/profiles](https://github.com/moby/profiles) as of 2026 (commit
//! 02e898b1), without the rules for processors that coracle does not run on.

use std::borrow::Cow;

use super::arch::MACHINE;
use super::oci::{Action, Condition, Op, Seccomp, Syscall};

/// Calls that every container may make.
const ALWAYS: &str = "
accept accept4 access adjtimex alarm
bind brk
cachestat capget capset chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64
clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat
dup dup2 dup3
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
execve execveat exit exit_group
faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32
fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32
getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32
getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr
getxattrat
inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc
kill
landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount
listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64
madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall
mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
name_to_handle_at nanosleep newfstatat _newselect
open openat openat2
pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64
preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2
read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg
sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown
sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount
statx symlink symlinkat sync sync_file_range syncfs sysinfo
tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64
ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes
vfork vmsplice
wait4 waitid waitpid write writev
";

/// Calls that a container may make from this kernel on: before 4.8 ptrace(2) could get round a filter.
const FROM_4_8: &str = "process_vm_readv process_vm_writev ptrace";

/// Calls of one kind of processor, by docker's name for it.
const BY_MACHINE: [(&str, &str); 2] = [
    ("amd64", "arch_prctl modify_ldt"),
    ("arm64", "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"),
];

const CAP_SYS_ADMIN: u32 = 21;

/// Calls that come with a capability, by its number (`<linux/capability.h>`).
const BY_CAPABILITY: [(u32, &str); 14] = [
    (2, "open_by_handle_at"), // CAP_DAC_READ_SEARCH
    (
        CAP_SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd
        setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (22, "reboot"),                                 // CAP_SYS_BOOT
    (18, "chroot"),                                 // CAP_SYS_CHROOT
    (16, "delete_module init_module finit_module"), // CAP_SYS_MODULE
    (20, "acct"),                                   // CAP_SYS_PACCT
    (19, "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"), // CAP_SYS_PTRACE
    (17, "iopl ioperm"),                            // CAP_SYS_RAWIO
    (25, "settimeofday stime clock_settime clock_settime64"), // CAP_SYS_TIME
    (26, "vhangup"),                                // CAP_SYS_TTY_CONFIG
    (23, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"), // CAP_SYS_NICE
    (34, "syslog"),                                 // CAP_SYSLOG
    (39, "bpf"),                                    // CAP_BPF
    (38, "perf_event_open"),                        // CAP_PERFMON
];

/// Address families below this one can be used for sockets.
const FAMILIES_BELOW: u64 = 12;
/// And these; not AF_ALG (38) and AF_VSOCK (40), nor those that Linux has given up.
const FAMILIES: [u64; 25] =
    [13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];

/// The personality(2) values that are harmless: Linux, Linux32, both with UNAME26, and the question.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x20000, 0x20008, 0xffff_ffff];

/// `CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}`.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Docker's default profile for a process with the bounding set `capabilities` (bit n is capability number n) on
/// `kernel` (version and patch level).
pub fn docker_default(capabilities: u64, kernel: (u32, u32)) -> Seccomp {
    let has = |capability: u32| capabilities & (1 << capability) != 0;
    let mut syscalls = vec![allow(ALWAYS)];
    if kernel >= (4, 8) {
        syscalls.push(allow(FROM_4_8));
    }
    syscalls.push(allow_if("socket", Op::Less, FAMILIES_BELOW));
    syscalls.extend(FAMILIES.map(|family| allow_if("socket", Op::Equal, family)));
    syscalls.extend(PERSONALITIES.map(|personality| allow_if("personality", Op::Equal, personality)));
    let machine = BY_MACHINE.iter().filter(|(machine, _)| *machine == MACHINE.docker_name);
    syscalls.extend(machine.map(|(_, names)| allow(names)));
    let granted = BY_CAPABILITY.iter().filter(|(capability, _)| has(*capability));
    syscalls.extend(granted.map(|(_, names)| allow(names)));
    if !has(CAP_SYS_ADMIN) {
        syscalls.push(allow_if("clone", Op::MaskedEqual, NEW_NAMESPACES));
        // Its flags are behind a pointer, so it cannot be allowed in part; without it libc uses clone.
        syscalls.push(Syscall { action: Action::Errno, errno_ret: Some(38), ..allow("clone3") });
    }
    Seccomp {
        default_action: Action::Errno,
        default_errno_ret: Some(1),
        architectures: MACHINE.architectures.iter().map(|architecture| architecture.arch).collect(),
        flags: None,
        listener_path: None,
        listener_metadata: None,
        syscalls,
    }
}

fn allow(names: &'static str) -> Syscall {
    let names = names.split_ascii_whitespace().map(Cow::Borrowed).collect();
    Syscall { names, action: Action::Allow, errno_ret: None, args: Vec::new() }
}

/// Allows a call if its first argument compares so with `value`.
fn allow_if(name: &'static str, op: Op, value: u64) -> Syscall {
    Syscall { args: vec![Condition { index: 0, value, value_two: 0, op }], ..allow(name) }
}
