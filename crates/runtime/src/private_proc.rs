//! A procfs that nobody can fake, for what the container's process writes below `/proc`.
//!
//! An image or a volume may have put anything at `/proc`: a file system with plain files in it, in which a label or a setting is written
//! and does nothing (CVE-2019-16884, CVE-2019-19921), or a link to a file of the kernel's that does harm (CVE-2025-52881). So the
//! process makes a procfs of its own, of the PID namespace it is in, which is attached nowhere: nothing can be mounted over it. Where the
//! kernel refuses one (in a user namespace where part of the existing one is covered), the mounted one is taken, after a look at what it is.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::mount::{MountAttributes, new_file_system};
use kernel::record::{Chapter, because};
use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC};
use rustix::io::Errno;

use crate::error::{Error, InStep as _, Result};

const STEP: &str = "cannot use a procfs";
const MOUNTED: &str = "/proc";

/// The top directory of a procfs.
#[derive(Debug)]
pub(crate) struct PrivateProc {
    directory: OwnedFd,
}

impl PrivateProc {
    /// A new one, attached nowhere; where the kernel refuses that, what is mounted at `/proc`.
    pub(crate) fn open() -> Result<Self> {
        match Self::detached()? {
            Some(detached) => Ok(detached),
            None => Self::mounted(Path::new(MOUNTED)),
        }
    }

    /// A new one, attached nowhere. None where the kernel refuses it.
    pub(crate) fn detached() -> Result<Option<Self>> {
        because(
            Chapter::Process,
            "what is written below /proc goes to a procfs that no image can have faked",
        );
        let attributes = MountAttributes::NOSUID | MountAttributes::NODEV | MountAttributes::NOEXEC;
        match new_file_system("proc", "", &[], attributes) {
            Ok(directory) => Ok(Some(Self { directory })),
            Err(error) if matches!(error.errno(), Errno::PERM | Errno::ACCESS | Errno::NOSYS) => Ok(None),
            Err(error) => Err(error).in_step(STEP),
        }
    }

    /// What is mounted at a path, if it is a whole procfs.
    fn mounted(path: &Path) -> Result<Self> {
        let failed = |call| move |errno| kernel::Error::new(call, path.display().to_string(), errno);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(failed("open")).in_step(STEP)?;
        if !is_top(directory.as_fd()).map_err(failed("fstatfs")).in_step(STEP)? {
            let reason = "no procfs is mounted here, so nothing is written below it".to_owned();
            return Err(Error::Configuration { what: "procfs", value: path.display().to_string(), reason });
        }
        Ok(Self { directory })
    }

    /// Writes to one of its files, by its path without `/proc`. Nothing that is mounted over a part of it and no link is followed.
    pub(crate) fn write(&self, path: &Path, value: &str) -> kernel::Result<()> {
        let shown = Path::new(MOUNTED).join(path);
        let file = kernel::fs::open_in_mount(self.directory.as_fd(), path, OFlags::WRONLY)
            .map_err(|errno| kernel::Error::new("open", shown.display().to_string(), errno))?;
        kernel::file::write_open_control(file.as_fd(), &shown, value)
    }

    /// Writes to a file of this process's own directory. The kernel lets nobody write another's `attr`.
    pub(crate) fn write_own(&self, name: &str, value: &str) -> kernel::Result<()> {
        let own = rustix::fs::readlinkat(&self.directory, "self", Vec::new())
            .map_err(|errno| kernel::Error::new("readlinkat", "/proc/self", errno))?;
        let own = PathBuf::from(own.to_string_lossy().into_owned());
        self.write(&own.join(name), value)
    }
}

/// Whether a file belongs to a procfs.
pub(crate) fn is_inside(file: BorrowedFd<'_>) -> std::result::Result<bool, Errno> {
    Ok(rustix::fs::fstatfs(file)?.f_type == PROC_SUPER_MAGIC)
}

