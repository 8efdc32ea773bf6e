//! Which system calls a container's processes may make.
//!
//! A profile (docker's default one, a file in docker's format, or `linux.seccomp` of an OCI configuration) becomes
//! a [`Seccomp`], that a [`Filter`], and that is loaded. Nothing is cached and no library
//! is used: all of it takes well under half a millisecond.
//!
//! ```
//! use runtime::seccomp;
//! let capabilities = 1 << 18; // CAP_SYS_CHROOT
//! let filter = seccomp::Filter::of(&seccomp::docker_default(capabilities, (6, 1)))?;
//! # Ok::<(), seccomp::Error>(())
//! ```

#[cfg(any(test, target_arch = "aarch64"))]
mod aarch64;
mod arch;
mod assemble;
mod compile;
mod docker;
mod listener;
mod oci;
mod profile;
#[cfg(any(test, target_arch = "x86_64"))]
mod x86_64;

use std::os::fd::OwnedFd;

use kernel::seccomp::{FilterFlags, Instruction};

pub use crate::capability::capability_set;
pub use docker::docker_default;
pub(crate) use listener::hand_on;
pub use oci::{Action, Arch, Condition, Flag, Op, Seccomp, Syscall};
pub use profile::{Profile, ProfileArch, ProfileSyscall, Where, kernel_version};

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What decides each call.
    pub program: Vec<Instruction>,
    /// How it is loaded.
    pub flags: FilterFlags,
}

impl Filter {
    /// Compiles `seccomp` for this machine.
    ///
    /// # Errors
    /// A condition on an argument that does not exist, notification where it would block the container's start, or
    /// more rules than the kernel takes.
    pub fn of(seccomp: &Seccomp) -> Result<Self, Error> {
        Ok(Self { program: compile::compile(seccomp)?, flags: flags(seccomp) })
    }

    /// Docker's default filter for a process with this bounding set (bit n is capability number n) on the running kernel.
    ///
    /// # Errors
    /// None that the profile as it stands can cause; they are those of [`Filter::of`].
    pub fn docker_default(capabilities: u64) -> Result<Self, Error> {
        Self::of(&docker_default(capabilities, kernel_version()))
    }

    /// The filter as bytes, for [`Filter::from_bytes`] in the process that loads it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let flags = self.flags.bits().to_ne_bytes();
        flags.into_iter().chain(self.program.iter().flat_map(|instruction| instruction.to_bytes())).collect()
    }

    /// What [`Filter::to_bytes`] gave; none for anything that it cannot have given.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (flags, program) = bytes.split_first_chunk::<4>()?;
        let (program, []) = program.as_chunks::<8>() else { return None };
        let flags = FilterFlags::from_bits(u32::from_ne_bytes(*flags))?;
        Some(Self { program: program.iter().map(|bytes| Instruction::from_bytes(*bytes)).collect(), flags })
    }

    /// Loads the filter into this thread for good: [`kernel::seccomp::load`]. With [`Action::Notify`] in a rule there is
    /// a listener, and whoever gets it must answer: without it those calls fail with `ENOSYS`.
    pub fn load(&self) -> kernel::Result<Option<OwnedFd>> {
        kernel::seccomp::load(&self.program, self.flags)
    }
}

fn flags(seccomp: &Seccomp) -> FilterFlags {
    // Where nothing is said, not even an empty list, runc and crun leave speculation alone: interpreters get much slower
    // by a mitigation that is of use to few.
    let mut flags = if seccomp.flags.is_none() { FilterFlags::SPEC_ALLOW } else { FilterFlags::empty() };
    for flag in seccomp.flags.iter().flatten() {
        flags |= match flag {
            Flag::Tsync => FilterFlags::empty(),
            Flag::Log => FilterFlags::LOG,
            Flag::SpecAllow => FilterFlags::SPEC_ALLOW,
            Flag::WaitKillableRecv => FilterFlags::WAIT_KILLABLE_RECV,
        };
    }
    if seccomp.notifies() {
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
    /// `SCMP_ACT_NOTIFY` where nobody would get the listener.
    #[error(
        "the seccomp profile has SCMP_ACT_NOTIFY, and coracle cannot hand its listener on: use SCMP_ACT_ERRNO or SCMP_ACT_LOG"
    )]
    NotifyUnheard,
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
