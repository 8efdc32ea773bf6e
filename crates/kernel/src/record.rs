//! The record of acts: what `--explain` prints.
//!
//! Recording is off until [`Log::create`] or [`Log::attach`] is followed by [`Log::install`]. Then each changing call of this
//! crate appends one [`Event`] to a shared memory file. The file is mapped before the container is cloned, so the
//! command line, the monitor and the container's first process write into one log, up to the
//! `execve` that ends the last of them. Appending is one atomic addition and a copy: no lock that a killed
//! process could keep, and no system call that a seccomp filter could refuse.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Bytes of the log. A container with 120 layers and 50 mounts needs about 100 KiB.
const SIZE: usize = 4 << 20;
/// Bytes before the first event: the offset of the next one.
const HEADER: usize = 8;
/// Bytes before each event's text: its length, written last.
const PREFIX: usize = 4;

/// The part of a container that an act builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Chapter {
    /// Isolation: the process and its namespaces.
    Namespaces,
    /// Control groups.
    Limits,
    /// Mounts, devices, the root directory.
    RootFileSystem,
    /// Identity, capabilities, seccomp, execve, signals.
    Process,
    /// What is undone at the end.
    CleanUp,
}

/// Which of coracle's processes acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Actor {
    /// The process the user started.
    CommandLine,
    /// The process that looks after one container.
    Monitor,
    /// The process between the monitor and the container, where namespaces need one.
    Intermediate,
    /// The process that becomes the container.
    Container,
    /// A short-lived process that does one thing for another: an exec'd `newuidmap`, a removal inside a user namespace.
    Helper,
}

/// One argument of a recorded call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arg {
    /// A number as the kernel got it.
    Int(i64),
    /// Flags: the bits the kernel got, and their names.
    Flags(u64, String),
    /// A string as the kernel got it.
    Str(String),
    /// A list of strings (argv) or of numbers (groups).
    List(Vec<String>),
    /// A structure that the call takes by address: its fields under the kernel's names. Addresses in it are left out.
    Struct(Vec<(String, Arg)>),
    /// A descriptor and what it refers to.
    Fd(i32, String),
    /// What is not shown as it is, in words: the number of an environment's variables.
    Words(String),
}

/// One act that changed the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Who acted.
    pub actor: Actor,
    /// Which part of the container this builds.
    pub chapter: Chapter,
    /// The system call's name.
    pub call: String,
    /// Its arguments in the kernel's order.
    pub args: Vec<Arg>,
    /// What it returned: at least 0, or a negated error number.
    pub result: i64,
    /// When it began, in nanoseconds of the actor's monotonic clock.
    pub start_ns: u64,
    /// How long it took in nanoseconds; 0 for an `execve` that did not return.
    pub duration_ns: u64,
    /// One sentence: why this is done.
    pub why: String,
}

static LOG: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static ACTOR: AtomicU8 = AtomicU8::new(0);
static CHAPTER: AtomicU8 = AtomicU8::new(0);
/// The reason of the acts that follow, as address and length of a `&'static str`.
static WHY: (AtomicPtr<u8>, AtomicU32) = (AtomicPtr::new(std::ptr::null_mut()), AtomicU32::new(0));

/// Says who this process is from now on.
pub fn actor(actor: Actor) {
    ACTOR.store(actor as u8, Ordering::Relaxed);
}

/// Says which part of the container the acts that follow build, and why.
///
/// Costs three stores, so it is called whether or not anything is recorded.
pub fn because(chapter: Chapter, why: &'static str) {
    CHAPTER.store(chapter as u8, Ordering::Relaxed);
    WHY.0.store(why.as_ptr().cast_mut(), Ordering::Relaxed);
    WHY.1.store(why.len() as u32, Ordering::Relaxed);
}

/// Who acts, for what and why, while a child that shares this process's memory says so of itself.
pub(crate) struct Context(u8, u8, (*mut u8, u32));

pub(crate) fn context() -> Context {
    let why = (WHY.0.load(Ordering::Relaxed), WHY.1.load(Ordering::Relaxed));
    Context(ACTOR.load(Ordering::Relaxed), CHAPTER.load(Ordering::Relaxed), why)
}

/// Goes on as at the [`context`].
pub(crate) fn resume(Context(actor, chapter, why): Context) {
    ACTOR.store(actor, Ordering::Relaxed);
    CHAPTER.store(chapter, Ordering::Relaxed);
    WHY.0.store(why.0, Ordering::Relaxed);
    WHY.1.store(why.1, Ordering::Relaxed);
}

/// Whether acts are recorded.
pub fn is_on() -> bool {
    !LOG.load(Ordering::Relaxed).is_null()
}

