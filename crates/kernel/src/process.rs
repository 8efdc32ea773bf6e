//! Processes: clone, exec, wait, signal.
//!
//! **Warning.** [`clone3`] copies only the calling thread. It is for single-threaded processes, and the child
//! must leave by [`execve`], [`execveat`] or [`exit`]: returning into code that the parent also runs would do
//! everything twice.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr;

use bitflags::bitflags;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::raw::{c_string, check, owned, shown};
use crate::record::{self, Arg, act, act_without_return};
use crate::{Error, Result};

bitflags! {
    /// What a new process does not share with its parent: clone(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct CloneFlags: u64 {
        /// A new mount namespace.
        const NEWNS = libc::CLONE_NEWNS as u64;
        /// A new cgroup namespace.
        const NEWCGROUP = libc::CLONE_NEWCGROUP as u64;
        /// A new UTS namespace.
        const NEWUTS = libc::CLONE_NEWUTS as u64;
        /// A new IPC namespace.
        const NEWIPC = libc::CLONE_NEWIPC as u64;
        /// A new user namespace.
        const NEWUSER = libc::CLONE_NEWUSER as u64;
        /// A new PID namespace.
        const NEWPID = libc::CLONE_NEWPID as u64;
        /// A new network namespace.
        const NEWNET = libc::CLONE_NEWNET as u64;
        /// A new time namespace: for unshare(2) and setns(2) only, clone3 would freeze the offsets.
        const NEWTIME = 0x80;
        /// The child's parent is the caller's parent.
        const PARENT = libc::CLONE_PARENT as u64;
        /// Return a descriptor for the child.
        const PIDFD = libc::CLONE_PIDFD as u64;
        /// The child is born in the given v2 control group.
        const INTO_CGROUP = 0x2_0000_0000;
    }
}

impl CloneFlags {
    pub(crate) fn arg(self) -> Arg {
        let words: Vec<&str> = self.iter_names().map(|(name, _)| name).collect();
        Arg::Flags(self.bits(), words.join("|"))
    }
}

/// struct clone_args of clone(2), up to `cgroup`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which side of a clone this is.
#[derive(Debug)]
pub enum Cloned {
    /// The caller, with the child's number and descriptor.
    Parent(Child),
    /// The new process.
    Child,
}

/// A process this one made.
#[derive(Debug)]
pub struct Child {
    /// Its number as this process sees it.
    pub pid: u32,
    /// Its descriptor: a number can be reused, this cannot.
    pub pidfd: OwnedFd,
    /// Whether it was born in the control group that was asked for; else it has to be put there.
    pub is_in_group: bool,
}

/// `clone3(struct clone_args *, size_t)`: a new process, born into the given namespaces and control group.
///
/// See clone(2). PIDFD is always asked for. Where a filter around this process does not know the call, clone(2) does the same, but for the
/// control group: [`Child::is_in_group`] tells. The caller must be single-threaded, see the module's warning.
pub fn clone3(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    let mut flags = flags | CloneFlags::PIDFD;
    if cgroup.is_some() {
        flags |= CloneFlags::INTO_CGROUP;
    }
    let mut pidfd: i32 = -1;
    let args = CloneArgs {
        flags: flags.bits(),
        pidfd: &raw mut pidfd as u64,
        // With PARENT the child takes the caller's own, and naming one is refused.
        exit_signal: if flags.contains(CloneFlags::PARENT) { 0 } else { libc::SIGCHLD as u64 },
        cgroup: cgroup.map_or(0, |group| group.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    let start = record::begin();
    // SAFETY: the structure outlives the call and has the size passed; no stack is given and no memory is shared, so the
    // child goes on with a copy of this one's, as after fork. The process is single-threaded (module's contract), so no lock
    // that the copy contains can be held by a thread that the child does not have.
    let outcome = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) });
    if outcome == Ok(0) {
        return Ok(Cloned::Child);
    }
    record::end(start, "clone3", outcome.unwrap_or_else(record::failure), || {
        let number = |name: &str, value: u64| (name.to_owned(), Arg::Int(value as i64));
        let mut fields = vec![
            ("flags".to_owned(), flags.arg()),
            number("exit_signal", args.exit_signal),
            number("stack", args.stack),
            number("stack_size", args.stack_size),
        ];
        if let Some(group) = cgroup {
            fields.push(("cgroup".to_owned(), Arg::Fd(group.as_raw_fd(), "control group".to_owned())));
        }
        vec![Arg::Struct(fields), Arg::Int(size_of::<CloneArgs>() as i64)]
    });
    match outcome {
        Err(Errno::NOSYS) => clone_by_flags(flags - CloneFlags::INTO_CGROUP),
        Err(errno) => Err(Error::new("clone3", "a new process", errno)),
        Ok(pid) => {
            let pidfd = owned(i64::from(pidfd));
            Ok(Cloned::Parent(Child { pid: pid as u32, pidfd, is_in_group: cgroup.is_some() }))
        }
    }
}

