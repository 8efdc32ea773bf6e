//! What is mounted: docker's defaults, what was asked, and the name files.

use std::path::Path;

use runtime::spec::Mount;

use super::machine::Machine;
use super::name_files;
use super::namespaces::Plan;
use crate::error::Result;
use crate::options::Error as OptionError;
use crate::spec::{Choice, MountOption, Spec};

/// The size of `/dev/shm` when none is asked.
const SHM_SIZE: u64 = 64 << 20;

/// All mounts in their order: the defaults, then the rest by depth, so that none covers another.
pub(super) fn all(spec: &Spec, machine: &Machine, plan: &Plan, directory: &Path) -> Result<Vec<Mount>> {
    let asked = &spec.files.mounts;
    let is_asked = |path: &Path| asked.iter().any(|mount| mount.destination() == path);
    let own_dev = is_asked(Path::new("/dev"));
    let mut mounts = defaults(spec, machine, plan);
    // A /dev that was asked for is left as it is, as docker does.
    mounts
        .retain(|mount| !(is_asked(&mount.destination) || own_dev && mount.destination.starts_with("/dev")));
    asked.iter().try_for_each(|mount| outside_proc(mount.destination()))?;
    let mut others = asked.iter().map(one).collect::<Result<Vec<_>>>()?;
    for (name, destination) in name_files::PLACES {
        if !is_asked(Path::new(destination)) {
            let source = directory.join(name).display().to_string();
            let options = if spec.files.read_only { "rbind,rprivate,ro" } else { "rbind,rprivate" };
            others.push(mount(destination, "bind", &source, options));
        }
    }
    others.sort_by_key(|mount| mount.destination.components().count());
    mounts.extend(others);
    Ok(mounts)
}

fn mount(destination: &str, kind: &str, source: &str, options: &str) -> Mount {
    Mount {
        destination: destination.into(),
        kind: kind.to_owned(),
        source: source.to_owned(),
        options: options.split(',').map(str::to_owned).collect(),
        ..Mount::default()
    }
}

/// docker's. Source: moby, `daemon/pkg/oci/defaults.go`. Where the kernel does not let a user namespace mount a file system that
/// shows namespaces of others, the host's is shown instead.
fn defaults(spec: &Spec, machine: &Machine, plan: &Plan) -> Vec<Mount> {
    const SAFE: &str = "nosuid,noexec,nodev";
    let bind =
        |path: &str, options: &str| mount(path, "bind", path, &format!("rbind,rprivate,{SAFE}{options}"));
    let (sys, below) = if spec.powers.privileged { (",rw", "") } else { (",ro", ",ro,rro") };
    let group = if plan.has_group(5) { ",gid=5" } else { "" };
    let terminals = format!("nosuid,noexec,newinstance,ptmxmode=0666,mode=0620{group}");
    let mut mounts = vec![
        match plan.may_mount_proc {
            true => mount("/proc", "proc", "proc", SAFE),
            false => bind("/proc", ""),
        },
        mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        mount("/dev/pts", "devpts", "devpts", &terminals),
        match plan.may_mount_sys {
            true => mount("/sys", "sysfs", "sysfs", &format!("{SAFE}{sys}")),
            false => bind("/sys", below),
        },
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &format!("{SAFE}{sys}")),
    ];
    if plan.may_mount_queues {
        mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", SAFE));
    } else if machine.shows_queues {
        mounts.push(bind("/dev/mqueue", ""));
    }
    if spec.isolation.ipc == Choice::Host {
        mounts.push(bind("/dev/shm", ""));
    } else if !spec.isolation.ipc_without_shm && !matches!(spec.isolation.ipc, Choice::Container(_)) {
        let size = spec.files.shm_size.unwrap_or(SHM_SIZE);
        mounts.push(mount("/dev/shm", "tmpfs", "shm", &format!("{SAFE},mode=1777,size={size}")));
    }
    mounts
}

