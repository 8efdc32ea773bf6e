//! Images that are mounted on this machine for people to look into: read-only, below `STATE/images`.
//!
//! What is mounted is asked of the kernel: a directory there is the root of a mount, or it is nothing.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use image::Store;
use kernel::mount::{
    At, Change, MountAttributes, OpenTree, move_mount, open_tree, set_attributes, unmount_detached,
};
use runtime::request::Overlay;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};

use crate::error::{Error, Result};
use crate::roots::{Roots, make_directory};

/// A mounted image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// The 64 digits of its id.
    pub id: String,
    /// Where it is mounted.
    pub path: PathBuf,
}

fn place(roots: &Roots) -> PathBuf {
    roots.volatile.join("images")
}

/// Mounts an image, unless it is mounted already, and gives the place.
pub fn mount(roots: &Roots, store: &Store, name: &str) -> Result<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::MountNeedsRoot { name: name.to_owned() });
    }
    // Until the kernel has the layers.
    let _hold = store.hold()?;
    let image = store.resolve(name, None)?;
    if !image.grafts.is_empty() {
        return Err(image::Error::BuiltIn { name: name.to_owned() }.into());
    }
    let path = place(roots).join(image.id.hex());
    if is_mounted(&path) {
        return Ok(path);
    }
    make_directory(&path, 0o755)?;
    let tree = match &image.layers[..] {
        // One layer is no union.
        [layer] => open_tree(At::path(layer), OpenTree::CLONE)?,
        _ => runtime::mount_overlay(
            &Overlay {
                target: PathBuf::from("/"),
                lower: image.layers.clone(),
                upper: None,
                userxattr: false,
                volatile: false,
            },
            None,
        )?,
    };
    let name = path.display().to_string();
    let set = MountAttributes::RDONLY | MountAttributes::NOSUID | MountAttributes::NODEV;
    set_attributes(At::fd(tree.as_fd(), &name), Change { set, ..Change::default() })?;
    move_mount(tree.as_fd(), &name, At::path(&path))?;
    Ok(path)
}

/// All images that are mounted.
pub fn list(roots: &Roots) -> Result<Vec<Mounted>> {
    let entries = match fs_err::read_dir(place(roots)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry?;
        if is_mounted(&entry.path()) {
            let id = entry.file_name().to_string_lossy().into_owned();
            all.push(Mounted { id, path: entry.path() });
        }
    }
    all.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(all)
}

/// Unmounts an image; false where it was not mounted. Who looks into it just now keeps what is open.
pub fn unmount(roots: &Roots, id: &str) -> Result<bool> {
    let path = place(roots).join(id);
    let was_mounted = is_mounted(&path);
    if was_mounted {
        unmount_detached(&path)?;
    }
    for directory in [&path, &place(roots)] {
        match fs_err::remove_dir(directory) {
            // Others are mounted, or nothing ever was.
            Err(error)
                if !matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                return Err(error.into());
            }
            _ => {}
        }
    }
    Ok(was_mounted)
}

/// statx(2) says it since Linux 5.8.
fn is_mounted(path: &Path) -> bool {
    rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
