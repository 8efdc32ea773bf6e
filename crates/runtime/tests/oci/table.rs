//! Which test shows which property of the runtime specification 1.3, as far as it is for Linux.
//!
//! [`SPECIFICATION`] was compared, property by property, with two files of the specification's: the Go types (`specs-go/config.go`) as they
//! were vendored for runc's memory policies, with what is new for Linux since 1.2 (`execCPUAffinity`, `netDevices`, `memoryPolicy`,
//! `intelRdt.schemata` and `enableMonitoring`), and `schema/config-schema.json` of the commit that brought `freebsd`.
//! Left out is what both give to other systems only: `process.commandLine`, `process.user.username`, and the sections `freebsd`,
//! `solaris`, `vm`, `windows` and `zos`.

use std::collections::{BTreeMap, BTreeSet};

/// Every property of config.json by its JSON path; `*` is any key, `[]` any element.
const SPECIFICATION: &[&str] = &[
    "ociVersion",
    "annotations.*",
    "domainname",
    "hostname",
    "root.path",
    "root.readonly",
    "mounts[].destination",
    "mounts[].gidMappings[].containerID",
    "mounts[].gidMappings[].hostID",
    "mounts[].gidMappings[].size",
    "mounts[].options[]",
    "mounts[].source",
    "mounts[].type",
    "mounts[].uidMappings[].containerID",
    "mounts[].uidMappings[].hostID",
    "mounts[].uidMappings[].size",
    "hooks.prestart[]",
    "hooks.createRuntime[]",
    "hooks.createContainer[]",
    "hooks.startContainer[]",
    "hooks.poststart[]",
    "hooks.poststop[]",
    "hooks.*[].args[]",
    "hooks.*[].env[]",
    "hooks.*[].path",
    "hooks.*[].timeout",
    "process.apparmorProfile",
    "process.args[]",
    "process.capabilities.ambient[]",
    "process.capabilities.bounding[]",
    "process.capabilities.effective[]",
    "process.capabilities.inheritable[]",
    "process.capabilities.permitted[]",
    "process.consoleSize.height",
    "process.consoleSize.width",
    "process.cwd",
    "process.env[]",
    "process.execCPUAffinity.final",
    "process.execCPUAffinity.initial",
    "process.ioPriority.class",
    "process.ioPriority.priority",
    "process.noNewPrivileges",
    "process.oomScoreAdj",
    "process.rlimits[].hard",
    "process.rlimits[].soft",
    "process.rlimits[].type",
    "process.scheduler.deadline",
    "process.scheduler.flags[]",
    "process.scheduler.nice",
    "process.scheduler.period",
    "process.scheduler.policy",
    "process.scheduler.priority",
    "process.scheduler.runtime",
    "process.selinuxLabel",
    "process.terminal",
    "process.user.additionalGids[]",
    "process.user.gid",
    "process.user.uid",
    "process.user.umask",
    "linux.cgroupsPath",
    "linux.devices[].fileMode",
    "linux.devices[].gid",
    "linux.devices[].major",
    "linux.devices[].minor",
    "linux.devices[].path",
    "linux.devices[].type",
    "linux.devices[].uid",
    "linux.gidMappings[].containerID",
    "linux.gidMappings[].hostID",
    "linux.gidMappings[].size",
    "linux.intelRdt.closID",
    "linux.intelRdt.enableMonitoring",
    "linux.intelRdt.l3CacheSchema",
    "linux.intelRdt.memBwSchema",
    "linux.intelRdt.schemata[]",
    "linux.maskedPaths[]",
    "linux.memoryPolicy.flags[]",
    "linux.memoryPolicy.mode",
    "linux.memoryPolicy.nodes",
    "linux.mountLabel",
    "linux.namespaces[].path",
    "linux.namespaces[].type",
    "linux.netDevices.*.name",
    "linux.personality.domain",
    "linux.personality.flags[]",
    "linux.readonlyPaths[]",
    "linux.resources.blockIO.leafWeight",
    "linux.resources.blockIO.throttleReadBpsDevice[].major",
    "linux.resources.blockIO.throttleReadBpsDevice[].minor",
    "linux.resources.blockIO.throttleReadBpsDevice[].rate",
    "linux.resources.blockIO.throttleReadIOPSDevice[].major",
    "linux.resources.blockIO.throttleReadIOPSDevice[].minor",
    "linux.resources.blockIO.throttleReadIOPSDevice[].rate",
    "linux.resources.blockIO.throttleWriteBpsDevice[].major",
    "linux.resources.blockIO.throttleWriteBpsDevice[].minor",
    "linux.resources.blockIO.throttleWriteBpsDevice[].rate",
    "linux.resources.blockIO.throttleWriteIOPSDevice[].major",
    "linux.resources.blockIO.throttleWriteIOPSDevice[].minor",
    "linux.resources.blockIO.throttleWriteIOPSDevice[].rate",
    "linux.resources.blockIO.weight",
    "linux.resources.blockIO.weightDevice[].leafWeight",
    "linux.resources.blockIO.weightDevice[].major",
    "linux.resources.blockIO.weightDevice[].minor",
    "linux.resources.blockIO.weightDevice[].weight",
    "linux.resources.cpu.burst",
    "linux.resources.cpu.cpus",
    "linux.resources.cpu.idle",
    "linux.resources.cpu.mems",
    "linux.resources.cpu.period",
    "linux.resources.cpu.quota",
    "linux.resources.cpu.realtimePeriod",
    "linux.resources.cpu.realtimeRuntime",
    "linux.resources.cpu.shares",
    "linux.resources.devices[].access",
    "linux.resources.devices[].allow",
    "linux.resources.devices[].major",
    "linux.resources.devices[].minor",
    "linux.resources.devices[].type",
    "linux.resources.hugepageLimits[].limit",
    "linux.resources.hugepageLimits[].pageSize",
    "linux.resources.memory.checkBeforeUpdate",
    "linux.resources.memory.disableOOMKiller",
    "linux.resources.memory.kernel",
    "linux.resources.memory.kernelTCP",
    "linux.resources.memory.limit",
    "linux.resources.memory.reservation",
    "linux.resources.memory.swap",
    "linux.resources.memory.swappiness",
    "linux.resources.memory.useHierarchy",
    "linux.resources.network.classID",
    "linux.resources.network.priorities[].name",
    "linux.resources.network.priorities[].priority",
    "linux.resources.pids.limit",
    "linux.resources.rdma.*.hcaHandles",
    "linux.resources.rdma.*.hcaObjects",
    "linux.resources.unified.*",
    "linux.rootfsPropagation",
    "linux.seccomp.architectures[]",
    "linux.seccomp.defaultAction",
    "linux.seccomp.defaultErrnoRet",
    "linux.seccomp.flags[]",
    "linux.seccomp.listenerMetadata",
    "linux.seccomp.listenerPath",
    "linux.seccomp.syscalls[].action",
    "linux.seccomp.syscalls[].args[].index",
    "linux.seccomp.syscalls[].args[].op",
    "linux.seccomp.syscalls[].args[].value",
    "linux.seccomp.syscalls[].args[].valueTwo",
    "linux.seccomp.syscalls[].errnoRet",
    "linux.seccomp.syscalls[].names[]",
    "linux.sysctl.*",
    "linux.timeOffsets.*.nanosecs",
    "linux.timeOffsets.*.secs",
    "linux.uidMappings[].containerID",
    "linux.uidMappings[].hostID",
    "linux.uidMappings[].size",
];

