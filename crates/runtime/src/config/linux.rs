//! Rules of `linux`: config-linux.md.

use super::error::{Error, Result, Warning};
use super::mounts::mappings;
use super::{absolute, json_name, needs, range};
use crate::number_list;
use crate::spec::{
    Device, IntelRdt, Linux, MemoryPolicy, MemoryPolicyFlag, MemoryPolicyMode, NamespaceKind, Personality,
    Resources,
};

pub(super) fn validate(linux: &Linux, warnings: &mut Vec<Warning>) -> Result<()> {
    namespaces(linux)?;
    user_namespace(linux)?;
    time_offsets(linux)?;
    paths(linux)?;
    linux.devices.iter().enumerate().try_for_each(|(place, device)| self::device(place, device))?;
    net_devices(linux)?;
    linux.memory_policy.as_ref().map_or(Ok(()), memory_policy)?;
    linux.personality.as_ref().map_or(Ok(()), personality)?;
    linux.intel_rdt.as_ref().map_or(Ok(()), intel_rdt)?;
    linux.resources.as_ref().map_or(Ok(()), |asked| resources(asked, warnings))?;
    propagation(linux.rootfs_propagation.as_deref())
}

fn namespaces(linux: &Linux) -> Result<()> {
    if linux.namespace(NamespaceKind::Mount).is_none() {
        let reason = "without a mount namespace the container's root and mounts would be made in the host's";
        return Err(Error::Missing { path: "linux.namespaces[].type \"mount\"".to_owned(), reason });
    }
    for (place, namespace) in linux.namespaces.iter().enumerate() {
        let path = |name| format!("linux.namespaces[{place}].{name}");
        if linux.namespaces[..place].iter().any(|before| before.kind == namespace.kind) {
            return Err(Error::Duplicate { path: path("type"), value: json_name(&namespace.kind) });
        }
        if let Some(file) = &namespace.path {
            absolute(&path("path"), file)?;
        }
    }
    Ok(())
}

fn user_namespace(linux: &Linux) -> Result<()> {
    let lists = [("linux.uidMappings", &linux.uid_mappings), ("linux.gidMappings", &linux.gid_mappings)];
    let namespace = linux.namespace(NamespaceKind::User);
    for (path, list) in lists {
        match (namespace, list.first()) {
            (None, Some(first)) => {
                let value = format!("{} {} {}", first.container_id, first.host_id, first.size);
                return Err(Error::NeedsNamespace {
                    path: path.to_owned(),
                    value,
                    kind: NamespaceKind::User,
                });
            }
            (Some(namespace), None) if namespace.path.is_none() => {
                let reason = "without it nobody could be anybody in the new user namespace";
                return Err(Error::Missing { path: path.to_owned(), reason });
            }
            _ => mappings(path, list)?,
        }
    }
    Ok(())
}

fn time_offsets(linux: &Linux) -> Result<()> {
    for (clock, offset) in &linux.time_offsets {
        let path = format!("linux.timeOffsets.{clock}");
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            let known = "monotonic and boottime";
            return Err(Error::Unknown { path: "linux.timeOffsets".to_owned(), value: clock.clone(), known });
        }
        range(&format!("{path}.nanosecs"), offset.nanosecs.into(), 0, 999_999_999)?;
        let value = format!("{}s {}ns", offset.secs, offset.nanosecs);
        needs(linux, NamespaceKind::Time, &path, &value)?;
        if linux.namespace(NamespaceKind::Time).is_some_and(|namespace| namespace.path.is_some()) {
            return Err(Error::NeedsNewNamespace { path, value, kind: NamespaceKind::Time });
        }
    }
    Ok(())
}

fn paths(linux: &Linux) -> Result<()> {
    for (name, list) in [("maskedPaths", &linux.masked_paths), ("readonlyPaths", &linux.readonly_paths)] {
        for (place, file) in list.iter().enumerate() {
            absolute(&format!("linux.{name}[{place}]"), file)?;
        }
    }
    Ok(())
}

fn device(place: usize, device: &Device) -> Result<()> {
    let path = |name| format!("linux.devices[{place}].{name}");
    absolute(&path("path"), &device.path)?;
    if !["c", "u", "b", "p"].contains(&device.kind.as_str()) {
        let known = "c, u, b and p";
        return Err(Error::Unknown { path: path("type"), value: device.kind.clone(), known });
    }
    if device.kind != "p" {
        range(&path("major"), device.major, 0, 4095)?;
        range(&path("minor"), device.minor, 0, 1_048_575)?;
    }
    Ok(())
}

/// The kernel's rules for names of network devices: `dev_valid_name`.
fn is_device_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte != b'/' && byte != b':' && !byte.is_ascii_whitespace() && byte != 0x0b;
    (1..16).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(is_letter)
}

