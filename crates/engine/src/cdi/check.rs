//! The rules for a file. Each error says the field, and the device when it belongs to one.

use std::path::Path;

use runtime::spec::Hooks;

use super::error::{Error, Result};
use super::file::{Device, DeviceNode, Edits, File, Hook, IntelRdt, Mount};

/// A version by its first two numbers.
type Version = (u32, u32);

/// What is wrong at a place.
type Checked = std::result::Result<(), (String, String)>;

pub(super) fn check(path: &Path, file: &File) -> Result<()> {
    let wrong = |device: Option<&Device>, (field, reason)| Error::Field {
        file: path.to_owned(),
        device: device.map(|device| device.name.clone()),
        field,
        reason,
    };
    let version = version(&file.cdi_version).map_err(|error| wrong(None, error))?;
    kind(file, version).map_err(|error| wrong(None, error))?;
    edits("containerEdits", &file.container_edits, version).map_err(|error| wrong(None, error))?;
    for (place, device) in file.devices.iter().enumerate() {
        let before = &file.devices[..place];
        self::device(place, device, before, version).map_err(|error| wrong(Some(device), error))?;
    }
    Ok(())
}

/// `vendor/class`.
pub(super) fn is_kind(text: &str) -> bool {
    let Some((vendor, class)) = text.split_once('/') else { return false };
    let begins = |name: &str| name.starts_with(|first: char| first.is_ascii_alphabetic());
    [vendor, class].iter().all(|name| begins(name) && is_name(name, "_-."))
}

/// A device's name among those of its kind.
pub(super) fn is_device(text: &str) -> bool {
    is_name(text, "_-.:")
}

/// Letters and digits at both ends, and these marks between.
fn is_name(text: &str, marks: &str) -> bool {
    let is_end = |end: Option<char>| end.is_some_and(|end| end.is_ascii_alphanumeric());
    let is_inner = |inner: char| inner.is_ascii_alphanumeric() || marks.contains(inner);
    is_end(text.chars().next()) && is_end(text.chars().next_back()) && text.chars().all(is_inner)
}

fn version(text: &str) -> std::result::Result<Version, (String, String)> {
    let mut parts = text.splitn(3, '.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor), Some(_)) if ((0, 3)..=(1, 0)).contains(&(major, minor)) => {
            Ok((major, minor))
        }
        _ => {
            let reason = format!("{text:?}: versions from 0.3.0 to 1.0.0 are understood");
            Err(("cdiVersion".to_owned(), reason))
        }
    }
}

/// A field that came with a later version is refused, as the specification asks.
fn since(used: bool, field: &str, least: Version, version: Version) -> Checked {
    let reason = || format!("it needs cdiVersion {}.{}.0 or a later one", least.0, least.1);
    require(!used || version >= least, field, reason)
}

fn require(is: bool, field: &str, reason: impl FnOnce() -> String) -> Checked {
    if is { Ok(()) } else { Err((field.to_owned(), reason())) }
}

fn kind(file: &File, version: Version) -> Checked {
    let reason = || format!("{:?}: it is not a vendor and a class, as in vendor.com/class", file.kind);
    require(is_kind(&file.kind), "kind", reason)?;
    let class = file.kind.split_once('/').map_or("", |(_, class)| class);
    since(class.contains('.'), "kind", (0, 6), version)?;
    since(!file.annotations.is_empty(), "annotations", (0, 6), version)?;
    require(!file.devices.is_empty(), "devices", || "a file has at least one device".to_owned())
}

fn device(place: usize, device: &Device, before: &[Device], version: Version) -> Checked {
    let field = |name: &str| format!("devices[{place}].{name}");
    let reason = || format!("{:?}: letters, digits and, between them, _ - . : make a name", device.name);
    require(is_device(&device.name), &field("name"), reason)?;
    let begins_with_digit = device.name.starts_with(|first: char| first.is_ascii_digit());
    since(begins_with_digit, &field("name"), (0, 5), version)?;
    let is_new = before.iter().all(|other| other.name != device.name);
    require(is_new, &field("name"), || format!("{:?}: it is there twice", device.name))?;
    since(!device.annotations.is_empty(), &field("annotations"), (0, 6), version)?;
    let has_any = device.container_edits != Edits::default();
    require(has_any, &field("containerEdits"), || "a device changes something".to_owned())?;
    edits(&field("containerEdits"), &device.container_edits, version)
}

