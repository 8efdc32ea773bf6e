//! Device programs: eBPF that decides which device files the processes of a control group may make and open.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::raw::{check, owned};
use crate::record::{Arg, act};
use crate::{Error, Result};

const PROG_LOAD: i64 = 5;
const PROG_ATTACH: i64 = 8;
const PROG_DETACH: i64 = 9;
const PROG_GET_FD_BY_ID: i64 = 13;
const OBJ_GET_INFO_BY_FD: i64 = 15;
const PROG_QUERY: i64 = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
/// The kernel lets no group have more programs than this of one kind.
const MOST_PROGRAMS: usize = 64;
/// `BPF_OBJ_NAME_LEN`.
const NAME_LENGTH: usize = 16;
/// What programs loaded here are called, so that they can be told from those of systemd and others.
const NAME: &[u8; NAME_LENGTH] = b"coracle_device\0\0";

/// One instruction of an eBPF program: `struct bpf_insn` of `<linux/bpf.h>`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u8,
    /// The register that is changed or compared (low four bits) and the one it is combined with (high four bits).
    pub registers: u8,
    /// How far to jump, or where to load from.
    pub offset: i16,
    /// The operand.
    pub immediate: i32,
}

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what is missing at its end as zero.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    length: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_LENGTH],
}

/// The start of `union bpf_attr` for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// The start of `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
struct QueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
}

/// The start of `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct IdAttributes {
    id: u32,
    next: u32,
    open_flags: u32,
}

/// The start of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoAttributes {
    program: u32,
    length: u32,
    info: u64,
}

/// The start of `struct bpf_prog_info`, up to and with the name; the kernel fills in as much as there is room for.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    before: [u64; 8],
    name: [u8; NAME_LENGTH],
}

/// `bpf(BPF_PROG_LOAD, {BPF_PROG_TYPE_CGROUP_DEVICE, …}, size)`: checks a program and gives its descriptor (close-on-exec).
///
/// See bpf(2). `EPERM`: needs `CAP_BPF` and `CAP_NET_ADMIN` in the first user namespace. `EACCES` or `EINVAL`: the kernel
/// cannot prove that the program ends and reads only what it may. `E2BIG`: too many instructions.
pub fn load_device_program(program: &[Instruction]) -> Result<OwnedFd> {
    let license = c"Apache-2.0";
    let attributes = LoadAttributes {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        length: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *NAME,
    };
    let described = format!("a device program of {} instructions", program.len());
    let fields = || {
        let number = |name: &str, value: u32| (name.to_owned(), Arg::Int(value.into()));
        let name = String::from_utf8_lossy(NAME).trim_end_matches('\0').to_owned();
        Arg::Struct(vec![
            number("prog_type", PROG_TYPE_CGROUP_DEVICE),
            number("insn_cnt", attributes.length),
            number("log_level", attributes.log_level),
            number("log_size", attributes.log_size),
            ("log_buf".to_owned(), Arg::Int(0)),
            number("kern_version", attributes.kernel_version),
            number("prog_flags", attributes.flags),
            ("prog_name".to_owned(), Arg::Str(name)),
        ])
    };
    // SAFETY: `program` and `license` outlive the call, `length` is the number of instructions that `program` has, each
    // with bpf_insn's layout (asserted below); the kernel copies both and keeps no pointer.
    unsafe { bpf(PROG_LOAD, "BPF_PROG_LOAD", &attributes, fields) }
        .map(owned)
        .map_err(|errno| Error::new("bpf", described, errno))
}

/// `bpf(BPF_PROG_ATTACH, {group, program, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI}, size)`.
///
/// From here on the program decides for every process of the group (a cgroup v2 directory) and of those below. It stays when
/// the descriptor is closed and goes with the group. Programs of the groups above and below count too: a device must be
/// allowed by each. `name` is the group's path, for the record and the error.
///
/// See bpf(2). `EPERM`: needs `CAP_NET_ADMIN`, or a group above has an exclusive program. `EBADF`: no cgroup v2 directory.
pub fn attach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>, name: &str) -> Result<()> {
    let attributes = AttachAttributes {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    let fields = || {
        let number = |name: &str, value: u32| (name.to_owned(), Arg::Int(value.into()));
        Arg::Struct(vec![
            ("target_fd".to_owned(), Arg::Fd(group.as_raw_fd(), name.to_owned())),
            number("attach_bpf_fd", attributes.program),
            number("attach_type", ATTACH_CGROUP_DEVICE),
            number("attach_flags", ALLOW_MULTI),
        ])
    };
    // SAFETY: the attributes hold only numbers.
    unsafe { bpf(PROG_ATTACH, "BPF_PROG_ATTACH", &attributes, fields) }
        .map(drop)
        .map_err(|errno| Error::new("bpf", format!("device program of {name}"), errno))
}

/// `bpf(BPF_PROG_DETACH, {group, program, BPF_CGROUP_DEVICE}, size)`: takes back [`attach_device_program`].
///
/// See bpf(2). `ENOENT`: it is not attached to this group itself.
pub fn detach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>, name: &str) -> Result<()> {
    let attributes = AttachAttributes {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: 0,
    };
    let fields = || {
        let number = |name: &str, value: u32| (name.to_owned(), Arg::Int(value.into()));
        Arg::Struct(vec![
            ("target_fd".to_owned(), Arg::Fd(group.as_raw_fd(), name.to_owned())),
            number("attach_bpf_fd", attributes.program),
            number("attach_type", ATTACH_CGROUP_DEVICE),
        ])
    };
    // SAFETY: the attributes hold only numbers.
    unsafe { bpf(PROG_DETACH, "BPF_PROG_DETACH", &attributes, fields) }
        .map(drop)
        .map_err(|errno| Error::new("bpf", format!("device program of {name}"), errno))
}

