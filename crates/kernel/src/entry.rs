//! The very start of a program that goes near containers: before the C library's own.
//!
//! A program whose file must be protected executes itself anew from a read-only detached copy of the file's mount (see
//! `runtime::own_file`). What the C library does at a static program's start costs half a millisecond where the processor's
//! `cpuid` traps, as it does in virtual machines, and would be done twice. So this is done before it: the program is linked with
//! `coracle_entry` as its first instruction, which executes the copy if one of the words that it was called with asks for a command
//! that needs it, and else goes on to the C library's `_start`.
//!
//! It is only a short cut: whatever fails here is left to `runtime::own_file::protect`, which does the same, and says why it cannot.
//!
//! Nothing is set up when this runs: no thread-local storage, no relocated addresses, no chosen `memcpy`. So it makes system calls, reads
//! bytes one by one, and calls nothing.

#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64::syscall;
#[cfg(target_arch = "x86_64")]
use x86_64::syscall;

/// The commands whose process goes near a container's.
const COMMANDS: [&[u8]; 4] = [b"create\0", b"run\0", b"exec\0", b"restore\0"];

/// What fstatfs(2) has at `f_flags`, as 64-bit words from the start of struct statfs.
const STATFS_FLAGS: usize = 10;
const ST_RDONLY: u64 = 1;

/// Links the entry into a program; to be called by its `main`, which it does nothing in.
pub fn link() {}

/// Executes the copy, or returns. `stack` is what the kernel gives a new program: the number of arguments, their addresses and a null,
/// the environment's addresses and a null.
///
/// # Safety
/// To be called by `coracle_entry` only, with the stack pointer that the kernel set.
#[unsafe(no_mangle)]
unsafe extern "C" fn coracle_before_start(stack: *const usize) {
    // SAFETY: the kernel puts the count and that many addresses of strings there: execve(2), and the processor's ABI.
    let (count, arguments) = unsafe { (stack.read_volatile(), stack.add(1)) };
    let mut at = 1;
    let mut is_asked = false;
    while at < count {
        // SAFETY: `at` is less than the number of arguments, each of which is a string that ends with a zero byte.
        is_asked |= unsafe { is_command(arguments.add(at).read_volatile() as *const u8) };
        at += 1;
    }
    if is_asked {
        // SAFETY: the environment follows the arguments and their null.
        unsafe { execute_copy(arguments, arguments.add(count + 1)) }
    }
}

/// # Safety
/// `word` is a string that ends with a zero byte.
unsafe fn is_command(word: *const u8) -> bool {
    let mut command = 0;
    while command < COMMANDS.len() {
        let name = COMMANDS[command].as_ptr();
        let mut at = 0;
        loop {
            // SAFETY: both end with a zero byte, and neither is read beyond it: at the end of one of them they differ or both end.
            let (one, other) = unsafe { (name.add(at).read_volatile(), word.add(at).read_volatile()) };
            if one != other {
                break;
            }
            if one == 0 {
                return true;
            }
            at += 1;
        }
        command += 1;
    }
    false
}

/// Executes this program's file from a read-only detached copy of its mount; returns if it is read-only already, or that fails.
///
/// # Safety
/// Both point to addresses of strings, with a null at their end.
unsafe fn execute_copy(arguments: *const usize, environment: *const usize) {
    const AT_EMPTY_PATH: usize = libc::AT_EMPTY_PATH as usize;
    const OPEN_TREE_CLONE: usize = 1;
    /// struct mount_attr: attributes to set, to clear, propagation, user namespace.
    const READ_ONLY: [u64; 4] = [1, 0, 0, 0];
    let here = libc::AT_FDCWD as usize;
    let cloexec = libc::O_CLOEXEC as usize;
    let mut status = [0_u64; 16];
    // SAFETY: each call gets strings that end with a zero byte and structures of the sizes that the kernel has for them, all of
    // which outlive it. A descriptor that was opened here is closed here, or by execve.
    unsafe {
        let own = syscall(libc::SYS_openat, [here, c"/proc/self/exe".as_ptr() as usize, cloexec, 0, 0]);
        if own < 0 {
            return;
        }
        let own = own as usize;
        let known = syscall(libc::SYS_fstatfs, [own, status.as_mut_ptr() as usize, 0, 0, 0]) == 0;
        let flags = status.as_ptr().add(STATFS_FLAGS).read_volatile();
        if known && flags & ST_RDONLY == 0 {
            let empty = c"".as_ptr() as usize;
            let clone = OPEN_TREE_CLONE | cloexec | AT_EMPTY_PATH;
            let copy = syscall(libc::SYS_open_tree, [own, empty, clone, 0, 0]);
            if copy >= 0 {
                let copy = copy as usize;
                let attributes = READ_ONLY.as_ptr() as usize;
                let size = size_of_val(&READ_ONLY);
                if syscall(libc::SYS_mount_setattr, [copy, empty, AT_EMPTY_PATH, attributes, size]) == 0 {
                    let (arguments, environment) = (arguments as usize, environment as usize);
                    syscall(libc::SYS_execveat, [copy, empty, arguments, environment, AT_EMPTY_PATH]);
                }
                syscall(libc::SYS_close, [copy, 0, 0, 0, 0]);
            }
        }
        syscall(libc::SYS_close, [own, 0, 0, 0, 0]);
    }
}
