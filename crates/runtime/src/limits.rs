//! The specification's resources as the `cgroup` crate takes them: config-linux.md, "Control groups".

use cgroup::{Access, DeviceKind, DeviceRate, DeviceRule, DeviceWeight, HugepageLimit, Limits, RdmaLimit};

use crate::error::{Error, Result};
use crate::request::Request;
use crate::spec::{self, Resources};

/// Whose configuration it is: the two mean different things by what they leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// coracle's engine: no limit of swap is twice that of memory, no rules for devices are no restriction.
    Engine,
    /// A caller of runc's command line: what is not given stays, zero is not given, and devices are denied unless a rule allows them.
    Oci,
}

/// The limits that `resources` ask for. `privileged` says whether this process is root outside any user namespace.
///
/// Device rules need that: a user's processes can make no device nodes and open only those devices that the user may open anyway,
/// so for them the kernel has nothing left to deny.
pub(crate) fn from_resources(resources: &Resources, privileged: bool, asker: Asker) -> Result<Limits> {
    let oci = asker == Asker::Oci;
    let given = |number: &i64| !oci || *number != 0;
    let mut limits =
        Limits { pids: resources.pids.map(|pids| pids.limit).filter(given), ..Limits::default() };
    if let Some(memory) = &resources.memory {
        limits.memory = cgroup::Memory {
            limit: memory.limit.filter(given),
            swap: memory.swap.filter(given),
            leave_swap: oci,
            reservation: memory.reservation.filter(given),
            disable_oom_killer: memory.disable_oom_killer,
            swappiness: memory.swappiness,
            kernel_tcp: memory.kernel_tcp.filter(given),
            use_hierarchy: memory.use_hierarchy,
            check_before_update: memory.check_before_update.unwrap_or(false),
            ..cgroup::Memory::default()
        };
    }
    if let Some(cpu) = &resources.cpu {
        limits.cpu = cgroup::Cpu {
            shares: cpu.shares,
            quota: cpu.quota,
            period: cpu.period,
            burst: cpu.burst,
            idle: cpu.idle,
            realtime_runtime: cpu.realtime_runtime.filter(given),
            realtime_period: cpu.realtime_period.filter(|period| *period != 0),
            cpus: cpu.cpus.clone(),
            mems: cpu.mems.clone(),
        };
    }
    if let Some(network) = &resources.network {
        let priority = |one: &spec::InterfacePriority| cgroup::NetworkPriority {
            interface: one.name.clone(),
            priority: one.priority,
        };
        limits.network = cgroup::Network {
            class_id: network.class_id.filter(|class| *class != 0),
            priorities: network.priorities.iter().map(priority).collect(),
        };
    }
    if let Some(io) = &resources.block_io {
        limits.block_io = block_io(io)?;
    }
    let hugepage = |limit: &spec::HugepageLimit| HugepageLimit {
        page_size: limit.page_size.clone(),
        limit: limit.limit,
    };
    limits.hugepages = resources.hugepage_limits.iter().map(hugepage).collect();
    let rdma = |limit: &spec::RdmaLimit| RdmaLimit { handles: limit.hca_handles, objects: limit.hca_objects };
    limits.rdma = resources.rdma.iter().map(|(device, limit)| (device.clone(), rdma(limit))).collect();
    limits.unified = resources.unified.clone();
    if privileged && !resources.devices.is_empty() {
        limits.devices = resources.devices.iter().map(device_rule).collect::<Result<_>>()?;
        limits.devices.extend(DEFAULT_DEVICES);
        if oci {
            limits.devices.extend(MAY_MAKE);
        }
    }
    Ok(limits)
}

/// The limits that an update asks for.
pub fn for_update(resources: &Resources) -> Result<Limits> {
    from_resources(resources, true, Asker::Oci)
}

/// The limits of a configuration's container.
pub(crate) fn of_request(request: &Request, privileged: bool) -> Result<Limits> {
    let resources = request.spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    match (resources, &request.oci) {
        (Some(resources), None) => from_resources(resources, privileged, Asker::Engine),
        (None, None) => Ok(Limits::default()),
        (resources, Some(_)) => {
            let mut resources = resources.cloned().unwrap_or_default();
            let deny_all = spec::DeviceRule { access: Some("rwm".to_owned()), ..spec::DeviceRule::default() };
            resources.devices.insert(0, deny_all);
            from_resources(&resources, privileged, Asker::Oci)
        }
    }
}

const fn allow(major: u32, minor: Option<u32>) -> DeviceRule {
    let kind = DeviceKind::Character;
    DeviceRule { allow: true, kind, major: Some(major), minor, access: Access::ALL }
}

/// What the specification puts into every container's `/dev` can be used, whatever the rules: null, zero, full, random, urandom,
/// tty, console, ptmx and the terminals it makes.
const DEFAULT_DEVICES: [DeviceRule; 9] = [
    allow(1, Some(3)),
    allow(1, Some(5)),
    allow(1, Some(7)),
    allow(1, Some(8)),
    allow(1, Some(9)),
    allow(5, Some(0)),
    allow(5, Some(1)),
    allow(5, Some(2)),
    allow(136, None),
];

