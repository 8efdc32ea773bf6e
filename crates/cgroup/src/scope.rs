//! The scope that systemd delegates to us: one for each user of this machine, which holds the groups of all that user's containers.
//!
//! Where systemd is pid 1 the tree is its own, and what it has not delegated is not for us to write to. So a container's monitor asks
//! it for `coracle.scope`, moves in, and makes the container's group in there. The scope lives while any process is in it, a monitor's or
//! a container's; with the last one systemd removes it and all groups below.
//!
//! It is asked by the private socket of systemd itself, which is there wherever systemd runs, also where no message bus does.
//!
//! Two calls are decided by systemd, one event after the other, and are therefore what everything here rests on: `StartTransientUnit`
//! makes the scope with this process in it, unless there is one; `AttachProcessesToUnit` puts this process into one that is active, unless
//! there is none. Where a container runs, its monitor's move is one write and systemd is not asked: see [`join`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use kernel::Errno;
use kernel::file::make_directory;
use kernel::record::{Chapter, because};
use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};

use crate::dbus::{Body, Connection, Method, Value};
use crate::group::enter_directory;
use crate::hierarchy::read;
use crate::place::{PARENT, own_groups};
use crate::processes::ASIDE;
use crate::{Error, Mount};

/// The scope's name, the same in each user's systemd.
const SCOPE: &str = "coracle.scope";
/// How long systemd may take for all that is asked of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// A scope that is just being made or removed by systemd is neither to be had nor to be made. It takes some milliseconds.
const ATTEMPTS: u32 = 50;
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Why systemd gave no scope.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is nobody to ask, or the connection broke.
    #[error("systemd cannot be asked at {}: {}", socket.display(), std::io::Error::from(*errno))]
    Unreachable {
        /// systemd's own socket.
        socket: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// No answer came.
    #[error("systemd did not answer within {seconds} seconds")]
    Silent {
        /// How long was waited.
        seconds: u64,
    },
    /// What came is no D-Bus message.
    #[error("systemd's answer cannot be read")]
    Unreadable,
    /// The answer is no.
    #[error("systemd refuses {method}: {text}")]
    Refused {
        /// What was asked.
        method: String,
        /// systemd's reason.
        text: String,
    },
    /// There is a unit of this name already.
    #[error("systemd has a unit of this name already")]
    Exists,
    /// The group to move into is not there.
    #[error("systemd cannot move this process: {text}")]
    Missing {
        /// systemd's reason.
        text: String,
    },
    /// There is no such unit, or no longer.
    #[error("{text}")]
    NoUnit {
        /// systemd's reason.
        text: String,
    },
    /// It was begun and failed.
    #[error("systemd could not start {SCOPE}: {result}")]
    Failed {
        /// As systemd calls it: `failed`, `timeout`, …
        result: String,
    },
    /// systemd says that it is done, and this process is not in the scope.
    #[error("systemd started {SCOPE}, but this process is in {group}")]
    Elsewhere {
        /// The group of this process.
        group: String,
    },
    /// The processes' place within the scope cannot be made or entered.
    #[error("{0}")]
    Group(Box<Error>),
}

/// Moves this process into the scope, which is made if it is not there, and gives the scope's group relative to the tree's root.
pub(crate) fn enter(mount: &Mount) -> Result<PathBuf, Refusal> {
    let usual = usual_group();
    let scope = mount.point.join(&usual);
    let mut last = Refusal::Exists;
    let mut systemd = None;
    for _ in 0..ATTEMPTS {
        if join(mount, &usual)? {
            return Ok(usual);
        }
        let systemd = match &mut systemd {
            Some(systemd) => systemd,
            None => systemd.insert(Connection::open(&socket(), PATIENCE)?),
        };
        match start(systemd) {
            Ok(()) => return step_aside(mount),
            Err(Refusal::Exists) => {}
            Err(error) => return Err(error),
        }
        // It exists, and whether it is one to join is systemd's to say; only then is something made in it.
        let attached = match attach(systemd) {
            Err(Refusal::Missing { .. }) => make_aside(&scope).and_then(|()| attach(systemd)),
            other => other,
        };
        match attached {
            Ok(()) => return own_scope(mount),
            Err(error @ (Refusal::Missing { .. } | Refusal::Refused { .. } | Refusal::Group(_))) => {
                last = error
            }
            Err(error) => return Err(error),
        }
        // Cut short by a signal it is asked a little earlier.
        let _: NanosleepRelativeResult = nanosleep(&PAUSE);
    }
    Err(last)
}

/// Moves this process into a scope that is held by a running container, without asking systemd. Tells whether that is so.
///
/// systemd removes a scope that it once saw empty, also if somebody enters it in that moment. A container that runs after we are in proves
/// that this did not come between: its monitor was in an active scope before it made it, and one of the two has been in there since.
fn join(mount: &Mount, usual: &Path) -> Result<bool, Refusal> {
    let scope = mount.point.join(usual);
    let is_held = || {
        let events = read(&scope.join(PARENT).join("cgroup.events"));
        events.is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
    };
    // Only we make these groups in it, and only once it was delegated, which a user's systemd leaves no mark of.
    if !is_held() || !may_move(mount, usual)? {
        return Ok(false);
    }
    because(
        Chapter::Limits,
        "systemd has given this user a scope for all containers: their monitors stand in a group of it beside them",
    );
    Ok(enter_directory(&scope.join(ASIDE), std::process::id()).is_ok() && is_held())
}