fn edits(path: &str, edits: &Edits, version: Version) -> Checked {
    let all = |name: &str, place: usize| format!("{path}.{name}[{place}]");
    for (place, variable) in edits.env.iter().enumerate() {
        self::variable(&all("env", place), variable)?;
    }
    for (place, node) in edits.device_nodes.iter().enumerate() {
        self::node(&all("deviceNodes", place), node, version)?;
    }
    for (place, mount) in edits.mounts.iter().enumerate() {
        self::mount(&all("mounts", place), mount, version)?;
    }
    for (place, hook) in edits.hooks.iter().enumerate() {
        self::hook(&all("hooks", place), hook)?;
    }
    since(!edits.additional_gids.is_empty(), &format!("{path}.additionalGids"), (0, 7), version)?;
    let rdt = format!("{path}.intelRdt");
    since(edits.intel_rdt.is_some(), &rdt, (0, 7), version)?;
    edits.intel_rdt.as_ref().map_or(Ok(()), |asked| intel_rdt(&rdt, asked))
}

/// The value may be a secret, so it is not told.
fn variable(field: &str, text: &str) -> Checked {
    let is = text.find('=').is_some_and(|place| place > 0) && !text.contains('\0');
    require(is, field, || "it is not NAME=value".to_owned())
}

fn absolute(field: &str, path: &Path) -> Checked {
    require(path.is_absolute(), field, || format!("{:?}: it is not an absolute path", path.display()))
}

fn node(path: &str, node: &DeviceNode, version: Version) -> Checked {
    let field = |name: &str| format!("{path}.{name}");
    absolute(&field("path"), &node.path)?;
    since(node.host_path.is_some(), &field("hostPath"), (0, 5), version)?;
    node.host_path.as_ref().map_or(Ok(()), |host| absolute(&field("hostPath"), host))?;
    let is_kind = ["", "b", "c", "u", "p"].contains(&node.kind.as_str());
    require(is_kind, &field("type"), || format!("{:?}: not one of b, c, u and p", node.kind))?;
    for (name, number, most) in [("major", node.major, 4095), ("minor", node.minor, 1_048_575)] {
        let is = (0..=most).contains(&number);
        require(is, &field(name), || format!("{number}: it is not from 0 to {most}"))?;
    }
    let access = node.permissions.as_str();
    let is_access = access == "none" || access.bytes().all(|byte| b"rwm".contains(&byte));
    require(is_access, &field("permissions"), || format!("{access:?}: not some of r, w and m, or none"))
}

fn mount(path: &str, mount: &Mount, version: Version) -> Checked {
    let field = |name: &str| format!("{path}.{name}");
    require(!mount.host_path.is_empty(), &field("hostPath"), || "it is empty".to_owned())?;
    absolute(&field("containerPath"), &mount.container_path)?;
    since(!mount.kind.is_empty(), &field("type"), (0, 4), version)
}

fn hook(path: &str, hook: &Hook) -> Checked {
    let field = |name: &str| format!("{path}.{name}");
    let reason = || format!("{:?}: not one of {}", hook.hook_name, Hooks::NAMES.join(", "));
    require(Hooks::NAMES.contains(&hook.hook_name.as_str()), &field("hookName"), reason)?;
    absolute(&field("path"), &hook.path)?;
    for (place, text) in hook.env.iter().enumerate() {
        variable(&format!("{path}.env[{place}]"), text)?;
    }
    let is_time = hook.timeout.is_none_or(|timeout| timeout > 0);
    require(is_time, &field("timeout"), || "it is not a number of seconds above 0".to_owned())
}

/// It names a directory of resctrl's, or with `/` its root.
fn intel_rdt(path: &str, asked: &IntelRdt) -> Checked {
    let id = asked.clos_id.as_deref().unwrap_or_default();
    let is_name = id.len() < 4096 && id != "." && id != ".." && !id.contains(['/', '\n', '\0']);
    require(id == "/" || is_name, &format!("{path}.closID"), || format!("{id:?}: not a file's name"))
}