fn current_actor() -> Actor {
    match ACTOR.load(Ordering::Relaxed) {
        0 => Actor::CommandLine,
        1 => Actor::Monitor,
        2 => Actor::Intermediate,
        3 => Actor::Container,
        _ => Actor::Helper,
    }
}

fn current_chapter() -> Chapter {
    match CHAPTER.load(Ordering::Relaxed) {
        0 => Chapter::Namespaces,
        1 => Chapter::Limits,
        2 => Chapter::RootFileSystem,
        3 => Chapter::Process,
        _ => Chapter::CleanUp,
    }
}

fn current_why() -> &'static str {
    let start = WHY.0.load(Ordering::Relaxed);
    if start.is_null() {
        return "";
    }
    // SAFETY: only `because` stores here, always the parts of one `&'static str`. Threads that call `because` at
    // once could mix two of them; the processes that record are single-threaded while they do (`Log::install`).
    unsafe {
        let bytes = std::slice::from_raw_parts(start, WHY.1.load(Ordering::Relaxed) as usize);
        std::str::from_utf8_unchecked(bytes)
    }
}

/// A shared log of acts.
#[derive(Debug)]
pub struct Log {
    memory: *mut c_void,
    file: OwnedFd,
}

impl Log {
    /// Makes an empty log in memory: memfd_create(2).
    pub fn create() -> Result<Self> {
        let failed = |errno| Error::new("memfd_create", "the record of acts", errno);
        let file =
            rustix::fs::memfd_create("coracle-record", rustix::fs::MemfdFlags::CLOEXEC).map_err(failed)?;
        rustix::fs::ftruncate(&file, SIZE as u64).map_err(failed)?;
        Self::attach(file)
    }

    /// Maps a log that another process made.
    pub fn attach(file: OwnedFd) -> Result<Self> {
        let failed = |errno| Error::new("mmap", "the record of acts", errno);
        if rustix::fs::fstat(&file).map_err(failed)?.st_size != SIZE as i64 {
            return Err(failed(Errno::INVAL));
        }
        // SAFETY: a fresh shared mapping of a file of exactly SIZE bytes, at an address the kernel chooses; all later
        // access is through `Log` and through LOG, bounded by SIZE.
        let memory = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }
        .map_err(failed)?;
        Ok(Self { memory, file })
    }

    /// Records this process's acts, and those of children made without exec, in this log until the process ends.
    ///
    /// The mapping is kept for the process's life. A process that records is single-threaded.
    pub fn install(&self) {
        LOG.store(self.memory, Ordering::Release);
    }

    /// The descriptor to hand to a process that shall record here too.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// All events so far, in the order they were begun to be written.
    pub fn events(&self) -> Vec<Event> {
        let end = (next(self.memory).load(Ordering::Acquire) as usize).min(SIZE - HEADER);
        let mut events = Vec::new();
        let mut at = 0;
        while at + PREFIX <= end {
            let length = length_at(self.memory, at).load(Ordering::Acquire) as usize;
            if length == 0 || at + PREFIX + length > end {
                break;
            }
            // SAFETY: the range was checked to lie inside the mapping, and a length that is not 0 was stored after the
            // text it counts, which nobody writes again.
            let text = unsafe {
                std::slice::from_raw_parts(self.memory.cast::<u8>().add(HEADER + at + PREFIX), length)
            };
            if let Ok(event) = serde_json::from_slice(text) {
                add(&mut events, event);
            }
            at += entry_size(length);
        }
        events
    }
}

/// Adds an event; the correction of an execve that failed replaces what was noted before the call.
fn add(events: &mut Vec<Event>, event: Event) {
    let noted = |earlier: &&mut Event| earlier.actor == event.actor && earlier.start_ns == event.start_ns;
    match events.iter_mut().rfind(noted) {
        Some(earlier) if event.call.starts_with("execve") => *earlier = event,
        _ => events.push(event),
    }
}

/// The bytes an event's text takes with its prefix, so that the next prefix is aligned.
fn entry_size(length: usize) -> usize {
    (PREFIX + length).next_multiple_of(PREFIX)
}

fn next(memory: *mut c_void) -> &'static AtomicU64 {
    // SAFETY: every mapping is SIZE bytes, page-aligned and never unmapped, and its first 8 bytes are only ever used as
    // this atomic.
    unsafe { &*memory.cast::<AtomicU64>() }
}

fn length_at(memory: *mut c_void, at: usize) -> &'static AtomicU32 {
    assert!(at.is_multiple_of(PREFIX) && HEADER + at + PREFIX <= SIZE);
    // SAFETY: checked just above to be inside the mapping and aligned; these bytes are only ever used as this atomic.
    unsafe { &*memory.cast::<u8>().add(HEADER + at).cast::<AtomicU32>() }
}