/// Properties that cannot be observed on the machines that the tests run on, and why.
const UNOBSERVABLE: &[(&str, &str)] =
    &[("linux.intelRdt", "needs a processor with resource control, which no virtual machine has")];

/// A property, or all that begin with it, and the tests that show it.
const TABLE: &[(&str, &[&str])] = &[
    ("ociVersion", &["root::oci_version_of_a_minor_kind_is_accepted"]),
    ("annotations", &["root::annotations_are_in_the_state"]),
    ("domainname", &["root::domainname_is_set_in_the_namespace"]),
    ("hostname", &["root::hostname_is_set_in_the_namespace"]),
    (
        "root.path",
        &[
            "root::path_is_relative_to_the_bundle_or_absolute",
            "root::path_may_be_a_descriptor_of_the_caller",
            "root::the_root_is_all_there_is",
        ],
    ),
    ("root.readonly", &["root::readonly_keeps_writes_out"]),
    (
        "mounts[].destination",
        &[
            "mounts::a_file_is_bound_on_a_file",
            "mounts::mounts_are_made_in_order",
            "mounts::links_of_a_destination_stay_in_the_root",
        ],
    ),
    (
        "mounts[].gidMappings",
        &["mounts::idmap_shifts_owners_of_a_mount", "mounts::ridmap_shifts_owners_of_mounts_below"],
    ),
    (
        "mounts[].uidMappings",
        &[
            "mounts::idmap_shifts_owners_of_a_mount",
            "mounts::ridmap_shifts_owners_of_mounts_below",
            "mounts::idmap_without_mappings_takes_the_user_namespaces",
        ],
    ),
    (
        "mounts[].options",
        &[
            "mounts::bind_shows_one_mount_and_rbind_all_below",
            "mounts::options_are_flags_of_a_new_mount",
            "mounts::options_are_flags_of_a_bind_mount",
            "mounts::sync_and_dirsync_are_set",
            "mounts::recursive_options_reach_mounts_below",
            "mounts::recursive_options_take_back_from_mounts_below",
            "mounts::tmpfs_takes_its_options",
            "mounts::tmpcopyup_copies_what_was_there",
            "mounts::rslave_receives_mounts_made_after_start",
            "mounts::rshared_passes_mounts_both_ways",
            "mounts::propagation_words_are_seen_in_mountinfo",
        ],
    ),
    (
        "mounts[].source",
        &["mounts::a_source_is_relative_to_the_bundle", "mounts::a_missing_source_is_refused"],
    ),
    (
        "mounts[].type",
        &["mounts::kernel_file_systems_are_mounted", "mounts::cgroup_shows_the_containers_groups"],
    ),
    (
        "hooks.prestart",
        &["hooks::prestart_hook_runs_on_the_host", "hooks::run_in_the_order_of_the_containers_life"],
    ),
    ("hooks.createRuntime", &["hooks::create_runtime_hook_runs_on_the_host"]),
    ("hooks.createContainer", &["hooks::create_container_hook_runs_in_the_namespace_before_pivot"]),
    (
        "hooks.startContainer",
        &[
            "hooks::start_container_hook_runs_in_the_container",
            "hooks::failure_at_the_start_keeps_the_program_from_running",
        ],
    ),
    (
        "hooks.poststart",
        &[
            "hooks::poststart_hook_runs_on_the_host_when_it_runs",
            "hooks::failure_of_poststart_ends_the_container",
        ],
    ),
    (
        "hooks.poststop",
        &["hooks::poststop_hook_runs_on_the_host_when_it_stopped", "hooks::failure_of_poststop_is_logged"],
    ),
    ("hooks.*[].args", &["hooks::path_args_env_are_as_written"]),
    ("hooks.*[].env", &["hooks::path_args_env_are_as_written"]),
    (
        "hooks.*[].path",
        &[
            "hooks::path_args_env_are_as_written",
            "hooks::several_of_a_kind_run_in_order",
            "hooks::failure_before_the_start_ends_the_container",
        ],
    ),
    ("hooks.*[].timeout", &["hooks::timeout_ends_a_hook_that_takes_longer"]),
    ("process.apparmorProfile", &["process::an_apparmor_profile_is_refused_where_apparmor_is_off"]),
    ("process.args", &["process::args_are_passed_as_they_are"]),
    (
        "process.capabilities",
        &["process::capabilities_of_each_set", "process::capabilities_that_are_unknown_are_warned_of"],
    ),
    (
        "process.consoleSize",
        &[
            "process::terminal_goes_over_the_console_socket",
            "process::terminal_of_exec_goes_over_its_own_socket",
        ],
    ),
    ("process.cwd", &["process::cwd_is_where_it_starts"]),
    ("process.env", &["process::env_is_what_was_asked_and_home"]),
    ("process.execCPUAffinity", &["process::exec_cpu_affinity_is_set_for_exec"]),
    ("process.ioPriority", &["process::io_priority_is_set"]),
    ("process.noNewPrivileges", &["process::no_new_privileges_is_set_or_not"]),
    ("process.oomScoreAdj", &["process::oom_score_adj_is_set_or_inherited"]),
    ("process.rlimits", &["process::rlimits_of_each_type"]),
    ("process.scheduler", &["process::scheduler_is_set", "process::scheduler_of_real_time_with_flags"]),
    ("process.selinuxLabel", &["process::a_selinux_label_is_refused_where_selinux_is_off"]),
    (
        "process.terminal",
        &[
            "process::terminal_goes_over_the_console_socket",
            "process::terminal_of_exec_goes_over_its_own_socket",
            "process::terminal_without_a_socket_is_refused",
        ],
    ),
    ("process.user.additionalGids", &["process::user_is_uid_gid_and_additional_gids"]),
    ("process.user.gid", &["process::user_is_uid_gid_and_additional_gids"]),
    ("process.user.uid", &["process::user_is_uid_gid_and_additional_gids"]),
    ("process.user.umask", &["process::umask_is_set"]),
    ("linux.cgroupsPath", &["resources::cgroups_path_is_where_every_process_is"]),
    ("linux.devices", &["rest::devices_are_made", "rest::default_devices_and_links_are_there"]),
    ("linux.gidMappings", &["namespaces::uid_and_gid_mappings_are_written"]),
    (
        "linux.uidMappings",
        &[
            "namespaces::uid_and_gid_mappings_are_written",
            "namespaces::a_user_namespace_without_mappings_is_refused",
        ],
    ),
    ("linux.maskedPaths", &["rest::masked_paths_cannot_be_read"]),
    ("linux.memoryPolicy", &["rest::memory_policy_is_taken"]),
    ("linux.mountLabel", &["rest::a_mount_label_is_refused_where_selinux_is_off"]),
    (
        "linux.namespaces[].path",
        &[
            "namespaces::namespaces_of_a_path_are_joined",
            "namespaces::a_pid_namespace_of_a_path_is_joined",
            "namespaces::a_user_namespace_of_a_path_is_joined",
            "namespaces::a_path_that_is_no_namespace_is_refused",
            "namespaces::a_mount_namespace_of_a_path_is_joined",
        ],
    ),
    (
        "linux.namespaces[].type",
        &[
            "namespaces::new_namespaces_are_those_asked_for",
            "namespaces::a_container_without_a_mount_namespace_is_refused",
            "namespaces::a_new_network_namespace_has_its_loopback_up",
        ],
    ),
    ("linux.netDevices", &["namespaces::net_devices_are_moved_and_named"]),
    ("linux.personality", &["rest::personality_is_taken"]),
    ("linux.readonlyPaths", &["rest::readonly_paths_cannot_be_written"]),
    (
        "linux.resources.blockIO.leafWeight",
        &["resources::block_io_leaf_weight_is_refused_where_there_is_none"],
    ),
    ("linux.resources.blockIO.throttle", &["resources::block_io_throttles"]),
    ("linux.resources.blockIO.weight", &["resources::block_io_weight"]),
    ("linux.resources.blockIO.weightDevice", &["resources::block_io_weight_of_a_device"]),
    ("linux.resources.cpu.burst", &["resources::cpu_burst"]),
    ("linux.resources.cpu.cpus", &["resources::cpu_cpus_and_mems"]),
    ("linux.resources.cpu.idle", &["resources::cpu_idle"]),
    ("linux.resources.cpu.mems", &["resources::cpu_cpus_and_mems"]),
    ("linux.resources.cpu.period", &["resources::cpu_shares_quota_and_period"]),
    (
        "linux.resources.cpu.quota",
        &[
            "resources::cpu_shares_quota_and_period",
            "resources::update_changes_limits_of_a_running_container",
        ],
    ),
    ("linux.resources.cpu.realtime", &["resources::cpu_realtime"]),
    ("linux.resources.cpu.shares", &["resources::cpu_shares_quota_and_period"]),
    ("linux.resources.devices", &["resources::devices_are_allowed_and_denied"]),
    ("linux.resources.hugepageLimits", &["resources::hugepage_limits"]),
    ("linux.resources.memory.checkBeforeUpdate", &["resources::memory_check_before_update_refuses"]),
    ("linux.resources.memory.disableOOMKiller", &["resources::memory_swappiness_and_disable_oom_killer"]),
    ("linux.resources.memory.kernel", &["resources::memory_kernel_and_kernel_tcp_are_warned_of"]),
    ("linux.resources.memory.limit", &["resources::memory_limit_and_reservation"]),
    ("linux.resources.memory.reservation", &["resources::memory_limit_and_reservation"]),
    ("linux.resources.memory.swap", &["resources::memory_swap_is_with_memory"]),
    ("linux.resources.memory.swappiness", &["resources::memory_swappiness_and_disable_oom_killer"]),
    ("linux.resources.memory.useHierarchy", &["resources::memory_kernel_and_kernel_tcp_are_warned_of"]),
    ("linux.resources.network", &["resources::network_class_and_priorities"]),
    ("linux.resources.pids.limit", &["resources::pids_limit"]),
    ("linux.resources.rdma", &["resources::rdma_handles_and_objects"]),
    ("linux.resources.unified", &["resources::unified_is_v2s"]),
    (
        "linux.rootfsPropagation",
        &[
            "rest::rootfs_propagation_keeps_the_root_from_the_host",
            "rest::rootfs_propagation_is_that_of_the_root",
        ],
    ),
    ("linux.seccomp.architectures", &["seccomp::architectures_are_taken"]),
    ("linux.seccomp.defaultAction", &["seccomp::default_action_and_its_errno"]),
    ("linux.seccomp.defaultErrnoRet", &["seccomp::default_action_and_its_errno"]),
    ("linux.seccomp.flags", &["seccomp::flags_are_taken_or_refused", "seccomp::notify_waits_killably"]),
    ("linux.seccomp.listenerMetadata", &["seccomp::notify_sends_a_listener_to_the_agent"]),
    (
        "linux.seccomp.listenerPath",
        &["seccomp::notify_sends_a_listener_to_the_agent", "seccomp::notify_without_an_agent_is_refused"],
    ),
    (
        "linux.seccomp.syscalls[].action",
        &[
            "seccomp::errno_is_returned",
            "seccomp::kill_and_trap_end_the_caller_with_sigsys",
            "seccomp::trace_fails_without_a_tracer",
            "seccomp::log_and_allow_let_it_pass",
            "seccomp::a_filter_is_loaded_for_any_user",
            "seccomp::exec_has_the_filter_too",
        ],
    ),
    ("linux.seccomp.syscalls[].args", &["seccomp::args_are_compared"]),
    ("linux.seccomp.syscalls[].errnoRet", &["seccomp::errno_is_returned"]),
    ("linux.seccomp.syscalls[].names", &["seccomp::names_that_are_unknown_are_passed_over"]),
    (
        "linux.sysctl",
        &["rest::sysctls_of_own_namespaces_are_set", "rest::sysctls_of_the_machine_are_refused"],
    ),
    ("linux.timeOffsets", &["namespaces::time_offsets_move_the_clocks"]),
];

