//! One layer's archive becomes a directory that overlayfs takes as a lower layer.
//!
//! Every name is opened below a directory descriptor with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`; a symbolic link of the layer
//! itself that stands where a parent should is followed by us, within the root. Directories get their attributes last, so
//! that times are right and no entry is shut out.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::BufRead;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::form::Form;
use crate::inventory::{Content, Record};
use crate::stream::{Budget, Exceeded, Plain, Sums};
use crate::tar::{self, Entry, Kind, Segment};
use crate::tree::{Directory, Tree, is_whiteout, join, record_of, split};

/// Deeper trees than this exist in no image, and each level costs whoever walks the tree a descriptor.
const DEPTH_MAX: usize = 512;
/// As the kernel: path_resolution(7).
const SYMLINKS_MAX: usize = 40;
/// Open directories kept per layer.
const CACHE_MAX: usize = 96;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names that begin so are notes of aufs, which no image means as files.
const WHITEOUT_NOTE: &[u8] = b".wh..wh.";

/// Unpacks `plain` into the empty directory `fs` and writes the layer's manifest to `manifest`.
///
/// Gives the sums of the blob, which the caller compares, and the tree, which is to be completed.
pub(crate) fn unpack(
    layer: &str,
    plain: Plain<'_>,
    budget: &Budget,
    form: Form,
    fs: &Path,
    manifest: &Path,
) -> Result<(Sums, Tree)> {
    let tree = Tree::create(layer, form, fs, manifest)?;
    let mut work = Work { tree, cache: HashMap::new(), budget };
    let failed = |error| read_error(layer, error);
    let mut reader = tar::Reader::new(plain);
    while let Some(entry) = reader.next().map_err(failed)? {
        budget.take_entry().map_err(|exceeded| too_large(layer, exceeded))?;
        work.entry(&entry, &mut reader)?;
    }
    let plain = reader.finish().map_err(failed)?;
    let sums = plain.finish().map_err(|error| io_error(layer, error))?;
    work.link_late()?;
    Ok((sums, work.tree))
}

fn too_large(layer: &str, exceeded: Exceeded) -> Error {
    Error::TooLarge { blob: format!("layer {layer}"), what: exceeded.what, limit: exceeded.limit }
}

/// The same for bytes that are read past the archive's end.
pub(crate) fn io_error(layer: &str, error: std::io::Error) -> Error {
    read_error(layer, tar::Error { at: 0, fault: tar::Fault::Read(error) })
}

/// Tells a registry's fault, the limit, the decompressor's complaint and a damaged archive apart.
fn read_error(layer: &str, mut error: tar::Error) -> Error {
    if let tar::Fault::Read(source) = error.fault {
        match source.downcast::<Error>() {
            Ok(fault) => return fault,
            Err(source) => error.fault = tar::Fault::Read(source),
        }
    }
    if let tar::Fault::Read(source) = &error.fault {
        if let Some(exceeded) = source.get_ref().and_then(|inner| inner.downcast_ref::<Exceeded>()) {
            return too_large(layer, *exceeded);
        }
        // What the decoders say; everything else is a call that failed on a file.
        use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        if source.raw_os_error().is_none()
            && matches!(source.kind(), InvalidData | InvalidInput | UnexpectedEof | Other)
        {
            return Error::BadCompression { blob: format!("layer {layer}"), reason: source.to_string() };
        }
    }
    match error.fault {
        tar::Fault::Read(source) => Error::File(source),
        fault => Error::BadLayer { layer: layer.to_owned(), source: tar::Error { at: error.at, fault } },
    }
}

/// A path of the layer's own: components divided by slashes, none of them `.` or `..`, the root empty.
fn normal(path: &[u8]) -> std::result::Result<Vec<u8>, &'static str> {
    // umoci names the root itself "/"; anything else absolute would leave it.
    if path.starts_with(b"/") && path.iter().any(|byte| *byte != b'/') {
        return Err("the name is absolute");
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("the name goes up with '..'"),
            _ => parts.push(part),
        }
    }
    if parts.len() > DEPTH_MAX {
        return Err("the name is more than 512 directories deep");
    }
    Ok(parts.join(&b'/'))
}

fn c_string(name: &[u8]) -> CString {
    // Names with a NUL were refused by the reader.
    CString::new(name).unwrap_or_default()
}

/// An open directory and the path that it has without symbolic links.
type Opened = (Rc<OwnedFd>, Vec<u8>);

/// What is only needed while entries come: open directories and the limits.
struct Work<'a> {
    tree: Tree,
    cache: HashMap<Vec<u8>, Opened>,
    budget: &'a Budget,
}