/// `clone(flags | SIGCHLD, NULL, &pidfd)`: what [`clone3`] does where only clone(2) is allowed.
fn clone_by_flags(flags: CloneFlags) -> Result<Cloned> {
    let signal = if flags.contains(CloneFlags::PARENT) { 0 } else { libc::SIGCHLD as u64 };
    let mut pidfd: i32 = -1;
    let start = record::begin();
    // SAFETY: the number for the descriptor outlives the call, and is its third argument on every processor. No stack is given and no
    // memory is shared, so the child goes on with a copy of this one's, as after fork, of a single-threaded process (module's contract).
    let outcome =
        check(unsafe { libc::syscall(libc::SYS_clone, flags.bits() | signal, 0, &raw mut pidfd, 0, 0) });
    if outcome == Ok(0) {
        return Ok(Cloned::Child);
    }
    record::end(start, "clone", outcome.unwrap_or_else(record::failure), || vec![flags.arg()]);
    let pid = outcome.map_err(|errno| Error::new("clone", "a new process", errno))?;
    Ok(Cloned::Parent(Child { pid: pid as u32, pidfd: owned(i64::from(pidfd)), is_in_group: false }))
}

/// `clone(SIGCHLD)`, which is fork(2): a new process that shares nothing but what it inherits. Gives 0 in the child.
///
/// For the inside of a container, where docker's seccomp profile answers clone3 with ENOSYS. The caller must be
/// single-threaded, see the module's warning.
pub fn fork() -> Result<u32> {
    // SAFETY: no stack is given and no memory is shared, so the child goes on with a copy of this one's. The process is
    // single-threaded (module's contract), so no lock that the copy contains can be held by a thread that the child does not have.
    check(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) })
        .map(|pid| pid as u32)
        .map_err(|errno| Error::new("clone", "a new process", errno))
}

/// Room for what a child does before it executes a program: a few calls, and texts that it makes for them.
const SPAWN_STACK: usize = 128 << 10;

/// `clone(fn, stack, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, arg, &pidfd)`: a new process that runs `child` in this one's memory,
/// while this one waits until it executes a program or ends. See clone(2), vfork(2).
///
/// It costs neither a copy of the page tables nor the page faults after it. What `child` changes in memory stays changed here, so it should
/// prepare descriptors and execute; when it returns, it ends with status 125. The caller must be single-threaded, see the module's warning.
pub fn spawn(child: impl FnOnce()) -> Result<Child> {
    extern "C" fn run<F: FnOnce()>(argument: *mut libc::c_void) -> i32 {
        // SAFETY: the address of `child` below, which the parent neither touches nor drops before this process is gone from its memory.
        let child = unsafe { &mut *argument.cast::<Option<F>>() };
        if let Some(child) = child.take() {
            child();
        }
        exit(125)
    }
    fn entry_of<F: FnOnce()>(_: &Option<F>) -> extern "C" fn(*mut libc::c_void) -> i32 {
        run::<F>
    }
    let mut child = Some(child);
    let entry = entry_of(&child);
    let mut stack: Vec<std::mem::MaybeUninit<u128>> = Vec::with_capacity(SPAWN_STACK / size_of::<u128>());
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: i32 = -1;
    let context = record::context();
    let start = record::begin();
    // SAFETY: the stack is aligned, is used by nobody else and outlives the child's use of it, as do the closure and the place for the
    // descriptor: with CLONE_VFORK this thread goes on only when the child has executed or ended. There is no other thread (module's
    // contract) that could see the memory in between.
    let outcome = unsafe {
        let argument = (&raw mut child).cast::<libc::c_void>();
        check(libc::clone(entry, top.cast(), flags, argument, &raw mut pidfd).into())
    };
    record::resume(context);
    record::end(start, "clone", outcome.unwrap_or_else(record::failure), || {
        let words = "VM|VFORK|PIDFD|SIGCHLD".to_owned();
        vec![Arg::Struct(vec![("flags".to_owned(), Arg::Flags(flags as u64, words))])]
    });
    let pid = outcome.map_err(|errno| Error::new("clone", "a new process", errno))?;
    Ok(Child { pid: pid as u32, pidfd: owned(i64::from(pidfd)), is_in_group: false })
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By exit(2), with this status.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

impl Ended {
    /// The status as shells and docker report it: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Ended::Exited(status) => status,
            Ended::Signaled(signal) => 128 + signal,
        }
    }
}

