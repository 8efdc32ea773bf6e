use serde::{Deserialize, Serialize};
use std::path::PathBuf;

use rustix::io::Errno;

use crate::labels::PROFILE_STEP;
use crate::overlay::SHIFT_STEP;
use crate::scheduling::SCHEDULER_STEP;

/// The result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a container could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed while doing `step`.
    #[error("{step}: {source}")]
    Step {
        /// What was being done, as in "cannot …".
        step: &'static str,
        /// The call that failed.
        source: kernel::Error,
    },
    /// A limit cannot be set.
    #[error(transparent)]
    Limits(#[from] cgroup::Error),
    /// The seccomp profile cannot be used.
    #[error(transparent)]
    Seccomp(#[from] crate::seccomp::Error),
    /// The bundle's configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// A file of coracle's or of the container's root cannot be read or written.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// The request is not one this version can read.
    #[error("{path}: {reason}")]
    Request {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration asks for something that does not exist or cannot be combined.
    #[error("{what} {value:?}: {reason}")]
    Configuration {
        /// Which part.
        what: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The program is nowhere.
    #[error("{program:?}: not found{}", searched.as_ref().map_or(String::new(), |path| format!(" in $PATH ({path})")))]
    ProgramNotFound {
        /// As typed.
        program: String,
        /// The search path, when the name was searched.
        searched: Option<String>,
    },
    /// The program is there and cannot be run.
    #[error("{program:?}: {reason}")]
    ProgramNotExecutable {
        /// As typed or as found.
        program: String,
        /// Why.
        reason: String,
    },
    /// The program is there, and what it needs to be run with is not (execve says ENOENT).
    #[error("{program:?} is there, but the interpreter or loader that it names is not in the image")]
    InterpreterMissing {
        /// The file found.
        program: String,
    },
    /// No such user in the container's passwd file.
    #[error("user {name:?} is not in the container's /etc/passwd")]
    UnknownUser {
        /// As typed.
        name: String,
    },
    /// No such group in the container's group file.
    #[error("group {name:?} is not in the container's /etc/group")]
    UnknownGroup {
        /// As typed.
        name: String,
    },
    /// A number that is no id. One of them, 4294967295, means "no change" to the kernel.
    #[error("{kind} id {typed} is out of range")]
    IdRange {
        /// `user` or `group`.
        kind: &'static str,
        /// As typed.
        typed: String,
    },
    /// An id that the user namespace has no mapping for.
    #[error("{kind} id {id} is not mapped in the container's user namespace")]
    UnmappedId {
        /// `user` or `group`.
        kind: &'static str,
        /// The id.
        id: u32,
    },
    /// Groups besides the first where setgroups(2) is not allowed, as in the user namespace that a user makes without help.
    #[error("group id {id}: no additional groups can be had where this user may not set groups")]
    NoMoreGroups {
        /// The first that was asked for.
        id: u32,
    },
    /// The working directory is not one of the container's. The text is runc's.
    #[error(
        "current working directory is outside of container mount namespace root -- possible container breakout detected"
    )]
    WorkingDirectoryOutside,
    /// A container of runc's command line cannot be used as asked.
    #[error(transparent)]
    Container(#[from] crate::container::Fault),
    /// The container's process ended before it became the program.
    #[error("the container's first process ended early ({ended})")]
    EndedEarly {
        /// How it ended.
        ended: String,
    },
    /// A hook of the configuration failed.
    #[error("error running {moment} hook #{number} ({}): {reason}", path.display())]
    Hook {
        /// When it was run.
        moment: &'static str,
        /// Its place among those of this moment, from 0.
        number: usize,
        /// The program.
        path: PathBuf,
        /// How it ended.
        reason: String,
    },
    /// There is no criu to checkpoint and restore by.
    #[error("criu is not installed: {reason}")]
    CriuMissing {
        /// Where it was looked for.
        reason: String,
    },
    /// criu failed.
    #[error("criu {verb} failed ({ended}): {said} (log file: {})", log.display())]
    Criu {
        /// What it was to do.
        verb: &'static str,
        /// How it ended.
        ended: String,
        /// Its last errors.
        said: String,
        /// All it has written.
        log: PathBuf,
    },
    /// A directory and a file cannot be at the other's place.
    #[error("mount {mounted:?}: a {} cannot be shown at the place of a {}", kinds(*is_directory).0, kinds(*is_directory).1)]
    OtherKind {
        /// What was to be mounted, and where.
        mounted: String,
        /// Whether that is a directory.
        is_directory: bool,
    },
    /// A mount of the configuration cannot be made.
    #[error("{cause}")]
    Mount {
        /// What was to be mounted.
        mounted: String,
        /// Where in the container.
        destination: PathBuf,
        /// What failed.
        cause: Box<Error>,
    },
    /// The container's process failed and said why.
    #[error("{}", .0.cause)]
    InContainer(Failure),
}

/// An error as it travels from the container's process to the monitor and on to the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// 125, 126 or 127, as docker has them.
    pub exit_code: u8,
    /// What failed and why.
    pub cause: String,
    /// What to do, when there is something.
    pub advice: Option<String>,
    /// The same as runc says it, for those that look for its words.
    #[serde(default)]
    pub words: Option<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        if let Error::InContainer(failure) = error {
            return failure.clone();
        }
        let exit_code = match error {
            Error::ProgramNotFound { .. } | Error::InterpreterMissing { .. } => 127,
            Error::ProgramNotExecutable { .. } => 126,
            _ => 125,
        };
        Self { exit_code, cause: error.to_string(), advice: advice(error), words: words(error) }
    }
}

