//! A private directory with a store in it, removed at the end.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use image::{Digest, LoadOptions, Loaded, Removed, Store};

/// A directory, on tmpfs where that will do, that lives as long as this value.
pub struct Scratch {
    pub path: PathBuf,
}

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // tmpfs keeps user.* attributes since Linux 6.6, later than the kernel of the virtual machine.
        let tmpfs = Path::new("/dev/shm").is_dir() && std::env::var_os("CORACLE_TEST_VM").is_none();
        let base = if tmpfs { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let path = base.join(format!("coracle-image-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self { path }
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    pub fn store(&self) -> Store {
        Store::open(&self.path).unwrap()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Loads a file and gives the error's text where it fails.
    pub fn load(&self, source: &str) -> image::Result<Vec<Loaded>> {
        self.store().load(&source.parse().unwrap(), &LoadOptions::default())
    }

    /// Removes an image while containers use those of these ids.
    pub fn remove(&self, name: &str, force: bool, in_use: &[Digest]) -> image::Result<Vec<Removed>> {
        self.store().remove(name, force, || Ok(in_use.iter().copied().collect()))
    }

    /// The store as the next command finds it.
    ///
    /// Children of other tests, between fork and exec, hold copies of all locks, so that what must be alone to be cleaned can
    /// be left to a later command.
    pub fn settled(&self) -> Store {
        for _ in 0..200 {
            self.store();
            if std::fs::read_dir(self.join("image/staging")).unwrap().next().is_none() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        self.store()
    }

    /// What a refused load must leave: nothing but the empty store.
    pub fn assert_empty(&self) {
        self.settled();
        for directory in ["staging", "layers", "images", "references", "blobs/sha256"] {
            let left: Vec<_> = std::fs::read_dir(self.join("image").join(directory)).unwrap().collect();
            assert!(left.is_empty(), "{directory}: {left:?}");
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a command that must succeed.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = try_run(program, args);
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn try_run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// One line per file: all that a container could see, in order of names.
pub fn describe(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    visit(root, root, &mut lines);
    lines.sort();
    lines
}

fn visit(root: &Path, path: &Path, lines: &mut Vec<String>) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let content = if kind.is_file() {
        format!("{} {}", meta.len(), image::Digest::of(&std::fs::read(path).unwrap()))
    } else if kind.is_symlink() {
        format!("-> {}", std::fs::read_link(path).unwrap().display())
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("device {:x}", meta.rdev())
    } else {
        String::new()
    };
    let links = if kind.is_dir() { 0 } else { meta.nlink() };
    let mode = if kind.is_symlink() { 0 } else { meta.permissions().mode() };
    lines.push(format!(
        "{} {mode:o} {}:{} {}.{:09} links={links} {content} {:?}",
        path.strip_prefix(root).unwrap().display(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec(),
        xattrs(path),
    ));
    if kind.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            visit(root, &entry.unwrap().path(), lines);
        }
    }
}

pub fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = Vec::with_capacity(4096);
    rustix::fs::llistxattr(path, rustix::buffer::spare_capacity(&mut names)).unwrap();
    let mut found: Vec<_> = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = Vec::with_capacity(4096);
            rustix::fs::lgetxattr(path, name, rustix::buffer::spare_capacity(&mut value)).unwrap();
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect();
    found.sort();
    found
}
