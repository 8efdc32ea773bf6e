//! From option texts to values: each function takes what stands after the option's name.
//!
//! What one option may say is decided here; whether options fit each other is decided by [`crate::spec::Spec::validate`].

mod devices;
mod environment;
mod isolation;
mod limits;
mod mounts;
mod names;
mod powers;

pub use devices::{
    cdi_directory, device, device_by_name, device_cgroup_rule, device_rate_bytes, device_rate_operations,
    device_weight,
};
pub use environment::{env_file, label, label_file, variable};
pub use isolation::{cgroupns, ipc, network, pid, time_offset, userns, uts};
pub use limits::{
    blkio_weight, bytes, cpu_list, cpu_period, cpu_quota, cpu_shares, cpus, cpuset, memory, memory_swap,
    oom_score_adj, pids_limit, processors, shm_size, ulimit,
};
pub use mounts::{mount, tmpfs, volume};
pub use names::{
    DOMAIN_NAME, Pull, add_host, cid_file, container_name, dns, dns_option, dns_search, domainname, hostname,
    platform, pull, stop_signal, stop_timeout, sysctl, working_directory,
};
pub use powers::{capability, security_opt};

/// The result of reading an option.
pub type Result<T> = std::result::Result<T, Error>;

/// Why options cannot be honoured.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.sentence())]
pub enum Error {
    /// A value that is not accepted.
    Value {
        /// The option, with its dashes.
        option: &'static str,
        /// The value as typed.
        value: String,
        /// What is wrong with it.
        reason: String,
        /// Forms that are accepted.
        accepted: Option<String>,
    },
    /// A value that is right, but not one that this version or this machine can honour.
    Unsupported {
        /// The option, with its dashes.
        option: &'static str,
        /// The value as typed.
        value: String,
        /// Why not.
        reason: String,
        /// What to do instead.
        instead: Option<String>,
    },
    /// Two options that contradict each other.
    Conflict {
        /// One option.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// Why not.
        reason: String,
    },
    /// Two mounts at one place.
    SameDestination {
        /// The place, inside the container.
        destination: String,
    },
    /// A file that an option names cannot be used.
    File {
        /// The option, with its dashes.
        option: &'static str,
        /// Why; it names the path.
        source: std::io::Error,
    },
    /// A line of a file that an option names. The line itself may be a secret.
    Line {
        /// The option, with its dashes.
        option: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The line, counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: &'static str,
        /// Forms that are accepted.
        accepted: &'static str,
    },
    /// Neither an image nor `--rootfs`.
    NoImage,
    /// Neither the image nor the user names a program.
    NoCommand,
}

impl Error {
    fn sentence(&self) -> String {
        match self.parts() {
            (headline, Some(cause)) => format!("{headline}: {cause}"),
            (headline, None) => headline,
        }
    }

    /// What failed, and because of what. `Display` has the two in one sentence.
    pub fn parts(&self) -> (String, Option<String>) {
        match self {
            Error::Value { option, value, reason, .. } => {
                (format!("invalid value \"{value}\" for {option}"), Some(reason.clone()))
            }
            Error::Unsupported { option, value, reason, .. } => {
                (format!("{} cannot be honoured", with_value(option, value)), Some(reason.clone()))
            }
            Error::Conflict { first, second, reason } => {
                (format!("{first} and {second} do not go together"), Some(reason.clone()))
            }
            Error::File { option, source } => {
                (format!("cannot use what {option} names"), Some(source.to_string()))
            }
            Error::Line { option, path, number, reason, .. } => (
                format!("line {number} of {}, the file of {option}, is wrong", path.display()),
                Some((*reason).to_owned()),
            ),
            Error::NoImage => {
                let cause = "neither an image nor --rootfs was given".to_owned();
                ("there is nothing to run".to_owned(), Some(cause))
            }
            Error::NoCommand => {
                let cause = "the image names none and none was given".to_owned();
                ("there is no program to run".to_owned(), Some(cause))
            }
            Error::SameDestination { destination } => {
                (format!("two mounts have the destination {destination}"), None)
            }
        }
    }

    /// What to type instead.
    pub fn advice(&self) -> Option<String> {
        match self {
            Error::Value { accepted, .. } => accepted.as_ref().map(|forms| format!("accepted are {forms}")),
            Error::Unsupported { instead, .. } => instead.clone(),
            Error::Conflict { first, second, .. } => Some(format!("leave out {first} or {second}")),
            Error::SameDestination { .. } => Some("leave one of the two out".to_owned()),
            Error::Line { accepted, .. } => Some(format!("accepted are {accepted}")),
            Error::File { option, source } => Some(file_advice(option, source)),
            Error::NoImage => Some("name an image: coracle run IMAGE [COMMAND]".to_owned()),
            Error::NoCommand => {
                Some("give one after the image: coracle run IMAGE COMMAND, for example sh".to_owned())
            }
        }
    }
}