/// `waitid(P_PIDFD, …, WEXITED)`: waits for a child of this process to end, and reaps it. See waitid(2).
pub fn wait(child: BorrowedFd<'_>) -> Result<Ended> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    loop {
        match waitid(WaitId::PidFd(child), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ended::Exited(code),
                    (None, signal) => Ended::Signaled(signal.unwrap_or(0)),
                });
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("waitid", "a child process", errno)),
        }
    }
}

/// Waits at most so many milliseconds for a process to end, which need not be a child. See pidfd_open(2).
pub fn has_ended_within(process: BorrowedFd<'_>, milliseconds: u32) -> Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(milliseconds.into());
    if is_directory(process) {
        return has_directory_ended(process, deadline);
    }
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(process, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("poll", "a process", errno)),
        }
    }
}

/// Whether this is the directory that [`pidfd_open`] gives where the call is refused.
fn is_directory(process: BorrowedFd<'_>) -> bool {
    let status = rustix::fs::fstat(process);
    status.is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Directory)
}

/// [`has_ended_within`] for a process's directory, which nothing tells of the end: it is looked at again and again.
fn has_directory_ended(directory: BorrowedFd<'_>, deadline: std::time::Instant) -> Result<bool> {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
    loop {
        let mut text = [0; 512];
        let read = rustix::fs::openat(directory, "stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| rustix::io::read(file, &mut text));
        match read {
            // One that waits to be reaped has ended. The name before its state may hold parentheses.
            Ok(length) => {
                let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
                if text.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with(['Z', 'X'])) {
                    return Ok(true);
                }
            }
            Err(Errno::SRCH | Errno::NOENT) => return Ok(true),
            Err(errno) => return Err(Error::new("read", "a process's stat", errno)),
        }
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        std::thread::sleep(left.min(PAUSE));
    }
}

/// Reaps any child that has ended, without waiting: its number and how it ended. See waitid(2).
pub fn reap_any() -> Result<Option<(u32, Ended)>> {
    let mut status = 0;
    // SAFETY: the status outlives the call; no other memory is involved.
    match check(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }.into()) {
        Ok(0) | Err(Errno::CHILD) => Ok(None),
        Ok(pid) if libc::WIFEXITED(status) => {
            Ok(Some((pid as u32, Ended::Exited(libc::WEXITSTATUS(status)))))
        }
        Ok(pid) => Ok(Some((pid as u32, Ended::Signaled(libc::WTERMSIG(status))))),
        Err(errno) => Err(Error::new("waitpid", "any child process", errno)),
    }
}

/// Reaps children that have ended, without waiting, but for the one that somebody waits for by its descriptor. See waitid(2).
pub fn reap_others(but: u32) {
    loop {
        // SAFETY: siginfo_t is made of numbers, for which zero is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the structure outlives the call.
        let seen = unsafe {
            libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)
        };
        // SAFETY: waitid has filled the part that is about a child, or left it zero.
        let pid = unsafe { info.si_pid() };
        if seen != 0 || pid == 0 || pid as u32 == but {
            return;
        }
        // SAFETY: the status is not asked for.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
    }
}

/// `pidfd_open(pid, 0)`: a descriptor of a process that exists now. See pidfd_open(2).
///
/// Where a filter around this process refuses the call it is the process's directory in `/proc`, which is as much bound to the one process:
/// [`send_signal`] and [`has_ended_within`] take both; setns(2) takes the files below its `ns`.
pub fn pidfd_open(pid: u32) -> Result<OwnedFd> {
    // SAFETY: takes two numbers.
    let opened = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
    let failed = |errno| Error::new("pidfd_open", format!("process {pid}"), errno);
    match opened {
        Err(Errno::NOSYS | Errno::PERM) => {}
        opened => return opened.map(owned).map_err(failed),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty()) {
        Err(Errno::NOENT) => Err(failed(Errno::SRCH)),
        opened => opened.map_err(failed),
    }
}

