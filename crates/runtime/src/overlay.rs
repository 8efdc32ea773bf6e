//! Union mounts: layers below, the container's own changes on top.
//!
//! The newer way (Linux 6.5: one `lowerdir+` setting per layer) has no limit on the number of layers. On older kernels all layers
//! have to fit into one page of mount(2) options, so they are named by short numbers of descriptors. Layers with shifted owners are
//! given by descriptor, which came with Linux 6.13; on older kernels a short-lived process attaches them where nobody else sees it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::mount::{
    At, Change, MountAttributes, MountFlags, OpenTree, Setting, by_path, fsconfig, fsmount, fsopen, mount,
    move_mount, open_tree, set_attributes, unmount_detached,
};
use kernel::process::{self, CloneFlags, Cloned};
use kernel::record::{Actor, Chapter, because};
use rustix::fs::{Mode, OFlags};

use crate::child::{self, FromChild};
use crate::error::{Error, InStep as _, Result};
use crate::message;
use crate::request::Overlay;
use crate::seccomp;

const STEP: &str = "cannot join the image's layers";
/// The first kernel with the setting `lowerdir+`.
const LAYER_BY_LAYER: (u32, u32) = (6, 5);
/// Shown by the advice for file systems that cannot.
pub(crate) const SHIFT_STEP: &str = "cannot shift the owners of a layer";

/// Makes the union mount as a detached mount, seen nowhere until it is attached.
///
/// `id_map` shifts the owners of the lower layers by a user namespace; the caller must be single-threaded then.
pub fn mount_overlay(overlay: &Overlay, id_map: Option<&OwnedFd>) -> Result<OwnedFd> {
    if let Some(user_namespace) = id_map {
        return mount_id_mapped(overlay, user_namespace);
    }
    // By its version, as asking an older kernel leaves a complaint in the machine's log for each container.
    if seccomp::kernel_version() < LAYER_BY_LAYER || by_path::is_in_use() {
        return mount_by_options(overlay, &Directories::open(overlay)?);
    }
    let context = fsopen("overlay").in_step(STEP)?;
    for layer in overlay.lower.iter().rev() {
        let Some(path) = layer.to_str() else { return Err(not_text(layer)) };
        fsconfig(context.as_fd(), "overlay", Setting::String("lowerdir+", path)).in_step(STEP)?;
    }
    finish(&context, overlay)
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
            // Unlike a layer's, these paths are read with a backslash before characters that are meant as they are.
            let text = path.to_str().ok_or_else(|| not_text(path))?.replace('\\', "\\\\");
            fsconfig(context.as_fd(), "overlay", Setting::String(key, &text)).in_step(STEP)?;
        }
    }
    set(Setting::Create)?;
    fsmount(context.as_fd(), "overlay", MountAttributes::empty()).in_step(STEP)
}

/// The parts of a union mount, open: what is mounted later hides none of them.
struct Directories {
    /// The layers, the topmost first.
    layers: Vec<OwnedFd>,
    /// Where changes go, and overlayfs' own directory.
    upper: Option<[OwnedFd; 2]>,
}

impl Directories {
    fn open(overlay: &Overlay) -> Result<Self> {
        let layers = overlay.lower.iter().rev().map(|layer| open_directory(layer));
        Self::with_layers(overlay, layers.collect::<Result<_>>()?)
    }

    fn with_layers(overlay: &Overlay, layers: Vec<OwnedFd>) -> Result<Self> {
        let upper = match &overlay.upper {
            Some(upper) => Some([open_directory(&upper.upper)?, open_directory(&upper.work)?]),
            None => None,
        };
        Ok(Self { layers, upper })
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| kernel::Error::new("open", path.display().to_string(), errno))
        .in_step(STEP)
}

/// The way of kernels before 6.5: all layers in one page of mount(2) options. Each is named by the number of a descriptor, relative to
/// `/proc/self/fd`, so that 120 of them fit and no character of a path has to be escaped. The mount is attached for a moment in the
/// caller's own mount namespace and taken off again as a detached copy.
fn mount_by_options(overlay: &Overlay, directories: &Directories) -> Result<OwnedFd> {
    let numbers: Vec<String> = directories.layers.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
    let mut options = format!("lowerdir={}", numbers.join(":"));
    for (key, value) in fixed_settings(overlay) {
        options.push(',');
        options.push_str(key);
        options.extend(value.into_iter().flat_map(|value| ["=", value]));
    }
    if let Some([upper, work]) = &directories.upper {
        options.push_str(&format!(",upperdir={},workdir={}", upper.as_raw_fd(), work.as_raw_fd()));
    }
    let failed = |errno| kernel::Error::new("chdir", "/proc/self/fd", errno);
    let before = open_directory(Path::new("."))?;
    rustix::process::chdir("/proc/self/fd").map_err(failed).in_step(STEP)?;
    let target = place(overlay);
    let mounted = mount("overlay", target, "overlay", MountFlags::empty(), &options);
    rustix::process::fchdir(&before).map_err(failed).in_step(STEP)?;
    mounted.in_step(STEP)?;
    let detached = open_tree(At::path(target), OpenTree::CLONE);
    unmount_detached(target).in_step(STEP)?;
    detached.in_step(STEP)
}

