//! `run`: from what was asked to how it ended.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use image::{Image, Store};
use kernel::record::{Actor, Log};
use kernel::signal::SignalFd;
use runtime::message::{self, ToMonitor};
use runtime::request::{Overlay, Request, RootFileSystem, Upper};
use runtime::spec::ConsoleSize;

use crate::attach::{Attachment, Outcome, UserSide, forwarded_signals};
use crate::container::{self, Record, Taken};
use crate::error::{Error, Result};
use crate::oci;
use crate::roots::{Roots, make_directory};
use crate::spawn;
use crate::spec::Spec;

/// Seconds that a container has to end by itself, unless it was made with others: docker's.
const STOP_TIMEOUT: u32 = 10;

/// Runs a container in the foreground and waits for its end.
///
/// The process must be single-threaded: it becomes the parent of a clone. With a log, what is done to the machine is recorded.
pub fn run(roots: &Roots, spec: &Spec, user: UserSide<'_>, log: Option<&Log>) -> Result<Outcome> {
    kernel::record::actor(Actor::CommandLine);
    if let Some(log) = log {
        log.install();
    }
    spec.validate()?;
    refuse_existing(spec.cid_file.as_deref())?;
    // The end of a pipe cannot be told through a terminal: the program would wait for more for ever.
    if spec.terminal && spec.interactive && !rustix::termios::isatty(user.input) {
        return Err(Error::NotATerminal);
    }
    // It starts while the container is being prepared; if that fails it ends with its socket, which is closed before it is waited for.
    let (_monitor, control) = spawn::start(log.map(Log::file))?;
    container::mend(roots)?;
    let store = crate::unshared::open_store(roots)?;
    let hold = store.hold()?;
    let image = find_image(&store, spec)?;
    let profile = crate::apparmor::profile(&spec.powers)?;
    let id = new_id()?;
    let (mut taken, lock) = Taken::new(roots, &id, spec.name.as_deref(), crate::names::random)?;
    let signals = SignalFd::block(&forwarded_signals())?;
    kernel::signal::ignore_broken_pipes();
    let mut request = prepare(roots, spec, image.as_ref(), &taken)?;
    if let Some(process) = request.spec.process.as_mut() {
        process.apparmor_profile = profile;
        if process.terminal {
            process.console_size = size_of(&user);
        }
    }
    taken.write(&record(spec, image.as_ref(), &taken, &request), &request)?;
    // From here on the record says that the image is used.
    drop(hold);
    let begin = ToMonitor::Begin { directory: taken.directory.clone() };
    message::send(&control, &begin, &[lock.as_fd()])
        .map_err(|_| Error::MonitorNotStarted { name: taken.name.clone() })?;
    taken.keep();
    // The monitor's copy counts from here on: if it is killed, its container is seen to be abandoned.
    drop(lock);
    let attachment = Attachment {
        name: &taken.name,
        control,
        signals,
        user,
        terminal: spec.terminal,
        interactive: spec.interactive,
    };
    attachment.follow(|_| spec.cid_file.as_deref().map_or(Ok(()), |path| Ok(fs_err::write(path, &taken.id)?)))
}

fn refuse_existing(cid_file: Option<&Path>) -> Result<()> {
    match cid_file {
        Some(path) if path.exists() => Err(Error::CidFileExists { path: path.to_owned() }),
        _ => Ok(()),
    }
}

fn find_image(store: &Store, spec: &Spec) -> Result<Option<Image>> {
    match &spec.image {
        Some(reference) => Ok(Some(store.resolve(reference, spec.platform.as_ref())?)),
        None => Ok(None),
    }
}