/// As runc, whose containers may make any node: it cannot be opened without a rule of its own.
const MAY_MAKE: [DeviceRule; 2] = [may_make(DeviceKind::Character), may_make(DeviceKind::Block)];

const fn may_make(kind: DeviceKind) -> DeviceRule {
    DeviceRule { allow: true, kind, major: None, minor: None, access: Access::MAKE }
}

fn device_rule(rule: &spec::DeviceRule) -> Result<DeviceRule> {
    let kind = match rule.kind.as_deref() {
        None | Some("" | "a") => DeviceKind::All,
        Some("c" | "u") => DeviceKind::Character,
        Some("b") => DeviceKind::Block,
        Some(other) => return Err(invalid("device type", other, "a rule is for a, b or c")),
    };
    let access = match rule.access.as_deref() {
        None | Some("") => Access::ALL,
        Some(text) => {
            Access::parse(text).ok_or_else(|| invalid("device access", text, "give some of r, w and m"))?
        }
    };
    // A rule for both kinds names no number: one number would mean two different devices.
    let numbers = if kind == DeviceKind::All { (None, None) } else { (rule.major, rule.minor) };
    Ok(DeviceRule { allow: rule.allow, kind, major: any_or(numbers.0)?, minor: any_or(numbers.1)?, access })
}

/// A device number of a rule, where -1 is every one.
fn any_or(number: Option<i64>) -> Result<Option<u32>> {
    number.filter(|number| *number != -1).map(device_number).transpose()
}

fn device_number(number: i64) -> Result<u32> {
    u32::try_from(number).map_err(|_| invalid("device number", number, "it is not from 0 to 4294967295"))
}

fn invalid(what: &'static str, value: impl ToString, reason: &str) -> Error {
    Error::Configuration { what, value: value.to_string(), reason: reason.to_owned() }
}

fn block_io(io: &spec::BlockIo) -> Result<cgroup::BlockIo> {
    let rates = |devices: &[spec::ThrottleDevice]| -> Result<Vec<DeviceRate>> {
        let rate = |device: &spec::ThrottleDevice| {
            let (major, minor) = (device_number(device.major)?, device_number(device.minor)?);
            Ok(DeviceRate { major, minor, rate: device.rate })
        };
        devices.iter().map(rate).collect()
    };
    let mut weight_device = Vec::new();
    for device in &io.weight_device {
        // One without a weight has only the weight for leaves, which the kernel no longer knows.
        if let Some(weight) = device.weight {
            let (major, minor) = (device_number(device.major)?, device_number(device.minor)?);
            weight_device.push(DeviceWeight { major, minor, weight });
        }
    }
    Ok(cgroup::BlockIo {
        // Zero is what docker sends for "not set".
        weight: io.weight.filter(|weight| *weight != 0),
        leaf_weight: io.leaf_weight.filter(|weight| *weight != 0),
        weight_device,
        read_bps: rates(&io.throttle_read_bps_device)?,
        write_bps: rates(&io.throttle_write_bps_device)?,
        read_iops: rates(&io.throttle_read_iops_device)?,
        write_iops: rates(&io.throttle_write_iops_device)?,
        ..cgroup::BlockIo::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Resources {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_usual_resources_become_limits() {
        let resources = parsed(
            r#"{"pids":{"limit":20},"memory":{"limit":52428800,"swap":52428800},"cpu":{"quota":50000,"period":100000},
            "devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":-1,"access":"rm"}],
            "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5}]}}"#,
        );
        let limits = from_resources(&resources, true, Asker::Engine).unwrap();
        assert_eq!(
            (limits.pids, limits.memory.swap, limits.cpu.quota),
            (Some(20), Some(52_428_800), Some(50_000))
        );
        assert_eq!(limits.block_io.read_bps, [DeviceRate { major: 8, minor: 0, rate: 5 }]);
        assert_eq!((limits.devices[1].major, limits.devices[1].minor), (Some(10), None));
        assert_eq!(limits.devices.len(), 2 + DEFAULT_DEVICES.len());
        assert!(from_resources(&resources, false, Asker::Engine).unwrap().devices.is_empty());
    }

    #[test]
    fn zero_is_not_given_by_runcs_callers() {
        let sent = r#"{"memory":{"limit":0,"reservation":0,"kernel":0,"disableOOMKiller":false},"cpu":{"shares":0},
            "blockIO":{"weight":0},"pids":{"limit":0},"network":{"classID":0},"rdma":{"mlx5_1":{"hcaHandles":3}}}"#;
        let limits = from_resources(&parsed(sent), true, Asker::Oci).unwrap();
        assert_eq!((limits.memory.limit, limits.memory.reservation, limits.pids), (None, None, None));
        assert_eq!((limits.block_io.weight, limits.network.class_id), (None, None));
        assert!(limits.memory.leave_swap);
        assert_eq!(limits.rdma["mlx5_1"], RdmaLimit { handles: Some(3), objects: None });
    }

    #[test]
    fn wrong_device_rules_are_refused() {
        for text in [r#"{"type":"x"}"#, r#"{"type":"c","access":"rx"}"#, r#"{"type":"c","major":-2}"#] {
            assert!(
                from_resources(&parsed(&format!(r#"{{"devices":[{text}]}}"#)), true, Asker::Engine).is_err(),
                "{text}"
            );
        }
    }
}