/// Where what has to be attached is attached for a moment: a directory that is certainly there.
fn place(overlay: &Overlay) -> &Path {
    overlay.lower.last().map_or(Path::new("/"), PathBuf::as_path)
}

/// Lower layers with shifted owners: each is a detached, id-mapped copy of its directory's mount, given by descriptor.
fn mount_id_mapped(overlay: &Overlay, user_namespace: &OwnedFd) -> Result<OwnedFd> {
    let mut layers = Vec::new();
    for layer in overlay.lower.iter().rev() {
        let name = layer.display().to_string();
        let tree = open_tree(At::path(layer), OpenTree::CLONE).in_step(STEP)?;
        let change = Change { user_namespace: Some(user_namespace.as_fd()), ..Change::default() };
        set_attributes(At::fd(tree.as_fd(), &name), change).in_step(SHIFT_STEP)?;
        layers.push(tree);
    }
    let context = fsopen("overlay").in_step(STEP)?;
    for (tree, path) in layers.iter().zip(overlay.lower.iter().rev()) {
        let name = path.display().to_string();
        match fsconfig(context.as_fd(), "overlay", Setting::Fd("lowerdir+", tree.as_fd(), &name)) {
            // Layers by descriptor came with Linux 6.13.
            Err(error) if kernel::mount::is_unsupported(&error) => return mount_attached(overlay, layers),
            other => other.in_step(STEP)?,
        }
    }
    finish(&context, overlay)
}

/// The way of kernels before 6.13, which take a layer only when it is attached in the caller's own mount namespace. A process with one
/// of its own does it and hands the union mount back; that namespace ends with it, so nothing has to be undone.
fn mount_attached(overlay: &Overlay, layers: Vec<OwnedFd>) -> Result<OwnedFd> {
    because(
        Chapter::RootFileSystem,
        "before Linux 6.13 shifted layers must be attached somewhere: a helper has a mount namespace for it",
    );
    let (ours, theirs) = kernel::socket::pair().in_step(STEP)?;
    let helper = match process::clone3(CloneFlags::NEWNS, None).in_step(STEP)? {
        Cloned::Child => {
            kernel::record::actor(Actor::Helper);
            let joined = attach_and_mount(overlay, layers, &theirs).and_then(|tree| {
                message::send(&theirs, &FromChild::Joined, &[tree.as_fd()])
                    .in_step("cannot hand the joined layers to the monitor")
            });
            match joined {
                Ok(()) => process::exit(0),
                Err(error) => child::fail(theirs.as_fd(), &error),
            }
        }
        Cloned::Parent(helper) => helper,
    };
    drop(theirs);
    let told = message::receive::<FromChild>(&ours);
    let ended =
        process::wait(helper.pidfd.as_fd()).in_step("cannot wait for the process that joins layers")?;
    match told? {
        Some((FromChild::Joined, mut trees)) if trees.len() == 1 => Ok(trees.remove(0)),
        Some((FromChild::Failed(failure), _)) => Err(Error::InContainer(failure)),
        _ => Err(Error::EndedEarly { ended: format!("status {}", ended.code()) }),
    }
}

/// In the helper.
fn attach_and_mount(overlay: &Overlay, layers: Vec<OwnedFd>, socket: &OwnedFd) -> Result<OwnedFd> {
    // A lock of the monitor's would live on in here for a moment.
    let keep: Vec<_> = layers.iter().chain([socket]).map(AsFd::as_fd).collect();
    process::close_all_but(&keep, 3).in_step("cannot close the monitor's files")?;
    let directories = Directories::with_layers(overlay, layers)?;
    because(Chapter::RootFileSystem, "what is attached in this mount namespace is seen in no other");
    mount("", Path::new("/"), "", MountFlags::REC | MountFlags::PRIVATE, "").in_step(STEP)?;
    because(Chapter::RootFileSystem, "the layers with shifted owners are attached, so they can be joined");
    for (tree, layer) in directories.layers.iter().zip(overlay.lower.iter().rev()) {
        let name = layer.display().to_string();
        move_mount(tree.as_fd(), &name, At::path(place(overlay))).in_step(STEP)?;
    }
    mount_by_options(overlay, &directories)
}
