//! x86-64: the entry, and system calls without the C library.

use core::arch::{asm, global_asm};

// At the entry rsp points to the number of arguments and is aligned to 16; rdx belongs to the C library.
global_asm!(
    ".globl coracle_entry",
    ".type coracle_entry, @function",
    "coracle_entry:",
    "push rdx",
    "sub rsp, 8",
    "lea rdi, [rsp + 16]",
    "call {before}",
    "add rsp, 8",
    "pop rdx",
    "jmp _start",
    before = sym super::coracle_before_start,
);

/// A system call; a negative result is a negated error number.
///
/// # Safety
/// What the call's manual page asks of its arguments.
pub(super) unsafe fn syscall(number: i64, arguments: [usize; 5]) -> isize {
    let result;
    // SAFETY: the kernel changes rax, rcx and r11 and what the arguments point to, which is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
