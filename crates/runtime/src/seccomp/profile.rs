//! Docker's format of profiles (`--security-opt seccomp=FILE`): rules that hold only for some capabilities, processors and
//! kernels ([docs.docker.com](https://docs.docker.com/engine/security/seccomp/)).

use std::borrow::Cow;

use serde::Deserialize;

use super::Error;
use super::arch::MACHINE;
use super::oci::{Action, Arch, Condition, Flag, Seccomp, Syscall};
use crate::capability::capability_set;
use crate::spec::absent::null_is_default;

/// A profile as docker reads it; an OCI `linux.seccomp` object is one too.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    /// What happens to a call that no rule matches.
    pub default_action: Option<Action>,
    /// Its error number.
    pub default_errno_ret: Option<u32>,
    /// The interfaces that can be used, whatever the machine.
    #[serde(deserialize_with = "null_is_default")]
    pub architectures: Vec<Arch>,
    /// The interfaces that can be used on each machine.
    #[serde(deserialize_with = "null_is_default")]
    pub arch_map: Vec<ProfileArch>,
    /// How the filter is loaded.
    pub flags: Option<Vec<Flag>>,
    /// The socket that gets the notification descriptor.
    pub listener_path: Option<String>,
    /// Passed on to that socket's owner.
    pub listener_metadata: Option<String>,
    /// The rules.
    #[serde(deserialize_with = "null_is_default")]
    pub syscalls: Vec<ProfileSyscall>,
}

/// The interfaces of one machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileArch {
    /// Its own.
    pub architecture: Arch,
    /// The others.
    #[serde(default, deserialize_with = "null_is_default")]
    pub sub_architectures: Vec<Arch>,
}

/// A rule, and when it holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileSyscall {
    /// One call; the older form.
    #[serde(default)]
    pub name: String,
    /// The calls.
    #[serde(default, deserialize_with = "null_is_default")]
    pub names: Vec<Cow<'static, str>>,
    /// What happens to them.
    pub action: Action,
    /// The error number.
    #[serde(default)]
    pub errno_ret: Option<u32>,
    /// Conditions on arguments.
    #[serde(default, deserialize_with = "null_is_default")]
    pub args: Vec<Condition>,
    /// The rule holds only where all of this does.
    #[serde(default, deserialize_with = "null_is_default")]
    pub includes: Where,
    /// The rule does not hold where any of this does.
    #[serde(default, deserialize_with = "null_is_default")]
    pub excludes: Where,
}

/// Where a rule holds, or does not.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Where {
    /// Capabilities by name (`CAP_SYS_ADMIN`).
    #[serde(deserialize_with = "null_is_default")]
    pub caps: Vec<String>,
    /// Machines by docker's name (`amd64`).
    #[serde(deserialize_with = "null_is_default")]
    pub arches: Vec<String>,
    /// This kernel or a later one (`4.8`).
    pub min_kernel: Option<String>,
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// [`Error::Format`] with line and column.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        Ok(serde_json::from_slice(json)?)
    }

    /// The rules that hold for a process with this bounding set (bit n is capability number n) on `kernel`; `None` if the
    /// profile is empty, which means that nothing is filtered.
    ///
    /// # Errors
    /// Contradictions in the profile.
    pub fn rules_for(&self, capabilities: u64, kernel: (u32, u32)) -> Result<Option<Seccomp>, Error> {
        let default_action = match self.default_action {
            Some(action) => action,
            None if self.syscalls.is_empty() => return Ok(None),
            // What an empty string means to no one else either: docker hands it on and runc refuses it.
            None => return Err(missing_default()),
        };
        let mut syscalls = Vec::new();
        for rule in &self.syscalls {
            if rule.holds(capabilities, kernel)? {
                syscalls.push(rule.rule()?);
            }
        }
        Ok(Some(Seccomp {
            default_action,
            default_errno_ret: self.default_errno_ret,
            architectures: self.architectures()?,
            flags: self.flags.clone(),
            listener_path: self.listener_path.clone(),
            listener_metadata: self.listener_metadata.clone(),
            syscalls,
        }))
    }

    fn architectures(&self) -> Result<Vec<Arch>, Error> {
        if !self.architectures.is_empty() && !self.arch_map.is_empty() {
            return Err(Error::TwoArchitectureLists);
        }
        let own = MACHINE.architectures[0].arch;
        let Some(map) = self.arch_map.iter().find(|map| map.architecture == own) else {
            return Ok(self.architectures.clone());
        };
        Ok(std::iter::once(own).chain(map.sub_architectures.iter().copied()).collect())
    }
}

fn missing_default() -> Error {
    Error::Format(serde::de::Error::missing_field("defaultAction"))
}

impl ProfileSyscall {
    fn holds(&self, capabilities: u64, kernel: (u32, u32)) -> Result<bool, Error> {
        let has = |name: &String| capabilities & capability_set([name.as_str()]) != 0;
        let here = |name: &String| name == MACHINE.docker_name;
        let excluded = self.excludes.arches.iter().any(here)
            || self.excludes.caps.iter().any(has)
            || self.excludes.reached_by(kernel)?.unwrap_or(false);
        let included = (self.includes.arches.is_empty() || self.includes.arches.iter().any(here))
            && self.includes.caps.iter().all(has)
            && self.includes.reached_by(kernel)?.unwrap_or(true);
        Ok(included && !excluded)
    }

    fn rule(&self) -> Result<Syscall, Error> {
        let names = match (self.name.as_str(), self.names.as_slice()) {
            ("", names) => names.to_vec(),
            (name, []) => vec![Cow::Owned(name.to_owned())],
            (name, _) => return Err(Error::TwoNameLists { name: name.to_owned() }),
        };
        Ok(Syscall { names, action: self.action, errno_ret: self.errno_ret, args: self.args.clone() })
    }
}

impl Where {
    /// Whether `kernel` is new enough, if the filter asks for one.
    fn reached_by(&self, kernel: (u32, u32)) -> Result<Option<bool>, Error> {
        let Some(version) = &self.min_kernel else { return Ok(None) };
        let wanted = parse_version(version, |rest| rest.is_empty());
        let wanted = wanted.ok_or_else(|| Error::KernelVersion { version: version.clone() })?;
        Ok(Some(kernel >= wanted))
    }
}

/// The running kernel's version and patch level.
pub fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    // No Linux names itself otherwise; if one did, (0, 0) allows the least.
    parse_version(&uname.release().to_string_lossy(), |_| true).unwrap_or_default()
}

/// Reads "4.8" and what follows it, if that is fine.
fn parse_version(text: &str, follows: fn(&str) -> bool) -> Option<(u32, u32)> {
    let (version, rest) = text.split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (level, rest) = rest.split_at(end);
    if !follows(rest) {
        return None;
    }
    Some((version.parse().ok()?, level.parse().ok()?))
}