/// What runc says where callers match on it.
fn words(error: &Error) -> Option<String> {
    Some(match error {
        Error::ProgramNotFound { program, searched: Some(_) } => {
            format!("exec: {program:?}: executable file not found in $PATH")
        }
        Error::ProgramNotFound { program, .. } if program.is_empty() => {
            "exec: \"\": executable file not found in $PATH".to_owned()
        }
        Error::ProgramNotFound { program, searched: None } => {
            format!("exec: {program:?}: stat {program}: no such file or directory")
        }
        Error::InterpreterMissing { program } => format!("exec {program}: no such file or directory"),
        Error::ProgramNotExecutable { program, reason } => {
            let reason = if reason == "is a directory" { "permission denied" } else { reason };
            format!("exec: {program:?}: {reason}")
        }
        Error::Step { step: WORKING_DIRECTORY_STEP, source } if source.errno() == Errno::NOTDIR => {
            format!("mkdir {}: not a directory", source.object())
        }
        Error::Mount { mounted, destination, cause } => {
            let cause = match &**cause {
                Error::Step { source, .. } if source.call() == "open_tree" => {
                    format!("stat {}: {}", source.object(), lower_case(source.errno()))
                }
                Error::Step { source, .. } => {
                    format!("{} {}: {}", source.call(), source.object(), lower_case(source.errno()))
                }
                Error::OtherKind { is_directory: true, .. } => format!("mount {mounted}: not a directory"),
                Error::OtherKind { is_directory: false, .. } => format!("mount {mounted}: is a directory"),
                other => other.to_string(),
            };
            format!(
                "error during container init: error mounting {mounted:?} to rootfs at {destination:?}: {cause}"
            )
        }
        Error::Step { step: WORKING_DIRECTORY_STEP, source } => {
            let reason = lower_case(source.errno());
            if source.call() == "mkdir" {
                return Some(format!("mkdir {}: {reason}", source.object()));
            }
            format!("chdir to cwd ({:?}) set in config.json failed: {reason}", source.object())
        }
        Error::UnmappedId { kind, .. } => {
            let call = if *kind == "user" { "uid" } else { "gid" };
            format!("cannot set {call} to unmapped user in user namespace: {error}")
        }
        Error::NoMoreGroups { .. } => {
            format!("cannot set any additional groups in a rootless container: {error}")
        }
        Error::Step { step, source } => {
            let reason = lower_case(source.errno());
            format!("error during container init: {step}: {} {}: {reason}", source.call(), source.object())
        }
        _ => return None,
    })
}

/// What is mounted, and what is there.
fn kinds(is_directory: bool) -> (&'static str, &'static str) {
    if is_directory { ("directory", "file") } else { ("file", "directory") }
}

