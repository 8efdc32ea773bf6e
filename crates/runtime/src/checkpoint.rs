//! Containers written to files and made again from them, by the program `criu`: what `checkpoint` and `restore` of runc's command line do.
//!
//! criu is asked by its command line. That has no way to hand a terminal's other end on or to run hooks in the middle, so containers that
//! need one of these are refused.

mod criu;
mod restore;

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use kernel::process::CloneFlags;
use rustix::fs::{FileType, Mode, OFlags};

use crate::container::{Container, Fault, Status};
use crate::error::{Error, InStep as _, Result};
use crate::request::Request;
use crate::spec::NamespaceKind;

use criu::Call;
pub use restore::{Restoration, restore};

/// Where the dump keeps what the first process's three streams were, as runc does.
const DESCRIPTORS: &str = "descriptors.json";

/// Shown in containers at the same path, where they are not made there.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// What criu does about control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupsMode {
    /// Of groups that it makes itself it restores the settings.
    Soft,
    /// It restores the settings of all.
    Full,
    /// Groups must not be there before.
    Strict,
}

impl GroupsMode {
    /// As `--manage-cgroups-mode` names it.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Soft, Self::Full, Self::Strict].into_iter().find(|mode| mode.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::Full => "full",
            Self::Strict => "strict",
        }
    }
}

/// What is asked of criu both ways.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory of the image files.
    pub images: PathBuf,
    /// Where criu's log goes.
    pub work: PathBuf,
    /// Connections may be open.
    pub tcp_established: bool,
    /// Sockets may be connected to processes outside.
    pub external_sockets: bool,
    /// The session and the process group may be led from outside.
    pub shell_job: bool,
    /// Files may be locked.
    pub file_locks: bool,
    /// Memory that a later image has is removed from the earlier one.
    pub auto_dedup: bool,
    /// The network namespace stays as it is made: nothing in it is kept.
    pub empty_network: bool,
    /// What is done about control groups.
    pub groups: GroupsMode,
}

impl Options {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "--images-dir".to_owned(),
            self.images.display().to_string(),
            "--work-dir".to_owned(),
            self.work.display().to_string(),
        ];
        let switches = [
            (self.tcp_established, "--tcp-established"),
            (self.external_sockets, "--ext-unix-sk"),
            (self.shell_job, "--shell-job"),
            (self.file_locks, "--file-locks"),
            (self.auto_dedup, "--auto-dedup"),
        ];
        arguments.extend(switches.into_iter().filter(|(is_on, _)| *is_on).map(|(_, name)| name.to_owned()));
        if self.empty_network {
            arguments.extend(["--empty-ns".to_owned(), "net".to_owned()]);
        }
        arguments.push(format!("--manage-cgroups={}", self.groups.name()));
        arguments
    }
}

/// What is asked of a dump besides.
#[derive(Debug, Clone, Default)]
pub struct Dump {
    /// The container goes on afterwards.
    pub leave_running: bool,
    /// Only memory is written, and the container goes on.
    pub pre_dump: bool,
    /// The images of the last `pre_dump`, relative to the directory of these.
    pub parent: Option<PathBuf>,
    /// The address and the port of the server that memory is sent to.
    pub page_server: Option<(String, u16)>,
}

/// Writes a container's processes to files. Unless it is to go on they are gone then, and the container can be deleted.
///
/// The caller must be single-threaded.
///
/// # Errors
/// [`Fault::NotCheckpointable`], and what criu says.
pub fn dump(container: &Container, options: &Options, dump: &Dump) -> Result<()> {
    let status = container.status()?;
    if !matches!(status, Status::Running | Status::Paused) {
        return Err(Fault::NotCheckpointable { status }.into());
    }
    let (request, pid) = (&container.record.request, container.pid());
    check(request)?;
    let program = criu::find()?;
    make_directories(options)?;
    check_parent(options, dump)?;
    let mut arguments = options.arguments();
    arguments.extend(["--tree".to_owned(), pid.to_string()]);
    arguments.extend(of_dump(dump));
    if let Some(freezer) = container.group()?.as_ref().and_then(cgroup::Group::freezer) {
        arguments.extend(["--freeze-cgroup".to_owned(), freezer.display().to_string()]);
    }
    for destination in external_mounts(request, pid)? {
        let destination = destination.display();
        arguments.extend(["--external".to_owned(), format!("mnt[{destination}]:{destination}")]);
    }
    for (kind, path) in joined(request) {
        let inode = rustix::fs::stat(path)
            .map_err(|errno| kernel::Error::new("stat", path.display().to_string(), errno))
            .in_step("cannot find a namespace that the container has joined")?
            .st_ino;
        let (name, key) = criu_names(kind);
        arguments.extend(["--external".to_owned(), format!("{name}[{inode}]:{key}")]);
    }
    let streams = streams(pid)?;
    for file in streams.iter().filter(|name| name.starts_with("file[")) {
        arguments.extend(["--external".to_owned(), file.clone()]);
    }
    if !dump.pre_dump {
        write_streams(&options.images, &streams)?;
    }
    let verb = if dump.pre_dump { "pre-dump" } else { "dump" };
    let call = Call { program, verb, arguments, passed: Vec::new(), work: &options.work };
    call.run(CloneFlags::empty(), || Ok(()), |_| Ok(()))
}