const SOURCES: [(&str, &str); 8] = [
    ("hooks", include_str!("properties/hooks.rs")),
    ("mounts", include_str!("properties/mounts.rs")),
    ("namespaces", include_str!("properties/namespaces.rs")),
    ("process", include_str!("properties/process.rs")),
    ("resources", include_str!("properties/resources.rs")),
    ("rest", include_str!("properties/rest.rs")),
    ("root", include_str!("properties/root.rs")),
    ("seccomp", include_str!("properties/seccomp.rs")),
];

/// Every test of the properties' modules as `module::name`.
fn tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for (module, source) in SOURCES {
        for after in source.split("#[test]\nfn ").skip(1) {
            tests.insert(format!("{module}::{}", after.split('(').next().unwrap()));
        }
    }
    tests
}

#[test]
fn every_property_has_a_test() {
    let rows: BTreeMap<&str, &[&str]> = TABLE.iter().copied().collect();
    assert_eq!(rows.len(), TABLE.len(), "a property has two rows");
    let observable = |path: &&&str| !UNOBSERVABLE.iter().any(|(prefix, _)| path.starts_with(prefix));
    for path in SPECIFICATION.iter().filter(observable) {
        let shown = rows.iter().any(|(prefix, tests)| path.starts_with(prefix) && !tests.is_empty());
        assert!(shown, "no test shows {path}");
    }
    for prefix in rows.keys().chain(UNOBSERVABLE.iter().map(|(prefix, _)| prefix)) {
        assert!(
            SPECIFICATION.iter().any(|path| path.starts_with(prefix)),
            "{prefix} is not in the specification"
        );
    }
    for (prefix, reason) in UNOBSERVABLE {
        println!("unobservable: {prefix}: {reason}");
    }
}

#[test]
fn every_test_of_the_table_exists_and_is_in_it() {
    let named: BTreeSet<String> =
        TABLE.iter().flat_map(|(_, tests)| *tests).map(|name| (*name).to_owned()).collect();
    let tests = tests();
    let missing: Vec<_> = named.difference(&tests).collect();
    assert!(missing.is_empty(), "the table names tests that are not there: {missing:?}");
    let unnamed: Vec<_> = tests.difference(&named).collect();
    assert!(unnamed.is_empty(), "tests that no property names: {unnamed:?}");
}

/// What is newer than the oldest runtime is named as the specification names it.
#[test]
fn newer_properties_are_in_the_specification() {
    for (property, _) in crate::under_test::NEWER {
        let known = SPECIFICATION.iter().any(|path| path.starts_with(property));
        assert!(known || property.starts_with("mounts."), "{property}");
    }
}
