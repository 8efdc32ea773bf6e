//! Which system calls a container's processes may make.
//!
//! A profile (docker's default one, a file in docker's format, or `linux.seccomp` of an OCI configuration) becomes
//! a [`Seccomp`], that a BPF program, and that is loaded by [`kernel::seccomp::load`]. Nothing is cached and no library
//! is used: all of it takes well under half a millisecond.
//!
//! ```
//! use runtime::seccomp;
//! let capabilities = 1 << 18; // CAP_SYS_CHROOT
//! let filter = seccomp::compile(&seccomp::docker_default(capabilities, (6, 1)))?;
//! # Ok::<(), seccomp::Error>(())
//! ```

#[cfg(any(test, target_arch = "aarch64"))]
mod aarch64;
mod arch;
mod assemble;
mod capability;
mod compile;
mod docker;
mod oci;
mod profile;
#[cfg(any(test, target_arch = "x86_64"))]
mod x86_64;

use kernel::seccomp::{FilterFlags, Instruction};

pub use capability::capability_set;
pub use compile::compile;
pub use docker::docker_default;
pub use oci::{Action, Arch, Condition, Flag, Op, Seccomp, Syscall};
pub use profile::{Filter, Profile, ProfileArch, ProfileSyscall, kernel_version};

/// Docker's default filter for a process with this bounding set (bit n is capability number n) on the running kernel.
///
/// # Errors
/// None that the profile as it stands can cause; they are [`compile`]'s.
pub fn default_filter(capabilities: u64) -> Result<Vec<Instruction>, Error> {
    compile(&docker_default(capabilities, kernel_version()))
}

/// The flags to load the filter of `seccomp` with.
pub fn flags(seccomp: &Seccomp) -> FilterFlags {
    let mut flags = FilterFlags::empty();
    for flag in &seccomp.flags {
        flags |= match flag {
            Flag::Tsync => FilterFlags::empty(),
            Flag::Log => FilterFlags::LOG,
            Flag::SpecAllow => FilterFlags::SPEC_ALLOW,
            Flag::WaitKillableRecv => FilterFlags::WAIT_KILLABLE_RECV,
        };
    }
    if seccomp.syscalls.iter().any(|syscall| syscall.action == Action::Notify) {
        flags |= FilterFlags::NEW_LISTENER;
    }
    flags
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or not a profile.
    #[error("no valid seccomp profile: {0}; see docker's default.json for the format")]
    Format(#[from] serde_json::Error),
    /// A condition on an argument that no call has.
    #[error("the seccomp rule on {calls} is about argument {index}: a system call's arguments are 0 to 5")]
    ArgumentIndex {
        /// The rule's calls.
        calls: String,
        /// The index.
        index: u32,
    },
    /// `SCMP_ACT_NOTIFY` as the default action.
    #[error(
        "the seccomp default action is SCMP_ACT_NOTIFY, so the container could not even start: use it in rules only"
    )]
    NotifyByDefault,
    /// `SCMP_ACT_NOTIFY` on write(2).
    #[error(
        "the seccomp profile has SCMP_ACT_NOTIFY on write, which is needed to hand over the listener: leave it out"
    )]
    NotifyWrite,
    /// The rules do not fit into what the kernel takes.
    #[error(
        "the seccomp rules need {instructions} instructions, the kernel takes {limit}: use fewer conditions"
    )]
    TooLong {
        /// What was compiled.
        instructions: usize,
        /// The kernel's limit.
        limit: usize,
    },
    /// Both ways of naming architectures in one profile.
    #[error("the seccomp profile has both architectures and archMap: use one of them")]
    TwoArchitectureLists,
    /// Both ways of naming calls in one rule.
    #[error("a rule of the seccomp profile has both name ({name}) and names: use names")]
    TwoNameLists {
        /// The single name.
        name: String,
    },
    /// A kernel version that is none.
    #[error("the seccomp profile's minKernel is {version:?}: write version and patch level, as in 4.8")]
    KernelVersion {
        /// What was written.
        version: String,
    },
}
