//! What this runtime understands, as callers ask for it: runtime-spec, `features.md` and `features-linux.md`.
//!
//! Every list comes from the table that the code itself reads by, so nothing is promised that is not kept.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::capability::CAPABILITIES;
use crate::seccomp::{Action, Arch, Flag, Op};
use crate::spec::{Hooks, MemoryPolicyFlag, MemoryPolicyMode, NamespaceKind};

/// The newest version of the specification that this runtime follows.
pub const VERSION: &str = "1.3.0";
const VERSION_LEAST: &str = "1.0.0";
pub(crate) const VERSION_MAJOR: &str = "1";

/// The features document.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    /// The oldest version of the specification that is understood.
    pub oci_version_min: &'static str,
    /// The newest.
    pub oci_version_max: &'static str,
    /// Points at which hooks run.
    pub hooks: Vec<&'static str>,
    /// Mount options that are not the file system's own.
    pub mount_options: Vec<String>,
    /// What only Linux has.
    pub linux: LinuxFeatures,
    /// Facts that the specification has no words for.
    pub annotations: BTreeMap<&'static str, String>,
    /// Annotations that change what this runtime does, so that a caller does not take them from just anybody.
    pub potentially_unsafe_config_annotations: Vec<&'static str>,
}

/// What only Linux has.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxFeatures {
    /// Kinds of namespaces.
    pub namespaces: Vec<String>,
    /// Capabilities.
    pub capabilities: Vec<&'static str>,
    /// Control groups.
    pub cgroup: CgroupFeatures,
    /// Filters of system calls.
    pub seccomp: SeccompFeatures,
    /// AppArmor profiles.
    pub apparmor: Enabled,
    /// SELinux labels.
    pub selinux: Enabled,
    /// Shares of processor caches.
    pub intel_rdt: IntelRdtFeatures,
    /// Mounts beyond mount(2).
    pub mount_extensions: MountExtensions,
    /// Network devices that move into a container.
    pub net_devices: Enabled,
    /// Memory policies.
    pub memory_policy: MemoryPolicyFeatures,
}

/// Control groups.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CgroupFeatures {
    /// Version 1.
    pub v1: bool,
    /// Version 2.
    pub v2: bool,
    /// Groups that the system's systemd makes.
    pub systemd: bool,
    /// Groups that a user's systemd makes.
    pub systemd_user: bool,
    /// Limits of RDMA devices.
    pub rdma: bool,
}

/// Filters of system calls.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompFeatures {
    /// Whether there are any.
    pub enabled: bool,
    /// What can happen to a call.
    pub actions: Vec<String>,
    /// How an argument can be compared.
    pub operators: Vec<String>,
    /// Interfaces of processors.
    pub archs: Vec<String>,
    /// Ways of loading a filter that are understood.
    pub known_flags: Vec<String>,
    /// Those of them that are carried out.
    pub supported_flags: Vec<String>,
}

/// Whether a part is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Enabled {
    /// Whether it is.
    pub enabled: bool,
}

/// Shares of processor caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IntelRdtFeatures {
    /// Whether there are any.
    pub enabled: bool,
    /// Whether lines can be given as they are.
    pub schemata: bool,
    /// Whether a container can be measured.
    pub monitoring: bool,
}

/// Mounts beyond mount(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MountExtensions {
    /// Mounts whose files appear with other owners.
    pub idmap: Enabled,
}

/// Memory policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryPolicyFeatures {
    /// How nodes can be chosen.
    pub modes: Vec<String>,
    /// What can become of them.
    pub flags: Vec<String>,
}

/// What this runtime understands. It is the same on every machine, as the specification asks.
pub fn features() -> Features {
    let annotations = [("coracle.version", env!("CARGO_PKG_VERSION").to_owned())].into_iter().collect();
    Features {
        oci_version_min: VERSION_LEAST,
        oci_version_max: VERSION,
        hooks: Hooks::NAMES.to_vec(),
        mount_options: crate::mount_options::names(),
        linux: linux(),
        annotations,
        potentially_unsafe_config_annotations: Vec::new(),
    }
}

