//! AArch64: the entry, and system calls without the C library.

use core::arch::{asm, global_asm};

// At the entry sp points to the number of arguments and is aligned to 16; x0 belongs to the C library.
global_asm!(
    ".globl coracle_entry",
    ".type coracle_entry, @function",
    "coracle_entry:",
    "mov x19, x0",
    "mov x0, sp",
    "bl {before}",
    "mov x0, x19",
    "mov x30, xzr",
    "b _start",
    before = sym super::coracle_before_start,
);

/// A system call; a negative result is a negated error number.
///
/// # Safety
/// What the call's manual page asks of its arguments.
pub(super) unsafe fn syscall(number: i64, arguments: [usize; 5]) -> isize {
    let result;
    // SAFETY: the kernel changes x0 and what the arguments point to, which is the caller's promise.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") arguments[0] as isize => result,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            in("x4") arguments[4],
            options(nostack),
        );
    }
    result
}
