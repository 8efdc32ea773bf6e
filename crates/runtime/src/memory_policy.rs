//! `linux.memoryPolicy`: from which nodes of the machine the container's memory comes.

use kernel::record::{Chapter, because};

use crate::error::{InStep as _, Result};
use crate::number_list;
use crate::spec::{MemoryPolicy, MemoryPolicyFlag, MemoryPolicyMode};

/// In the container's process: sets the policy, which all that it starts inherits.
pub(crate) fn apply(policy: &MemoryPolicy) -> Result<()> {
    let nodes = policy.nodes.as_deref().map(|nodes| number_list::parse("linux.memoryPolicy.nodes", nodes));
    let (mode, name) = number(policy);
    because(Chapter::Limits, "linux.memoryPolicy: from which nodes of the machine its memory comes");
    kernel::memory::set_policy(mode, &name, &nodes.transpose()?.unwrap_or_default())
        .in_step("cannot set linux.memoryPolicy")
}

/// Mode and flags as the kernel numbers them in <linux/mempolicy.h>, and their names.
fn number(policy: &MemoryPolicy) -> (u32, String) {
    let (mode, name) = match policy.mode {
        MemoryPolicyMode::Default => (0, "MPOL_DEFAULT"),
        MemoryPolicyMode::Preferred => (1, "MPOL_PREFERRED"),
        MemoryPolicyMode::Bind => (2, "MPOL_BIND"),
        MemoryPolicyMode::Interleave => (3, "MPOL_INTERLEAVE"),
        MemoryPolicyMode::Local => (4, "MPOL_LOCAL"),
        MemoryPolicyMode::PreferredMany => (5, "MPOL_PREFERRED_MANY"),
        MemoryPolicyMode::WeightedInterleave => (6, "MPOL_WEIGHTED_INTERLEAVE"),
    };
    let flags = policy.flags.iter().map(|flag| match flag {
        MemoryPolicyFlag::NumaBalancing => (1 << 13, "MPOL_F_NUMA_BALANCING"),
        MemoryPolicyFlag::RelativeNodes => (1 << 14, "MPOL_F_RELATIVE_NODES"),
        MemoryPolicyFlag::StaticNodes => (1 << 15, "MPOL_F_STATIC_NODES"),
    });
    flags.fold((mode, name.to_owned()), |(bits, names), (bit, name)| (bits | bit, format!("{names}|{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What numa_maps of this thread says of a policy set by [`apply`], in a thread of its own, as the policy stays.
    fn seen(policy: &str) -> std::result::Result<String, String> {
        let policy: MemoryPolicy = serde_json::from_str(policy).unwrap();
        let ask = move || {
            apply(&policy).map_err(|error| error.to_string())?;
            let maps = fs_err::read_to_string("/proc/thread-self/numa_maps").unwrap();
            Ok(maps.lines().next().unwrap().split(' ').nth(1).unwrap().to_owned())
        };
        std::thread::spawn(ask).join().unwrap()
    }

    #[test]
    fn the_kernel_is_told_mode_nodes_and_flags() {
        const NAME: &str = "memory_policy::tests::the_kernel_is_told_mode_nodes_and_flags";
        if !std::path::Path::new("/proc/self/numa_maps").exists() {
            println!("SKIP: {NAME}: this kernel knows no nodes");
            return;
        }
        let said = |policy| seen(policy).unwrap();
        assert_eq!(said(r#"{"mode": "MPOL_BIND", "nodes": "0"}"#), "bind:0");
        assert_eq!(
            said(r#"{"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}"#),
            "bind=static:0"
        );
        assert_eq!(
            said(r#"{"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}"#),
            "interleave=relative:0"
        );
        assert_eq!(said(r#"{"mode": "MPOL_PREFERRED", "nodes": "0"}"#), "prefer:0");
        assert_eq!(said(r#"{"mode": "MPOL_LOCAL"}"#), "local");
        assert_eq!(said(r#"{"mode": "MPOL_DEFAULT"}"#), "default");
        let told = seen(r#"{"mode": "MPOL_BIND"}"#).unwrap_err();
        assert!(told.contains("MPOL_BIND"), "{told}");
    }

    #[test]
    fn modes_and_flags_are_the_kernels_numbers() {
        let numbers = MemoryPolicyMode::ALL
            .map(|mode| number(&MemoryPolicy { mode, nodes: None, flags: Vec::new() }).0);
        assert_eq!(numbers, [0, 2, 3, 6, 1, 5, 4]);
        let flags = MemoryPolicyFlag::ALL.to_vec();
        let all = number(&MemoryPolicy { mode: MemoryPolicyMode::Bind, nodes: None, flags });
        let names = "MPOL_BIND|MPOL_F_NUMA_BALANCING|MPOL_F_RELATIVE_NODES|MPOL_F_STATIC_NODES";
        assert_eq!(all, (0xe002, names.to_owned()));
    }
}
