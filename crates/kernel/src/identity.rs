//! Who a process is and what it may do: ids, capabilities, prctl, limits.
//!
//! All calls are the raw ones: they act on the calling thread, where the C library's wrappers would signal every thread.

#![allow(unsafe_code)]

use rustix::io::Errno;

use crate::raw::{c_string, check};
use crate::record::{self, Arg, act};
use crate::{Error, Result};

/// The number that is nobody's: for the kernel it means "leave this id as it is".
const NO_ID: u32 = u32::MAX;

/// `setresuid(uid, uid, uid)`. See setresuid(2). The number 4294967295, by which nothing would change, is `EINVAL`.
pub fn set_user(uid: u32) -> Result<()> {
    if uid == NO_ID {
        return Err(Error::new("setresuid", format!("user {uid}"), Errno::INVAL));
    }
    act(
        "setresuid",
        || vec![Arg::Int(uid.into()); 3],
        |_| 0,
        || {
            // SAFETY: takes three numbers.
            check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
        },
    )
    .map_err(|errno| Error::new("setresuid", format!("user {uid}"), errno))?;
    Ok(())
}

/// `setresgid(gid, gid, gid)`. See setresgid(2). The number 4294967295, by which nothing would change, is `EINVAL`.
pub fn set_group(gid: u32) -> Result<()> {
    if gid == NO_ID {
        return Err(Error::new("setresgid", format!("group {gid}"), Errno::INVAL));
    }
    act(
        "setresgid",
        || vec![Arg::Int(gid.into()); 3],
        |_| 0,
        || {
            // SAFETY: takes three numbers.
            check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })
        },
    )
    .map_err(|errno| Error::new("setresgid", format!("group {gid}"), errno))?;
    Ok(())
}

/// `setgroups(size, list)`. See setgroups(2).
pub fn set_supplementary_groups(groups: &[u32]) -> Result<()> {
    let args = || vec![Arg::Int(groups.len() as i64), Arg::List(groups.iter().map(u32::to_string).collect())];
    act(
        "setgroups",
        args,
        |_| 0,
        || {
            // SAFETY: pointer and length describe one live slice of gid_t.
            check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
        },
    )
    .map_err(|errno| Error::new("setgroups", format!("groups {groups:?}"), errno))?;
    Ok(())
}

/// `umask(mask)`: the new file mode creation mask. See umask(2).
pub fn umask(mask: u32) {
    // SAFETY: takes one number and cannot fail.
    unsafe { libc::umask(mask) };
}

/// Three sets of capabilities, a bit for each by its number in capabilities(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// What counts when the kernel asks.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What a file's own inheritable set may let through.
    pub inheritable: u64,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// struct __user_cap_data_struct; two of them carry 64 bits, the low half first.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `capget(header, data)` of this thread. See capget(2).
pub fn capabilities() -> Result<CapabilitySets> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: version 3 writes exactly two data structures; all outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })
        .map_err(|errno| Error::new("capget", "this process", errno))?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(CapabilitySets {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// `capset(header, data)` of this thread. See capset(2).
pub fn set_capabilities(sets: CapabilitySets) -> Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |shift: u32| CapabilityData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    let args = || {
        let header = record::numbers(&[("version", header.version.into()), ("pid", 0)]);
        let set = |name: &str, bits: u64| (name.to_owned(), Arg::Flags(bits, format!("{bits:#x}")));
        let sets = [
            set("effective", sets.effective),
            set("permitted", sets.permitted),
            set("inheritable", sets.inheritable),
        ];
        vec![header, Arg::Struct(sets.into())]
    };
    act(
        "capset",
        args,
        |_| 0,
        || {
            // SAFETY: version 3 reads exactly two data structures; all outlive the call.
            check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })
        },
    )
    .map_err(|errno| Error::new("capset", "the container's capabilities", errno))?;
    Ok(())
}

fn prctl(name: &'static str, option: i32, argument: (u64, &'static str), object: &str) -> Result<i64> {
    prctl2(name, option, argument, 0, object)
}