impl Work<'_> {
    fn entry<R: BufRead>(&mut self, entry: &Entry, reader: &mut tar::Reader<R>) -> Result<()> {
        let path = normal(&entry.path).map_err(|reason| self.tree.refused(&entry.path, reason))?;
        for (name, _) in &entry.xattrs {
            if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                return Err(self
                    .tree
                    .refused(&entry.path, "it carries an attribute that belongs to overlayfs"));
            }
        }
        if path.is_empty() {
            return match entry.kind {
                Kind::Directory => {
                    self.tree.describe_directory(&path, entry);
                    Ok(())
                }
                _ => Err(self.tree.refused(&entry.path, "the root is not a directory")),
            };
        }
        let (parent, name) = split(&path);
        let (dir, parent) = self.parent(parent)?;
        let path = join(&parent, name);
        if path.len() > 4000 {
            return Err(self.tree.refused(&entry.path, "the name is longer than 4000 bytes"));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(&dir, &parent, name, hidden);
        }
        match &entry.kind {
            Kind::File => self.file(&dir, &path, entry, reader),
            Kind::Directory => self.directory(&dir, &path, entry),
            Kind::HardLink(target) => self.hard_link(&dir, &path, target),
            Kind::Symlink(target) => self.symlink(&dir, &path, entry, target),
            Kind::Char(major, minor) => self.device(&dir, &path, entry, Content::Char(*major, *minor)),
            Kind::Block(major, minor) => self.device(&dir, &path, entry, Content::Block(*major, *minor)),
            Kind::Fifo => self.device(&dir, &path, entry, Content::Fifo),
        }
    }

    /// Opens the directory that `path` leads to in the layer, making directories that are not there.
    fn parent(&mut self, path: &[u8]) -> Result<Opened> {
        if let Some((dir, real)) = self.cache.get(path) {
            return Ok((Rc::clone(dir), real.clone()));
        }
        let opened = match self.tree.open_real(path) {
            Ok(dir) => (Rc::new(dir), path.to_vec()),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => self.walk(path, true)?,
            Err(errno) => return Err(self.tree.failed("open", path, errno)),
        };
        if self.cache.len() >= CACHE_MAX {
            self.cache.clear();
        }
        self.cache.insert(path.to_vec(), (Rc::clone(&opened.0), opened.1.clone()));
        Ok(opened)
    }

    /// Walks to a directory name by name, following symbolic links of this layer as the container would.
    fn walk(&mut self, path: &[u8], make: bool) -> Result<Opened> {
        let mut real: Vec<Vec<u8>> = Vec::new();
        let mut todo: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        let mut dir =
            Rc::new(self.tree.open_real(b"").map_err(|errno| self.tree.failed("open", path, errno))?);
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if real.pop().is_none() {
                        return Err(self.tree.refused(path, "a symbolic link on the way leaves the root"));
                    }
                    dir = self.open_walked(&real.join(&b'/'), path)?;
                    continue;
                }
                _ => {}
            }
            let here = join(&real.join(&b'/'), &name);
            if real.len() > DEPTH_MAX || here.len() > 4000 {
                return Err(self.tree.refused(path, "the name is too long or too deep"));
            }
            match rustix::fs::statat(&dir, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    links += 1;
                    if links > SYMLINKS_MAX {
                        return Err(self.tree.refused(path, "the symbolic links on the way do not end"));
                    }
                    let target = rustix::fs::readlinkat(&dir, &name[..], Vec::new())
                        .map_err(|errno| self.tree.failed("read the link", &here, errno))?
                        .into_bytes();
                    if target.starts_with(b"/") {
                        real.clear();
                        dir = self.open_walked(b"", path)?;
                    }
                    todo.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                    continue;
                }
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
                Ok(stat) if is_whiteout(&stat) && make => self.make_directory(&dir, &here, None)?,
                Err(Errno::NOENT) if make => self.make_directory(&dir, &here, None)?,
                Err(Errno::NOENT) => return Err(self.tree.failed("open", path, Errno::NOENT)),
                Ok(_) => return Err(self.tree.refused(path, "a name on the way is not a directory")),
                Err(errno) => return Err(self.tree.failed("stat", &here, errno)),
            }
            real.push(name);
            dir = self.open_walked(&here, path)?;
        }
        Ok((dir, real.join(&b'/')))
    }

    fn open_walked(&self, real: &[u8], path: &[u8]) -> Result<Rc<OwnedFd>> {
        self.tree.open_real(real).map(Rc::new).map_err(|errno| self.tree.failed("open", path, errno))
    }

    /// Makes a directory where none is, replacing what else is there. A directory in the place of something that hid a lower
    /// one must go on hiding it.
    fn make_directory(&mut self, dir: &OwnedFd, path: &[u8], record: Option<Record>) -> Result<()> {
        let (_, name) = split(path);
        let mut opaque = false;
        loop {
            match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
                Ok(()) => break,
                Err(Errno::EXIST) => opaque |= self.clear(dir, path)?,
                Err(errno) => return Err(self.tree.failed("make directory", path, errno)),
            }
        }
        self.tree.directories.insert(path.to_vec(), Directory { record, opaque });
        Ok(())
    }

    /// Removes what stands at `path`. True when that hid a lower file.
    fn clear(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<bool> {
        let (_, name) = split(path);
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.tree.failed("stat", path, errno))?;
        self.tree.inventory.remove(path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())
                .map_err(|errno| self.tree.failed("unlink", path, errno))?;
            return Ok(true);
        }
        self.cache.clear();
        let below = [path, b"/"].concat();
        self.tree.directories.retain(|known, _| known != path && !known.starts_with(&below));
        self.tree.links.retain(|(link, _)| !link.starts_with(&below));
        let place = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
        let place = place.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
        fs_err::remove_dir_all(place)?;
        Ok(true)
    }

    fn directory(&mut self, dir: &OwnedFd, path: &[u8], entry: &Entry) -> Result<()> {
        let (_, name) = split(path);
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            _ => self.make_directory(dir, path, None)?,
        }
        self.tree.describe_directory(path, entry);
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        dir: &OwnedFd,
        path: &[u8],
        entry: &Entry,
        reader: &mut tar::Reader<R>,
    ) -> Result<()> {
        let (_, name) = split(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = loop {
            match rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => break file,
                Err(Errno::EXIST) => {
                    self.clear(dir, path)?;
                }
                Err(errno) => return Err(self.tree.failed("create", path, errno)),
            }
        };
        let holes = entry.size - entry.data_segments().iter().map(|part| part.length).sum::<u64>();
        self.budget.take_bytes(holes).map_err(|exceeded| too_large(&self.tree.layer, exceeded))?;
        let digest = self.content(&file, path, entry, reader)?;
        let record = record_of(entry, Content::File(digest));
        self.tree.set_attributes(file.as_fd(), path, &record)?;
        self.tree.size += entry.size;
        self.tree.inventory.add(path, &record)
    }

    /// Writes a file's data, leaving its holes, and gives the digest of all its bytes.
    fn content<R: BufRead>(
        &self,
        file: &OwnedFd,
        path: &[u8],
        entry: &Entry,
        reader: &mut tar::Reader<R>,
    ) -> Result<Digest> {
        let failed = |errno| self.tree.failed("write", path, errno);
        let mut hash = Sha256::new();
        let mut position = 0;
        for Segment { offset, length } in entry.data_segments() {
            hash_zeros(&mut hash, offset - position);
            position = offset;
            let mut left = length;
            while left > 0 {
                let data = reader.data().map_err(|error| read_error(&self.tree.layer, error))?;
                let data = &data[..data.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
                let written = if entry.segments.is_some() {
                    rustix::io::pwrite(file, data, position)
                } else {
                    rustix::io::write(file, data)
                }
                .map_err(failed)?;
                hash.update(&data[..written]);
                reader.consume(written);
                position += written as u64;
                left -= written as u64;
            }
        }
        if position < entry.size {
            hash_zeros(&mut hash, entry.size - position);
        }
        if entry.segments.is_some() {
            rustix::fs::ftruncate(file, entry.size).map_err(failed)?;
        }
        Ok(Digest::finish(hash))
    }

    fn symlink(&mut self, dir: &OwnedFd, path: &[u8], entry: &Entry, target: &[u8]) -> Result<()> {
        let (_, name) = split(path);
        loop {
            match rustix::fs::symlinkat(target, dir, name) {
                Ok(()) => break,
                Err(Errno::EXIST) => {
                    self.clear(dir, path)?;
                }
                Err(errno) => return Err(self.tree.failed("make symbolic link", path, errno)),
            }
        }
        let record = record_of(entry, Content::Symlink(target.to_vec()));
        self.tree.set_node_attributes(dir.as_fd(), path, &record)?;
        self.tree.inventory.add(path, &record)
    }

    fn device(&mut self, dir: &OwnedFd, path: &[u8], entry: &Entry, content: Content) -> Result<()> {
        let (_, name) = split(path);
        let (kind, major, minor) = match content {
            Content::Char(0, 0) => {
                return Err(self
                    .tree
                    .refused(path, "a character device 0:0 is overlayfs's own sign for a removed file"));
            }
            Content::Char(major, minor) => (FileType::CharacterDevice, major, minor),
            Content::Block(major, minor) => (FileType::BlockDevice, major, minor),
            _ => (FileType::Fifo, 0, 0),
        };
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            _ => {
                self.clear(dir, path)?;
            }
        }
        let record = record_of(entry, content);
        // No user namespace may make devices; the layer's manifest still tells of it.
        if kind == FileType::Fifo || !self.tree.form.in_user_namespace {
            kernel::fs::mknodat(dir.as_fd(), &c_string(name), kind, 0o600, major, minor)
                .map_err(|error| self.tree.failed("make node", path, error.errno()))?;
            self.tree.set_node_attributes(dir.as_fd(), path, &record)?;
        }
        self.tree.inventory.add(path, &record)
    }

    /// A name that the layer takes away from the layers below. What the layer itself has there stays, whichever comes first
    /// in the archive.
    fn whiteout(&mut self, dir: &OwnedFd, parent: &[u8], name: &[u8], hidden: &[u8]) -> Result<()> {
        if name == OPAQUE {
            self.tree
                .directories
                .entry(parent.to_vec())
                .or_insert(Directory { record: None, opaque: true })
                .opaque = true;
            return Ok(());
        }
        if name.starts_with(WHITEOUT_NOTE) {
            return Ok(());
        }
        let path = join(parent, hidden);
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(self.tree.refused(&join(parent, name), "the whiteout names no file"));
        }
        match rustix::fs::statat(dir, hidden, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                if let Some(directory) = self.tree.directories.get_mut(&path) {
                    directory.opaque = true;
                }
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                kernel::fs::mknodat(dir.as_fd(), &c_string(hidden), FileType::CharacterDevice, 0, 0, 0)
                    .map_err(|error| self.tree.failed("make whiteout", &path, error.errno()))?;
                self.tree.inventory.add(&path, &Record::whiteout())
            }
            Err(errno) => Err(self.tree.failed("stat", &path, errno)),
        }
    }

    fn hard_link(&mut self, dir: &OwnedFd, path: &[u8], target: &[u8]) -> Result<()> {
        let target = normal(target).map_err(|_| self.tree.refused(path, "the hard link leaves the root"))?;
        if target.is_empty() {
            return Err(self.tree.refused(path, "it is a hard link to a directory"));
        }
        match self.try_link(dir, path, &target)? {
            true => Ok(()),
            false => {
                self.tree.links.push((path.to_vec(), target));
                Ok(())
            }
        }
    }

    /// Links `path` to a file of this layer. False when the layer has no such file (yet).
    fn try_link(&mut self, dir: &OwnedFd, path: &[u8], target: &[u8]) -> Result<bool> {
        let (target_parent, target_name) = split(target);
        let found = match self.tree.open_real(target_parent) {
            Ok(dir) => (Rc::new(dir), target_parent.to_vec()),
            Err(Errno::LOOP | Errno::NOTDIR) => match self.walk(target_parent, false) {
                Ok(opened) => opened,
                Err(Error::Entry { errno: Errno::NOENT, .. }) => return Ok(false),
                Err(error) => return Err(error),
            },
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(self.tree.failed("open", target, errno)),
        };
        let (target_dir, target_parent) = found;
        let target = join(&target_parent, target_name);
        if target == path {
            return Err(self.tree.refused(path, "it is a hard link to itself"));
        }
        match rustix::fs::statat(&target_dir, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            Ok(stat) if is_whiteout(&stat) => {
                return Err(self.tree.refused(path, "it is a hard link to a file that the layer removes"));
            }
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(self.tree.refused(path, "it is a hard link to a directory"));
            }
            Ok(_) => {}
            Err(errno) => return Err(self.tree.failed("stat", &target, errno)),
        }
        let (_, name) = split(path);
        loop {
            match rustix::fs::linkat(&target_dir, target_name, dir, name, AtFlags::empty()) {
                Ok(()) => break,
                Err(Errno::EXIST) => {
                    self.clear(dir, path)?;
                }
                Err(errno) => return Err(self.tree.failed("link", path, errno)),
            }
        }
        self.tree.inventory.link(path, &target)?;
        Ok(true)
    }

    /// Makes the hard links whose target came after them.
    fn link_late(&mut self) -> Result<()> {
        for (path, target) in std::mem::take(&mut self.tree.links) {
            let (parent, _) = split(&path);
            let (dir, _) = self.parent(parent)?;
            // Replaced meanwhile by a later entry of the same name.
            let (_, name) = split(&path);
            match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if !is_whiteout(&stat) => continue,
                _ => {}
            }
            if !self.try_link(&dir, &path, &target)? {
                self.tree.links.push((path, target));
            }
        }
        Ok(())
    }
}

fn hash_zeros(hash: &mut Sha256, count: u64) {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut left = count;
    while left > 0 {
        let part = left.min(ZEROS.len() as u64);
        hash.update(&ZEROS[..part as usize]);
        left -= part;
    }
}