fn linux() -> LinuxFeatures {
    let enabled = || Enabled { enabled: true };
    LinuxFeatures {
        namespaces: names(&NamespaceKind::ALL),
        capabilities: CAPABILITIES.to_vec(),
        cgroup: CgroupFeatures { v1: true, v2: true, systemd: true, systemd_user: true, rdma: true },
        seccomp: SeccompFeatures {
            enabled: true,
            actions: names(&Action::ALL),
            operators: names(&Op::ALL),
            archs: names(&Arch::ALL),
            known_flags: names(&Flag::ALL),
            supported_flags: names(&Flag::ALL),
        },
        apparmor: enabled(),
        selinux: enabled(),
        intel_rdt: IntelRdtFeatures { enabled: true, schemata: true, monitoring: true },
        mount_extensions: MountExtensions { idmap: enabled() },
        net_devices: enabled(),
        memory_policy: MemoryPolicyFeatures {
            modes: names(&MemoryPolicyMode::ALL),
            flags: names(&MemoryPolicyFlag::ALL),
        },
    }
}

/// The names of values in JSON, sorted.
fn names<T: Serialize>(values: &[T]) -> Vec<String> {
    let mut names: Vec<String> = values.iter().map(crate::config::json_name).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    /// The names that a type takes, out of its complaint about another one.
    fn taken<T: DeserializeOwned + std::fmt::Debug>() -> Vec<String> {
        let complaint = serde_json::from_str::<T>("\"another\"").unwrap_err().to_string();
        let mut names: Vec<String> = complaint.split('`').skip(3).step_by(2).map(str::to_owned).collect();
        names.sort();
        names
    }

    #[test]
    fn every_list_is_the_whole_of_its_type() {
        assert_eq!(names(&NamespaceKind::ALL), taken::<NamespaceKind>());
        assert_eq!(names(&Action::ALL), taken::<Action>());
        assert_eq!(names(&Op::ALL), taken::<Op>());
        assert_eq!(names(&Arch::ALL), taken::<Arch>());
        assert_eq!(names(&Flag::ALL), taken::<Flag>());
        assert_eq!(names(&MemoryPolicyMode::ALL), taken::<MemoryPolicyMode>());
        assert_eq!(names(&MemoryPolicyFlag::ALL), taken::<MemoryPolicyFlag>());
        assert_eq!(taken::<Action>().len(), 9);
    }

    #[test]
    fn no_listed_mount_option_is_left_to_the_file_system() {
        let listed = features().mount_options;
        assert!(listed.len() > 50);
        for option in listed {
            assert_eq!(crate::mount_options::parse(std::slice::from_ref(&option)).data, [], "{option}");
        }
    }

    #[test]
    fn the_document_has_the_specifications_names() {
        let document = serde_json::to_value(features()).unwrap();
        assert_eq!(document["ociVersionMin"], "1.0.0");
        assert_eq!(document["ociVersionMax"], "1.3.0");
        assert_eq!(document["linux"]["cgroup"]["systemdUser"], true);
        assert_eq!(document["linux"]["seccomp"]["knownFlags"][0], "SECCOMP_FILTER_FLAG_LOG");
        assert_eq!(document["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert!(document["potentiallyUnsafeConfigAnnotations"].is_array());
    }

    #[test]
    fn each_hook_has_its_name() {
        let hooks = serde_json::to_value(Hooks {
            prestart: vec![Default::default()],
            create_runtime: vec![Default::default()],
            create_container: vec![Default::default()],
            start_container: vec![Default::default()],
            poststart: vec![Default::default()],
            poststop: vec![Default::default()],
        });
        let hooks = hooks.unwrap();
        assert!(Hooks::NAMES.iter().all(|name| hooks[*name].is_array()));
    }
}