fn of_dump(dump: &Dump) -> Vec<String> {
    let mut arguments = Vec::new();
    if dump.leave_running && !dump.pre_dump {
        arguments.push("--leave-running".to_owned());
    }
    if dump.pre_dump || dump.parent.is_some() {
        arguments.push("--track-mem".to_owned());
    }
    if let Some(parent) = &dump.parent {
        arguments.extend(["--prev-images-dir".to_owned(), parent.display().to_string()]);
    }
    if let Some((address, port)) = &dump.page_server {
        let words = ["--page-server", "--address", address, "--port", &port.to_string()];
        arguments.extend(words.map(str::to_owned));
    }
    arguments
}

/// Refuses what criu's command line cannot keep.
fn check(request: &Request) -> Result<()> {
    let refused = |what, value: &str, reason: &str| {
        Err(Error::Configuration { what, value: value.to_owned(), reason: reason.to_owned() })
    };
    if !rustix::process::geteuid().is_root() {
        return refused("user", "not root", "criu needs root to look into processes and to make them again");
    }
    if request.spec.process.as_ref().is_some_and(|process| process.terminal) {
        return refused(
            "process.terminal",
            "true",
            "criu's command line cannot hand a terminal's other end on: run the container without a terminal",
        );
    }
    let namespaces = request.spec.linux.iter().flat_map(|linux| &linux.namespaces);
    for namespace in namespaces.filter(|namespace| namespace.path.is_some()) {
        if !matches!(namespace.kind, NamespaceKind::Network | NamespaceKind::Pid) {
            let path = namespace.path.as_deref().unwrap_or(Path::new("")).display().to_string();
            let reason = "criu keeps only network and PID namespaces that were joined";
            return refused("linux.namespaces.path", &path, reason);
        }
    }
    Ok(())
}

/// The namespaces that the container has joined.
fn joined(request: &Request) -> impl Iterator<Item = (NamespaceKind, &Path)> {
    let namespaces = request.spec.linux.iter().flat_map(|linux| &linux.namespaces);
    namespaces.filter_map(|namespace| Some((namespace.kind, namespace.path.as_deref()?)))
}

/// What criu calls a kind of namespaces, and what runc calls the container's one in the images.
fn criu_names(kind: NamespaceKind) -> (&'static str, &'static str) {
    match kind {
        NamespaceKind::Pid => ("pid", "extRootPidNS"),
        _ => ("net", "extRootNetNS"),
    }
}

fn make_directories(options: &Options) -> Result<()> {
    for directory in [&options.images, &options.work] {
        fs_err::create_dir_all(directory)?;
    }
    Ok(())
}

fn check_parent(options: &Options, dump: &Dump) -> Result<()> {
    let Some(parent) = &dump.parent else { return Ok(()) };
    let reason = if parent.is_absolute() {
        "it must be relative to the directory of the images: criu makes a link of it"
    } else if !options.images.join(parent).is_dir() {
        "there is no such directory below that of the images"
    } else {
        return Ok(());
    };
    let value = parent.display().to_string();
    Err(Error::Configuration { what: "--parent-path", value, reason: reason.to_owned() })
}

/// Where something of the host's is mounted, as the container sees it.
fn external_mounts(request: &Request, pid: u32) -> Result<Vec<PathBuf>> {
    let binds = request.spec.mounts.iter().filter(|mount| mount.is_bind());
    let mut destinations: Vec<PathBuf> = binds.map(|mount| mount.destination.clone()).collect();
    destinations.extend(DEVICES.map(PathBuf::from));
    // Files are covered by the host's null device, directories by a file system of the container's own.
    let path = PathBuf::from(format!("/proc/{pid}/root"));
    let root = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| kernel::Error::new("open", path.display().to_string(), errno))
        .in_step("cannot look at the container's root")?;
    let is_file = |path: &&PathBuf| {
        let opened = kernel::fs::open_without_links(root.as_fd(), path, OFlags::PATH);
        opened
            .and_then(rustix::fs::fstat)
            .is_ok_and(|status| FileType::from_raw_mode(status.st_mode) != FileType::Directory)
    };
    let masked = request.spec.linux.iter().flat_map(|linux| &linux.masked_paths);
    destinations.extend(masked.filter(is_file).cloned());
    Ok(destinations)
}

/// What the first process's standard streams are, by the names under which it gets them again: `pipe:[4711]`, or for files from
/// outside what criu calls them.
fn streams(pid: u32) -> Result<[String; 3]> {
    let mounts = fs_err::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let is_inside = |mount: u32| {
        let number = |line: &str| line.split(' ').next().and_then(|number| number.parse().ok());
        mounts.lines().any(|line| number(line) == Some(mount))
    };
    let mut names = [const { String::new() }; 3];
    for (number, name) in names.iter_mut().enumerate() {
        let path = PathBuf::from(format!("/proc/{pid}/fd/{number}"));
        let target = match fs_err::read_link(&path) {
            Ok(target) => target.display().to_string(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        let details = fs_err::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))?;
        let mount = details.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        *name = match (mount, rustix::fs::stat(&path)) {
            (Some(mount), Ok(status)) if target.starts_with('/') && !is_inside(mount) => {
                format!("file[{mount:x}:{:x}]", status.st_ino)
            }
            _ => target,
        };
    }
    Ok(names)
}

fn write_streams(images: &Path, names: &[String; 3]) -> Result<()> {
    Ok(fs_err::write(images.join(DESCRIPTORS), serde_json::json!(names).to_string())?)
}