fn new_id() -> Result<String> {
    let mut bytes = [0; 32];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    filled.map_err(|errno| kernel::Error::new("getrandom", "a container id", errno))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The size of the user's terminal: the container's has it before its program looks.
fn size_of(user: &UserSide<'_>) -> Option<ConsoleSize> {
    let size = rustix::termios::tcgetwinsize(user.output).ok()?;
    Some(ConsoleSize { height: size.ws_row, width: size.ws_col })
}

/// Fills the container's directory, and says what the monitor has to do.
fn prepare(roots: &Roots, spec: &Spec, image: Option<&Image>, taken: &Taken) -> Result<Request> {
    let joined = |name: &str| joined_process(roots, name);
    let places = oci::Places { directory: &taken.directory, id: &taken.id, joined: &joined };
    let made = oci::generate(spec, image.map(|image| &image.config), &places)?;
    let mut request = made.request;
    for (name, text) in &made.files {
        let file = taken.directory.join(name);
        fs_err::write(&file, text)?;
        if let Some((uid, gid)) = made.owner {
            fs_err::os::unix::fs::chown(&file, Some(uid), Some(gid))?;
        }
    }
    request.root = root_file_system(spec, image, &taken.directory, &request)?;
    request.id = taken.id.clone();
    request.directory = taken.directory.clone();
    request.state_directory = taken.state_directory.clone();
    request.name_file = Some(taken.name_file.clone());
    Ok(request)
}

/// The first process of the container that a namespace is shared with.
fn joined_process(roots: &Roots, name: &str) -> Result<u32> {
    match container::find(roots, name)?.status {
        container::Status::Running(state) => Ok(state.pid),
        _ => Err(Error::NotRunning { name: name.to_owned() }),
    }
}

fn root_file_system(
    spec: &Spec,
    image: Option<&Image>,
    directory: &Path,
    request: &Request,
) -> Result<RootFileSystem> {
    let Some(image) = image else {
        let root = spec.root_directory.clone().unwrap_or_default();
        if !root.is_dir() {
            return Err(Error::Option(crate::options::Error::Value {
                option: "--rootfs",
                value: root.display().to_string(),
                reason: "there is no such directory".to_owned(),
                accepted: Some("a directory with a root file system in it".to_owned()),
            }));
        }
        return Ok(RootFileSystem::Directory(root));
    };
    let mut unions = vec![(PathBuf::from("/"), image.layers.clone())];
    unions.extend(image.grafts.iter().map(|graft| (graft.target.clone(), graft.layers.clone())));
    let overlays = unions.into_iter().enumerate().map(|(number, (target, lower))| {
        let upper = directory.join(format!("changes{number}"));
        let work = directory.join(format!("work{number}"));
        make_directory(&upper, 0o755)?;
        make_directory(&work, 0o700)?;
        let layer = lower.last().map_or(Path::new("/"), PathBuf::as_path);
        copy_attributes(image, &target, layer, &upper, request)?;
        let upper = Some(Upper { upper, work });
        Ok(Overlay { target, lower, upper, userxattr: is_unprivileged(), volatile: spec.remove })
    });
    Ok(RootFileSystem::Overlays(overlays.collect::<Result<_>>()?))
}

/// A union mount's top directory has the attributes of its upper one: for the root, those that the image says, elsewhere those of the
/// topmost layer.
fn copy_attributes(
    image: &Image,
    target: &Path,
    layer: &Path,
    upper: &Path,
    request: &Request,
) -> Result<()> {
    use rustix::fs::{Gid, Mode, Uid};
    let failed = |errno: rustix::io::Errno| Error::File { path: upper.to_owned(), source: errno.into() };
    let (mode, uid, gid) = if target == Path::new("/") {
        (image.root.mode, image.root.uid, image.root.gid)
    } else {
        let status = rustix::fs::stat(layer).map_err(failed)?;
        (status.st_mode & 0o7777, status.st_uid, status.st_gid)
    };
    rustix::fs::chmod(upper, Mode::from_raw_mode(mode)).map_err(failed)?;
    if is_unprivileged() {
        return Ok(());
    }
    let (uid, gid) = (host_id(request, uid, true), host_id(request, gid, false));
    rustix::fs::chown(upper, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)
}

/// The host's id for one inside the container, where a privileged user shifts them.
fn host_id(request: &Request, id: u32, of_user: bool) -> u32 {
    let Some(linux) = &request.spec.linux else { return id };
    let maps = if of_user { &linux.uid_mappings } else { &linux.gid_mappings };
    let inside = |map: &&runtime::spec::IdMapping| {
        (map.container_id..map.container_id.saturating_add(map.size)).contains(&id)
    };
    maps.iter().find(inside).map_or(id, |map| map.host_id + (id - map.container_id))
}

fn is_unprivileged() -> bool {
    !rustix::process::geteuid().is_root()
}

fn record(spec: &Spec, image: Option<&Image>, taken: &Taken, request: &Request) -> Record {
    let directory = spec.root_directory.as_ref().map(|path| path.display().to_string());
    Record {
        version: container::VERSION,
        id: taken.id.clone(),
        name: taken.name.clone(),
        image: spec.image.clone().or(directory).unwrap_or_default(),
        image_id: image.map(|image| image.id.to_string()),
        command: request.spec.process.as_ref().map(|process| process.args.clone()).unwrap_or_default(),
        created: runtime::state::now(),
        remove: spec.remove,
        labels: spec.labels.clone(),
        config: image.map(|image| config(spec, image)),
        apparmor_profile: request.spec.process.as_ref().and_then(|process| process.apparmor_profile.clone()),
        stop_signal: spec.stop_signal.or_else(|| signal_of(image?)).unwrap_or(libc::SIGTERM),
        stop_timeout: spec.stop_timeout.or_else(|| timeout_of(image?)).unwrap_or(STOP_TIMEOUT),
    }
}

/// The image's configuration with what was asked in its place, as `commit` makes it the new image's.
fn config(spec: &Spec, image: &Image) -> image::Config {
    let mut config = image.config.clone();
    if let Some(entrypoint) = &spec.entrypoint {
        config.entrypoint.clone_from(entrypoint);
        config.cmd.clear();
    }
    if !spec.command.is_empty() {
        config.cmd.clone_from(&spec.command);
    }
    for (name, value) in &spec.process.environment {
        let begin = format!("{name}=");
        config.env.retain(|known| !known.starts_with(&begin));
        config.env.extend(value.as_ref().map(|value| format!("{begin}{value}")));
    }
    config.labels.extend(spec.labels.iter().cloned());
    if let Some(user) = &spec.process.user {
        config.user.clone_from(user);
    }
    if let Some(directory) = &spec.process.working_directory {
        config.working_dir = directory.display().to_string();
    }
    config
}

/// The image's `STOPSIGNAL`; one that is no signal counts for none, as in docker.
fn signal_of(image: &Image) -> Option<i32> {
    kernel::signal::number(image.config.stop_signal.as_deref()?)
}

fn timeout_of(image: &Image) -> Option<u32> {
    image.config.stop_timeout.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX))
}