/// Whether a file is the top directory of one.
pub(crate) fn is_top(file: BorrowedFd<'_>) -> std::result::Result<bool, Errno> {
    /// PROC_ROOT_INO of the kernel: a directory further down is no procfs to write in.
    const TOP: u64 = 1;
    Ok(is_inside(file)? && rustix::fs::fstat(file)?.st_ino == TOP)
}

#[cfg(test)]
mod tests {
    use kernel::mount::{At, MountFlags, OpenTree, mount, move_mount, open_tree};
    use kernel::namespace::unshare;
    use kernel::process::CloneFlags;

    use super::*;

    /// In a thread with a mount namespace of its own, whose `/proc` is replaced.
    fn where_proc_is(replace: impl FnOnce() + Send + 'static, look: impl FnOnce() + Send + 'static) {
        let inside = move || {
            unshare(CloneFlags::NEWNS).unwrap();
            mount("", Path::new("/"), "", MountFlags::REC | MountFlags::PRIVATE, "").unwrap();
            replace();
            look();
        };
        std::thread::spawn(inside).join().unwrap();
    }

    fn is_root(name: &str) -> bool {
        let is_root = rustix::process::geteuid().is_root();
        if !is_root {
            println!("SKIP: private_proc::tests::{name}: only root mounts");
        }
        is_root
    }

    #[test]
    fn cve_2019_16884_and_2019_19921_a_faked_proc_is_not_written_to() {
        if !is_root("cve_2019_16884_and_2019_19921_a_faked_proc_is_not_written_to") {
            return;
        }
        let fake = || {
            mount("none", Path::new(MOUNTED), "tmpfs", MountFlags::empty(), "").unwrap();
            fs_err::create_dir_all("/proc/self/attr").unwrap();
            fs_err::write("/proc/self/attr/exec", "").unwrap();
        };
        where_proc_is(fake, || {
            let told = PrivateProc::mounted(Path::new(MOUNTED)).unwrap_err().to_string();
            assert_eq!(told, "procfs \"/proc\": no procfs is mounted here, so nothing is written below it");
            let own = PrivateProc::open().unwrap();
            own.write_own("comm", "real").unwrap();
            assert_eq!(fs_err::read_to_string("/proc/self/attr/exec").unwrap(), "");
        });
    }

    #[test]
    fn cve_2025_52881_what_is_mounted_over_a_file_of_it_is_not_written_to() {
        if !is_root("cve_2025_52881_what_is_mounted_over_a_file_of_it_is_not_written_to") {
            return;
        }
        const NAME: &str = "sys/net/ipv4/ip_default_ttl";
        let cover = || {
            unshare(CloneFlags::NEWNET).unwrap();
            let other = open_tree(At::path(Path::new("/proc/uptime")), OpenTree::CLONE).unwrap();
            move_mount(other.as_fd(), "another file", At::path(&Path::new(MOUNTED).join(NAME))).unwrap();
        };
        where_proc_is(cover, || {
            let mounted = PrivateProc::mounted(Path::new(MOUNTED)).unwrap();
            assert_eq!(mounted.write(Path::new(NAME), "77").unwrap_err().errno(), Errno::XDEV);
            assert_eq!(mounted.write(Path::new("self/comm"), "x").unwrap_err().errno(), Errno::LOOP);
            let own = PrivateProc::detached().unwrap().unwrap();
            own.write(Path::new(NAME), "77").unwrap();
            let again = open_inside(&own, NAME);
            assert_eq!(again, "77\n");
        });
    }

    fn open_inside(proc: &PrivateProc, path: &str) -> String {
        let file = rustix::fs::openat(&proc.directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .unwrap();
        let mut bytes = [0; 64];
        let length = rustix::io::read(&file, &mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn a_directory_of_a_procfs_is_none() {
        let told = PrivateProc::mounted(Path::new("/proc/sys")).unwrap_err().to_string();
        assert!(told.contains("no procfs"), "{told}");
    }
}
