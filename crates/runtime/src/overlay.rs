//! Union mounts: layers below, the container's own changes on top.
//!
//! The newer way (Linux 6.5: one `lowerdir+` setting per layer) has no limit on the number of layers. On older kernels all layers
//! have to fit into one page of mount(2) options, so they are named relative to their common directory.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::mount::{
    At, Change, MountAttributes, MountFlags, OpenTree, Setting, fsconfig, fsmount, fsopen, mount, open_tree,
    set_attributes, unmount_detached,
};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, InStep as _, Result};
use crate::request::Overlay;

const STEP: &str = "cannot join the image's layers";

/// Makes the union mount as a detached mount, seen nowhere until it is attached.
///
/// `id_map` shifts the owners of the lower layers by a user namespace.
pub fn mount_overlay(overlay: &Overlay, id_map: Option<&OwnedFd>) -> Result<OwnedFd> {
    if let Some(user_namespace) = id_map {
        return mount_id_mapped(overlay, user_namespace);
    }
    let context = fsopen("overlay").in_step(STEP)?;
    for layer in overlay.lower.iter().rev() {
        let Some(path) = layer.to_str() else { return Err(not_text(layer)) };
        match fsconfig(context.as_fd(), "overlay", Setting::String("lowerdir+", path)) {
            Err(error) if kernel::mount::is_unsupported(&error) => {
                return mount_by_options(overlay, &open_layers(overlay)?);
            }
            other => other.in_step(STEP)?,
        }
    }
    match finish(&context, overlay) {
        // A kernel before 6.5 takes any setting, and finds only when it makes the mount that it knows no such one.
        Err(Error::Step { source, .. }) if source.errno() == Errno::INVAL => {
            mount_by_options(overlay, &open_layers(overlay)?)
        }
        other => other,
    }
}

fn not_text(path: &Path) -> Error {
    Error::Configuration {
        what: "layer",
        value: path.to_string_lossy().into_owned(),
        reason: "the path of the store must be UTF-8 text".to_owned(),
    }
}

/// The settings that every overlay gets: nothing is left to the defaults of the machine's kernel.
fn fixed_settings(overlay: &Overlay) -> Vec<(&'static str, Option<&'static str>)> {
    let mut settings = vec![("redirect_dir", Some("off")), ("metacopy", Some("off")), ("index", Some("off"))];
    if overlay.userxattr {
        // With userxattr the kernel follows no redirects anyway and refuses every other word for it than this.
        settings[0].1 = Some("nofollow");
        settings.push(("userxattr", None));
    }
    if overlay.volatile && overlay.upper.is_some() {
        settings.push(("volatile", None));
    }
    settings
}

fn finish(context: &OwnedFd, overlay: &Overlay) -> Result<OwnedFd> {
    let set = |setting| fsconfig(context.as_fd(), "overlay", setting).in_step(STEP);
    for (key, value) in fixed_settings(overlay) {
        set(value.map_or(Setting::Flag(key), |value| Setting::String(key, value)))?;
    }
    if let Some(upper) = &overlay.upper {
        for (key, path) in [("upperdir", &upper.upper), ("workdir", &upper.work)] {
            set(Setting::String(key, path.to_str().ok_or_else(|| not_text(path))?))?;
        }
    }
    set(Setting::Create)?;
    fsmount(context.as_fd(), "overlay", MountAttributes::empty()).in_step(STEP)
}

/// The way of kernels before 6.5: all layers in one page of mount(2) options. Each is named by the number of a descriptor, relative to
/// `/proc/self/fd`, so that 120 of them fit and no character of a path has to be escaped. The mount is attached for a moment in the
/// caller's own mount namespace and taken off again as a detached copy.
fn mount_by_options(overlay: &Overlay, layers: &[OwnedFd]) -> Result<OwnedFd> {
    let numbers: Vec<String> = layers.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
    let mut options = format!("lowerdir={}", numbers.join(":"));
    for (key, value) in fixed_settings(overlay) {
        options.push(',');
        options.push_str(key);
        options.extend(value.into_iter().flat_map(|value| ["=", value]));
    }
    let mut writable = Vec::new();
    if let Some(upper) = &overlay.upper {
        for (key, path) in [("upperdir", &upper.upper), ("workdir", &upper.work)] {
            let directory = open_directory(path)?;
            options.push_str(&format!(",{key}={}", directory.as_raw_fd()));
            writable.push(directory);
        }
    }
    let failed = |errno| kernel::Error::new("chdir", "/proc/self/fd", errno);
    let before = open_directory(Path::new("."))?;
    rustix::process::chdir("/proc/self/fd").map_err(failed).in_step(STEP)?;
    let target = overlay.lower.last().map_or(Path::new("/"), PathBuf::as_path);
    let mounted = mount("overlay", target, "overlay", MountFlags::empty(), &options);
    rustix::process::fchdir(&before).map_err(failed).in_step(STEP)?;
    mounted.in_step(STEP)?;
    let detached = open_tree(At::path(target), OpenTree::CLONE);
    unmount_detached(target).in_step(STEP)?;
    detached.in_step(STEP)
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| kernel::Error::new("open", path.display().to_string(), errno))
        .in_step(STEP)
}

/// The layers as descriptors, the topmost first.
fn open_layers(overlay: &Overlay) -> Result<Vec<OwnedFd>> {
    overlay.lower.iter().rev().map(|layer| open_directory(layer)).collect()
}

/// Lower layers with shifted owners: each is a detached, id-mapped copy of its directory's mount, given by descriptor.
fn mount_id_mapped(overlay: &Overlay, user_namespace: &OwnedFd) -> Result<OwnedFd> {
    let mut layers = Vec::new();
    for layer in overlay.lower.iter().rev() {
        let name = layer.display().to_string();
        let tree = open_tree(At::path(layer), OpenTree::CLONE).in_step(STEP)?;
        let change = Change { user_namespace: Some(user_namespace.as_fd()), ..Change::default() };
        set_attributes(At::fd(tree.as_fd(), &name), change).in_step("cannot shift the owners of a layer")?;
        layers.push(tree);
    }
    let context = fsopen("overlay").in_step(STEP)?;
    for (tree, path) in layers.iter().zip(overlay.lower.iter().rev()) {
        let name = path.display().to_string();
        match fsconfig(context.as_fd(), "overlay", Setting::Fd("lowerdir+", tree.as_fd(), &name)) {
            // Layers by descriptor came with Linux 6.13, and before nothing takes a mount that is attached nowhere.
            Err(error) if kernel::mount::is_unsupported(&error) => return Err(Error::CannotShift),
            other => other.in_step(STEP)?,
        }
    }
    finish(&context, overlay)
}