/// The kernel's text for an error number as Go's programs have it.
pub(crate) fn lower_case(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// The step that enters `process.cwd`.
pub(crate) const WORKING_DIRECTORY_STEP: &str = "cannot enter the working directory";

const NO_SPACE: &str = "free some disk space: coracle rmi removes images that are not needed";
/// Steps that have an advice of their own.
pub(crate) const PARAMETER_STEP: &str = "cannot set a kernel parameter";
pub(crate) const PLACE_STEP: &str = "cannot make a place to mount on inside the container";

/// What a person can do about an error.
fn advice(error: &Error) -> Option<String> {
    let text = match error {
        Error::ProgramNotFound { program, .. } if program.starts_with('-') => {
            "options of run stand before the image: coracle run [OPTIONS] IMAGE [COMMAND]".to_owned()
        }
        Error::ProgramNotFound { .. } => "check the command's spelling and that the image contains it".to_owned(),
        Error::ProgramNotExecutable { .. } => {
            "the file must have its execute bit, and be built for this machine or start with #! and an interpreter"
                .to_owned()
        }
        Error::InterpreterMissing { .. } => {
            "look at its first line (a script) or at `file` (a dynamic program for another C library)".to_owned()
        }
        Error::UnknownUser { .. } | Error::UnknownGroup { .. } => "use a name that the image has, or a number".to_owned(),
        Error::IdRange { .. } => format!("use a name that the image has, or a number up to {}", crate::user::MOST_ID),
        Error::UnmappedId { .. } | Error::NoMoreGroups { .. } => {
            "give this user a range of ids: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 NAME"
                .to_owned()
        }
        Error::OtherKind { .. } => {
            "mount directories at directories, and files at files".to_owned()
        }
        Error::Mount { cause, .. } => return advice(cause),
        Error::Step { step, source } => step_advice(step, source)?,
        Error::File(error) => match error.kind() {
            std::io::ErrorKind::StorageFull => NO_SPACE.to_owned(),
            std::io::ErrorKind::ReadOnlyFilesystem => {
                "give places that can be written to: --root DIR and --state DIR".to_owned()
            }
            _ => return None,
        },
        Error::Limits(error) => return error.advice(),
        _ => return None,
    };
    Some(text)
}

fn step_advice(step: &str, source: &kernel::Error) -> Option<String> {
    let text = match (source.call(), source.errno()) {
        ("clone3" | "unshare", Errno::NOSPC | Errno::USERS) => {
            "raise the limit of namespaces: sysctl -w user.max_user_namespaces=65536 (and its siblings in /proc/sys/user)"
        }
        ("clone3" | "unshare", Errno::PERM) => {
            "let users make namespaces: sysctl -w kernel.unprivileged_userns_clone=1 \
             kernel.apparmor_restrict_unprivileged_userns=0 (whichever exists), or run as root"
        }
        ("clone3", Errno::AGAIN) => "raise the number of processes this user may have: ulimit -u",
        ("mount_setattr", Errno::INVAL) if step == SHIFT_STEP => {
            "this file system cannot show its files with other owners: keep the images on ext4, xfs or btrfs (--root), \
             or run without --userns"
        }
        ("write", Errno::ACCESS | Errno::PERM) if step.contains("--oom-score-adj") => {
            "give no less than this process has itself (cat /proc/self/oom_score_adj), or hold CAP_SYS_RESOURCE"
        }
        ("open", Errno::NOENT) if step == PARAMETER_STEP => {
            "check the name of --sysctl: sysctl -a lists those of this machine"
        }
        ("write", Errno::INVAL | Errno::RANGE) if step == PARAMETER_STEP => {
            "check the value of --sysctl: the kernel does not take this one"
        }
        ("sched_setattr", Errno::PERM) if step == SCHEDULER_STEP => {
            "hold CAP_SYS_NICE; for a real-time policy in a cpu group of cgroup v1, give the group and those above it some \
             time (resources.cpu.realtimeRuntime)"
        }
        ("write", Errno::NOENT) if step == PROFILE_STEP => "load the profile first: apparmor_parser -r FILE",
        ("fsopen", Errno::NODEV) => "load the file system: modprobe overlay",
        ("setrlimit", Errno::PERM) => {
            "stay within this process's own hard limits (ulimit -aH), or hold CAP_SYS_RESOURCE"
        }
        ("chdir" | "mkdir", _) if step == WORKING_DIRECTORY_STEP => {
            "name a directory inside the container that its user may enter: --workdir"
        }
        (_, Errno::ACCESS | Errno::ROFS) if step == PLACE_STEP => {
            "make the place to mount on beforehand, or mount elsewhere"
        }
        (_, Errno::NOSPC) => NO_SPACE,
        ("openat2" | "open" | "open_tree", Errno::NOENT) if step.contains("bind") => {
            "check the path before the first colon"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// Names the step that a system call belongs to.
pub(crate) trait InStep<T> {
    /// Turns a failed call into an error that says what was being done.
    fn in_step(self, step: &'static str) -> Result<T>;
}

impl<T> InStep<T> for kernel::Result<T> {
    fn in_step(self, step: &'static str) -> Result<T> {
        self.map_err(|source| Error::Step { step, source })
    }
}