/// `bpf(BPF_PROG_QUERY, {group, BPF_CGROUP_DEVICE}, size)`: those programs attached to the group itself that [`load_device_program`] made,
/// by this process or another. `name` is the group's path, for the error.
///
/// See bpf(2). `EPERM`: needs `CAP_NET_ADMIN`, and `CAP_SYS_ADMIN` to open a program.
pub fn own_device_programs(group: BorrowedFd<'_>, name: &str) -> Result<Vec<OwnedFd>> {
    let failed = |errno| Error::new("bpf", format!("device programs of {name}"), errno);
    let mut ids = [0u32; MOST_PROGRAMS];
    let mut query = QueryAttributes {
        target: group.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MOST_PROGRAMS as u32,
    };
    // SAFETY: `ids` outlives the call and has room for `count` numbers, more than the kernel ever writes; `query` is written to as well,
    // and nothing else refers to either during the call.
    unsafe { ask(PROG_QUERY, &mut query) }.map_err(failed)?;
    let mut own = Vec::new();
    for id in ids.iter().take(query.count as usize) {
        let mut open = IdAttributes { id: *id, next: 0, open_flags: 0 };
        // SAFETY: the attributes hold only numbers.
        let program = match unsafe { ask(PROG_GET_FD_BY_ID, &mut open) } {
            // Detached just now, by somebody else.
            Err(Errno::NOENT) => continue,
            other => owned(other.map_err(failed)?),
        };
        if program_name(&program).map_err(failed)? == *NAME {
            own.push(program);
        }
    }
    Ok(own)
}

fn program_name(program: &OwnedFd) -> std::result::Result<[u8; NAME_LENGTH], Errno> {
    let mut info = ProgramInfo::default();
    let mut attributes = InfoAttributes {
        program: program.as_raw_fd() as u32,
        length: size_of::<ProgramInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` outlives the call, is zeroed, so that it asks for nothing to be written elsewhere, and has `length` bytes of plain
    // numbers, which may hold whatever the kernel writes.
    unsafe { ask(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info.name)
}

/// Makes a call that changes nothing, which therefore is not recorded.
///
/// # Safety
/// `attributes` has the layout that `union bpf_attr` has for this command, and pointers in it are valid for the call.
unsafe fn ask<T>(command: i64, attributes: &mut T) -> std::result::Result<i64, Errno> {
    // SAFETY: the caller's promise; the size passed is that of the structure, which outlives the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) })
}

/// Makes the call and records it.
///
/// # Safety
/// `attributes` has the layout that `union bpf_attr` has for this command, and pointers in it are valid for the call.
unsafe fn bpf<T>(
    command: i64,
    name: &str,
    attributes: &T,
    fields: impl FnOnce() -> Arg,
) -> std::result::Result<i64, Errno> {
    let args =
        || vec![Arg::Flags(command as u64, name.to_owned()), fields(), Arg::Int(size_of::<T>() as i64)];
    act(
        "bpf",
        args,
        |result| *result,
        || {
            // SAFETY: the caller's promise; the size passed is that of the structure, which outlives the call.
            check(unsafe {
                libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
            })
        },
    )
}

const _: () = assert!(size_of::<Instruction>() == 8 && align_of::<Instruction>() == 4);
// Where `<linux/bpf.h>` has the names.
const _: () = assert!(std::mem::offset_of!(LoadAttributes, name) == 48);
const _: () = assert!(std::mem::offset_of!(ProgramInfo, name) == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_refuses_a_program_that_does_not_end() {
        let error = load_device_program(&[]).unwrap_err();
        assert_eq!(error.call(), "bpf");
        assert!(error.to_string().contains("0 instructions"), "{error}");
    }
}