fn net_devices(linux: &Linux) -> Result<()> {
    let mut inside = std::collections::BTreeSet::new();
    for (name, device) in &linux.net_devices {
        let path = || "linux.netDevices".to_owned();
        needs(linux, NamespaceKind::Network, &path(), name)?;
        let new = device.name.as_ref().unwrap_or(name);
        for name in [name, new] {
            if !is_device_name(name) {
                let reason = "not a name that a network device can have";
                return Err(Error::Malformed { path: path(), value: name.clone(), reason });
            }
        }
        if !inside.insert(new) {
            return Err(Error::Duplicate { path: format!("{}.{name}.name", path()), value: new.clone() });
        }
    }
    Ok(())
}

/// What set_mempolicy(2) demands of the nodes and flags of each mode.
fn memory_policy(policy: &MemoryPolicy) -> Result<()> {
    let path = |name: &str| format!("linux.memoryPolicy.{name}");
    let nodes = policy.nodes.as_deref();
    if let Some(value) = nodes.filter(|nodes| !number_list::is_list(nodes)) {
        let reason = "not a list of memory nodes, as in 0-3,7";
        return Err(Error::Malformed { path: path("nodes"), value: value.to_owned(), reason });
    }
    match (policy.mode, nodes) {
        (MemoryPolicyMode::Default | MemoryPolicyMode::Local, Some(nodes)) => {
            let reason = "this mode takes no nodes";
            return Err(Error::Conflict { path: path("nodes"), value: nodes.to_owned(), reason });
        }
        (
            MemoryPolicyMode::Bind
            | MemoryPolicyMode::Interleave
            | MemoryPolicyMode::WeightedInterleave
            | MemoryPolicyMode::PreferredMany,
            None,
        ) => return Err(Error::Missing { path: path("nodes"), reason: "this mode is about some nodes" }),
        _ => {}
    }
    let has = |flag| policy.flags.contains(&flag);
    let wrong = |flag: MemoryPolicyFlag, reason| {
        Err(Error::Conflict { path: path("flags"), value: json_name(&flag), reason })
    };
    let about_nodes = [MemoryPolicyFlag::StaticNodes, MemoryPolicyFlag::RelativeNodes];
    if about_nodes.into_iter().all(has) {
        return wrong(MemoryPolicyFlag::StaticNodes, "it excludes MPOL_F_RELATIVE_NODES");
    }
    if let (Some(flag), None) = (about_nodes.into_iter().find(|flag| has(*flag)), nodes) {
        return wrong(flag, "it is about nodes, and there are none");
    }
    let balanced = matches!(policy.mode, MemoryPolicyMode::Bind | MemoryPolicyMode::PreferredMany);
    if has(MemoryPolicyFlag::NumaBalancing) && !balanced {
        return wrong(MemoryPolicyFlag::NumaBalancing, "only MPOL_BIND and MPOL_PREFERRED_MANY have it");
    }
    Ok(())
}

fn personality(personality: &Personality) -> Result<()> {
    let path = "linux.personality";
    match personality.flags.first() {
        Some(flag) => {
            let reason = "the specification has no such flags";
            Err(Error::Malformed { path: format!("{path}.flags"), value: flag.clone(), reason })
        }
        None => Ok(()),
    }
}

fn intel_rdt(rdt: &IntelRdt) -> Result<()> {
    let path = "linux.intelRdt.closID";
    let id = rdt.clos_id.as_deref().unwrap_or_default();
    if id == "." || id == ".." || id.contains('/') {
        let reason = "it is the name of a directory";
        return Err(Error::Malformed { path: path.to_owned(), value: id.to_owned(), reason });
    }
    Ok(())
}

fn resources(resources: &Resources, warnings: &mut Vec<Warning>) -> Result<()> {
    let kernel = resources.memory.as_ref().and_then(|memory| memory.kernel);
    if let Some(limit) = kernel.filter(|limit| *limit > 0) {
        let path = "linux.resources.memory.kernel".to_owned();
        let reason = "kernels since 5.16 have no such limit, so it is passed over";
        warnings.push(Warning { path, value: limit.to_string(), reason });
    }
    for name in resources.unified.keys() {
        let path = "linux.resources.unified".to_owned();
        if name.contains('/') || name.is_empty() || name.starts_with('.') {
            let reason = "not the name of a file of a control group";
            return Err(Error::Malformed { path, value: name.clone(), reason });
        }
    }
    if let Some(swappiness) = resources.memory.as_ref().and_then(|memory| memory.swappiness) {
        let value = i64::try_from(swappiness).unwrap_or(i64::MAX);
        range("linux.resources.memory.swappiness", value, 0, 100)?;
    }
    Ok(())
}

fn propagation(name: Option<&str>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    let options = crate::mount_options::parse(&[name.to_owned()]);
    match options.propagation {
        Some(_) => Ok(()),
        None => {
            let known = "private, slave, shared, unbindable, and these with an r before them";
            let path = "linux.rootfsPropagation".to_owned();
            Err(Error::Unknown { path, value: name.to_owned(), known })
        }
    }
}