/// Whether this process may move itself: root always, a user only below that user's systemd, which alone is the user's. From a login's
/// session it takes systemd.
fn may_move(mount: &Mount, usual: &Path) -> Result<bool, Refusal> {
    let managers = usual.ancestors().nth(2).unwrap_or(usual);
    let is_below = |groups: Vec<PathBuf>| groups.iter().any(|group| group == managers);
    Ok(rustix::process::geteuid().is_root() || is_below(own_groups(mount).map_err(group)?))
}

/// Where the scope's group is, relative to the tree's root, wherever systemd is at its usual place.
fn usual_group() -> PathBuf {
    let uid = outer_uid();
    match uid {
        0 => Path::new("system.slice").join(SCOPE),
        uid => PathBuf::from(format!("user.slice/user-{uid}.slice/user@{uid}.service/app.slice/{SCOPE}")),
    }
}

/// This process's user as systemd numbers it, which is outside of any user namespace this process is in: user_namespaces(7).
pub(crate) fn outer_uid() -> u32 {
    let own = rustix::process::geteuid().as_raw();
    let map = read("/proc/self/uid_map".as_ref()).unwrap_or_default();
    let outer = map.lines().find_map(|line| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [inside, outside, count] = numbers[..] else { return None };
        own.checked_sub(inside).filter(|distance| *distance < count).map(|distance| outside + distance)
    });
    outer.unwrap_or(own)
}

/// The socket of the systemd that looks after this user's processes.
pub(crate) fn socket() -> PathBuf {
    match outer_uid() {
        0 => PathBuf::from("/run/systemd/private"),
        // What $XDG_RUNTIME_DIR is in each session; a monitor has no environment.
        uid => PathBuf::from(format!("/run/user/{uid}/systemd/private")),
    }
}

/// Has systemd make the scope with this process in it, and waits until it has.
fn start(systemd: &mut Connection) -> Result<(), Refusal> {
    let slice = if rustix::process::geteuid().is_root() { "system.slice" } else { "app.slice" };
    because(
        Chapter::Limits,
        "control groups are systemd's here: it makes one for all containers of this user and leaves it to us",
    );
    let properties = [
        ("Description", Value::Text("Containers of coracle")),
        ("Slice", Value::Text(slice)),
        // 0 is who asks: the number that systemd knows us by may be another one than ours.
        ("PIDs", Value::Numbers(&[0])),
        ("Delegate", Value::Flag(true)),
        // Each container has its own limit; without this all of them would share one of systemd's.
        ("TasksMax", Value::Number(u64::MAX)),
        // One that failed shall not stand in the way of the next.
        ("CollectMode", Value::Text("inactive-or-failed")),
    ];
    let body = Body::default().text(SCOPE).text("fail").properties(&properties).no_more_units();
    let words = format!("StartTransientUnit {SCOPE} in {slice}, Delegate=yes, with this process");
    let reply = systemd.call(&method("StartTransientUnit"), &body, &words)?;
    let job = reply.arguments().into_iter().next().ok_or(Refusal::Unreadable)?;
    let ended = systemd.wait_for("JobRemoved", |arguments| arguments.get(1) == Some(&job))?;
    match ended.get(3).map(String::as_str) {
        Some("done") => Ok(()),
        result => Err(Refusal::Failed { result: result.unwrap_or("unknown").to_owned() }),
    }
}

/// Has systemd put this process into the scope that is there, beside the containers.
fn attach(systemd: &mut Connection) -> Result<(), Refusal> {
    because(Chapter::Limits, "systemd has given this user a scope for all containers: this process joins it");
    let body = Body::default().text(SCOPE).text(&format!("/{ASIDE}")).numbers(&[0]);
    let words = format!("AttachProcessesToUnit {SCOPE}, this process");
    systemd.call(&method("AttachProcessesToUnit"), &body, &words).map(drop)
}

pub(crate) fn method(name: &str) -> Method<'_> {
    Method {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        name,
    }
}

/// Leaves the scope's own group, which can limit others only while it has no process, for one below it.
fn step_aside(mount: &Mount) -> Result<PathBuf, Refusal> {
    let base = own_scope(mount)?;
    let scope = mount.point.join(&base);
    make_aside(&scope)?;
    enter_directory(&scope.join(ASIDE), std::process::id()).map_err(group)?;
    Ok(base)
}

fn make_aside(scope: &Path) -> Result<(), Refusal> {
    because(
        Chapter::Limits,
        "a group that limits others may have no processes of its own: the monitors stand in one beside the containers'",
    );
    match make_directory(&scope.join(ASIDE)) {
        Err(error) if error.errno() != Errno::EXIST => Err(group(Error::Make(error))),
        _ => Ok(()),
    }
}

/// The scope that this process is in.
fn own_scope(mount: &Mount) -> Result<PathBuf, Refusal> {
    let groups = own_groups(mount).map_err(group)?;
    let scope = groups.iter().find(|group| group.ends_with(SCOPE)).cloned();
    scope.ok_or_else(|| Refusal::Elsewhere {
        group: groups.first().map_or("/".to_owned(), |group| group.display().to_string()),
    })
}

fn group(error: Error) -> Refusal {
    Refusal::Group(Box::new(error))
}