fn prctl2(
    name: &'static str,
    option: i32,
    argument: (u64, &'static str),
    second: u64,
    object: &str,
) -> Result<i64> {
    let args = || {
        let mut list = vec![Arg::Flags(option as u64, name.to_owned())];
        match argument {
            (value, "") => list.push(Arg::Int(value as i64)),
            (value, words) => list.push(Arg::Flags(value, words.to_owned())),
        }
        if second != 0 {
            list.push(Arg::Int(second as i64));
        }
        list
    };
    act(
        "prctl",
        args,
        |value: &i64| *value,
        || {
            // SAFETY: the options that this module passes take numbers only.
            check(unsafe { libc::syscall(libc::SYS_prctl, option, argument.0, second, 0, 0) })
        },
    )
    .map_err(|errno| Error::new("prctl", format!("{name} {object}"), errno))
}

/// `prctl(PR_SET_NO_NEW_PRIVS, 1)`: from now on execve raises nothing. See PR_SET_NO_NEW_PRIVS(2const).
pub fn set_no_new_privileges() -> Result<()> {
    prctl("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, (1, ""), "").map(drop)
}

/// `prctl(PR_SET_KEEPCAPS, …)`: whether the permitted set outlives the change of user. See PR_SET_KEEPCAPS(2const).
pub fn keep_capabilities(keep: bool) -> Result<()> {
    prctl("PR_SET_KEEPCAPS", libc::PR_SET_KEEPCAPS, (keep.into(), ""), "").map(drop)
}

/// `prctl(PR_CAPBSET_DROP, capability)`: takes one capability out of the bounding set. See PR_CAPBSET_DROP(2const).
pub fn drop_bounding(capability: u32) -> Result<()> {
    let object = format!("capability {capability}");
    prctl("PR_CAPBSET_DROP", libc::PR_CAPBSET_DROP, (capability.into(), ""), &object).map(drop)
}

/// Whether a capability is in the bounding set; false also for a number the kernel does not know. Changes nothing.
pub fn in_bounding(capability: u32) -> bool {
    // SAFETY: takes two numbers.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_READ, capability, 0, 0, 0) == 1 }
}

/// Whether a system call filter is around this process; also said where one denies the question. Changes nothing.
pub fn is_filtered() -> bool {
    // SAFETY: takes one number.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_SECCOMP, 0, 0, 0, 0) != 0 }
}

/// `prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)`. See PR_CAP_AMBIENT(2const).
pub fn raise_ambient(capability: u32) -> Result<()> {
    let raise = (libc::PR_CAP_AMBIENT_RAISE as u64, "PR_CAP_AMBIENT_RAISE");
    let object = format!("capability {capability}");
    prctl2("PR_CAP_AMBIENT", libc::PR_CAP_AMBIENT, raise, capability.into(), &object).map(drop)
}

/// `prctl(PR_SET_DUMPABLE, …)`: whether others of the same user may look into this process. See PR_SET_DUMPABLE(2const).
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl("PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, (dumpable.into(), ""), "").map(drop)
}

/// `prctl(PR_SET_CHILD_SUBREAPER, 1)`: orphans below this process become its children. See PR_SET_CHILD_SUBREAPER(2const).
pub fn become_subreaper() -> Result<()> {
    prctl("PR_SET_CHILD_SUBREAPER", libc::PR_SET_CHILD_SUBREAPER, (1, ""), "").map(drop)
}

/// `personality(persona)`: which kind of Linux this process sees, through execve. `name` is shown. See personality(2).
pub fn set_personality(persona: u32, name: &str) -> Result<()> {
    act(
        "personality",
        || vec![Arg::Flags(persona.into(), name.to_owned())],
        |before| *before,
        || {
            // SAFETY: takes one number.
            check(unsafe { libc::syscall(libc::SYS_personality, persona) })
        },
    )
    .map_err(|errno| Error::new("personality", name, errno))?;
    Ok(())
}

/// `setsid()`: leaves the terminal and the process group for a session of its own. See setsid(2).
pub fn new_session() -> Result<()> {
    rustix::process::setsid().map(drop).map_err(|errno| Error::new("setsid", "this process", errno))
}

/// `keyctl(KEYCTL_JOIN_SESSION_KEYRING, name)`: a new, empty session keyring of this name. See keyctl(2).
///
/// A kernel without keyrings (`ENOSYS`) has nothing to leave behind, which is no error.
pub fn new_session_keyring(name: &str) -> Result<()> {
    const JOIN_SESSION_KEYRING: i64 = 1;
    let name_c = c_string("keyctl", name)?;
    let args = || {
        let operation = Arg::Flags(JOIN_SESSION_KEYRING as u64, "KEYCTL_JOIN_SESSION_KEYRING".to_owned());
        vec![operation, Arg::Str(name.to_owned())]
    };
    let join = || {
        // SAFETY: one string that outlives the call.
        check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name_c.as_ptr()) })
    };
    match act("keyctl", args, |key| *key, join) {
        Err(Errno::NOSYS) | Ok(_) => Ok(()),
        Err(errno) => Err(Error::new("keyctl", name, errno)),
    }
}

/// The number of a resource of setrlimit(2) by its name (`RLIMIT_NOFILE`).
pub fn rlimit_number(name: &str) -> Option<u32> {
    const NAMES: [&str; 16] = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    let name = name.strip_prefix("RLIMIT_")?;
    NAMES.iter().position(|known| *known == name).map(|number| number as u32)
}

/// `prlimit64(0, resource, &new, NULL)` of this process. See setrlimit(2).
///
/// Raising the hard limit needs CAP_SYS_RESOURCE.
pub fn set_rlimit(name: &str, soft: u64, hard: u64) -> Result<()> {
    let failed = |errno| Error::new("setrlimit", format!("{name} {soft}:{hard}"), errno);
    let number = rlimit_number(name).ok_or_else(|| failed(Errno::INVAL))?;
    let limit = [soft, hard];
    // SAFETY: struct rlimit64 is two 64-bit numbers, soft first; it outlives the call.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, number, limit.as_ptr(), 0) }).map_err(failed)?;
    Ok(())
}
