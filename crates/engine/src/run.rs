//! `run`: from what was asked to how it ended.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use image::{Image, Store};
use kernel::record::{Actor, Log};
use kernel::signal::SignalFd;
use runtime::request::{Overlay, Request, RootFileSystem, Upper};

use crate::attach::{Attachment, Outcome, UserSide, forwarded_signals};
use crate::container::{self, Record, Taken};
use crate::error::{Error, Result};
use crate::oci;
use crate::roots::{Roots, make_directory};
use crate::spawn;
use crate::spec::Spec;

/// Runs a container in the foreground and waits for its end.
///
/// The process must be single-threaded: it becomes the parent of a clone. With a log, what is done to the machine is recorded.
pub fn run(roots: &Roots, spec: &Spec, user: UserSide<'_>, log: Option<&Log>) -> Result<Outcome> {
    kernel::record::actor(Actor::CommandLine);
    if let Some(log) = log {
        log.install();
    }
    refuse_existing(spec.cid_file.as_deref())?;
    container::mend(roots)?;
    let store = crate::unshared::open_store(roots)?;
    let hold = store.hold()?;
    let image = find_image(&store, spec)?;
    let id = new_id()?;
    let mut taken = Taken::new(roots, &id, spec.name.as_deref(), crate::names::random)?;
    let request = prepare(roots, spec, image.as_ref(), &taken)?;
    taken.write(&record(spec, image.as_ref(), &taken, &request), &request)?;
    let signals = SignalFd::block(&forwarded_signals())?;
    kernel::signal::ignore_broken_pipes();
    let monitor = spawn::start(&taken.directory, &taken.lock, log.map(Log::file))?;
    taken.keep();
    let attachment = Attachment {
        name: &taken.name,
        control: monitor.control,
        signals,
        user,
        terminal: spec.terminal,
        interactive: spec.interactive,
    };
    let outcome = attachment.follow(|_| {
        // The layers are in the container's own mounts now.
        drop(hold);
        spec.cid_file.as_deref().map_or(Ok(()), |path| Ok(fs_err::write(path, &taken.id)?))
    });
    // All is told; it only has to be reaped.
    let _ = kernel::process::wait(monitor.child.pidfd.as_fd());
    outcome
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

/// Fills the container's directory, and says what the monitor has to do.
fn prepare(roots: &Roots, spec: &Spec, image: Option<&Image>, taken: &Taken) -> Result<Request> {
    let joined = |name: &str| joined_process(roots, name);
    let places =
        oci::Places { directory: &taken.directory, id: &taken.id, name: &taken.name, joined: &joined };
    let made = oci::generate(spec, image.map(|image| &image.config), &places)?;
    for (name, text) in &made.files {
        fs_err::write(taken.directory.join(name), text)?;
    }
    let mut request = made.request;
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
        return Ok(RootFileSystem::Directory(spec.root_directory.clone().unwrap_or_default()));
    };
    let mut unions = vec![(PathBuf::from("/"), image.layers.clone())];
    unions.extend(image.grafts.iter().map(|graft| (graft.target.clone(), graft.layers.clone())));
    let owner = host_root(request);
    let overlays = unions.into_iter().enumerate().map(|(number, (target, lower))| {
        let upper = directory.join(format!("changes{number}"));
        let work = directory.join(format!("work{number}"));
        make_directory(&upper, 0o755)?;
        make_directory(&work, 0o700)?;
        copy_attributes(lower.last().map_or(Path::new("/"), PathBuf::as_path), &upper, owner)?;
        let upper = Some(Upper { upper, work });
        Ok(Overlay { target, lower, upper, userxattr: is_unprivileged(), volatile: spec.remove })
    });
    Ok(RootFileSystem::Overlays(overlays.collect::<Result<_>>()?))
}

/// The host's ids of the container's root, where they are shifted by a privileged user.
fn host_root(request: &Request) -> Option<(u32, u32)> {
    let linux = request.spec.linux.as_ref()?;
    let root_of = |maps: &[runtime::spec::IdMapping]| {
        maps.iter().find(|map| map.container_id == 0).map(|map| map.host_id)
    };
    Some((root_of(&linux.uid_mappings)?, root_of(&linux.gid_mappings)?))
}

fn is_unprivileged() -> bool {
    !rustix::process::geteuid().is_root()
}

/// The merged root shows the upper directory's own attributes, so they are those of the topmost layer's.
fn copy_attributes(from: &Path, to: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    use rustix::fs::{Gid, Mode, Uid};
    let failed = |errno: rustix::io::Errno| Error::File { path: to.to_owned(), source: errno.into() };
    let status = rustix::fs::stat(from).map_err(failed)?;
    rustix::fs::chmod(to, Mode::from_raw_mode(status.st_mode)).map_err(failed)?;
    match owner {
        Some((uid, gid)) if !is_unprivileged() => {
            rustix::fs::chown(to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)
        }
        _ => Ok(()),
    }
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
    }
}