/// What is mounted over the kernel's own /proc could make it lie to the programs that set the container up. These files are shown by
/// lxcfs, as runc allows.
fn outside_proc(destination: &Path) -> Result<()> {
    const ALLOWED: [&str; 9] =
        ["cpuinfo", "diskstats", "loadavg", "meminfo", "net/dev", "slabinfo", "stat", "swaps", "uptime"];
    match destination.strip_prefix("/proc") {
        Ok(below) if !ALLOWED.iter().any(|file| below == Path::new(file)) => Err(OptionError::Value {
            option: "--volume, --mount or --tmpfs",
            value: destination.display().to_string(),
            reason: "/proc is the kernel's, and nothing can be mounted in it".to_owned(),
            accepted: Some(
                "places elsewhere, and of /proc files such as /proc/cpuinfo and /proc/meminfo".to_owned(),
            ),
        }
        .into()),
        _ => Ok(()),
    }
}

/// Mounts are passed on to and from the machine only where the mount that the source is in does so itself: mount_namespaces(7).
fn check_propagation(source: &Path, propagation: &str) -> Result<()> {
    let wanted: &[&str] = match propagation.trim_start_matches('r') {
        "shared" => &["shared:"],
        "slave" => &["shared:", "master:"],
        _ => return Ok(()),
    };
    let real = fs_err::canonicalize(source)?;
    let mounts = fs_err::read_to_string("/proc/self/mountinfo")?;
    let Some((point, fields)) = mount_of(&mounts, &real) else { return Ok(()) };
    if fields.iter().any(|field| wanted.iter().any(|kind| field.starts_with(kind))) {
        return Ok(());
    }
    let (value, command) = (source.display().to_string(), format!("mount --make-rshared {point}"));
    let reason = format!(
        "it is in the mount {point}, which passes no mounts on, so {propagation} would have no effect"
    );
    let instead = Some(format!("leave {propagation} out, or as root: {command}"));
    Err(OptionError::Unsupported { option: "--volume or --mount", value, reason, instead }.into())
}

/// The mount that a path is in, the last one of those at the deepest place, and its optional fields: proc_pid_mountinfo(5).
fn mount_of<'a>(mounts: &'a str, path: &Path) -> Option<(String, Vec<&'a str>)> {
    let mounts = mounts.lines().filter_map(|line| {
        let (fields, _) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(4);
        let point = crate::anatomy::unescape(fields.next()?);
        path.starts_with(&point).then(|| (point, fields.skip(1).collect()))
    });
    mounts.max_by_key(|(point, _): &(String, Vec<&str>)| point.len())
}

fn one(option: &MountOption) -> Result<Mount> {
    let (kind, source, options) = match option {
        MountOption::Tmpfs { options, .. } => ("tmpfs", "tmpfs".to_owned(), options.clone()),
        MountOption::Bind {
            source, read_only, propagation, recursive, writable_below, make_source, ..
        } => {
            provide(source, *make_source)?;
            propagation.as_deref().map_or(Ok(()), |asked| check_propagation(source, asked))?;
            let mut options = vec![if *recursive { "rbind" } else { "bind" }.to_owned()];
            options.push(propagation.clone().unwrap_or_else(|| "rprivate".to_owned()));
            if *read_only {
                options.push("ro".to_owned());
                // As docker since 25: the mounts below are read-only too, which `ro` alone does not say.
                options.extend((*recursive && !writable_below).then(|| "rro".to_owned()));
            }
            ("bind", source.display().to_string(), options)
        }
    };
    Ok(Mount {
        destination: option.destination().to_owned(),
        kind: kind.to_owned(),
        source,
        options,
        ..Mount::default()
    })
}

/// A source that is missing is made by `--volume` and refused by `--mount`, as docker does.
fn provide(source: &Path, make: bool) -> Result<()> {
    match (source.exists(), make) {
        (true, _) => Ok(()),
        (false, true) => {
            let failed = |source| OptionError::File { option: "--volume", source };
            Ok(fs_err::create_dir_all(source).map_err(failed)?)
        }
        (false, false) => {
            let (value, reason) = (source.display().to_string(), "the source is not there".to_owned());
            let accepted = Some("sources that exist; --volume makes missing ones".to_owned());
            Err(OptionError::Value { option: "--mount", value, reason, accepted }.into())
        }
    }
}