/// The namespace of a kind (`net`) that the process is in, where [`pidfd_open`] gave a directory; none for a real descriptor.
pub fn namespace_of(process: BorrowedFd<'_>, kind: &str) -> Result<Option<OwnedFd>> {
    if !is_directory(process) {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(process, format!("ns/{kind}"), flags, Mode::empty())
        .map(Some)
        .map_err(|errno| Error::new("open", format!("ns/{kind} of a process"), errno))
}

/// `pidfd_send_signal(pidfd, signal, NULL, 0)`, recorded. See pidfd_send_signal(2).
///
/// Where a filter around this process refuses the call it is kill(2), of a number that is looked up just before.
pub fn send_signal(process: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let args = || {
        let process = Arg::Fd(process.as_raw_fd(), "process".to_owned());
        vec![process, Arg::Int(signal.into()), Arg::Int(0), Arg::Int(0)]
    };
    let sent = act(
        "pidfd_send_signal",
        args,
        |_| 0,
        || {
            // SAFETY: no siginfo is passed, so only numbers cross.
            check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, 0, 0) })
        },
    );
    match sent {
        Ok(_) => Ok(()),
        Err(Errno::NOSYS | Errno::PERM) => kill(number_of(process)?, signal),
        Err(errno) => Err(Error::new("pidfd_send_signal", format!("signal {signal}"), errno)),
    }
}

/// The number of a process that has not been reaped, by its descriptor.
fn number_of(process: BorrowedFd<'_>) -> Result<i32> {
    let gone = || Error::new("kill", "a process", Errno::SRCH);
    let read = |path: String| {
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).and_then(|file| {
            let mut text = [0; 512];
            let length = rustix::io::read(file, &mut text)?;
            Ok(String::from_utf8_lossy(text.get(..length).unwrap_or_default()).into_owned())
        })
    };
    let number = if is_directory(process) {
        let path = rustix::fs::readlink(format!("/proc/self/fd/{}", process.as_raw_fd()), Vec::new());
        let path = path.map_err(|_| gone())?.to_string_lossy().into_owned();
        path.rsplit('/').next().and_then(|number| number.parse().ok())
    } else {
        let text = read(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).map_err(|_| gone())?;
        text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
    };
    number.filter(|number| *number > 0 && !has_ended_within(process, 0).unwrap_or(true)).ok_or_else(gone)
}

/// `kill(pid, signal)`, recorded; for the children that pid 1 of a container has. See kill(2).
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    act(
        "kill",
        || vec![Arg::Int(pid.into()), Arg::Int(signal.into())],
        |_| 0,
        || {
            // SAFETY: takes two numbers.
            check(unsafe { libc::kill(pid, signal) }.into())
        },
    )
    .map_err(|errno| Error::new("kill", format!("process {pid}"), errno))?;
    Ok(())
}

/// Ends this process at once, without running anything that was registered for exit: _exit(2).
pub fn exit(status: i32) -> ! {
    // SAFETY: does not return and touches no memory of ours.
    unsafe { libc::_exit(status) }
}

