//! What a name means in the layers below: the merged view of overlayfs, without a mount.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Result, system};
use crate::form::Form;
use crate::inventory::{self, Content, Record};

/// The unpacked layers below one that is being completed.
pub(crate) struct Lower {
    form: Form,
    /// Bottom first.
    layers: Vec<Layer>,
}

struct Layer {
    fs: OwnedFd,
    manifest: PathBuf,
    /// Read when something is found in this layer.
    inventory: OnceCell<BTreeMap<Vec<u8>, Record>>,
}

/// A regular file of a lower layer.
pub(crate) struct LowerFile {
    file: OwnedFd,
    record: Record,
}

impl LowerFile {
    /// Copies the content and gives the attributes that go with it.
    pub(crate) fn copy_to(&self, target: &OwnedFd) -> rustix::io::Result<Record> {
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = rustix::io::read(&self.file, &mut buffer)?;
            if count == 0 {
                return Ok(self.record.clone());
            }
            let mut done = 0;
            while done < count {
                done += rustix::io::write(target, &buffer[done..count])?;
            }
        }
    }
}

impl Lower {
    /// No layers yet.
    pub(crate) fn new(form: Form) -> Self {
        Self { form, layers: Vec::new() }
    }

    /// Puts a layer on top. One whose root is opaque hides all so far.
    pub(crate) fn push(&mut self, layer: &Path, opaque_root: bool) -> Result<()> {
        if opaque_root {
            self.layers.clear();
        }
        let path = layer.join("fs");
        let fs = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(system("open", &path))?;
        self.layers.push(Layer { fs, manifest: layer.join("manifest"), inventory: OnceCell::new() });
        Ok(())
    }

    /// The attributes of the directory `path`; None where there is none or it is something else. A symbolic link is not
    /// followed: docker's overlay2 unpacks a layer without looking at those below, so a directory of the layer
    /// takes the link's place.
    pub(crate) fn directory(&self, path: &[u8]) -> Result<Option<Record>> {
        let Some((layer, record)) = self.find(path)? else { return Ok(None) };
        let _ = layer;
        Ok(matches!(record.content, Content::Directory(_)).then_some(record))
    }

    /// The regular file `path`, or None.
    pub(crate) fn file(&self, path: &[u8]) -> Result<Option<LowerFile>> {
        let Some((layer, record)) = self.find(path)? else { return Ok(None) };
        if !matches!(record.content, Content::File(_)) {
            return Ok(None);
        }
        let file = open(layer, path, OFlags::RDONLY | OFlags::NOFOLLOW)
            .map_err(system("open", String::from_utf8_lossy(path).as_ref()))?;
        Ok(Some(LowerFile { file, record }))
    }

    /// The topmost layer that has `path`, not hidden by one above, and what the layer's manifest says of it.
    fn find(&self, path: &[u8]) -> Result<Option<(&Layer, Record)>> {
        for layer in self.layers.iter().rev() {
            match self.see(layer, path)? {
                Sight::Nothing => {}
                Sight::Hidden => return Ok(None),
                Sight::Found => {
                    let inventory = match layer.inventory.get() {
                        Some(inventory) => inventory,
                        None => {
                            let files = inventory::read(&layer.manifest)?;
                            layer.inventory.get_or_init(|| files)
                        }
                    };
                    return Ok(inventory.get(path).cloned().map(|record| (layer, record)));
                }
            }
        }
        Ok(None)
    }

    /// What one layer says about `path`: each directory on the way may hide what lies below this layer.
    fn see(&self, layer: &Layer, path: &[u8]) -> Result<Sight> {
        let failed = || system("stat", String::from_utf8_lossy(path).into_owned());
        let mut hides = false;
        for (at, _) in path.iter().chain(b"/").enumerate().filter(|(_, byte)| **byte == b'/') {
            let here = &path[..at];
            let dir = match open(layer, crate::lower::parent(here), OFlags::PATH | OFlags::DIRECTORY) {
                Ok(dir) => dir,
                Err(errno) => return Err(failed()(errno)),
            };
            let name = here.rsplit(|byte| *byte == b'/').next().unwrap_or(here);
            let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) if hides => return Ok(Sight::Hidden),
                Err(Errno::NOENT) => return Ok(Sight::Nothing),
                Err(errno) => return Err(failed()(errno)),
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let is_last = at == path.len();
            if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
                return Ok(Sight::Hidden);
            }
            if is_last {
                return Ok(Sight::Found);
            }
            if kind != FileType::Directory {
                return Ok(Sight::Hidden);
            }
            let dir = open(layer, here, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed())?;
            let mut mark = [0; 1];
            hides |= rustix::fs::fgetxattr(dir.as_fd(), self.form.opaque_xattr(), &mut mark[..]).is_ok();
        }
        Ok(Sight::Nothing)
    }
}

enum Sight {
    /// The layer does not have it; those below may.
    Nothing,
    /// It is gone, whatever lies below.
    Hidden,
    Found,
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |at| &path[..at])
}

fn open(layer: &Layer, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(&layer.fs, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}
