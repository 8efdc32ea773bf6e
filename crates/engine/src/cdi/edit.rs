//! What files ask of a container, done to its configuration.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use runtime::request::Request;
use runtime::spec::{self, DeviceRule, Linux, Spec};

use super::Asked;
use super::error::{Error, Result};
use super::file::{DeviceNode, Edits, File, Hook, IntelRdt, Mount};
use super::registry::Registry;

/// Changes a request as the files of the devices say, in the order in which they were asked for. What a file says for all its devices comes
/// before its first device.
pub(crate) fn apply(asked: &Asked, request: &mut Request) -> Result<()> {
    if asked.devices.is_empty() {
        return Ok(());
    }
    let registry = Registry::read(asked)?;
    let mut seen: Vec<&Path> = Vec::new();
    for device in &asked.devices {
        let (path, file, place) = match registry.find(device) {
            // A file that cannot be used may well be the one with the device.
            Err(missing @ Error::NotFound { .. }) => return Err(registry.into_broken().unwrap_or(missing)),
            found => found?,
        };
        let source = Source { path, file };
        if !seen.contains(&path) {
            seen.push(path);
            source.apply(None, request)?;
        }
        source.apply(Some(place), request)?;
    }
    Ok(())
}

/// A file, as errors name it.
struct Source<'a> {
    path: &'a Path,
    file: &'a File,
}

impl Source<'_> {
    /// The edits of a device, or those of the whole file.
    fn apply(&self, device: Option<usize>, request: &mut Request) -> Result<()> {
        let edits = match device {
            Some(place) => &self.file.devices[place].container_edits,
            None => &self.file.container_edits,
        };
        let owner = owner(request.user.as_deref());
        for (place, node) in edits.device_nodes.iter().enumerate() {
            let (made, access) = as_oci(node, owner).map_err(|(name, reason)| {
                let edits = device.map_or(String::new(), |place| format!("devices[{place}]."));
                Error::Field {
                    file: self.path.to_owned(),
                    device: device.map(|place| self.file.devices[place].name.clone()),
                    field: format!("{edits}containerEdits.deviceNodes[{place}].{name}"),
                    reason,
                }
            })?;
            add_node(request.spec.linux.get_or_insert_default(), made, access);
        }
        others(edits, request);
        Ok(())
    }
}

/// All but the device nodes.
fn others(edits: &Edits, request: &mut Request) {
    let spec = &mut request.spec;
    edits.env.iter().for_each(|variable| set_variable(spec, variable));
    edits.mounts.iter().for_each(|mount| add_mount(&mut spec.mounts, mount));
    edits.hooks.iter().for_each(|hook| add_hook(spec, hook));
    if let Some(rdt) = &edits.intel_rdt {
        spec.linux.get_or_insert_default().intel_rdt = Some(as_oci_rdt(rdt));
    }
    for group in edits.additional_gids.iter().filter(|group| **group != 0).map(u32::to_string) {
        if !request.groups.contains(&group) {
            request.groups.push(group);
        }
    }
}

/// Who the container's user is, as far as it is told by numbers: nodes are this user's unless their file says otherwise.
fn owner(user: Option<&str>) -> (Option<u32>, Option<u32>) {
    let (user, group) = user.unwrap_or_default().split_once(':').unwrap_or((user.unwrap_or_default(), ""));
    (user.parse().ok(), group.parse().ok())
}