/// The strings of an `execve`, made before it so that it cannot fail half way.
fn c_strings(call: &'static str, texts: &[String]) -> Result<Vec<CString>> {
    texts.iter().map(|text| c_string(call, text)).collect()
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// `execve(path, argv, envp)`: this process becomes another program. Returns only when that fails. See execve(2).
///
/// The values of the environment are not recorded, only their number.
pub fn execve(path: &Path, argv: &[String], envp: &[String]) -> Error {
    let prepared = || Ok((c_string("execve", path)?, c_strings("execve", argv)?, c_strings("execve", envp)?));
    let (file, argv_c, envp_c): (CString, _, _) = match prepared() {
        Ok(strings) => strings,
        Err(error) => return error,
    };
    let describe = || {
        vec![Arg::Str(shown(path)), Arg::List(argv.to_vec()), Arg::Words(format!("{} variables", envp.len()))]
    };
    let entry = act_without_return("execve", describe);
    // SAFETY: both arrays end with a null pointer and, like the strings they point to, outlive the call.
    let result =
        unsafe { libc::execve(file.as_ptr(), pointers(&argv_c).as_ptr(), pointers(&envp_c).as_ptr()) };
    let errno = check(result.into()).err().unwrap_or(Errno::INVAL);
    record::correct(entry, errno);
    Error::new("execve", shown(path), errno)
}

/// `execveat(file, "", argv, envp, AT_EMPTY_PATH)`: this process becomes the program in an open file. Returns only when that
/// fails. See execveat(2).
pub fn execveat(file: BorrowedFd<'_>, name: &str, argv: &[String], envp: &[String]) -> Error {
    let prepared = || Ok((c_strings("execveat", argv)?, c_strings("execveat", envp)?));
    let (argv_c, envp_c): (Vec<CString>, _) = match prepared() {
        Ok(strings) => strings,
        Err(error) => return error,
    };
    let describe = || {
        vec![
            Arg::Fd(file.as_raw_fd(), name.to_owned()),
            Arg::Str(String::new()),
            Arg::List(argv.to_vec()),
            Arg::Words(format!("{} variables", envp.len())),
            Arg::Flags(libc::AT_EMPTY_PATH as u64, "AT_EMPTY_PATH".to_owned()),
        ]
    };
    let entry = act_without_return("execveat", describe);
    // SAFETY: both arrays end with a null pointer and, like the strings they point to, outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            pointers(&argv_c).as_ptr(),
            pointers(&envp_c).as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    let errno = check(result).err().unwrap_or(Errno::INVAL);
    record::correct(entry, errno);
    Error::new("execveat", name, errno)
}

/// `close_range(first, last, flags)` for every open descriptor but `keep` and those `below` a number: closes them. See close_range(2).
///
/// A child made without exec calls this first, so that no lock or pipe of the parent lives on in it.
pub fn close_all_but(keep: &[BorrowedFd<'_>], below: u32) -> Result<()> {
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).chain(0..below).collect();
    kept.sort_unstable();
    kept.dedup();
    let mut first = 0;
    for last in kept.iter().map(|fd| fd.wrapping_sub(1)).chain([u32::MAX]) {
        if first <= last && last != u32::MAX || last == u32::MAX && first != 0 {
            close_range(first, last, 0)?;
        }
        first = last.wrapping_add(2);
    }
    Ok(())
}

/// Marks every descriptor from 3 on close-on-exec. See close_range(2).
pub fn cloexec_all() -> Result<()> {
    cloexec_from(3)
}

/// Marks every descriptor from this one on close-on-exec. See close_range(2).
pub fn cloexec_from(first: u32) -> Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: u32) -> Result<()> {
    // SAFETY: callers close only descriptors that the child of a clone inherited and whose owners never run again in it.
    match check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }) {
        Err(Errno::NOSYS | Errno::PERM) => {}
        done => {
            return done
                .map(drop)
                .map_err(|errno| Error::new("close_range", format!("descriptors {first} to {last}"), errno));
        }
    }
    // A filter around this process refuses the call. /proc would tell which are open, but an image can mount what it likes there.
    for number in first..=last.min(highest_descriptor()) {
        // SAFETY: as above; a number that is not open changes nothing.
        unsafe {
            match flags {
                0 => libc::syscall(libc::SYS_close, number),
                _ => match libc::fcntl(number as i32, libc::F_GETFD) {
                    -1 => 0,
                    set => libc::fcntl(number as i32, libc::F_SETFD, set | libc::FD_CLOEXEC).into(),
                },
            }
        };
    }
    Ok(())
}

/// The highest number that a descriptor of this process can have. One that was opened under a higher limit than today's may be above, so
/// it is never taken for less than a million, which costs a tenth of a second where close_range(2) is refused.
fn highest_descriptor() -> u32 {
    const LEAST: u64 = 1 << 20;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(LEAST);
    limit.clamp(LEAST, 1 << 24) as u32
}

/// Lets a descriptor live on across execve at the same number (clears close-on-exec).
pub fn inherit(fd: impl AsFd) -> Result<i32> {
    let fd = fd.as_fd();
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())
        .map_err(|errno| Error::new("fcntl", format!("descriptor {}", fd.as_raw_fd()), errno))?;
    Ok(fd.as_raw_fd())
}

/// Takes a descriptor that the program was started with, by its number; refused when it is not open.
///
/// Only for numbers that the starter of this program passed for this purpose, and once for each.
pub fn adopt(number: i32) -> Result<OwnedFd> {
    // SAFETY: takes two numbers; fails when the descriptor is not open.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())
        .map_err(|errno| Error::new("fcntl", format!("descriptor {number}"), errno))?;
    Ok(owned(number.into()))
}

/// `fcntl(number, F_DUPFD_CLOEXEC, 3)`: a copy of standard stream 0, 1 or 2; of one that is closed, `/dev/null`. See fcntl(2).
pub fn copy_standard_stream(number: i32) -> Result<OwnedFd> {
    // SAFETY: takes three numbers, and fails when the descriptor is not open.
    match check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) }.into()) {
        Ok(copy) => Ok(owned(copy)),
        Err(Errno::BADF) => rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::new("open", "/dev/null", errno)),
        Err(errno) => Err(Error::new("fcntl", format!("descriptor {number}"), errno)),
    }
}

/// `dup2(from, number)`: puts a descriptor at 0, 1 or 2. See dup2(2).
pub fn set_standard_stream(from: BorrowedFd<'_>, number: i32) -> Result<()> {
    assert!((0..=2).contains(&number));
    // SAFETY: only the three standard numbers are replaced, which no OwnedFd of this program holds.
    check(unsafe { libc::dup2(from.as_raw_fd(), number) }.into())
        .map_err(|errno| Error::new("dup2", format!("descriptor {number}"), errno))?;
    Ok(())
}