fn file_advice(option: &str, source: &std::io::Error) -> String {
    use std::io::ErrorKind::{InvalidData, NotADirectory, NotFound, PermissionDenied, StorageFull};
    match (option, source.kind()) {
        ("--volume", PermissionDenied) => {
            "a source that is missing is made, which this user may not do there: name one that is there, or make it first".to_owned()
        }
        ("--device", NotFound | NotADirectory) => {
            "name a device that is there: ls -l /dev shows this machine's".to_owned()
        }
        ("--cidfile", NotFound | NotADirectory) => "make the directory first, or name another file".to_owned(),
        (_, NotFound | NotADirectory) => format!("check the path: {option} names what is there already"),
        (_, PermissionDenied) => format!("name what this user may use: {option}"),
        (_, InvalidData) => format!("{option} takes text, in UTF-8"),
        (_, StorageFull) => "free some disk space: coracle rmi removes images that are not needed".to_owned(),
        _ => format!("name another: {option}"),
    }
}

fn with_value(option: &str, value: &str) -> String {
    if value.is_empty() { option.to_owned() } else { format!("{option} {value}") }
}

/// A value that is not accepted.
fn invalid(option: &'static str, value: &str, reason: impl Into<String>, accepted: &str) -> Error {
    let accepted = Some(accepted.to_owned()).filter(|forms| !forms.is_empty());
    Error::Value { option, value: value.to_owned(), reason: reason.into(), accepted }
}

/// A value that cannot be honoured here.
pub(crate) fn unsupported(option: &'static str, value: &str, reason: &str, instead: Option<&str>) -> Error {
    let instead = instead.map(str::to_owned);
    Error::Unsupported { option, value: value.to_owned(), reason: reason.to_owned(), instead }
}

/// The status of a file that an option names. Its error says the path and why, in few words.
pub(crate) fn status(option: &'static str, path: &std::path::Path) -> Result<rustix::fs::Stat> {
    rustix::fs::stat(path).map_err(|errno| {
        let why = std::io::Error::from(errno);
        Error::File { option, source: std::io::Error::new(why.kind(), format!("{}: {why}", path.display())) }
    })
}

/// `true`, `1`, `false`, `0` and their like, as Go's strconv.ParseBool has them.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The names of `known` that differ least from `typed`, by letters inserted, left out or exchanged.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut near: Vec<(usize, &str)> = known.into_iter().map(|name| (distance(typed, name), name)).collect();
    near.sort_unstable();
    let limit = typed.chars().count() / 3;
    near.into_iter().filter(|(distance, _)| *distance <= limit).take(3).map(|(_, name)| name).collect()
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, other) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = exchanged.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

/// Reads `text` as the value of every option that needs nothing but its text. For fuzzing: it must not panic.
pub fn fuzz_options(text: &str) {
    let nothing = |_: &str| None;
    let read = [
        bytes("--memory", text).is_ok(),
        memory(text).is_ok(),
        memory_swap(text).is_ok(),
        cpus(text, 4).is_ok(),
        cpu_list("--cpuset-cpus", text).is_ok(),
        ulimit(text).is_ok(),
        variable(text, &nothing).is_ok(),
        environment::parse_env_file("/".as_ref(), text, &nothing).is_ok(),
        environment::parse_label_file("/".as_ref(), text).is_ok(),
        volume(text).is_ok(),
        mount(text).is_ok(),
        tmpfs(text).is_ok(),
        device(text).is_ok(),
        device_cgroup_rule(text).is_ok(),
        network(text).is_ok(),
        time_offset(text).is_ok(),
        capability("--cap-add", text).is_ok(),
        container_name(text).is_ok(),
        hostname(text).is_ok(),
        add_host(text).is_ok(),
        sysctl(text).is_ok(),
        stop_signal("--stop-signal", text).is_ok(),
    ];
    std::hint::black_box(read);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names_are_near() {
        assert_eq!(nearest("NET_ADMN", ["NET_ADMIN", "NET_RAW", "CHOWN"]), ["NET_ADMIN"]);
        assert!(nearest("x", ["NET_ADMIN"]).is_empty());
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn an_error_names_option_value_and_accepted_forms() {
        let error = memory("50q").unwrap_err();
        assert_eq!(error.to_string(), "invalid value \"50q\" for --memory: not a size");
        let parts = ("invalid value \"50q\" for --memory".to_owned(), Some("not a size".to_owned()));
        assert_eq!(error.parts(), parts);
        let advice = "accepted are bytes with an optional suffix b, k, m, g or t, for example 50m";
        assert_eq!(error.advice().unwrap(), advice);
    }

    #[test]
    fn no_text_panics() {
        const PIECES: [&str; 26] = [
            "",
            "=",
            ":",
            ",",
            "/",
            "..",
            ".",
            "-",
            "+",
            "\"",
            " ",
            "*",
            "é",
            "\u{0}",
            "\n",
            "%",
            "1",
            "k",
            "s",
            "rwm",
            "99999999999999999999",
            "type=bind",
            "src",
            "/t",
            "net",
            "nofile",
        ];
        for first in PIECES {
            for second in PIECES {
                for third in PIECES {
                    fuzz_options(&[first, second, third].concat());
                }
            }
        }
    }
}