fn append(event: &Event) {
    let memory = LOG.load(Ordering::Acquire);
    // A test may have taken the log away since this call began.
    if memory.is_null() {
        return;
    }
    let Ok(text) = serde_json::to_vec(event) else { return };
    let at = next(memory).fetch_add(entry_size(text.len()) as u64, Ordering::AcqRel) as usize;
    if HEADER + at + entry_size(text.len()) > SIZE {
        return;
    }
    // SAFETY: the addition above reserved this range for this writer alone, and it was checked to lie inside.
    unsafe {
        let target = memory.cast::<u8>().add(HEADER + at + PREFIX);
        std::ptr::copy_nonoverlapping(text.as_ptr(), target, text.len());
    }
    length_at(memory, at).store(text.len() as u32, Ordering::Release);
}

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The result field of a failed call.
pub(crate) fn failure(errno: Errno) -> i64 {
    -i64::from(errno.raw_os_error())
}

/// A [`Arg::Struct`] of numbers.
pub(crate) fn numbers(fields: &[(&str, u64)]) -> Arg {
    let field = |(name, value): &(&str, u64)| ((*name).to_owned(), Arg::Int(*value as i64));
    Arg::Struct(fields.iter().map(field).collect())
}

/// The time before a call, when recording is on.
pub(crate) fn begin() -> Option<u64> {
    is_on().then(now_ns)
}

/// Records a call that began at `start`; nothing when recording is off. Returns where, for [`correct`].
pub(crate) fn end(
    start: Option<u64>,
    call: &'static str,
    result: i64,
    args: impl FnOnce() -> Vec<Arg>,
) -> Option<Event> {
    let duration_ns = now_ns().saturating_sub(start?);
    note(start?, duration_ns, call, result, args)
}

fn note(
    start_ns: u64,
    duration_ns: u64,
    call: &'static str,
    result: i64,
    args: impl FnOnce() -> Vec<Arg>,
) -> Option<Event> {
    let event = Event {
        actor: current_actor(),
        duration_ns,
        chapter: current_chapter(),
        call: call.to_owned(),
        args: args(),
        result,
        start_ns,
        why: current_why().to_owned(),
    };
    append(&event);
    Some(event)
}

/// Makes a call and records it. `args` runs only when recording is on.
pub(crate) fn act<T>(
    call: &'static str,
    args: impl FnOnce() -> Vec<Arg>,
    result: impl FnOnce(&T) -> i64,
    f: impl FnOnce() -> std::result::Result<T, Errno>,
) -> std::result::Result<T, Errno> {
    let start = begin();
    let outcome = f();
    let value = match &outcome {
        Ok(value) => result(value),
        Err(errno) => failure(*errno),
    };
    end(start, call, value, args);
    outcome
}

/// Records a call that does not return when it succeeds (execve), before it is made.
pub(crate) fn act_without_return(call: &'static str, args: impl FnOnce() -> Vec<Arg>) -> Option<Event> {
    note(begin()?, 0, call, 0, args)
}

/// Records that the call noted by [`act_without_return`] failed after all: a second event with the error, which
/// [`Log::events`] puts in the first one's place.
pub(crate) fn correct(entry: Option<Event>, errno: Errno) {
    if let Some(mut event) = entry {
        event.duration_ns = now_ns().saturating_sub(event.start_ns);
        event.result = failure(errno);
        append(&event);
    }
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arg::Int(value) => write!(f, "{value}"),
            Arg::Flags(_, words) if words.is_empty() => f.write_char('0'),
            Arg::Flags(_, words) | Arg::Words(words) => f.write_str(words),
            Arg::Str(text) => write!(f, "{text:?}"),
            Arg::List(items) => write!(f, "{items:?}"),
            Arg::Struct(fields) => {
                let shown: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "{{{}}}", shown.join(", "))
            }
            Arg::Fd(number, words) if words.is_empty() => write!(f, "{number}"),
            Arg::Fd(_, words) => write!(f, "<{words}>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(why: &str) -> Event {
        Event {
            actor: Actor::Monitor,
            chapter: Chapter::Limits,
            call: "write".to_owned(),
            args: vec![Arg::Str("20".to_owned()), Arg::Flags(6, "a|b".to_owned())],
            result: 2,
            start_ns: 1,
            duration_ns: 2,
            why: why.to_owned(),
        }
    }

    #[test]
    fn keeps_events_in_order_across_processes_maps() {
        let log = Log::create().unwrap();
        assert_eq!(log.events(), []);
        log.install();
        append(&event("one"));
        append(&event("and another"));
        let second = Log::attach(log.file().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(second.events(), [event("one"), event("and another")]);
        LOG.store(std::ptr::null_mut(), Ordering::Release);
    }

    #[test]
    fn refuses_a_file_that_is_no_log() {
        let file = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(Log::attach(file).unwrap_err().errno(), Errno::INVAL);
    }
}