/// A node with what is missing taken from the host's, and the access that the container has to it. Errors name the field.
fn as_oci(
    node: &DeviceNode,
    (uid, gid): (Option<u32>, Option<u32>),
) -> std::result::Result<(spec::Device, String), (&'static str, String)> {
    let mut made = spec::Device {
        kind: node.kind.clone(),
        path: node.path.clone(),
        major: node.major,
        minor: node.minor,
        file_mode: node.file_mode.map(|mode| mode & 0o7777),
        uid: node.uid.or(uid),
        gid: node.gid.or(gid),
    };
    let has_numbers = made.major != 0 || made.minor != 0;
    if made.kind.is_empty() || (!has_numbers && made.kind != "p") {
        let (field, host) = node.host_path.as_ref().map_or(("path", &node.path), |host| ("hostPath", host));
        let status = fs_err::metadata(host).map_err(|error| (field, error.to_string()))?;
        let kind = status.file_type();
        let kind = match (kind.is_char_device(), kind.is_block_device(), kind.is_fifo()) {
            (true, ..) => "c",
            (_, true, _) => "b",
            (.., true) => "p",
            _ => return Err((field, format!("{} is not a device", host.display()))),
        };
        let asked = if made.kind == "u" { "c" } else { made.kind.as_str() };
        if !asked.is_empty() && asked != kind {
            return Err(("type", format!("{asked:?}, and {} is {kind:?}", host.display())));
        }
        made.kind = kind.to_owned();
        if !has_numbers && kind != "p" {
            made.major = rustix::fs::major(status.rdev()).into();
            made.minor = rustix::fs::minor(status.rdev()).into();
        }
    }
    let access = match node.permissions.as_str() {
        "" => "rwm",
        "none" => "",
        some => some,
    };
    Ok((made, access.to_owned()))
}

/// A node takes the place of another with the same path.
fn add_node(linux: &mut Linux, node: spec::Device, access: String) {
    if ["b", "c", "u"].contains(&node.kind.as_str()) && !access.is_empty() {
        let kind = if node.kind == "b" { "b" } else { "c" };
        linux.resources.get_or_insert_default().devices.push(DeviceRule {
            allow: true,
            kind: Some(kind.to_owned()),
            major: Some(node.major),
            minor: Some(node.minor),
            access: Some(access),
        });
    }
    linux.devices.retain(|other| other.path != node.path);
    linux.devices.push(node);
}

fn set_variable(spec: &mut Spec, variable: &str) {
    let env = &mut spec.process.get_or_insert_default().env;
    let name_of = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    match env.iter_mut().find(|old| name_of(old) == name_of(variable)) {
        Some(old) => *old = variable.to_owned(),
        None => env.push(variable.to_owned()),
    }
}

/// A mount takes the place of another with the same destination. It comes before those below it, which it would cover.
fn add_mount(mounts: &mut Vec<spec::Mount>, mount: &Mount) {
    let mut made = spec::Mount {
        destination: mount.container_path.clone(),
        kind: mount.kind.clone(),
        source: mount.host_path.clone(),
        options: mount.options.clone(),
        ..spec::Mount::default()
    };
    // A path of the host without a type is shown as it is.
    if made.kind.is_empty() && !made.is_bind() {
        made.options.insert(0, "rbind".to_owned());
    }
    let destination: PathBuf = made.destination.components().collect();
    mounts.retain(|other| other.destination != destination);
    let place = mounts.iter().position(|other| other.destination.starts_with(&destination));
    mounts.insert(place.unwrap_or(mounts.len()), made);
}

fn add_hook(spec: &mut Spec, hook: &Hook) {
    let hooks = spec.hooks.get_or_insert_default();
    let list = match hook.hook_name.as_str() {
        "prestart" => &mut hooks.prestart,
        "createRuntime" => &mut hooks.create_runtime,
        "createContainer" => &mut hooks.create_container,
        "startContainer" => &mut hooks.start_container,
        "poststart" => &mut hooks.poststart,
        // The names were checked: this is the last of them.
        _ => &mut hooks.poststop,
    };
    list.push(spec::Hook {
        path: hook.path.clone(),
        args: hook.args.clone(),
        env: hook.env.clone(),
        timeout: hook.timeout,
    });
}

/// The two kinds of monitoring that version 1.0 knows are one in runtime-spec 1.3.
fn as_oci_rdt(asked: &IntelRdt) -> spec::IntelRdt {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    spec::IntelRdt {
        clos_id: text(&asked.clos_id),
        l3_cache_schema: text(&asked.l3_cache_schema),
        mem_bw_schema: text(&asked.mem_bw_schema),
        enable_monitoring: asked.enable_cmt || asked.enable_mbm,
        ..spec::IntelRdt::default()
    }
}
